"""What reads an original: files in, drafts of records out."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from harness.data.records import read_rows
from harness.errors import DataError
from harness.files import parse_json

MAX_BYTES = 512 * 2**20
"""Of one JSON file, which is read whole."""

_HINT = "is this the file that the authors publish? `harness data fetch` lists them"


class Draft(NamedTuple):
    """A record without its id."""

    group: str
    """What must stay in one split: the contract, the paper, the template, the question."""
    record: dict[str, Any]
    document: str | None = None
    """The text that the record's `doc_id` names."""


Normalise = Callable[[Mapping[str, Sequence[Path]]], Iterator[Draft]]
"""From the paths found for each of an original's patterns to drafts, in the files' order."""


class Original(NamedTuple):
    """A set, where its authors keep it, and how it is read."""

    name: str
    """`folder/name`, as suites name it."""
    origin: str
    """Where the authors publish it."""
    licence: str
    files: Mapping[str, tuple[str, ...]]
    """Patterns of file names by what the files are; any of a tuple's is enough."""
    normalise: Normalise


def rows_of(paths: Sequence[Path]) -> Iterator[tuple[Path, int, dict[str, Any]]]:
    """(file, line, row) of `.jsonl`, `.csv` or `.parquet` files.

    Raises:
        RecordsError: a file can't be read.
    """
    for path in paths:
        for row in read_rows(path):
            yield path, row.line, row.data


def whole_json(path: Path, kind: type) -> Any:
    """The one JSON value of a file, a list or an object as `kind` says.

    Raises:
        DataError: it is too large, no JSON, or of another kind.
    """
    if path.stat().st_size > MAX_BYTES:
        raise DataError(f"{path}: over {MAX_BYTES:,} bytes")
    value = parse_json(path.read_bytes())
    if not isinstance(value, kind):
        found = type(value).__name__
        raise DataError(f"{path}: {found}, wanted {'an object' if kind is dict else 'a list'}")
    return value


def text_at(where: str, row: Mapping[str, Any], *keys: str) -> str:
    """The text under the first of the keys that the row has, without spaces at its ends.

    Raises:
        DataError: none of them holds a text.
    """
    for key in keys:
        value = row.get(key)
        if isinstance(value, int | float) and not isinstance(value, bool):
            value = json.dumps(value)
        if isinstance(value, str) and value.strip():
            return value.strip()
    raise DataError(f"{where}: found no text under {' or '.join(map(repr, keys))}", hint=_HINT)


def list_at(where: str, row: Mapping[str, Any], key: str) -> list[Any]:
    """The list under the key, which may be empty.

    Raises:
        DataError: there is none.
    """
    value = row.get(key)
    if not isinstance(value, list):
        raise DataError(f"{where}: {key!r} holds {type(value).__name__}, wanted a list", hint=_HINT)
    return value


def object_at(where: str, row: Mapping[str, Any], key: str) -> dict[str, Any]:
    """The object under the key.

    Raises:
        DataError: there is none.
    """
    value = row.get(key)
    if not isinstance(value, dict):
        raise DataError(f"{where}: {key!r} holds {type(value).__name__}, wanted an object", hint=_HINT)
    return value
