"""Documents of lm-evaluation-harness tasks: rows as its loader gives them, in the files' order."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.data.tables import MAX_CELL_CHARS
from harness.errors import DataError
from harness.files import MAX_JSON_BYTES, parse_json

Doc = dict[str, Any]
MISSING = ("", "NA", "N/A", "NaN", "nan", "null", "NULL", "None", "n/a", "<NA>")
"""What pandas, which reads CSV for lm-eval, takes for nothing."""


def read_docs(path: Path) -> list[Doc]:
    """The rows of a JSON, JSON-lines, CSV or Parquet file; each has every column, None where it has no value.

    Raises:
        DataError: the file can't be read.
    """
    readers = {".csv": _read_csv, ".parquet": _read_parquet}
    try:
        docs = readers.get(path.suffix.lower(), _read_json)(path)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error
    if not docs:
        raise DataError(f"{path}: no documents")
    columns = list(dict.fromkeys(key for doc in docs for key in doc))
    return [{column: doc.get(column) for column in columns} for doc in docs]


def _read_json(path: Path) -> list[Doc]:
    data = path.read_bytes()
    if data.lstrip()[:1] == b"[":
        found = parse_json(data, name=str(path))
    else:
        lines = enumerate(data.splitlines(), 1)
        found = [parse_json(line, name=f"{path} line {number}") for number, line in lines if line.strip()]
    for number, doc in enumerate(found, 1):
        if not isinstance(doc, dict):
            raise DataError(f"{path}: document {number} is {type(doc).__name__}, wanted an object")
    try:
        json.dumps(found, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(f"{path}: half of a surrogate pair") from error
    return list(found)


def _read_csv(path: Path) -> list[Doc]:
    if path.stat().st_size > MAX_JSON_BYTES:
        raise DataError(f"{path}: over {MAX_JSON_BYTES:,} bytes")
    before = csv.field_size_limit(MAX_CELL_CHARS)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [row for row in csv.reader(file, strict=True) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a UTF-8 CSV file: {error}") from error
    finally:
        csv.field_size_limit(before)
    if uneven := next((row for row in rows if len(row) != len(rows[0])), None):
        raise DataError(f"{path}: {len(uneven)} cells under {len(rows[0])} columns")
    columns = [_typed(list(cells)) for cells in zip(*rows[1:], strict=True)]
    return [dict(zip(rows[0], cells, strict=True)) for cells in zip(*columns, strict=True)]


def _typed(cells: Sequence[str]) -> list[Any]:
    """The column as pandas would type it: whole numbers, numbers, truth values, or text."""
    known = [cell for cell in cells if cell not in MISSING]
    has_gaps = len(known) < len(cells)
    if known and set(known) <= {"True", "False"} and not has_gaps:
        return [cell == "True" for cell in cells]
    try:
        numbers = [float(cell) for cell in known]
    except ValueError:
        numbers = []
    if not numbers or not all(map(math.isfinite, numbers)) or any("_" in cell for cell in known):
        return [None if cell in MISSING else cell for cell in cells]
    is_whole = not has_gaps and all(cell.strip().lstrip("+-").isdigit() for cell in known)
    return [None if cell in MISSING else int(cell) if is_whole else float(cell) for cell in cells]


def _read_parquet(path: Path) -> list[Doc]:
    try:
        import pyarrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise DataError("reading Parquet needs pyarrow", hint="pip install 'dragongate[interop]'") from error
    try:
        found: list[Doc] = parquet.read_table(path).to_pylist()
        return found
    except pyarrow.ArrowException as error:
        raise DataError(f"{path}: not a Parquet file: {error}") from error
