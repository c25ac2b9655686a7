"""Length and form."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import StatsError
from harness.scoring.form import count_sentences, form
from harness.scoring.item import Item
from harness.scoring.scorers import prove_scorer


def broken(answer: str | None, **settings: Any) -> str | None:
    return form(Item(answer, (), settings=settings)).error_class


@pytest.mark.parametrize(
    ("answer", "settings", "rule"),
    [
        ("one two", {"max_words": 2}, None), ("one two three", {"max_words": 2}, "max_words"),
        ("one", {"min_words": 2}, "min_words"),
        ("A b. C d!", {"max_sentences": 2}, None), ("A b. C", {"max_sentences": 1}, "max_sentences"),
        ("- a\n* b\n1. c\n(x)", {"min_bullets": 3, "max_bullets": 3}, None),
        ("- a", {"min_bullets": 2}, "min_bullets"),
        ("ab", {"max_chars": 2}, None), ("abc", {"max_chars": 2}, "max_chars"), ("a\n\nb", {"max_lines": 2}, None),
        ("As an AI I say", {"banned": ("as an  ai",)}, "banned"), ("fine", {"banned": "as an ai"}, None),
        ("Answer: 5", {"required": ("ANSWER:",)}, None), ("5", {"required": "answer"}, "required"),
        ("Answer: 5", {"matches": r"Answer: \d+"}, None), ("Answer: five", {"matches": r"Answer: \d+"}, "matches"),
        ("Answer: 5 or so", {"matches": r"Answer: \d+"}, "matches"), ("\ud800", {"matches": "a"}, "matches"),
        (None, {"max_words": 5}, "no_answer"), ("", {"max_words": 5}, None),
    ],
)  # fmt: skip
def test_each_rule_is_kept_or_named(answer: str | None, settings: dict[str, Any], rule: str | None) -> None:
    assert broken(answer, **settings) == rule


def test_rules_are_counted_apart() -> None:
    found = form(Item("one two three", (), settings={"max_words": 2, "min_words": 1, "banned": "two"}))

    assert found.counts == {"min_words": (1, 0, 0), "max_words": (0, 0, 1), "banned": (0, 0, 1)}
    assert (found.value, found.note) == (0.0, "max_words, banned")


def test_abbreviations_count_as_ends_and_a_missing_mark_does_not_hide_a_sentence() -> None:
    assert [count_sentences(text) for text in ("", "a", "a.", "a. b", 'He said "no." Then', "3.5 kg.", "a?! b…")] == [
        0, 1, 1, 2, 2, 1, 2,
    ]  # fmt: skip


@pytest.mark.parametrize("pattern", ["(a+)+b", "(a|a)*b", "(.*)*x", "(x+x+)+y"])
def test_patterns_that_explode_elsewhere_take_linear_time(pattern: str) -> None:
    assert broken("a" * 200_000, matches=pattern) == "matches"


@pytest.mark.parametrize("pattern", ["(", "(?=a)", r"(a)\1", "a{1,100000}"])
def test_a_pattern_that_can_not_be_read_stops_the_run_and_is_named(pattern: str) -> None:
    with pytest.raises(StatsError, match="RE2 can't read the pattern"):
        broken("a", matches=pattern)


def test_no_rule_at_all_stops_the_run() -> None:
    with pytest.raises(StatsError, match="no rule"):
        broken("a")


def test_a_pattern_needs_an_example_that_proves_it() -> None:
    item = Item(None, ("x",), settings={"matches": r"Answer: \d+"})
    with pytest.raises(StatsError, match="can't be proven"):
        prove_scorer("form", [item])
    prove_scorer("form", [Item(None, ("x",), settings={"matches": r"Answer: \d+", "example": "Answer: 5"})])
    with pytest.raises(StatsError, match="can't tell right from wrong"):
        prove_scorer("form", [Item(None, ("x",), settings={"matches": r"Answer: \d+", "example": "five"})])


names = st.sampled_from(["words", "sentences", "bullets", "chars", "lines"])


@given(st.dictionaries(names, st.integers(1, 12), min_size=1, max_size=1), st.sampled_from(["min_", "max_"]))
def test_canaries_are_made_for_any_rule(limits: dict[str, int], side: str) -> None:
    prove_scorer("form", [Item(None, ("x",), settings={f"{side}{name}": n for name, n in limits.items()})])
