"""Terms of clauses: laws, days, sums and quotations that are what they say, and those that are not."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import StatsError
from harness.scoring.clause_terms import check_term, clause_terms, read_date
from harness.scoring.item import Item, Score
from harness.scoring.jurisdictions import find_jurisdictions

CLAUSE = (
    "This Agreement takes effect on 1 March 2024 and is governed by the laws of England and Wales. "
    "Neither party is liable for more than EUR 250,000 in any year."
)
SETTINGS = {"jurisdiction": "law", "date": "from", "amount": "cap", "quote": "words"}
GOLD = {
    "law": "England and Wales",
    "from": "2024-03-01",
    "cap": 250000,
    "words": "governed by the laws of England",
}


def scored(said: Any, gold: dict[str, Any] | None = None, **settings: Any) -> Score:
    return clause_terms(
        Item(None, (), parsed=said, target=gold or GOLD, input=CLAUSE, settings=settings or SETTINGS)
    )


def test_the_gold_is_right_in_every_term() -> None:
    found = scored(GOLD)

    assert (found.value, found.error_class) == (1.0, None)
    assert found.counts == dict.fromkeys(("law", "from", "cap", "words"), (1, 0, 0))


@pytest.mark.parametrize(
    ("kind", "value", "problem"),
    [
        ("jurisdiction", "the laws of Wales", None),
        ("jurisdiction", "the courts of competent authority", "no_jurisdiction"),
        ("jurisdiction", "France", "not_in_source"),
        ("jurisdiction", "english", "no_jurisdiction"),
        ("date", "March 1st, 2024", None),
        ("date", "01.03.2024", None),
        ("date", "2024-02-30", "no_date"),
        ("date", "the Effective Date", "no_date"),
        ("date", "01/03/2024", "ambiguous_date"),
        ("date", "2 March 2024", "not_in_source"),
        ("amount", "€250,000", None),
        ("amount", "0.25 million euros", None),
        ("amount", "250", "not_in_source"),
        ("amount", "-250,000", "no_amount"),
        ("amount", "a reasonable sum", "no_amount"),
        ("amount", "250000 or 300000", "no_amount"),
        ("amount", "12 %", "no_amount"),
        ("quote", "liable for more than EUR 250,000", None),
        ("quote", "liable for more than EUR 25,000", "quote_not_found"),
        ("quote", "  ", "missing_term"),
        ("quote", True, "missing_term"),
    ],
)
def test_a_term_is_what_it_should_be_or_says_why_not(kind: str, value: Any, problem: str | None) -> None:
    assert check_term(kind, value, CLAUSE) == problem


def test_wrong_left_out_and_invented_terms_are_counted_apart() -> None:
    gold = {**GOLD, "cap": None}

    found = scored({"law": "Atlantis", "from": None, "cap": 250000, "words": GOLD["words"]}, gold)

    assert found.value == 0.25
    assert found.counts == {"law": (0, 1, 1), "from": (0, 0, 1), "cap": (0, 1, 0), "words": (1, 0, 0)}
    assert found.note == "law: no_jurisdiction; from: missing_term; cap: invented_term"


def test_nothing_where_the_gold_says_nothing_is_right() -> None:
    assert scored({"law": None}, {"law": None}, jurisdiction="law").value == 1.0
    assert scored({}, {"law": None}, jurisdiction="law").value == 1.0


@pytest.mark.parametrize("said", [None, [], "not json", 3])
def test_what_is_no_object_is_wrong(said: Any) -> None:
    assert scored(said).error_class == "not_json"


def test_without_fields_it_refuses() -> None:
    with pytest.raises(StatsError, match="no field to check"):
        clause_terms(Item(None, (), parsed={}, settings={"tolerance": 1}))


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("the laws of the State of New\nYork", {"New York"}),
        ("West Virginia law", {"West Virginia"}),
        ("the law of Virginia", {"Virginia"}),
        ("English law", {"England"}),
        ("written in the English language", set()),
        ("a turkey sandwich", set()),
        ("GOVERNED BY THE LAWS OF GERMANY", {"Germany"}),
        ("the Swiss Confederation under Swiss law", {"Switzerland"}),
        ("British Virgin Islands", {"British Virgin Islands"}),
        ("Delawarean", set()),
    ],
)
def test_jurisdictions_are_read_in_any_of_their_spellings(text: str, names: set[str]) -> None:
    assert find_jurisdictions(text) == names


@given(st.dates(min_value=date(1900, 1, 1), max_value=date(2199, 12, 31)))
def test_a_date_is_read_however_it_is_spelled(day: date) -> None:
    spelled = [
        day.isoformat(), f"{day.day} {day:%B} {day.year}", f"{day:%B} {day.day}, {day.year}", f"{day:%d.%m.%Y}",
        f"{day.day}th day of {day:%B}, {day.year}", f"{day:%b}. {day.day}, {day.year}",
    ]  # fmt: skip

    assert [read_date(text) for text in spelled] == [day] * len(spelled)


@given(st.integers(1, 31), st.integers(1, 12))
def test_a_numeric_date_is_read_only_where_it_can_be_one_day_alone(day: int, month: int) -> None:
    found = read_date(f"{day}/{month}/2024")

    if day <= 12 and day != month:
        assert found is None
    elif found is not None:
        assert (found.day, found.month) == (day, month)
