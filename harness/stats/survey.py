"""Rates from clusters: how many independent items a sample of documents, patients or conversations is worth.

Korn & Graubard (1998), "Confidence intervals for proportions with small expected number of positive counts
estimated from survey data", Survey Methodology 24, 193-201: Clopper-Pearson's bounds on the effective sample.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from harness.stats.tails import beta_quantile, normal_quantile


class Effective(NamedTuple):
    """A clustered sample as an independent one."""

    hits: float
    n: float
    clusters: int
    design_effect: float
    """At least 1: variance of the rate over that of as many independent items."""


def effective_sample(scores: Sequence[float], units: Sequence[str], alpha: float) -> Effective | None:
    """The sample's worth in independent items; None for no items.

    `scores` and `units` have one entry an item, shape (n,). With one item a unit this is the sample
    itself. Few clusters say little about their own spread, so the effective size shrinks further by
    the square of Student's quantile ratio at `alpha`, and the design effect is mixed with the worst case.
    """
    n = len(scores)
    if n == 0:
        return None
    totals = _totals(scores, units)
    rate, clusters = sum(scores) / n, len(totals)
    if clusters == n:
        return Effective(sum(scores), float(n), clusters, 1.0)
    mixed = min(sum(hits < size for hits, size in totals), sum(hits > 0.0 for hits, _ in totals))
    effect = _design_effect(rate, rate * (1.0 - rate), totals, mixed)
    worth = _worth(totals, effect, alpha)
    return Effective(rate * worth, worth, clusters, effect)


def paired_worth(differences: Sequence[float], units: Sequence[str], alpha: float) -> float | None:
    """How many independent pairs the pairs are worth; None for none.

    `differences` are candidate minus baseline, shape (n,). A unit that is gained or lost as a whole counts as
    little more than one pair.
    """
    n = len(differences)
    if n == 0:
        return None
    totals = _totals(differences, units)
    if len(totals) == n:
        return float(n)
    mean = sum(differences) / n
    variance = sum(difference**2 for difference in differences) / n - mean**2
    moved = {unit for difference, unit in zip(differences, units, strict=True) if difference != 0.0}
    effect = _design_effect(mean, variance, totals, min(len(moved), len(totals)))
    return _worth(totals, effect, alpha)


def effective_lower(sample: Effective, alpha: float) -> float:
    """One-sided lower bound of the rate at `alpha`."""
    if sample.hits <= 0.0:
        return 0.0
    return beta_quantile(alpha, sample.hits, sample.n - sample.hits + 1.0)


def effective_upper(sample: Effective, beta: float) -> float:
    """One-sided upper bound of the rate at `beta`."""
    return 1.0 - effective_lower(sample._replace(hits=sample.n - sample.hits), beta)


def student_quantile(probability: float, freedom: int) -> float:
    """Student's t quantile, 0.5 < probability < 1, to about 1e-3 for 3 or more degrees of freedom.

    Exact for 1 and 2; Cornish-Fisher's expansion (Abramowitz & Stegun 26.7.5) above.
    """
    if freedom <= 1:
        return math.tan(math.pi * (probability - 0.5))
    if freedom == 2:
        tail = 2.0 * probability - 1.0
        return tail * math.sqrt(2.0 / (1.0 - tail * tail))
    z = normal_quantile(probability)
    terms: Iterable[float] = (
        (z**3 + z) / 4.0,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96.0,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384.0,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160.0,
    )
    return z + math.fsum(term / freedom ** (power + 1.0) for power, term in enumerate(terms))


def _totals(scores: Sequence[float], units: Sequence[str]) -> list[tuple[float, float]]:
    """Sum of scores and number of items of each unit."""
    totals: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for score, unit in zip(scores, units, strict=True):
        totals[unit][0] += score
        totals[unit][1] += 1.0
    return [(total, size) for total, size in totals.values()]


def _worth(totals: Sequence[tuple[float, float]], effect: float, alpha: float) -> float:
    """Effective items, and never fewer than where each cluster counts as one: no clustering is worse than that."""
    clusters, n = len(totals), sum(size for _, size in totals)
    if clusters < 2:
        return 1.0
    shrink = (student_quantile(1.0 - alpha, int(n) - 1) / student_quantile(1.0 - alpha, clusters - 1)) ** 2
    return max(n / effect * shrink, n / _worst_effect(totals))


def _worst_effect(totals: Sequence[tuple[float, float]]) -> float:
    """The design effect where all items of a cluster are alike: their mean size, weighted by size (Kish)."""
    return sum(size * size for _, size in totals) / sum(size for _, size in totals)


def _design_effect(
    mean: float, variance: float, totals: Sequence[tuple[float, float]], telling: int
) -> float:
    """Variance of the mean over that of as many independent items, at least 1.

    `telling` clusters show how far clusters differ. Where they are few the data can't speak for itself, so the
    estimate is mixed with the worst case, that a cluster is all of one kind: taken alone it passes falsely up to
    36 % of the time at 5 % nominal with 20 clusters and a rate of .95. A run without a single miss is all worst case.
    """
    clusters, n = len(totals), sum(size for _, size in totals)
    worst = _worst_effect(totals)
    if clusters < 2 or variance <= 0.0:
        return worst
    spread = sum((total - mean * size) ** 2 for total, size in totals)
    seen = max(1.0, clusters / (clusters - 1.0) * spread / n / variance)
    return max(seen, (telling * seen + worst) / (telling + 1.0))
