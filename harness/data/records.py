"""Records from files: read strictly, with the line of everything that is wrong."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from harness.data.tables import read_csv_rows, read_parquet_rows
from harness.data.targets import gold_texts, scalar_text
from harness.errors import DataError, HarnessError, Problem, describe_problems
from harness.files import parse_json
from harness.specs.suite import Fields, Task
from harness.text import visible

if TYPE_CHECKING:
    from harness.retrieval.passages import Retrieved

MAX_LINE_BYTES = 4 * 2**20
MAX_SHOWN = 10
"""Problems that are spelled out; the others are counted."""

_SURROGATE = re.compile("[\ud800-\udfff]")
_CHOOSING = ("choice", "rank")


@dataclass(frozen=True, slots=True)
class Record:
    """One line of data."""

    id: str
    input: str
    targets: tuple[str, ...]
    """Gold answers, of which any is right; never empty."""
    slices: dict[str, str | list[str]]
    unit: str
    """What is independent: records of one unit are never in two splits."""
    raw: dict[str, Any]
    context: str = ""
    """What the answer must stand on; empty where the suite names no such field."""
    options: tuple[str, ...] = ()
    """The record's own choices."""
    target: Any = None
    """The gold value as it stands in the file: a text, a number, a list, an object."""
    retrieved: Retrieved | None = None
    """The passages that are its context, and the snapshot that they are from; None where nothing was looked for."""


class Row(NamedTuple):
    """A JSON object and where it stands."""

    line: int
    data: dict[str, Any]


class RecordsError(DataError):
    """All problems of one file of records."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        left_out = len(problems) - MAX_SHOWN
        more = f"\n  and {left_out:,} more" if left_out > 0 else ""
        super().__init__(_headline(self.problems) + more)


def read_records(path: Path, fields: Fields, task: Task | None = None) -> list[Record]:
    """The records of a `.jsonl`, `.csv` or `.parquet` file, in the file's order.

    `task` says what a gold answer may be; without it, a text or a list of texts of which any is right.

    Raises:
        RecordsError: the file can't be read, or any record lacks what the fields name, repeats an id,
            or holds what JSON can't (NaN, half of a surrogate pair, bad UTF-8). All at once.
    """
    problems: list[Problem] = []
    records: list[Record] = []
    line_of: dict[str, int] = {}
    for row in _rows(path, problems):
        record = _record(path, row, fields, task, problems)
        if record is None:
            continue
        if record.id in line_of:
            hint = f"line {line_of[record.id]} has it too"
            problems.append(Problem(str(path), row.line, "id", _shown(record.id), "an id of its own", hint))
            continue
        line_of[record.id] = row.line
        records.append(record)
    if not records and not problems:
        problems.append(Problem(str(path), None, "", "no records", "at least one"))
    if task == "spans" and records and not any(record.target for record in records):
        problems.append(
            Problem(str(path), None, fields.target, "no spans in any record", "some in at least one")
        )
    if problems:
        raise RecordsError(problems)
    return records


def read_rows(path: Path) -> list[Row]:
    """The rows of a `.jsonl`, `.csv` or `.parquet` file as they are, in the file's order.

    Raises:
        RecordsError: the file can't be read, or a line is no object. All problems at once.
    """
    problems: list[Problem] = []
    rows = list(_rows(path, problems))
    if not rows and not problems:
        problems.append(Problem(str(path), None, "", "no records", "at least one"))
    if problems:
        raise RecordsError(problems)
    return rows


def _rows(path: Path, problems: list[Problem]) -> Iterator[Row]:
    readers = {".csv": read_csv_rows, ".parquet": read_parquet_rows}
    try:
        if reader := readers.get(path.suffix.lower()):
            for line, data in reader(path):
                if _SURROGATE.search(json.dumps(data, ensure_ascii=False, default=str)):
                    problems.append(
                        Problem(str(path), line, "", "half of a surrogate pair", "whole characters")
                    )
                else:
                    yield Row(line, data)
        else:
            yield from _jsonl_rows(path, problems)
    except OSError as error:
        problems.append(Problem(str(path), None, "", error.strerror or str(error), "a file of records"))
    except HarnessError as error:
        problems.append(Problem(str(path), None, "", error.message, "", error.hint))


def _jsonl_rows(path: Path, problems: list[Problem]) -> Iterator[Row]:
    """The objects of the lines that are objects; the others become problems."""
    with path.open("rb") as file:
        number = 0
        while line := file.readline(MAX_LINE_BYTES + 1):
            number += 1
            if len(line) > MAX_LINE_BYTES:
                limit = f"at most {MAX_LINE_BYTES:,} bytes a line"
                problems.append(Problem(str(path), number, "", "a longer line", limit))
                _skip_line(file)
                continue
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")
            if line.strip():
                data = _object(path, number, line, problems)
                if data is not None:
                    yield Row(number, data)


def _skip_line(file: Any) -> None:
    while (rest := file.readline(MAX_LINE_BYTES)) and not rest.endswith(b"\n"):
        pass


def _object(path: Path, number: int, line: bytes, problems: list[Problem]) -> dict[str, Any] | None:
    try:
        value = parse_json(line)
    except DataError as error:
        what = visible(error.message.removeprefix("JSON: "), keep_newlines=False, limit_chars=160)
        problems.append(Problem(str(path), number, "", what, "one JSON object a line"))
        return None
    if not isinstance(value, dict):
        problems.append(Problem(str(path), number, "", _shown(value), "a JSON object"))
        return None
    if b"\\u" in line and _SURROGATE.search(json.dumps(value, ensure_ascii=False)):
        problems.append(Problem(str(path), number, "", "half of a surrogate pair", "whole characters"))
        return None
    return value


def _record(
    path: Path, row: Row, fields: Fields, task: Task | None, problems: list[Problem]
) -> Record | None:
    """The record, or None after its problems were noted."""
    before = len(problems)

    def note(key: str, found: str, wanted: str) -> None:
        problems.append(Problem(str(path), row.line, key, found, wanted))

    id_text = _text(row.data, "id", note)
    input_text = _text(row.data, fields.input, note)
    options = _options(row.data, fields.options or ("options" if task in _CHOOSING else None), note)
    target = _target(row.data, fields.target, task)
    targets = _targets(target, fields.target, task, options, note) if options is not None else ()
    unit = _text(row.data, fields.unit, note) if fields.unit != "id" else id_text
    slices = _slices(row.data, fields.slices, note)
    context = _context(row.data, fields.context, note) if fields.context is not None else ""
    if len(problems) > before or options is None:
        return None
    return Record(id_text, input_text, targets, slices, unit, row.data, context, options, target)


class _Missing:
    """What a path gives where the record has nothing: None is a value that a record can hold."""


MISSING = _Missing()


def at_path(data: Mapping[str, Any], path: str) -> Any:
    """The value at the dotted path, such as `target.labels`, or `MISSING`.

    A key that holds the dots itself comes first: that is how a table spells it.
    """
    if path in data:
        return data[path]
    value: Any = data
    for part in path.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return MISSING
        value = value[part]
    return value


def _text(data: dict[str, Any], path: str, note: Any) -> str:
    value = at_path(data, path)
    text = scalar_text(value)
    if text is None or not text.strip():
        note(path, _shown(value), "text")
        return ""
    return text


def _target(data: dict[str, Any], path: str, task: Task | None) -> Any:
    """The gold value. Where there are no spans to find, sets leave them out as often as they write an empty list."""
    value = at_path(data, path)
    return [] if value is MISSING and task == "spans" else value


def _targets(value: Any, path: str, task: Task | None, options: Sequence[str], note: Any) -> tuple[str, ...]:
    try:
        return gold_texts(task, value, options)
    except ValueError as error:
        note(path, _shown(value), str(error))
        return ()


def _options(data: dict[str, Any], path: str | None, note: Any) -> tuple[str, ...] | None:
    """The record's choices; none where the suite has no such field, None after a problem was noted."""
    if path is None:
        return ()
    value = at_path(data, path)
    texts = [scalar_text(item) for item in value] if isinstance(value, list) else []
    found = tuple(text for text in texts if text is not None and text.strip())
    if len(found) < 2 or len(found) < len(texts):
        note(path, _shown(value), "a list of at least two texts")
        return None
    if len(set(found)) < len(found):
        note(path, _shown(value), "each option once")
        return None
    return found


