"""Records with passages of documents as their context, found by their own words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from harness.data.records import Record, RecordsError, at_path
from harness.data.targets import scalar_text
from harness.errors import Problem
from harness.retrieval.documents import read_documents
from harness.retrieval.index import index_of
from harness.retrieval.passages import as_context, retrieve
from harness.specs.suite import Retrieval
from harness.text import visible

RETRIEVED = "retrieved"
"""Where a record's own fields hold its passages, for scorers; a field of that name in the file is not read."""


def with_passages(records: Sequence[Record], source: Path, spec: Retrieval) -> list[Record]:
    """The records, each with the best passages for it as context, and at `retrieved` in its own fields.

    Raises:
        DataError: the documents can't be read or indexed.
        RecordsError: a record has no text to look for, or names a document that is not there. All at once.
    """
    index = index_of(read_documents(source), spec.chunk_words, spec.flagged)
    documents = set(index.documents)
    problems: list[Problem] = []
    found: list[Record] = []
    for record in records:
        query, within = _asked(record, spec, source, documents, problems)
        retrieved = retrieve(index, query, k=spec.k, max_chars=spec.max_chars, within=within)
        raw = {**record.raw, RETRIEVED: retrieved.to_json()}
        found.append(replace(record, context=as_context(retrieved), raw=raw, retrieved=retrieved))
    if problems:
        raise RecordsError(problems)
    return found


def _asked(
    record: Record, spec: Retrieval, source: Path, documents: set[str], problems: list[Problem]
) -> tuple[str, str | None]:
    """What is looked for, and in which document."""
    query = record.input if spec.query is None else scalar_text(at_path(record.raw, spec.query))
    within = None if spec.within is None else scalar_text(at_path(record.raw, spec.within))
    hint = f"record {visible(record.id, limit_chars=80)}"
    if not query:
        problems.append(Problem(str(source), None, spec.query or "", "no text", "what is looked for", hint))
    if spec.within is not None and within not in documents:
        shown = "no document" if within is None else visible(within, keep_newlines=False, limit_chars=60)
        problems.append(Problem(str(source), None, spec.within, shown, "a document of the index", hint))
    return query or "", within
