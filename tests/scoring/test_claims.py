"""Promises that nobody may make, and answers that are surer than their source."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.scoring.claims import FORBIDDEN, certainty, find_claims, forbidden_claims
from harness.scoring.item import Item

REPORT = "Sales may fall in May. The bank repaid 40 million. Deposits are state guaranteed."


def said(answer: str | None, context: str = REPORT) -> Item:
    return Item(answer, ("x",), context=context)


@pytest.mark.parametrize(
    ("answer", "theme"),
    [
        ("Returns are guaranteed.", "guarantee"),
        ("We guarantee that nothing is lost.", "guarantee"),
        ("This is a RISK-FREE bond.", "risk_free"),
        ("There is no risk in it.", "risk_free"),
        ("Holders cannot lose.", "cannot_lose"),
        ("You can't lose money here.", "cannot_lose"),
        ("Prices will definitely rise.", "sure_gain"),
        ("It is a safe bet.", "sure_gain"),
        ("Investors should buy.", "advice"),
        ("Sell now!", "advice"),
        ("A guaran\nteed thing; returns are\nguaranteed", "guarantee"),
        (None, "no_answer"),
    ],
)
def test_forbidden_claims_are_found_by_theme(answer: str | None, theme: str) -> None:
    score = forbidden_claims(said(answer))

    assert (score.value, score.error_class) == (0.0, theme)


@pytest.mark.parametrize(
    "answer",
    [
        "Returns are not guaranteed.",
        "No return is guaranteed, and holders may lose all.",
        "It is not without risk.",
        "Deposits are state guaranteed.",
        "The company will rise to speak; prices rose.",
        "The board should act on pay.",
        "Losses cannot be excluded.",
        "",
    ],
)
def test_denied_copied_and_harmless_words_pass(answer: str) -> None:
    assert forbidden_claims(said(answer)).value == 1.0


def test_what_the_source_says_can_be_forbidden_too() -> None:
    item = Item("Deposits are guaranteed.", ("x",), context=REPORT, settings={"copied": False})

    assert forbidden_claims(item).error_class == "guarantee"


def test_all_claims_are_listed_in_the_order_of_the_answer() -> None:
    themes = [
        theme for theme, _ in find_claims("A risk-free, guaranteed gain: you should buy; you never lose.")
    ]

    assert themes == ["risk_free", "guarantee", "advice", "cannot_lose"]
    assert set(themes) < set(FORBIDDEN)


@pytest.mark.parametrize(
    ("answer", "value", "error_class"),
    [
        ("Sales might fall in May. The bank repaid 40 million.", 1.0, None),
        ("Sales fall in May.", 0.0, "overclaim"),
        ("The bank repaid 40 million, and sales may fall in May.", 1.0, None),
        ("The bank may have repaid 40 million.", 0.0, "underclaim"),
        ("Sales could fall in May. The bank might have repaid 40 million.", 0.5, "underclaim"),
        ("Whales sing at dusk.", 0.0, "unmatched"),
        ("", 0.0, "empty"),
        (None, 0.0, "empty"),
    ],
)
def test_a_sentence_is_as_sure_as_its_source(
    answer: str | None, value: float, error_class: str | None
) -> None:
    score = certainty(said(answer))

    assert (score.value, score.error_class) == (value, error_class)


@given(st.text(max_size=300))
def test_no_text_breaks_the_scorers(text: str) -> None:
    for scorer in (forbidden_claims, certainty):
        assert 0.0 <= scorer(said(text)).value <= 1.0
