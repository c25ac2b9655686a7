"""What else differs between two stages: without it a difference in scores has no explanation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.evals.samples import Header
from harness.files import read_json


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that two stages do not share."""

    part: str
    """`model`, `requests`, `lock`, `document`, `option` or `harness`."""
    key: str
    """Dotted path inside the part; empty when the whole part is meant."""
    a: Any
    b: Any
    """JSON values; None where a side has none."""


def find_changes(
    a: Path, b: Path, headers: Mapping[str, tuple[Header | None, Header | None]]
) -> list[Change]:
    """All that differs between the run folders `a` and `b`, and between the headers of their samples by suite.

    Raises:
        DataError: a manifest or a lock can't be read.
    """
    before, after = read_json(a / "manifest.json"), read_json(b / "manifest.json")
    return [
        *_header_changes(headers),
        *_lock_changes(a, b, before.get("lock"), after.get("lock")),
        *_document_changes(_sections(before), _sections(after)),
        *_leaf_changes("option", before.get("options"), after.get("options")),
        *_leaf_changes("harness", before.get("harness"), after.get("harness")),
    ]


def _header_changes(headers: Mapping[str, tuple[Header | None, Header | None]]) -> Iterator[Change]:
    models = {_field(pair, "identity") for pair in headers.values()}
    yield from (Change("model", "", a, b) for a, b in sorted(models, key=str) if a != b)
    for suite, pair in headers.items():
        a, b = _field(pair, "requests")
        if a != b:
            yield Change("requests", suite, a, b)


def _field(pair: tuple[Header | None, Header | None], name: str) -> tuple[str | None, str | None]:
    a, b = (getattr(header, name) if header else None for header in pair)
    return a, b


def _lock_changes(a: Path, b: Path, before: Any, after: Any) -> Iterator[Change]:
    """The lock's parts where both runs wrote them down, else its digest alone."""
    if before == after:
        return
    paths = (a / "lock.json", b / "lock.json")
    if not all(path.exists() for path in paths):
        yield Change("lock", "digest", before, after)
        return
    one, other = ({key: part for key, part in read_json(path).items() if key != "digest"} for path in paths)
    yield from _leaf_changes("lock", one, other)


def _sections(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The documents of a run by name: its recipe, and each suite."""
    document = manifest.get("document") or {}
    suites = document.get("suites") or {}
    if suite := document.get("suite"):
        suites = {suite["suite"]: suite}
    recipe = {"recipe": document["recipe"]} if "recipe" in document else {}
    return {**recipe, **{f"suites.{name}": suite for name, suite in suites.items()}}


def _document_changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Change]:
    for name in dict.fromkeys((*before, *after)):
        if name in before and name in after:
            yield from _leaf_changes("document", before[name], after[name], name)
        else:
            yield Change("document", name, _presence(name in before), _presence(name in after))


def _presence(is_there: bool) -> str | None:
    return "present" if is_there else None


def _leaf_changes(part: str, before: Any, after: Any, path: str = "") -> Iterator[Change]:
    a, b = dict(_leaves(before, path)), dict(_leaves(after, path))
    for key in dict.fromkeys((*a, *b)):
        if a.get(key) != b.get(key):
            yield Change(part, key, a.get(key), b.get(key))


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """The values at the ends of a tree by dotted path; a list of plain values is one of them."""
    if isinstance(value, Mapping) and value:
        for key, child in value.items():
            yield from _leaves(child, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list) and any(isinstance(child, Mapping | list) for child in value):
        for index, child in enumerate(value):
            yield from _leaves(child, f"{path}[{index}]")
    else:
        yield path, value
