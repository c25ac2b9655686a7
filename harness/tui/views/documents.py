"""The recipes and suites at hand, by what the first lines of their files say: nothing is checked here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from harness.files import bundled_root

MAX_FILES = 500
MAX_BYTES = 65_536
"""Of a file, that are looked at."""
_KEY = re.compile(r"^(recipe|suite|domain|description|base|task):[ \t]*(.*?)[ \t]*(?:#.*)?$", re.MULTILINE)

_FOLDED = re.compile(r"^(\w+):[ \t]*[>|][+-]?[ \t]*\n((?:[ \t]+\S.*\n)+)", re.MULTILINE)
"""A text in lines of its own, below its key."""


class DocumentInfo(NamedTuple):
    """A recipe or a suite."""

    kind: str
    """`recipe` or `suite`."""
    name: str
    domain: str
    description: str
    about: str
    """A recipe's base model, a suite's task."""
    path: str
    """As a command names it."""


def documents(place: Path) -> list[DocumentInfo]:
    """Recipes first, then suites, those of the folder before those that come with the harness; by name."""
    found: dict[Path, DocumentInfo] = {}
    for root in dict.fromkeys((place.resolve(), bundled_root())):
        for path in _files(root):
            info = None if path in found else _described(path, place.resolve())
            if info is not None:
                found[path] = info
    return sorted(
        found.values(),
        key=lambda info: (info.kind != "recipe", Path(info.path).is_absolute(), info.name, info.path),
    )


def holds(info: DocumentInfo, words: str) -> bool:
    """Whether every word stands somewhere in what is known of the document; small letters count as capitals."""
    known = " ".join(info).casefold()
    return all(word in known for word in words.casefold().split())


def _files(root: Path) -> Iterator[Path]:
    count = 0
    for pattern in ("*.yaml", "recipes/*.yaml", "suites/*.yaml", "suites/*/*.yaml"):
        for path in sorted(root.glob(pattern)):
            count += 1
            if count > MAX_FILES:
                return
            if path.is_file():
                yield path


def _joined(found: re.Match[str]) -> str:
    return f"{found[1]}: {' '.join(found[2].split())}\n"


def _described(path: Path, place: Path) -> DocumentInfo | None:
    try:
        with path.open("rb") as file:
            text = file.read(MAX_BYTES).decode("utf-8", "replace")
    except OSError:
        return None
    keys = {key: value.strip("\"'") for key, value in reversed(_KEY.findall(_FOLDED.sub(_joined, text)))}
    kind = "recipe" if "recipe" in keys else "suite" if "suite" in keys else None
    if kind is None:
        return None
    shown = path.relative_to(place) if path.is_relative_to(place) else path
    about = keys.get("base" if kind == "recipe" else "task", "")
    return DocumentInfo(
        kind, keys[kind], keys.get("domain", ""), keys.get("description", ""), about, str(shown)
    )
