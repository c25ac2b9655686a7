"""Each task's own scorer is proven on the golds of a public set, and stopped on golds that are broken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from harness.errors import StatsError
from harness.scoring.item import Item
from harness.scoring.scorers import prove_scorer

pytestmark = pytest.mark.real

Rows = list[dict[str, Any]]
Public = Callable[..., Rows]


def numbers(public: Public) -> list[Item]:
    rows = public("finance/tatqa", "eval")
    settings = {"scale_field": "target.scale", "decimals": "gold", "tolerance": 0.01}
    kept = [row for row in rows if row["target"]["answer_type"] == "arithmetic"]
    return [Item(None, (str(row["target"]["answer"]),), meta=row, settings=settings) for row in kept]


def intents(public: Public) -> list[Item]:
    return [
        Item(None, ("x",), target=row["target"]["intents"]) for row in public("support/multidogo", "eval")
    ]


def evidence(public: Public) -> list[Item]:
    texts = {row["doc_id"]: row["text"] for row in public("science/evidence_inference", "documents")}
    rows = public("science/evidence_inference", "eval")
    return [Item(None, ("x",), target=row["evidence"], context=texts[row["doc_id"]]) for row in rows]


def summaries(public: Public) -> list[Item]:
    rows = public("science/scitldr", "eval")
    return [Item(None, tuple(row["target"]["summaries"]), input=row["input"]) for row in rows]


PROOFS = [
    (numbers, ("number", "derivation")), (intents, ("label_set",)),
    (evidence, ("spans_exact", "spans_overlap", "spans_chars", "spans_tokens", "grounded")),
    (summaries, ("rouge_1", "rouge_2", "rouge_l", "chrf", "bleu", "token_f1", "normalised", "exact",
                 "grounded", "pii_leak")),
]  # fmt: skip


@pytest.mark.parametrize(("make", "name"), [(make, name) for make, names in PROOFS for name in names])
def test_scorers_are_proven_on_public_golds(
    public: Public, make: Callable[[Public], list[Item]], name: str
) -> None:
    prove_scorer(name, make(public))


def test_golds_that_the_document_does_not_hold_stop_the_run(public: Public) -> None:
    broken = [replace(item, context="another text") for item in evidence(public)]

    with pytest.raises(StatsError, match="can't tell right from wrong"):
        prove_scorer("spans_overlap", [replace(item, target=[{"text": "not there"}]) for item in broken])


def test_golds_without_a_number_stop_the_run(public: Public) -> None:
    with pytest.raises(StatsError, match=r"can't be proven|can't tell right from wrong"):
        prove_scorer("number", [replace(item, targets=("many",)) for item in numbers(public)])
