import math

import pytest

from harness.errors import StatsError
from harness.scoring.labels import choose, score_label
from harness.scoring.scorers import SCORERS, checked_score, prove_scorer
from harness.scoring.text import exact, normalise, normalised


def test_the_most_probable_label_is_chosen_with_its_probability() -> None:
    choice = choose(["a", "b", "c"], [math.log(0.2), math.log(0.6), math.log(0.2)])

    assert choice is not None
    assert (choice.label, choice.confidence) == ("b", pytest.approx(0.6))
    assert sum(choice.probs.values()) == pytest.approx(1.0)


def test_tiny_log_probabilities_do_not_underflow() -> None:
    choice = choose(["a", "b"], [-2000.0, -2001.0])

    assert choice is not None
    assert choice.confidence == pytest.approx(1 / (1 + math.exp(-1)))


@pytest.mark.parametrize("logprobs", [[math.nan, -1.0], [-math.inf, -math.inf], [-1.0]])
def test_unusable_log_probabilities_are_no_answer(logprobs: list[float]) -> None:
    assert choose(["a", "b"], logprobs) is None


def test_a_missing_answer_is_wrong() -> None:
    assert [scorer(None, ["a"]) for scorer in SCORERS.values()] == [0.0] * len(SCORERS)


def test_normalisation_drops_case_articles_and_punctuation() -> None:
    assert normalise("  The State of New-York. ") == "state of newyork"
    assert normalised("the State of Delaware", ["State of Delaware."]) == 1.0
    assert normalised("the", ["a"]) == 0.0
    assert exact(" x ", ["x"]) == 1.0
    assert score_label("x ", ["x"]) == 0.0


@pytest.mark.parametrize("name", sorted(SCORERS))
def test_each_scorer_tells_its_canaries_apart(name: str) -> None:
    prove_scorer(name, SCORERS[name], [["Governing Law"], ["Warranty", "Payment Terms"]])


@pytest.mark.parametrize("constant", [0.0, 1.0])
def test_a_scorer_that_always_says_the_same_is_stopped(constant: float) -> None:
    with pytest.raises(StatsError, match="can't tell right from wrong"):
        prove_scorer("constant", lambda _answer, _gold: constant, [["a"]])


@pytest.mark.parametrize("value", [math.nan, math.inf, -0.1, 1.1])
def test_a_score_that_is_no_score_is_refused(value: float) -> None:
    with pytest.raises(StatsError, match="wanted a number"):
        checked_score("odd", lambda _answer, _gold: value, "a", ["a"])
