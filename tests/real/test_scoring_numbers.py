"""Numbers of annual reports (TAT-QA): what people derived must evaluate, and planted errors must be found.

Measured on 986 computed answers: 983 gold derivations evaluate to their gold answer (99.7 %; the other three
take a number in brackets as negative). Every planted error scores 0 and is named as what it is: 972 of 972
signs, 986 of 986 currencies, 644 of 644 scales, 559 of 559 percents, 972 of 972 numbers of other rows. Quoted
answers are carried by their own report to 99.6 % of numbers and names, by a random other one to 26 %.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from harness.scoring.arithmetic import derivation
from harness.scoring.grounded import check_names, check_numbers
from harness.scoring.item import Item, Score
from harness.scoring.number_match import number
from harness.scoring.numbers import read_quantities

pytestmark = pytest.mark.real

Rows = list[dict[str, Any]]


@pytest.fixture(scope="module")
def computed(public: Callable[..., Rows]) -> Rows:
    rows = public("finance/tatqa", "train", "eval")
    return [row for row in rows if row["target"]["answer_type"] == "arithmetic"]


@pytest.fixture(scope="module")
def reports(public: Callable[..., Rows]) -> dict[str, str]:
    return {row["doc_id"]: row["text"] for row in public("finance/tatqa", "documents")}


def item(row: dict[str, Any], answer: str, context: str = "", **settings: Any) -> Item:
    gold = json.dumps(row["target"]["answer"])
    return Item(
        answer, (gold,), context=context, meta=row, settings={"scale_field": "target.scale", **settings}
    )


def test_gold_derivations_evaluate_to_gold_answers(computed: Rows) -> None:
    right = [derivation(item(row, row["target"]["derivation"], decimals=2)).value for row in computed]

    assert len(right) > 900
    assert sum(right) / len(right) >= 0.97


def test_gold_answers_are_right_however_they_are_written(computed: Rows) -> None:
    for row in computed:
        value, scale = row["target"]["answer"], row["target"]["scale"]
        words = {"none": "", "percent": "%"}.get(scale, f" {scale}")
        written = (
            f"{value}",
            f"{value:,}{words}",
            f"({abs(value):,}){words}" if value < 0 else f"${value}{words}",
        )
        assert [number(item(row, text)).value for text in written] == [1.0, 1.0, 1.0], (row["id"], written)


def planted(computed: Rows, plant: Callable[[float, str], str | None]) -> Counter[str | None]:
    """Error classes of the planted answers; a score above 0 is `missed`."""
    found: Counter[str | None] = Counter()
    for row in computed:
        value, scale = row["target"]["answer"], row["target"]["scale"]
        answer = plant(value, scale) if value else None
        if answer is not None:
            score: Score = number(item(row, answer))
            found["missed" if score.value else score.error_class] += 1
    return found


@pytest.mark.parametrize(
    ("plant", "error_class", "at_least"),
    [
        (lambda value, _: f"{-value}", "sign_slip", 0.99),
        (
            lambda value, scale: f"{value} billion" if scale in ("thousand", "million") else None,
            "scale_slip",
            0.99,
        ),
        (lambda value, scale: f"{value * 1000:f}" if scale == "million" else None, "scale_slip", 0.97),
        (lambda value, scale: f"{value * 100:f}%" if scale == "percent" else None, "percent_slip", 0.99),
        (lambda value, scale: f"{value}%" if scale == "million" else None, "percent_slip", 0.99),
    ],
)
def test_planted_errors_are_found_and_named(
    computed: Rows, plant: Callable[[float, str], str | None], error_class: str, at_least: float
) -> None:
    found = planted(computed, plant)

    assert found["missed"] == 0
    assert found[error_class] >= at_least * found.total() > 0


def test_another_unit_is_found_and_named(computed: Rows) -> None:
    found = Counter(
        number(Item(f"€{row['target']['answer']}", (f"${row['target']['answer']}",))).error_class
        for row in computed
    )

    assert found == {"unit_slip": len(computed)}


def test_numbers_of_other_rows_are_wrong_and_mostly_named(computed: Rows, reports: dict[str, str]) -> None:
    found: Counter[str | None] = Counter()
    for row, text in _other_rows(computed, reports):
        score = number(item(row, text, reports[row["doc_id"]]))
        assert score.value == 0.0
        found[score.error_class] += 1

    assert found["wrong_row"] / found.total() >= 0.9


def test_quoted_answers_are_grounded_in_their_report_and_not_in_another(
    public: Callable[..., Rows], reports: dict[str, str]
) -> None:
    rows = [row for row in public("finance/tatqa", "train", "eval") if row["target"]["answer_type"] == "span"]
    others = random.Random(3).sample(rows, len(rows))
    own, foreign = (
        [
            check(" ".join(row["target"]["answer"]), reports[other["doc_id"]])
            for row, other in pairs
            for check in _CHECKS
        ]
        for pairs in (zip(rows, rows, strict=True), zip(rows, others, strict=True))
    )
    shares = [
        sum(len(one.supported) for one in found) / sum(len(one.supported + one.unsupported) for one in found)
        for found in (own, foreign)
    ]

    assert shares[0] >= 0.98
    assert shares[1] <= 0.5


_CHECKS = (lambda answer, text: check_numbers(answer, text, derive=False), check_names)


def _other_rows(computed: Rows, reports: dict[str, str]) -> Iterator[tuple[dict[str, Any], str]]:
    """Each record with a number of its report that is not its answer in any scale or sign."""
    draw = random.Random(7)
    for row in computed:
        gold = abs(row["target"]["answer"])
        pool = [
            one
            for one in read_quantities(reports[row["doc_id"]])
            if one.is_bare and not one.unit and one.number > 0
        ]
        far = [
            one
            for one in pool
            if gold and not any(abs(one.number / gold / 10**k - 1) < 0.06 for k in range(-9, 10))
        ]
        if far:
            yield row, f"{draw.choice(far).number:f}"


def test_computed_answers_derive_from_their_report_far_more_often_than_wrong_ones(
    computed: Rows, reports: dict[str, str]
) -> None:
    """82 % of the right answers derive from two numbers of the report, and 14 % of answers 5 to 60 % too large."""
    draw = random.Random(1)
    right, wrong = [], []
    for row in computed:
        value, text = row["target"]["answer"], reports[row["doc_id"]]
        sign = "%" if row["target"]["scale"] == "percent" else ""
        right.append(not check_numbers(f"{value}{sign}", text).unsupported)
        wrong.append(
            not check_numbers(f"{round(value * draw.uniform(1.05, 1.6), 2)}{sign}", text).unsupported
        )

    assert sum(right) / len(right) >= 0.8
    assert sum(wrong) / len(wrong) <= 0.17
