"""What an answer has to say, and must not say, record by record."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import StatsError
from harness.scoring.item import Item, Score
from harness.scoring.mentions import mentions

BOTH = {"required_field": "facts.say", "banned_field": "facts.shun"}


def scored(answer: str | None, say: list[str], shun: list[str], **settings: Any) -> Score:
    return mentions(Item(answer, (), meta={"facts": {"say": say, "shun": shun}}, settings=settings or BOTH))


@pytest.mark.parametrize(
    ("answer", "value", "error_class"),
    [
        ("You have 30 days and the label is free.", 1.0, None),
        ("You have THIRTY  days\nand the label is free.", 1.0, None),
        ("You have 130 days; the label is free.", 0.5, "missing_phrase"),
        ("You have 30 days. The label is free, and refunds are instant.", 0.0, "banned_phrase"),
        ("Hello!", 0.0, "missing_phrase"),
        ("", 0.0, "no_answer"),
        (None, 0.0, "no_answer"),
    ],
)
def test_required_phrases_count_and_a_banned_one_undoes_them(
    answer: str | None, value: float, error_class: str | None
) -> None:
    found = scored(answer, ["30 days|thirty days", "label is free"], ["instant"])

    assert found.value == pytest.approx(value)
    assert found.error_class == error_class


def test_counts_say_what_was_said_left_out_and_banned() -> None:
    found = scored("30 days, instant", ["30 days", "free"], ["instant", "cash"])

    assert found.counts == {"required": (1, 0, 1), "banned": (0, 1, 0)}
    assert found.note == "instant; free"


def test_a_phrase_inside_a_word_is_not_said() -> None:
    assert scored("a freedom fighter", ["free"], []).value == 0.0


def test_a_denied_phrase_is_still_said() -> None:
    """A known weakness, which the documentation states."""
    assert scored("We never offer free returns.", [], ["free returns"]).error_class == "banned_phrase"


def test_signs_in_a_phrase_are_taken_as_they_are() -> None:
    assert scored("It is 4.99 (incl. VAT).", ["4.99 (incl. VAT)"], []).value == 1.0
    assert scored("It is 4x99.", ["4.99"], []).value == 0.0


def test_without_a_field_or_with_other_things_than_texts_it_refuses() -> None:
    with pytest.raises(StatsError, match="no phrases"):
        mentions(Item("x", (), settings={}))
    with pytest.raises(StatsError, match="wanted a list of texts"):
        mentions(Item("x", (), meta={"facts": {"say": "30 days"}}, settings=BOTH))


@given(st.lists(st.text(min_size=1, max_size=12), max_size=4), st.text(max_size=50))
def test_any_phrase_gives_a_score_between_0_and_1(phrases: list[str], answer: str) -> None:
    assert 0.0 <= scored(answer, phrases, phrases).value <= 1.0
