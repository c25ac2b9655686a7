"""The scorers by name, and the canaries that prove each can tell right from wrong."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from harness.errors import StatsError
from harness.scoring.labels import score_label
from harness.scoring.text import exact, normalised

Scorer = Callable[[str | None, Sequence[str]], float]

SCORERS: Mapping[str, Scorer] = {"label": score_label, "exact": exact, "normalised": normalised}


def default_scorer(task: str) -> str:
    """The scorer's name that a task takes when its suite names none."""
    return "label" if task == "classify" else "normalised"


def prove_scorer(name: str, scorer: Scorer, golds: Sequence[Sequence[str]]) -> None:
    """Sends known-good and known-bad answers of this very suite through the scorer.

    Raises:
        StatsError: a gold answer does not score 1, or a wrong, empty or missing one does not score 0.
    """
    for gold in golds[:50]:
        for good in gold:
            _expect(name, scorer, good, gold, 1.0)
        for bad in (None, "", f"\u2297 not {gold[0]}"):
            _expect(name, scorer, bad, gold, 0.0)


def checked_score(name: str, scorer: Scorer, answer: str | None, gold: Sequence[str]) -> float:
    """The score, a finite number from 0 to 1.

    Raises:
        StatsError: the scorer gave anything else; NaN would compare as neither better nor worse.
    """
    score = scorer(answer, gold)
    if not (math.isfinite(score) and 0.0 <= score <= 1.0):
        raise StatsError(f"scorer {name!r} gave {score!r} for {answer!r}, wanted a number from 0 to 1")
    return score


def _expect(name: str, scorer: Scorer, answer: str | None, gold: Sequence[str], wanted: float) -> None:
    found = scorer(answer, gold)
    if found != wanted:
        raise StatsError(
            f"scorer {name!r} can't tell right from wrong: canary answer {answer!r} to gold {list(gold)!r} "
            f"scores {found!r}, wanted {wanted}"
        )
