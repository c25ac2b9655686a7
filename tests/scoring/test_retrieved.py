"""Recall@k and reciprocal rank of gold documents and spans, by hand."""

from __future__ import annotations

from typing import Any

import pytest

from harness.errors import StatsError
from harness.scoring.item import Item
from harness.scoring.retrieved import retrieval_rank, retrieval_recall


def passage(document: str, start: int = 0, end: int = 100) -> dict[str, Any]:
    return {"id": f"{document}:1", "document": document, "start": start, "end": end}


def item(gold: Any, *passages: dict[str, Any], **settings: Any) -> Item:
    meta = {"gold": gold, "doc": "contract", "retrieved": list(passages)}
    return Item(None, ("x",), meta=meta, settings={"gold_field": "gold", **settings})


@pytest.mark.parametrize(
    ("gold", "recall", "rank"),
    [
        (["a"], 1.0, 0.5),
        ("a", 1.0, 0.5),
        (["b"], 1.0, 1.0),
        (["a", "z"], 0.5, 0.5),
        (["c", "a", "z"], 2 / 3, 0.5),
        (["z"], 0.0, 0.0),
    ],
)
def test_documents_are_found_among_the_passages(gold: Any, recall: float, rank: float) -> None:
    asked = item(gold, passage("b"), passage("a"), passage("a", 100, 200), passage("c"))

    assert retrieval_recall(asked).value == pytest.approx(recall)
    assert retrieval_rank(asked).value == pytest.approx(rank)


def test_only_the_first_k_passages_count() -> None:
    passages = (passage("b"), passage("a"))

    assert [retrieval_recall(item(["a"], *passages, k=k)).value for k in (1, 2)] == [0.0, 1.0]
    assert [retrieval_rank(item(["a"], *passages, k=k)).value for k in (1, 2)] == [0.0, 0.5]


@pytest.mark.parametrize(
    ("start", "end", "is_found"),
    [(0, 100, True), (50, 150, True), (51, 151, False), (90, 110, True), (100, 120, False)],
)
def test_a_span_is_found_by_half_of_it(start: int, end: int, is_found: bool) -> None:
    asked = item([{"start": start, "end": end}], passage("contract"), document_field="doc")

    assert retrieval_recall(asked).value == float(is_found)


def test_two_passages_may_hold_a_span_together() -> None:
    gold = [{"doc_id": "contract", "start": 60, "end": 160}]

    assert retrieval_recall(item(gold, passage("contract"), passage("contract", 150, 300))).value == 1.0
    assert retrieval_recall(item(gold, passage("contract"), passage("other", 100, 200))).value == 0.0
    assert retrieval_rank(item(gold, passage("other"), passage("contract", 150, 300))).value == 0.5


def test_what_was_missed_is_named() -> None:
    score = retrieval_recall(item(["a", "z"], passage("a")))

    assert (score.error_class, score.note) == ("not_retrieved", "z")
    assert dict(score.counts) == {"passage": (1, 0, 1)}


@pytest.mark.parametrize(
    "gold", [[], None, [7], [{"start": 5, "end": 5, "doc_id": "a"}], [{"start": 1, "end": 2}]]
)
def test_a_gold_that_nobody_named_is_no_score(gold: Any) -> None:
    with pytest.raises(StatsError):
        retrieval_recall(item(gold, passage("a")))


def test_a_suite_that_retrieves_nothing_can_not_be_scored() -> None:
    with pytest.raises(StatsError, match="nothing was retrieved"):
        retrieval_recall(Item(None, (), meta={"gold": ["a"]}, settings={"gold_field": "gold"}))
    with pytest.raises(StatsError, match="what is to be found"):
        retrieval_rank(Item(None, (), meta={"retrieved": []}))
