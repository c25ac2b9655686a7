"""Tables as rows of JSON-like objects: a column `target.label` becomes `{"target": {"label": …}}`."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.errors import DataError

MAX_CELL_CHARS = 4 * 2**20


def read_csv_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line, row) for each row of a UTF-8 CSV file with a header; an empty cell is left out.

    Raises:
        DataError: bad UTF-8, a NUL, a repeated column, or a row with another number of cells.
    """
    before = csv.field_size_limit(MAX_CELL_CHARS)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            columns = next(reader, [])
            _check_columns(columns)
            for cells in reader:
                if not cells:
                    continue
                if len(cells) != len(columns):
                    found = f"{len(cells)} cells under {len(columns)} columns"
                    raise DataError(f"line {reader.line_num}: {found}")
                filled = {column: cell for column, cell in zip(columns, cells, strict=True) if cell != ""}
                yield reader.line_num, nested(filled)
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"not a UTF-8 CSV file: {error}") from error
    finally:
        csv.field_size_limit(before)


def read_parquet_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(row number from 1, row) for each row of a Parquet file; a null is left out.

    Raises:
        DataError: pyarrow is not installed, or the file is not Parquet.
    """
    try:
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise DataError("reading Parquet needs pyarrow", hint="pip install pyarrow") from error
    import pyarrow

    try:
        number = 0
        for batch in parquet.ParquetFile(path).iter_batches():
            for row in batch.to_pylist():
                number += 1
                yield number, nested({key: value for key, value in row.items() if value is not None})
    except (pyarrow.ArrowException, UnicodeDecodeError) as error:
        raise DataError(f"not a Parquet file: {error}") from error


def nested(flat: dict[str, Any]) -> dict[str, Any]:
    """The row with dotted columns as objects within objects."""
    row: dict[str, Any] = {}
    for column, value in flat.items():
        *parents, last = column.split(".")
        place = row
        for parent in parents:
            inner = place.setdefault(parent, {})
            if not isinstance(inner, dict):
                raise DataError(f"column {column} lies under column {parent}, which holds values")
            place = inner
        if isinstance(place.get(last), dict):
            raise DataError(f"column {column} holds values, and other columns lie under it")
        place[last] = value
    return row


def _check_columns(columns: list[str]) -> None:
    twice = [column for column in dict.fromkeys(columns) if columns.count(column) > 1]
    if twice:
        raise DataError(f"column {twice[0]!r} is there twice")
