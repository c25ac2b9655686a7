"""lm-eval's exact_match: steps, then what is ignored. lm-eval's own verdicts are in the contract tests."""

from __future__ import annotations

import json
from typing import Any

import pytest

from harness.scoring.item import Item
from harness.scoring.lm_match import lm_eval_match
from harness.scoring.scorers import prove_scorer


def score(answer: str | None, *golds: str, **settings: Any) -> float:
    return lm_eval_match(Item(answer, golds, settings=settings)).value


def step(function: str, **values: Any) -> str:
    return json.dumps(
        {"function": function, "regex_pattern": "", "group_select": 0, "fallback": "[invalid]", **values}
    )


def test_without_settings_every_character_counts() -> None:
    assert score("yes", "no", "yes") == 1.0
    assert score(" yes", "yes") == 0.0
    assert score("Yes", "yes") == 0.0
    assert score(None, "yes") == 0.0


def test_what_the_settings_ignore_does_not_count() -> None:
    assert score("Yes!", "yes", ignore_case=True, ignore_punctuation=True) == 1.0
    assert score("a1b", "ab", ignore_numbers=True) == 1.0
    assert score("$5", "5", regexes_to_ignore=(r"\$", ",")) == 1.0


@pytest.mark.parametrize(
    ("answer", "select", "value"),
    [
        ("#### 12", 0, 1.0),
        ("#### 3 #### 12", 0, 0.0),
        ("#### 3 #### 12", -1, 1.0),
        ("12", 0, 0.0),
        ("#### 12", 3, 0.0),
    ],
)
def test_a_pattern_s_match_is_the_answer(answer: str, select: int, value: float) -> None:
    steps = (step("regex", regex_pattern=r"#### (\d+)", group_select=select),)

    assert score(answer, "12", steps=steps) == value


def test_of_several_groups_the_first_that_is_not_empty_counts() -> None:
    steps = (step("regex", regex_pattern=r"(\d+) apples|no (apples)"), step("uppercase"))

    assert score("no apples", "APPLES", steps=steps) == 1.0


def test_steps_follow_each_other() -> None:
    assert score("  B ", "b", steps=(step("remove_whitespace"), step("lowercase"))) == 1.0


def test_golds_prove_the_scorer_whatever_its_steps_look_for() -> None:
    settings = {"steps": (step("regex", regex_pattern=r"#### (\d+)"),)}

    prove_scorer("lm_eval_match", [Item(None, ("12",), settings=settings)])
