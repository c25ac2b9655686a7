"""Every scorer with what a broken or hostile model may write."""

from __future__ import annotations

import math
import sys
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.scoring.canaries import CANARIES, text_canaries
from harness.scoring.item import Item
from harness.scoring.parse import read_answer
from harness.scoring.scorers import SCORERS, checked_score
from tests.scoring.golds import golds_for

MEGABYTE = 1_000_000
SHAPES = [
    "a", " ", "\n", "1", "1 ", "1,", "(", "[", '{"a":', '"', "\\", "```\n", "- ", "a@", "1.", "::", "[1]",
    "$", "−", "“",
    "A b ", "I'm sorry ", "answer is ", "\u0301", "\U0001f600", "\u200b", "ab, ", ". ",
]  # fmt: skip
ODD = [
    "", " ", "0", "-0", "-0.0", "NaN", "nan", "inf", "-inf", "null", "None", "true", "[]", "{}", "[null]", "\x00",
    "\ud800",
    "\udfff x", "\ufeff{}", "\u202egnp.exe", "ﬁ", "İ", "ß", "ǅ", "𝟙𝟚", "１２", "½", "٣", "1e400", "-1e-400", "9" * 5000,
    "[" * 5000, '{"a":' * 5000, '{"__proto__": {"a": 1}}', "<script>", "${jndi:x}", "%s%n", "\r\n" * 10, "a\u0300" * 50,
]  # fmt: skip


@pytest.mark.parametrize("name", sorted(SCORERS))
def test_odd_answers_get_a_score_and_never_an_exception(name: str) -> None:
    for item in golds_for(name):
        for text in ODD:
            checked_score(name, replace(item, answer=text))
            checked_score(name, replace(item, answer=text, parsed=text))


@pytest.mark.parametrize("name", sorted(SCORERS))
def test_odd_parsed_values_get_a_score_and_never_an_exception(name: str) -> None:
    deep: Any = []
    for _ in range(50):
        deep = [deep, {"a": deep}][:1]
    values = [
        math.nan,
        math.inf,
        -0.0,
        0,
        True,
        [],
        {},
        [None],
        [[1]],
        [{}],
        {"a": None},
        {"number": "x"},
        deep,
        {"text": 5},
    ]
    values += [
        [{"text": None, "start": 1.5, "end": "2"}],
        {"logprob": math.nan, "tok": 1},
        ["x"] * 2000,
        [math.nan] * 3,
    ]
    for item in golds_for(name):
        for value in values:
            checked_score(name, replace(item, parsed=value))


@pytest.mark.parametrize("name", sorted(SCORERS))
def test_ten_times_the_answer_is_ten_times_the_work(name: str) -> None:
    """Counts the interpreter's calls, which do not depend on the machine, at two lengths."""
    item = golds_for(name)[0]
    for shape in SHAPES:
        small, large = (
            _calls(name, replace(item, answer=shape * (size // len(shape)))) for size in (1_000, 10_000)
        )
        assert large <= 20 * small + 2_000, (shape, small, large)


@pytest.mark.parametrize("name", sorted(SCORERS))
def test_a_large_answer_is_scored(name: str) -> None:
    for shape in ("a", "1 ", "["):
        checked_score(name, replace(golds_for(name)[0], answer=shape * (100_000 // len(shape))))


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(SCORERS))
def test_a_megabyte_of_anything_is_scored(name: str) -> None:
    for shape in SHAPES:
        checked_score(name, replace(golds_for(name)[0], answer=shape * (MEGABYTE // len(shape))))


@pytest.mark.slow
@pytest.mark.parametrize("task", ["multi_label", "extract", "spans", "number"])
def test_a_megabyte_of_anything_is_read(task: str) -> None:
    for shape in SHAPES:
        read_answer(task, shape * (MEGABYTE // len(shape)), labels=("a", "b, c"), source="a b c " * 100)


@pytest.mark.parametrize("name", sorted(SCORERS))
@given(answer=st.text(max_size=80))
def test_no_text_breaks_a_scorer(name: str, answer: str) -> None:
    for item in golds_for(name):
        assert 0.0 <= checked_score(name, replace(item, answer=answer)).value <= 1.0


@pytest.mark.parametrize("name", sorted(SCORERS))
def test_a_score_is_the_same_each_time(name: str) -> None:
    for item in golds_for(name):
        canaries = CANARIES.get(name, text_canaries)(item)
        for one in (*canaries.good, *canaries.bad):
            assert checked_score(name, one) == checked_score(name, one)


@pytest.mark.parametrize("name", sorted(SCORERS))
def test_no_scorer_changes_what_it_is_given(name: str) -> None:
    for gold in golds_for(name):
        item = replace(gold, answer="x", parsed={"name": "Ann", "tags": ["x", "x"]})
        before = deepcopy(item)

        checked_score(name, item)

        assert item == before


def _calls(name: str, item: Item) -> int:
    calls = 0

    def count(_frame: Any, event: str, _arg: Any) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    checked_score(name, item)  # imports are not counted
    sys.setprofile(count)
    try:
        checked_score(name, item)
    finally:
        sys.setprofile(None)
    return calls
