"""Macro averages: the mean of the labels' precision, recall or F1, where rare labels weigh as much as frequent ones."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import partial

from harness.evals.results import RuleVerdict
from harness.evals.rules.decide import Bounds, aim_of, decide, judge_parts, nothing
from harness.evals.rules.rates import RATIOS, CountedPart, counted_bounds, counted_n
from harness.specs.gate import Gate
from harness.stats.survey import student_quantile


def judge_macro(gate: Gate, suite: str, parts: Sequence[CountedPart], items: int) -> list[RuleVerdict]:
    """The rule's verdict on the mean over the labels that occur among the gold ones of `items` items.

    An answer that is no such label is a miss of the right one, and makes no label of its own.
    """
    parts = [
        part for part in parts if any(cells.true_positives + cells.false_negatives for cells in part.counts)
    ]
    if not parts:
        return [decide(gate, suite, "all", nothing("no items were scored"))]
    return judge_parts(gate, suite, {"all": partial(macro_bounds, gate, parts, items)}, aim=aim_of(gate))


def macro_bounds(
    gate: Gate, parts: Sequence[CountedPart], items: int, low_error: float, high_error: float
) -> Bounds:
    """The mean over labels with the wider of two bounds on either side.

    One recovers the variance of the mean from each label's own bounds, so that a label with two items counts as
    uncertain even where both are right (Zou & Donner 2008, Statistics in Medicine 27, 1693-1702). The other is
    the linearised cluster-robust one, which sees that a mistake between two labels hurts both. A label that
    occurs and is never answered has precision 0.
    """
    found = [counted_bounds(gate, part, low_error, high_error) for part in parts]
    scores = [bounds.score or 0.0 for bounds in found]
    mean, count = math.fsum(scores) / len(parts), len(parts)
    below = _recovered(score - (bounds.low or 0.0) for score, bounds in zip(scores, found, strict=True))
    above = _recovered(
        (1.0 if bounds.high is None else bounds.high) - score for score, bounds in zip(scores, found, strict=True)
    )  # fmt: skip
    error, units = _linear_error(gate, parts, scores)
    if units < 2:
        return Bounds(items, mean, None, None, "one unit says nothing about how units differ")
    low = mean - max(below, error * student_quantile(1.0 - low_error, units - 1))
    high = mean + max(above, error * student_quantile(1.0 - high_error, units - 1))
    rare = [part.name for part in parts if counted_n(gate, part) < gate.min_n]
    named = f"; fewer than {gate.min_n} items: {', '.join(rare[:5])}" if rare else ""
    return Bounds(items, mean, max(0.0, low), min(1.0, high), f"mean of {count} labels{named}")


def _recovered(gaps: Iterable[float]) -> float:
    """The half-width of a mean of independent parts, from the half-widths of the parts."""
    widths = list(gaps)
    return math.sqrt(math.fsum(width * width for width in widths)) / len(widths)


def _linear_error(gate: Gate, parts: Sequence[CountedPart], scores: Sequence[float]) -> tuple[float, int]:
    """Standard error of the mean over labels with units as clusters, and the number of units."""
    influence: dict[str, float] = {}
    for part, score in zip(parts, scores, strict=True):
        ratios = [RATIOS[gate.metric](cells) for cells in part.counts]
        total = sum(ratio.denominator for ratio in ratios)
        for ratio, unit in zip(ratios, part.units, strict=True):
            share = (ratio.numerator - score * ratio.denominator) / total if total else 0.0
            influence[unit] = influence.get(unit, 0.0) + share / len(parts)
    units = len(influence)
    squares = math.fsum(value * value for value in influence.values())
    return (math.sqrt(squares * units / (units - 1)) if units > 1 else 0.0), units
