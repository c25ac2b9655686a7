"""The report beside a pseudonymised file: which source it came from, what was replaced, under which key."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from harness.errors import DataError
from harness.files import read_json, sha256_file

FORMAT = "harness-pseudonymised-1"


def report_path(output: Path) -> Path:
    """Where the report of a pseudonymised file is."""
    return output.with_name(f"{output.name}.privacy.json")


def read_protection(path: Path) -> dict[str, Any] | None:
    """The report beside the file; None where there is none, or it is about other bytes than the file's.

    Raises:
        DataError: it can't be read.
    """
    beside = report_path(path)
    if not beside.is_file():
        return None
    report = read_json(beside)
    if not isinstance(report, dict) or report.get("format") != FORMAT:
        raise DataError(f"{beside}: no report of a pseudonymisation", hint=f"wanted format {FORMAT}")
    output = report.get("output")
    is_same = isinstance(output, dict) and output.get("sha256") == sha256_file(path)
    return report if is_same else None


def protection_lineage(files: Iterable[Path]) -> list[dict[str, Any]]:
    """For each pseudonymised file: source digest → output digest, what was replaced, by what, under which key.

    Raises:
        DataError: a report can't be read.
    """
    reports = [read_protection(path) for path in files if path.is_file()]
    kept = ("source", "output", "kinds", "finders", "fields", "key")
    return [{key: report[key] for key in kept if key in report} for report in reports if report is not None]


def is_protected(path: Path) -> bool:
    """Whether the file's bytes are those that a pseudonymisation wrote."""
    try:
        return read_protection(path) is not None
    except DataError:
        return False
