"""Precision, recall and F1 as rates with exact bounds, and their claims by document.

F1 = 2q / (1 + q) with q = TP / (TP + FP + FN), so "F1 is at least f" says "q is at least f / (2 - f)": a plain
rate on the items that are not true negatives. Where a document holds several items, the document is the unit:
"the ratio of two sums is at least t" says that the mean of numerator - t·denominator is at least 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from harness.errors import StatsError
from harness.stats.proportions import Count, Interval, at_least_p, lower_bound, upper_bound
from harness.stats.sequential import Claim
from harness.stats.tails import require_probability


class Confusion(NamedTuple):
    """Answers for one label; true negatives play no part."""

    true_positives: int
    false_positives: int
    false_negatives: int


class Ratio(NamedTuple):
    """What one document adds to the two sums."""

    numerator: float
    denominator: float


def precision_count(confusion: Confusion) -> Count:
    """True positives of all predicted positives."""
    return Count(confusion.true_positives, confusion.true_positives + confusion.false_positives)


def recall_count(confusion: Confusion) -> Count:
    """True positives of all actual positives."""
    return Count(confusion.true_positives, confusion.true_positives + confusion.false_negatives)


def overlap_count(confusion: Confusion) -> Count:
    """True positives of all items that are not true negatives: the rate q behind F1."""
    return Count(confusion.true_positives, sum(confusion))


def f1(confusion: Confusion) -> float | None:
    """2TP / (2TP + FP + FN); None where the label neither occurs nor is predicted."""
    hits, n = overlap_count(confusion)
    return None if n == 0 else overlap_to_f1(hits / n)


def overlap_to_f1(overlap: float) -> float:
    return 2.0 * overlap / (1.0 + overlap)


def f1_to_overlap(score: float) -> float:
    return score / (2.0 - score)


def f1_bounds(confusion: Confusion, alpha: float = 0.05, beta: float = 0.05) -> Interval | None:
    """Exact one-sided bounds for F1: `low` at alpha, `high` at beta; None where there is nothing to count."""
    hits, n = overlap_count(confusion)
    low, high = lower_bound(hits, n, alpha), upper_bound(hits, n, beta)
    return None if low is None or high is None else Interval(overlap_to_f1(low), overlap_to_f1(high))


def f1_at_least_p(confusion: Confusion, threshold: float) -> float:
    """Exact p-value against "F1 is below the threshold"; 1 where there is nothing to count."""
    return at_least_p(*overlap_count(confusion), f1_to_overlap(threshold))


def precision_ratio(confusion: Confusion) -> Ratio:
    return Ratio(*precision_count(confusion))


def recall_ratio(confusion: Confusion) -> Ratio:
    return Ratio(*recall_count(confusion))


def f1_ratio(confusion: Confusion) -> Ratio:
    hits, n = overlap_count(confusion)
    return Ratio(2 * hits, n + hits)


def ratio_claim(
    threshold: float,
    largest: float,
    n_max: int,
    *,
    alpha: float = 0.05,
    beta: float = 0.05,
    prior_variance: float | None = None,
) -> Claim:
    """ "The ratio of the sums is at least `threshold`" as a betting claim on `ratio_scores`.

    `largest` is the greatest denominator that a document can have, fixed before the run.
    """
    require_probability("threshold", threshold)
    return Claim(0.0, n_max, alpha, beta, -threshold * largest, (1.0 - threshold) * largest, prior_variance)


def ratio_scores(ratios: Iterable[Ratio], threshold: float, largest: float) -> list[float]:
    """numerator - threshold·denominator of each document.

    Raises:
        StatsError: a denominator is greater than `largest`, or a numerator than its denominator.
    """
    ratios = list(ratios)
    for ratio in ratios:
        if not 0.0 <= ratio.numerator <= ratio.denominator <= largest:
            raise StatsError(f"{ratio}: wanted 0 ≤ numerator ≤ denominator ≤ {largest:g}")
    return [ratio.numerator - threshold * ratio.denominator for ratio in ratios]


def ratio_bounds(ratios: Sequence[Ratio], alpha: float = 0.05, beta: float = 0.05) -> Interval | None:
    """One-sided bounds for the ratio of the sums, with documents as units, by linearisation and Student's t.

    For 50 documents and more; with fewer, or where a few documents hold most of the items, use the betting
    claim. None for fewer than 2 documents, an empty denominator, or documents that all agree to the digit.
    """
    require_probability("alpha", alpha)
    require_probability("beta", beta)
    count, total = len(ratios), sum(ratio.denominator for ratio in ratios)
    if count < 2 or total <= 0.0:
        return None
    estimate = sum(ratio.numerator for ratio in ratios) / total
    squares = sum((ratio.numerator - estimate * ratio.denominator) ** 2 for ratio in ratios)
    error = math.sqrt(squares * count / (count - 1)) / total
    return None if error == 0.0 else _around(estimate, error, count - 1, alpha, beta)


def _around(estimate: float, error: float, freedom: int, alpha: float, beta: float) -> Interval:
    from scipy.special import stdtrit

    low = estimate - error * float(stdtrit(freedom, 1.0 - alpha))
    high = estimate + error * float(stdtrit(freedom, 1.0 - beta))
    return Interval(max(0.0, low), min(1.0, high))
