"""Documents from a folder or a file: read strictly, with the place of everything that is wrong."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from harness.errors import DataError, Problem, describe_problems
from harness.files import parse_json
from harness.text import visible

SUFFIXES = (".md", ".txt")
MAX_FILE_BYTES = 16 * 2**20
"""Of one file in a folder; a longer one is no text that a person wrote."""
MAX_LINE_BYTES = 4 * 2**20
"""Of one line in a JSONL file, as for records."""
MAX_TOTAL_BYTES = 256 * 2**20
"""Of all documents together: the index is built in memory."""
MAX_SHOWN = 10
"""Problems that are spelled out; the others are counted."""

_SURROGATE = re.compile("[\ud800-\udfff]")


class Document(NamedTuple):
    """One text that answers may stand on."""

    name: str
    """`doc_id`, or the path inside the folder without its suffix."""
    text: str
    sha256: str
    """Of the file's bytes, or of the text in UTF-8 where many documents stand in one file."""


def read_documents(source: Path) -> tuple[Document, ...]:
    """The documents of a folder (`.md`, `.txt`, in folders too) or of a JSONL file of `{doc_id, text}`, by name.

    Raises:
        DataError: there are none, or any is binary, too long, a link, empty, of another kind, or named twice.
            All at once.
    """
    problems: list[Problem] = []
    try:
        read = _from_folder(source, problems) if source.is_dir() else _from_file(source, problems)
        found = sorted(read, key=lambda document: document.name)
    except OSError as error:
        raise DataError(
            f"{source}: {error.strerror or error}", hint="name a folder, or a JSONL file"
        ) from error
    twice = [one.name for one, other in pairwise(found) if one.name == other.name]
    problems += [Problem(str(source), None, "", _shown(name), "a name of its own") for name in twice]
    if not found and not problems:
        problems.append(
            Problem(str(source), None, "", "no documents", f"one of {', '.join(SUFFIXES)} at least")
        )
    if problems:
        raise DataError(_described(problems))
    return tuple(found)


def document_files(source: Path) -> list[Path]:
    """The files that the documents are read from, and the folders that they are in, whose list of files counts too."""
    if not source.is_dir():
        return [source]
    files = [path for path in _walk(source) if path.suffix.lower() in SUFFIXES]
    return [*dict.fromkeys([source, *(path.parent for path in files)]), *files]


def _walk(folder: Path) -> Iterator[Path]:
    """All files and links below the folder, by name; hidden ones are left out."""
    for here, folders, names in os.walk(folder):
        linked = [name for name in folders if (Path(here) / name).is_symlink()]
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in linked)
        yield from (Path(here) / name for name in sorted((*names, *linked)) if not name.startswith("."))


def _from_folder(folder: Path, problems: list[Problem]) -> Iterator[Document]:
    left = MAX_TOTAL_BYTES
    for path in _walk(folder):
        if path.is_symlink() or not path.is_file():
            problems.append(Problem(str(path), None, "", "a link or a device", "a file"))
        elif path.suffix.lower() not in SUFFIXES:
            problems.append(
                Problem(str(path), None, "", _shown(path.name), f"a {' or '.join(SUFFIXES)} file")
            )
        elif (data := _bytes_of(path, problems)) is not None:
            left -= len(data)
            if left < 0:
                _refuse_total(folder)
            text = _decoded(path, data, problems)
            name = path.relative_to(folder).with_suffix("").as_posix()
            if text is not None:
                yield Document(name, text, hashlib.sha256(data).hexdigest())


def _bytes_of(path: Path, problems: list[Problem]) -> bytes | None:
    with path.open("rb") as file:
        data = file.read(MAX_FILE_BYTES + 1)  # a sparse file claims terabytes and costs nobody anything
    if len(data) <= MAX_FILE_BYTES:
        return data
    problems.append(Problem(str(path), None, "", "a longer file", f"at most {MAX_FILE_BYTES:,} bytes"))
    return None


def _decoded(path: Path, data: bytes, problems: list[Problem]) -> str | None:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        problems.append(Problem(str(path), None, "", f"byte {error.start:,} is no UTF-8", "text in UTF-8"))
        return None
    if "\0" in text:
        problems.append(Problem(str(path), None, "", "binary", "text in UTF-8"))
        return None
    if not text.strip():
        problems.append(Problem(str(path), None, "", "no text", "a document with text"))
        return None
    return text


def _from_file(path: Path, problems: list[Problem]) -> Iterator[Document]:
    left = MAX_TOTAL_BYTES
    with path.open("rb") as file:
        for number, line in _lines(path, file, problems):
            left -= len(line)
            if left < 0:
                _refuse_total(path)
            document = _from_line(path, number, line, problems)
            if document is not None:
                yield document


def _lines(path: Path, file: BinaryIO, problems: list[Problem]) -> Iterator[tuple[int, bytes]]:
    number = 0
    while line := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(line) > MAX_LINE_BYTES:
            problems.append(
                Problem(str(path), number, "", "a longer line", f"at most {MAX_LINE_BYTES:,} bytes")
            )
            while (rest := file.readline(MAX_LINE_BYTES)) and not rest.endswith(b"\n"):
                pass
        elif line.strip():
            yield number, line


def _from_line(path: Path, number: int, line: bytes, problems: list[Problem]) -> Document | None:
    try:
        value: Any = parse_json(line.removeprefix(b"\xef\xbb\xbf"))
    except DataError as error:
        what = _shown(error.message.removeprefix("JSON: "))
        problems.append(Problem(str(path), number, "", what, "one JSON object a line"))
        return None
    name, text = (value.get("doc_id"), value.get("text")) if isinstance(value, dict) else (None, None)
    is_named = isinstance(name, str | int) and not isinstance(name, bool)
    if not is_named or not isinstance(text, str) or not text.strip():
        problems.append(Problem(str(path), number, "doc_id, text", "a document without", "both, as texts"))
    elif "\0" in text or _SURROGATE.search(f"{name}{text}"):
        problems.append(
            Problem(str(path), number, "text", "binary, or half of a surrogate pair", "whole characters")
        )
    else:
        return Document(str(name), text, hashlib.sha256(text.encode()).hexdigest())
    return None


def _refuse_total(source: Path) -> None:
    raise DataError(
        f"{source}: over {MAX_TOTAL_BYTES:,} bytes of documents",
        hint="an index is built in memory: split the folder",
    )


def _described(problems: list[Problem]) -> str:
    left_out = len(problems) - MAX_SHOWN
    more = f"\nand {left_out:,} more problems" if left_out > 0 else ""
    return describe_problems(problems[:MAX_SHOWN]) + more


def _shown(text: str) -> str:
    return visible(text, keep_newlines=False, limit_chars=80)