def _context(data: dict[str, Any], path: str, note: Any) -> str:
    """A passage as it is, chunks one after another, a table row by row."""
    value = at_path(data, path)
    parts = [_passage(item) for item in (value if isinstance(value, list) else [value])]
    if any(part is None for part in parts):
        note(path, _shown(value), "a text, a list of texts or of {text}, or the rows of a table")
        return ""
    is_table = isinstance(value, list) and any(isinstance(item, list) for item in value)
    return ("\n" if is_table else "\n\n").join(part for part in parts if part is not None)


def _passage(value: Any) -> str | None:
    if isinstance(value, list):
        cells = [scalar_text(cell) if cell is not None else "" for cell in value]
        return " | ".join(map(str, cells)) if None not in cells else None
    return scalar_text(value.get("text") if isinstance(value, dict) else value)


def _slices(data: dict[str, Any], path: str, note: Any) -> dict[str, str | list[str]]:
    """The slices of the record; a slice that is null is unknown and left out."""
    value = at_path(data, path)
    if value is MISSING or value is None:
        return {}
    if not isinstance(value, dict):
        note(path, _shown(value), "keys with texts or lists of texts")
        return {}
    found: dict[str, str | list[str]] = {}
    for key, item in value.items():
        texts = [scalar_text(part) for part in (item if isinstance(item, list) else [item])]
        if item is not None and any(text is None for text in texts):
            note(f"{path}.{key}", _shown(item), "a text or a list of texts")
        elif item is not None:
            kept = [text for text in texts if text is not None]
            found[key] = kept if isinstance(item, list) else kept[0]
    return found


def _shown(value: Any) -> str:
    if value is MISSING:
        return "missing"
    text = json.dumps(value, ensure_ascii=False, default=str)
    return visible(text, keep_newlines=False, limit_chars=60)


def _headline(problems: Sequence[Problem]) -> str:
    """The first problems, under a line that counts all of them."""
    text = describe_problems(problems[:MAX_SHOWN])
    shown = min(len(problems), MAX_SHOWN)
    counted = f"has {shown} problem{'s' if shown > 1 else ''}"
    return text.replace(counted, f"has {len(problems):,} problem{'s' if len(problems) > 1 else ''}", 1)
