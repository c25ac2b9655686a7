"""Documents that records point at by name, so that one long text is stored once for all its questions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from harness.data.records import Record, RecordsError, at_path, read_rows
from harness.data.targets import scalar_text
from harness.errors import Problem
from harness.specs.suite import Fields
from harness.text import visible


def with_documents(records: Sequence[Record], path: Path, fields: Fields) -> list[Record]:
    """The records with their document's text as context.

    The file holds one `{doc_id, text}` a line; the record names its document at `fields.document`.

    Raises:
        RecordsError: the file can't be read, a document has no name or no text, two have one name, or a record
            names one that is not there. All at once.
    """
    text_by_name = read_documents(path)
    problems: list[Problem] = []
    found: list[Record] = []
    for record in records:
        name = scalar_text(at_path(record.raw, fields.document or ""))
        if name is None or name not in text_by_name:
            shown = "no document" if name is None else visible(name, keep_newlines=False, limit_chars=60)
            problems.append(
                Problem(
                    str(path),
                    None,
                    fields.document or "",
                    shown,
                    "a doc_id of this file",
                    f"record {record.id}",
                )
            )
        else:
            found.append(replace(record, context=text_by_name[name]))
    if problems:
        raise RecordsError(problems)
    return found


def read_documents(path: Path) -> dict[str, str]:
    """The texts by `doc_id`.

    Raises:
        RecordsError: as `with_documents`.
    """
    problems: list[Problem] = []
    text_by_name: dict[str, str] = {}
    for row in read_rows(path):
        name, text = scalar_text(row.data.get("doc_id")), row.data.get("text")
        if name is None or not isinstance(text, str) or not text.strip():
            problems.append(
                Problem(str(path), row.line, "doc_id, text", "a document without", "both, as texts")
            )
        elif name in text_by_name:
            shown = visible(name, keep_newlines=False, limit_chars=60)
            problems.append(Problem(str(path), row.line, "doc_id", shown, "a name of its own"))
        else:
            text_by_name[name] = text
    if problems:
        raise RecordsError(problems)
    return text_by_name
