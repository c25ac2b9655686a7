"""Cited spans of contracts (ContractNLI) and of trials (Evidence Inference), against formulas written out here.

1,096 contract records cite something; all quotes of 828 trials are found in their source and score 1.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import pytest

from harness.scoring.item import Item
from harness.scoring.parse import read_answer
from harness.scoring.scorers import SCORERS
from harness.scoring.spans import spans_chars, spans_exact, spans_overlap

pytestmark = pytest.mark.real

Rows = list[dict[str, Any]]
Pair = tuple[int, int]


@pytest.fixture(scope="module")
def contracts(public: Callable[..., Rows]) -> list[tuple[str, list[Pair]]]:
    """Text and gold spans of records that cite something; repeated spans once."""
    texts = {row["doc_id"]: row["text"] for row in public("legal/contract_nli", "documents")}
    rows = public("legal/contract_nli", "train", "eval")
    cited = [
        (texts[row["doc_id"]], [(e["start"], e["end"]) for e in row.get("evidence", ())]) for row in rows
    ]
    return [(text, list(dict.fromkeys(spans))) for text, spans in cited if spans]


def guesses(text: str, gold: list[Pair], draw: random.Random) -> list[Pair]:
    """What a middling model would cite: some golds, some cut, some from elsewhere."""
    kept = [(start, end) for start, end in gold if draw.random() < 0.7]
    cut = [(start + (end - start) // 3, end) if draw.random() < 0.3 else (start, end) for start, end in kept]
    start = draw.randrange(len(text) - 1)
    other = [(start, min(start + 200, len(text)))] if draw.random() < 0.5 else []
    return list(dict.fromkeys(cut + other))


def f1(tp: int, n_said: int, n_gold: int) -> float:
    return 2 * tp / (n_said + n_gold) if n_said + n_gold else 1.0


def item(text: str, gold: list[Pair], said: list[Pair]) -> Item:
    spelled = [[{"start": start, "end": end} for start, end in spans] for spans in (said, gold)]
    return Item(None, (), parsed=spelled[0], target=spelled[1], context=text)


def test_scores_are_those_of_sets_of_spans_and_sets_of_characters(
    contracts: list[tuple[str, list[Pair]]],
) -> None:
    draw = random.Random(5)
    assert len(contracts) > 1000
    for text, gold in contracts:
        said = guesses(text, gold, draw)
        a, b = ({place for start, end in spans for place in range(start, end)} for spans in (said, gold))
        one = item(text, gold, said)

        assert spans_exact(one).value == pytest.approx(f1(len(set(said) & set(gold)), len(said), len(gold)))
        assert spans_chars(one).value == pytest.approx(f1(len(a & b), len(a), len(b)))
        assert spans_overlap(one).value >= spans_exact(one).value


def test_gold_spans_score_1(contracts: list[tuple[str, list[Pair]]]) -> None:
    for text, gold in contracts[::5]:
        values = {
            name: SCORERS[name](item(text, gold, gold)).value for name in SCORERS if name.startswith("spans_")
        }

        assert values == dict.fromkeys(values, 1.0)


def test_quotes_of_trials_are_found_where_they_were_annotated(public: Callable[..., Rows]) -> None:
    texts = {row["doc_id"]: row["text"] for row in public("science/evidence_inference", "documents")}
    rows = public("science/evidence_inference", "train", "eval")
    n_quotes = n_placed = 0
    for row in rows:
        source, gold = texts[row["doc_id"]], row["evidence"]
        answer = json.dumps([span["text"] for span in gold])
        parsed = read_answer("spans", answer, source=source)
        assert parsed is not None
        n_quotes += len(parsed)
        n_placed += sum(
            source[one["start"] : one["end"]] == one["text"] for one in parsed if one["start"] is not None
        )
        assert spans_exact(Item(answer, (), parsed=parsed, target=gold, context=source)).value == 1.0, row[
            "id"
        ]

    assert n_placed == n_quotes > 800
