"""What the search finds in public documents, printed with `-s`: clauses of contracts, abstracts of questions.

ContractNLI: the evidence spans of a hypothesis, searched in its own contract. PubMedQA: the abstract that a question
was made of, among those of all questions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import pytest

from harness.data.records import Record
from harness.data.retrieval import with_passages
from harness.retrieval.documents import Document
from harness.retrieval.index import build_index
from harness.scoring.item import Item
from harness.scoring.retrieved import retrieval_rank, retrieval_recall
from harness.specs.suite import Retrieval
from tests.real.conftest import ROOT

pytestmark = pytest.mark.real
Rows = list[dict[str, Any]]


def as_record(row: dict[str, Any]) -> Record:
    return Record(row["id"], row["input"], ("x",), {}, row["id"], row)


def measured(records: list[Record], **settings: Any) -> tuple[float, float]:
    """Mean recall@k and MRR."""
    items = [Item(None, record.targets, meta=record.raw, settings=settings) for record in records]
    recall, rank = ([score(item).value for item in items] for score in (retrieval_recall, retrieval_rank))
    return sum(recall) / len(items), sum(rank) / len(items)


def test_clauses_of_a_contract_are_found_by_their_hypothesis(public: Callable[..., Rows]) -> None:
    rows = [row for row in public("legal/contract_nli", "eval") if row.get("evidence")][:400]
    spec = Retrieval(documents="documents.jsonl", k=5, max_chars=1_000_000, within="doc_id")

    found = with_passages(list(map(as_record, rows)), ROOT / "legal/contract_nli/documents.jsonl", spec)
    recall, rank = measured(found, gold_field="evidence", document_field="doc_id")

    figures = f"contract_nli: {len(found)} hypotheses, recall@5 {recall:.3f}, MRR {rank:.3f}"
    print(figures)  # noqa: T201 (with -s, the figure is what is asked for)
    assert recall > 0.7


def test_the_abstract_of_a_question_is_found_among_all(public: Callable[..., Rows]) -> None:
    rows = public("healthcare/pubmedqa", "train", "eval")
    documents = [
        Document(row["id"], row["context"], hashlib.sha256(row["context"].encode()).hexdigest())
        for row in rows
    ]
    index = build_index(documents)

    hits = dict.fromkeys((1, 5), 0)
    for row in rows:
        names = [hit.chunk.document for hit in index.search(row["input"], 5)]
        for k in hits:
            hits[k] += row["id"] in names[:k]

    shares = {k: n / len(rows) for k, n in hits.items()}
    told = ", ".join(f"recall@{k} {share:.3f}" for k, share in shares.items())
    print(f"pubmedqa: {len(rows)} questions, {told}")  # noqa: T201 (with -s, the figure is what is asked for)
    assert shares[5] > 0.95
