"""A planned recipe as YAML, with the reason above each choice."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from harness.specs.situation import Plan
from harness.specs.yaml import resolve

_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_./:@ -]*[A-Za-z0-9_./@-]|[A-Za-z]")
WIDTH = 112


def recipe_yaml(plan: Plan, file: str) -> str:
    """The document; its first line is the command that runs it."""
    reasons: dict[str, list[str]] = {}
    for reason in plan.reasons:
        reasons.setdefault(reason.key, []).append(reason.text)
    lines = [f"# harness release {file}"]
    for line in plan.open:
        lines += _comment(f"open: {line}", "")
    for key, value in plan.recipe.items():
        lines += _entry(key, value, reasons)
    return "\n".join(lines) + "\n"


def _entry(key: str, value: Any, reasons: Mapping[str, list[str]]) -> list[str]:
    lines = [line for text in reasons.get(key, ()) for line in _comment(text, "")]
    inner = {name for name in reasons if name.startswith((f"{key}.", f"{key}["))}
    if isinstance(value, Mapping) and inner:
        lines.append(f"{key}:")
        for name, item in value.items():
            lines += [line for text in reasons.get(f"{key}.{name}", ()) for line in _comment(text, "  ")]
            lines.append(f"  {name}: {flow(item)}")
    elif isinstance(value, list) and value and isinstance(value[0], Mapping):
        lines.append(f"{key}:")
        for at, item in enumerate(value):
            lines += [line for text in reasons.get(f"{key}[{at}]", ()) for line in _comment(text, "  ")]
            lines.append(f"  - {flow(item)}")
    else:
        lines.append(f"{key}: {flow(value)}")
    return lines


def flow(value: Any) -> str:
    """The value on one line, as strict YAML 1.2 reads it back."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(flow, value)) + "]"
    if isinstance(value, str):
        is_plain = _PLAIN.fullmatch(value) and ": " not in value and resolve(value) == value
        return value if is_plain else json.dumps(value, ensure_ascii=False)
    return json.dumps(value)


def _comment(text: str, indent: str) -> list[str]:
    import textwrap

    return textwrap.wrap(
        text, WIDTH, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ", break_long_words=False
    )
