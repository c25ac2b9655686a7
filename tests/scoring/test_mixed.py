"""Numbers by value where the gold is a number, words by words where it is a text."""

from __future__ import annotations

from typing import Any

import pytest

from harness.scoring.item import Item
from harness.scoring.mixed import number_or_text

SCALE = {"scale_field": "scale", "decimals": 2}


def said(answer: str | None, target: Any, scale: str = "million") -> Item:
    texts = tuple(map(str, target if isinstance(target, list) else [target]))
    return Item(answer, texts, target=target, meta={"scale": scale}, settings=SCALE)


@pytest.mark.parametrize(
    ("answer", "target", "value"),
    [
        ("12.50 million", 12.5, 1.0),
        ("(12.5)", -12.5, 1.0),
        ("12.5 billion", 12.5, 0.0),
        ("-12.5", 12.5, 0.0),
        ("finance leases", ["operating leases", "finance leases"], 1.0),
        ("leases", ["operating leases", "finance leases"], 2 / 3),
        ("in 2019", ["2019"], 2 / 3),
        ("2018", ["2019"], 0.0),
        ("1", True, 0.0),
        ("", 12.5, 0.0),
        (None, ["leases"], 0.0),
    ],
)
def test_the_kind_of_the_gold_decides_how_an_answer_is_read(
    answer: str | None, target: Any, value: float
) -> None:
    assert number_or_text(said(answer, target)).value == pytest.approx(value)


def test_a_wrong_number_is_named_and_a_wrong_text_is_not() -> None:
    assert number_or_text(said("12.5 billion", 12.5)).error_class == "scale_slip"
    assert number_or_text(said("rent", ["leases"])).error_class is None
