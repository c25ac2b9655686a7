"""Product attributes: gold objects score 1, and what is changed in them is counted by field.

2,299 offers, 20 categories; a list is of accepted values, null says that the title does not tell.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from harness.scoring.counts import add_counts, total
from harness.scoring.fields import fields
from harness.scoring.item import Item, Score
from harness.scoring.parse import read_answer
from harness.scoring.scorers import prove_scorer

pytestmark = pytest.mark.real

Rows = list[dict[str, Any]]


@pytest.fixture(scope="module")
def golds(public: Callable[..., Rows]) -> list[dict[str, Any]]:
    return [row["target"]["attributes"] for row in public("ecommerce/product_attributes", "train", "eval")]


def score(gold: dict[str, Any], said: dict[str, Any]) -> Score:
    text = f"```json\n{json.dumps(said)}\n```"
    return fields(
        Item(text, (), parsed=read_answer("extract", text), target=gold, settings={"gold_lists": "any"})
    )


def first_values(gold: dict[str, Any]) -> dict[str, Any]:
    return {key: values[0] if values else None for key, values in gold.items()}


def test_each_accepted_value_scores_1(golds: list[dict[str, Any]]) -> None:
    assert len(golds) == 2299
    for gold in golds:
        last = {key: values[-1] if values else None for key, values in gold.items()}
        assert (score(gold, first_values(gold)).value, score(gold, last).value) == (1.0, 1.0), gold


def test_canaries_of_every_offer_are_told_apart(golds: list[dict[str, Any]]) -> None:
    prove_scorer("fields", [Item(None, (), target=gold, settings={"gold_lists": "any"}) for gold in golds])


def test_a_value_for_every_null_is_a_false_positive_each(golds: list[dict[str, Any]]) -> None:
    n_null = sum(value is None for gold in golds for value in gold.values())
    counts = add_counts(
        score(gold, {key: value or "invented" for key, value in first_values(gold).items()}).counts
        for gold in golds
    )

    assert total(counts).fp == n_null > 300
    assert total(counts).fn == 0


def test_a_missing_field_is_a_false_negative_each(golds: list[dict[str, Any]]) -> None:
    counts = add_counts(score(gold, {}).counts for gold in golds)

    assert total(counts) == (0, 0, sum(value is not None for gold in golds for value in gold.values()))


def test_a_wrong_value_is_both(golds: list[dict[str, Any]]) -> None:
    swapped = [{key: "\u2297 wrong" for key, value in gold.items() if value is not None} for gold in golds]
    counts = add_counts(score(gold, said).counts for gold, said in zip(golds, swapped, strict=True))

    assert total(counts).tp == 0
    assert (
        total(counts).fp
        == total(counts).fn
        == sum(value is not None for gold in golds for value in gold.values())
    )
