"""Samples as tables: CSV for spreadsheets, Parquet for everything else."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

from harness.errors import DataError
from harness.evals.results import Sample
from harness.formats.log import Log, all_whole
from harness.text import visible

COLUMNS = (
    "suite", "model", "id", "unit", "input", "gold", "answer", "score", "confidence", "error", "error_class", "output",
    "is_truncated", "prompt_tok", "output_tok", "latency_ms", "prompt_digest",
)  # fmt: skip
_OF_LOG = ("suite", "model", "input")
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "＝", "＋", "－", "＠")
"""What makes a spreadsheet read a text as a formula; OWASP, "CSV Injection"."""


def csv_text(logs: Sequence[Log]) -> str:
    """The samples of all logs under one header, as RFC 4180 has it.

    Texts show control characters as `text.visible` spells them. One that a spreadsheet would run as a
    formula has an apostrophe in front. Several gold texts, and several values of a slice, are a JSON list.
    """
    rows = [_flat(log, sample) for log in logs for sample in log.samples]
    columns = list(dict.fromkeys((*COLUMNS, *(key for row in rows for key in row))))
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)
    writer.writerow([_cell(column) for column in columns])
    writer.writerows([_cell(row.get(column)) for column in columns] for row in rows)
    return buffer.getvalue()


def _flat(log: Log, sample: Sample) -> dict[str, Any]:
    """The sample with a column for each slice, score and label, such as `slices.contract`."""
    row = {name: getattr(sample, name) for name in COLUMNS if name not in (*_OF_LOG, "gold")}
    row |= {
        "suite": log.task,
        "model": log.model,
        "input": log.inputs.get(sample.id),
        "gold": _one_or_list(sample.gold),
    }
    for group in ("slices", "scores", "label_probs", "confidences", "variants"):
        for key, value in (getattr(sample, group) or {}).items():
            row[f"{group}.{key}"] = _one_or_list(value) if isinstance(value, list) else value
    return row


def _one_or_list(values: Sequence[str]) -> str:
    return values[0] if len(values) == 1 else json.dumps(list(values), ensure_ascii=False)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        return json.dumps(value)
    shown = visible(value)
    return f"'{shown}" if value.startswith(FORMULA_STARTS) else shown


def parquet_bytes(logs: Sequence[Log]) -> bytes:
    """The samples of all logs as one Parquet file, with lists and maps as what they are.

    Raises:
        DataError: pyarrow is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise DataError("writing Parquet needs pyarrow", hint="pip install 'dragongate[interop]'") from error
    rows = [_nested(log, sample) for log in logs for sample in log.samples]
    sink = pyarrow.BufferOutputStream()
    parquet.write_table(pyarrow.Table.from_pylist(rows, schema=_schema(pyarrow)), sink)
    found: bytes = sink.getvalue().to_pybytes()
    return found


def _nested(log: Log, sample: Sample) -> dict[str, Any]:
    row: dict[str, Any] = {name: getattr(sample, name) for name in COLUMNS if name not in _OF_LOG}
    slices = {key: value if isinstance(value, list) else [value] for key, value in sample.slices.items()}
    row |= {"suite": log.task, "model": log.model, "input": log.inputs.get(sample.id), "slices": slices}
    row |= {group: getattr(sample, group) for group in ("scores", "label_probs", "confidences")}
    # pyarrow takes a map as its pairs.
    return {
        key: list(value.items()) if isinstance(value, dict) else value
        for key, value in all_whole(row).items()
    }


def _schema(pyarrow: Any) -> Any:
    """The columns with their types, the same for every run, also for one without samples."""
    text, number, count = pyarrow.string(), pyarrow.float64(), pyarrow.int64()
    types = {
        "gold": pyarrow.list_(text), "score": number, "confidence": number, "latency_ms": number,
        "is_truncated": pyarrow.bool_(), "prompt_tok": count, "output_tok": count,
    }  # fmt: skip
    maps = {
        "slices": pyarrow.map_(text, pyarrow.list_(text)), "scores": pyarrow.map_(text, number),
        "label_probs": pyarrow.map_(text, number), "confidences": pyarrow.map_(text, number),
    }  # fmt: skip
    return pyarrow.schema([(name, types.get(name, text)) for name in COLUMNS] + list(maps.items()))
