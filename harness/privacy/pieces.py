"""The texts inside a line of a file, each with its place there: a part of one can be replaced, and nothing else is."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import BinaryIO, Literal, NamedTuple

from harness.data.records import MAX_LINE_BYTES
from harness.errors import DataError
from harness.files import parse_json

Form = Literal["jsonl", "csv", "tsv", "text"]
FORMS: dict[str, Form] = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".tsv": "tsv"}
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|-?\d[\d.eE+-]*|[{}\[\],]', re.DOTALL)
_ESCAPE = re.compile(r"\\u[dD][89abAB]..\\u[dD][c-fC-F]..|\\u....|\\.|.", re.DOTALL)


class Piece(NamedTuple):
    """A text that stands in a line."""

    text: str
    places: Sequence[int]
    """Where each character begins in the line, and where the last one ends; length `len(text) + 1`."""
    field: str
    """Dotted path or column; empty in plain text and for keys."""
    is_number: bool = False
    """A number without quotes: what replaces it must be one too."""


class Line(NamedTuple):
    """A line of a file, or the lines of one CSV record."""

    number: int
    """1-based; of the first line of a record."""
    text: str
    """With its line ending."""


def form_of(name: str) -> Form:
    """By the name's ending; what is unknown is plain text."""
    return next((form for suffix, form in FORMS.items() if name.lower().endswith(suffix)), "text")


def read_lines(file: BinaryIO, form: Form, name: str) -> Iterator[Line]:
    """The lines with their endings; of CSV, whole records.

    Raises:
        DataError: a line is no UTF-8, too long, or no JSON where it must be.
    """
    number, parts, first = 0, "", 1
    while raw := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(raw) > MAX_LINE_BYTES:
            raise DataError(f"{name}: line {number} is over {MAX_LINE_BYTES:,} bytes")
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise DataError(
                f"{name}: line {number}: byte {raw[error.start]:#04x}, wanted UTF-8 text"
            ) from error
        parts += text
        if form in ("csv", "tsv") and parts.count('"') % 2:
            if len(parts) > MAX_LINE_BYTES:
                raise DataError(f"{name}: line {first}: a quote that nothing closes")
            continue
        yield Line(first, parts)
        parts, first = "", number + 1
    if parts:
        raise DataError(f"{name}: line {first}: a quote that nothing closes")


def pieces(line: Line, form: Form, name: str, columns: Sequence[str] = ()) -> list[Piece]:
    """The texts of the line, in order; of CSV with `columns`, each with its column's name."""
    if form == "text":
        return [Piece(line.text, range(len(line.text) + 1), "")]
    if form == "jsonl":
        return list(_json_pieces(line, name)) if line.text.strip("\ufeff \t\r\n") else []
    return list(_cells(line.text, "," if form == "csv" else "\t", columns))


def encode(piece: Piece, alias: str, form: Form) -> str:
    """The alias as it must be written in the piece's place."""
    if piece.is_number:
        return re.sub(r"\D", "", alias).lstrip("0") or "0"
    return json.dumps(alias)[1:-1] if form == "jsonl" else alias


def _json_pieces(line: Line, name: str) -> Iterator[Piece]:
    parse_json(line.text.removeprefix("\ufeff"), name=f"{name}: line {line.number}")
    path: list[str | None] = []  # the key in each object that is open, None in a list
    for match in _TOKEN.finditer(line.text):
        token = match.group()
        if token in "{[":
            path.append("" if token == "{" else None)
        elif token in "}]":
            path.pop()
        elif token[0] == '"':
            is_key = re.compile(r"\s*:").match(line.text, match.end()) is not None
            piece = _json_text(token, match.start(), "" if is_key else _dotted(path))
            if is_key:
                path[-1] = piece.text
            yield piece
        elif token != ",":
            yield Piece(token, range(match.start(), match.end() + 1), _dotted(path), is_number=True)


def _dotted(path: Sequence[str | None]) -> str:
    return ".".join(key for key in path if key is not None)


def _json_text(token: str, start: int, field: str) -> Piece:
    inner = token[1:-1]
    if "\\" not in inner:
        return Piece(inner, range(start + 1, start + len(token)), field)
    found = list(_ESCAPE.finditer(inner))
    text = "".join(json.loads(f'"{part.group()}"') for part in found)
    return Piece(text, [*(start + 1 + part.start() for part in found), start + 1 + len(inner)], field)


def _cells(record: str, delimiter: str, columns: Sequence[str]) -> Iterator[Piece]:
    """The cells of one record (RFC 4180)."""
    body = record.rstrip("\r\n")
    at, index = 0, 0
    while True:
        field = columns[index] if index < len(columns) else ""
        if body.startswith('"', at):
            piece, at = _quoted_cell(body, at, field)
        else:
            end = body.find(delimiter, at)
            end = len(body) if end < 0 else end
            piece, at = Piece(body[at:end], range(at, end + 1), field), end
        yield piece
        index += 1
        if at >= len(body):
            return
        at = body.find(delimiter, at) + 1
        if at == 0:
            return


def _quoted_cell(body: str, start: int, field: str) -> tuple[Piece, int]:
    """The cell, and where it ends."""
    chars: list[str] = []
    places: list[int] = []
    at = start + 1
    while at < len(body):
        if body[at] == '"' and body[at + 1 : at + 2] != '"':
            break
        places.append(at)
        chars.append(body[at])
        at += 2 if body[at] == '"' else 1
    return Piece("".join(chars), [*places, at], field), at + 1
