"""Where personal data is: by kind, file and line, without saying what it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from harness.errors import DataError
from harness.privacy.find import Finder
from harness.privacy.pieces import FORMS, form_of, pieces, read_lines

TEXT_SUFFIXES = (".txt", ".md", ".json", ".yaml", ".yml", ".log", ".html", ".xml")


class Place(NamedTuple):
    """One piece of personal data in a file."""

    file: str
    line: int
    field: str
    """Dotted path or column; empty in plain text."""
    kind: str
    text: str
    """What it is: for a person who asked to see it."""

    def to_json(self, *, shows: bool) -> dict[str, Any]:
        document = {"file": self.file, "line": self.line, "field": self.field, "kind": self.kind}
        return {**document, "text": self.text} if shows else document


class Scan(NamedTuple):
    """All that was found."""

    files: tuple[str, ...]
    places: tuple[Place, ...]

    @property
    def kinds(self) -> dict[str, int]:
        return dict(sorted(Counter(place.kind for place in self.places).items()))


def scan(paths: Sequence[Path], find: Finder) -> Scan:
    """What the files hold; in folders, those with a known ending, hidden ones apart.

    Raises:
        DataError: a path is not there, or a file can't be read as what its name says.
    """
    files = list(_files(paths))
    return Scan(tuple(map(str, files)), tuple(place for file in files for place in scan_file(file, find)))


def scan_file(path: Path, find: Finder) -> Iterator[Place]:
    """The pieces of personal data of one file, in order."""
    form = form_of(path.name)
    with path.open("rb") as file:
        for line in read_lines(file, form, str(path)):
            for piece in pieces(line, form, str(path)):
                for one in find(piece.text):
                    yield Place(
                        str(path), line.number, piece.field, one.kind, piece.text[one.start : one.end]
                    )


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    known = (*FORMS, *TEXT_SUFFIXES)
    for path in paths:
        if path.is_dir():
            inside = (one for one in sorted(path.rglob("*")) if one.is_file() and one.suffix.lower() in known)
            yield from (
                one for one in inside if not any(part.startswith(".") for part in one.relative_to(path).parts)
            )
        elif path.is_file():
            yield path
        else:
            raise DataError(f"{path}: no such file or folder")
