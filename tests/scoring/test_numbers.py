"""Quantities in text, and what is right, wrong, and how."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.scoring.item import Item
from harness.scoring.number_match import number
from harness.scoring.numbers import read_quantities, read_quantity, scale_of


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1,234.5", 1234.5), ("1.234,5", 1234.5), ("1 234", 1234), ("1\u00a0234,5", 1234.5), ("1'234.50", 1234.5),
        ("1,23,456", 123456), ("12,34,567.8", 1234567.8), ("3,5", 3.5), (".5", 0.5), ("1.", 1), ("007", 7),
        ("1.2e6", 1.2e6), ("1.2E-3", 0.0012), ("3 x 10^4", 3e4), ("2×10^3", 2e3),
        ("(1,234)", -1234), ("$(5.2)", -5.2), ("($5.2)", -5.2), ("-$5", -5), ("$-5", -5), ("−7", -7), ("﹣7", -7),
        ("–7", -7), ("loss of 5 million", -5e6), ("negative 4", -4), ("minus 4", -4),
        ("5k", 5e3), ("5 K", 5e3), ("5m", 5e6), ("5 mn", 5e6), ("$5bn", 5e9), ("5 Billion", 5e9), ("5-million", 5e6),
        ("2 crore", 2e7), ("3 lakh", 3e5), ("1.5 trillion", 1.5e12),
        ("12.5%", 0.125), ("12.5 percent", 0.125), ("12,5 %", 0.125), ("25 bps", 0.0025), ("(5.2%)", -0.052),
        ("US$3.5m", 3.5e6), ("€ 1.000,50", 1000.5), ("12 mg", 0.012), ("1.5 kg", 1500), ("2 hours", 7200),
        ("٣٤", 34), ("１２３", 123), ("five", 5), ("twenty-five", 25),
        ("five hundred", 500), ("five million", 5e6),
        ("two million five hundred and six thousand and seven", 2506007),
        ("Seventy Two", 72), ("nineteen hundred", 1900), ("-0", 0.0), ("1\u200b234", 1234),
    ],
)  # fmt: skip
def test_a_number_is_read_as_people_write_it(text: str, value: float) -> None:
    found = read_quantity(text)

    assert found is not None
    assert found.value == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("10-20", [10, 20]), ("10–20 %", [10, 20]), ("1,2,3", [1, 2, 3]), ("2019 2018", [2019, 2018]),
        ("18.7%>17.7%", [18.7, 17.7]), ("between 12 and 24 months", [12, 24]), ("1, 2 and 3", [1, 2, 3]),
        ("COVID19 and v1.2.3 and Q3", []), ("no number", []), ("", []), ("revenue of 5 (2019)", [5, 2019]),
        ("a\n3\nb", [3]), ("5.", [5]), ("1,234,", [1234]), ("NaN inf -inf", []),
    ],
)  # fmt: skip
def test_all_numbers_of_a_text_are_read_in_their_order(text: str, numbers: list[float]) -> None:
    assert [quantity.number for quantity in read_quantities(text)] == numbers


def test_a_reader_settles_what_one_mark_means() -> None:
    assert [q.number for q in read_quantities("1.234 and 1,234")] == [1.234, 1234]
    assert [q.number for q in read_quantities("1.234 and 1,234", decimal_mark=",")] == [1234, 1.234]


def test_brackets_are_a_minus_in_a_table_and_none_around_a_year() -> None:
    assert [q.number for q in read_quantities("(66)")] == [-66]
    assert [q.number for q in read_quantities("as reported (2019) and (12)")] == [2019, 12]
    assert [q.number for q in read_quantities("a fall of (1,200)")] == [-1200]


def test_units_and_currencies_have_one_spelling() -> None:
    assert [q.unit for q in read_quantities("$5, US$5, 5 USD, €5, 5 mg/dL, 120 mmHg")] == [
        "USD", "USD", "USD", "EUR", "mg/dl", "mmhg",
    ]  # fmt: skip


def test_scales_are_known_by_name() -> None:
    assert [scale_of(name) for name in ("", "none", "Thousand", "percent", "parsec")] == [
        (1.0, False), (1.0, False), (1e3, False), (1.0, True), None,
    ]  # fmt: skip


@given(st.floats(-1e9, 1e9), st.integers(0, 4))
def test_what_is_printed_is_read_back(value: float, decimals: int) -> None:
    written = f"{value:,.{decimals}f}"
    found = read_quantity(written)

    assert found is not None
    assert found.number == float(written.replace(",", ""))
    assert found.decimals == decimals


@given(st.text(max_size=200))
def test_no_text_breaks_the_reader(text: str) -> None:
    assert all(abs(quantity.value) < float("inf") for quantity in read_quantities(text))


def scored(answer: str, gold: str, context: str = "", **settings: Any) -> tuple[float, str | None]:
    score = number(Item(answer, (gold,), context=context, settings=settings))
    return score.value, score.error_class


@pytest.mark.parametrize(
    ("answer", "gold", "settings"),
    [
        ("12.3", "12.3", {}), ("12.30", "12.3", {}), ("$12.3 million", "12,300,000", {}),
        ("12.3", "$12.3 million", {}),
        ("12,300", "12.3", {"scale": "thousand"}), ("12.3", "12.3", {"scale": "percent"}),
        ("12.3%", "12.3", {"scale": "percent"}), ("0.123", "12.3%", {}), ("1.2 kg", "1200 g", {}),
        ("12.27", "12.3", {"decimals": "gold"}), ("12.25", "12.3", {"decimals": "gold"}),
        ("101", "100", {"tolerance": 0.01}),
        ("100.4", "100", {"absolute": 0.5}), ("(5)", "-5", {}), ("-0", "0", {}), ("5", "-5", {"sign": "ignore"}),
        ("12.3 million", "12.3", {"assume_scale": "both"}), ("-5", "(5)", {}),
    ],
)  # fmt: skip
def test_a_right_number_is_right_in_any_spelling(answer: str, gold: str, settings: dict[str, Any]) -> None:
    assert scored(answer, gold, **settings) == (1.0, None)


@pytest.mark.parametrize(
    ("answer", "gold", "error_class"),
    [
        ("12.3 kg", "12.3 g", "unit_slip"), ("$5", "€5", "unit_slip"), ("5 mg", "5 mcg", "unit_slip"),
        ("12.3 million", "12.3 thousand", "scale_slip"), ("12.3 bn", "12.3 million", "scale_slip"),
        ("12300", "12.3", "scale_slip"), ("0.0123", "12.3", "scale_slip"),
        ("12.3%", "12.3", "percent_slip"), ("1230", "12.3", "percent_slip"), ("1230%", "12.3%", "percent_slip"),
        ("-12.3", "12.3", "sign_slip"), ("(12.3)", "12.3", "sign_slip"),
        ("loss of 12.3 million", "12.3 million", "sign_slip"),
        ("12.2", "12.3", "rounding"), ("12", "12.3", "rounding"), ("12.31", "12.3", "rounding"),
        ("17.9", "12.3", "wrong_row"), ("(17.9)", "12.3", "wrong_row"), ("44", "12.3", "wrong"),
        ("0", "12.3", "wrong"),
        ("44", "0", "wrong"), ("no idea", "12.3", "unread"), ("", "12.3", "unread"),
    ],
)  # fmt: skip
def test_a_wrong_number_is_wrong_in_a_way_that_has_a_name(answer: str, gold: str, error_class: str) -> None:
    assert scored(answer, gold, "2019 | 12.3\n2018 | 17.9") == (0.0, error_class)


def test_rounding_is_asked_for_and_ends_at_half_a_digit() -> None:
    assert scored("12.27", "12.3") == (0.0, "rounding")
    assert scored("12.36", "12.3", decimals="gold")[0] == 0.0
    assert scored("12.27 million", "12.3 million", decimals="gold")[0] == 1.0


@pytest.mark.parametrize(
    "parsed", [float("nan"), float("inf"), True, "5", {"number": float("nan")}, {}, [], [None]]
)
def test_what_is_no_number_is_never_right(parsed: Any) -> None:
    assert number(Item(None, ("5",), parsed=parsed)).value == 0.0


def test_the_record_says_the_scale_of_its_gold() -> None:
    item = Item(
        "$183,297 thousand",
        ("$183,297",),
        meta={"target": {"scale": "thousand"}},
        settings={"scale_field": "target.scale"},
    )

    assert number(item).value == 1.0


def test_lists_of_numbers_are_scored_as_sets_with_each_gold_taken_once() -> None:
    def counts(answer: str) -> Any:
        return number(Item(answer, ("1", "2", "2"), settings={"list": True})).counts["number"]

    assert counts("2, 1 and 2") == (3, 0, 0)
    assert counts("2 and 1") == (2, 0, 1)
    assert counts("1 and 1 and 7") == (1, 2, 2)
