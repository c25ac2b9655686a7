"""Intervals and tests for a rate: Clopper-Pearson for verdicts, Wilson for display, Newcombe for gaps.

No items means no interval: every function gives None for n = 0, and a gate reads that as INCONCLUSIVE.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from harness.stats.tails import (
    at_least_tail,
    at_most_tail,
    beta_quantile,
    normal_quantile,
    require_counts,
    require_probability,
)


class Interval(NamedTuple):
    """Two ends of an interval, or two one-sided bounds."""

    low: float
    high: float


class Count(NamedTuple):
    """How many of how many."""

    hits: int
    n: int


class Gap(NamedTuple):
    """How much better one group is than another."""

    better: str
    worse: str
    gap: float
    """Rate of `better` minus rate of `worse`; negative when the names are the other way round."""
    low: float
    """One-sided lower bound of the gap."""
    high: float
    """One-sided upper bound of the gap."""


def lower_bound(hits: int, n: int, alpha: float) -> float | None:
    """Clopper-Pearson's one-sided lower bound: a lower true rate gives this many hits with P < alpha."""
    require_counts(hits, n)
    require_probability("alpha", alpha)
    if n == 0:
        return None
    return 0.0 if hits == 0 else beta_quantile(alpha, hits, n - hits + 1)


def upper_bound(hits: int, n: int, beta: float) -> float | None:
    """Clopper-Pearson's one-sided upper bound: a higher true rate gives so few hits with P < beta."""
    require_counts(hits, n)
    low = lower_bound(n - hits, n, beta)
    return None if low is None else 1.0 - low


def clopper_pearson(hits: int, n: int, confidence: float = 0.95) -> Interval | None:
    """The exact two-sided interval for a rate; None for n = 0."""
    tail = (1.0 - confidence) / 2.0
    return _pair(lower_bound(hits, n, tail), upper_bound(hits, n, tail))


def wilson(hits: int, n: int, confidence: float = 0.95) -> Interval | None:
    """Wilson's score interval for a rate, for display; None for n = 0."""
    require_probability("confidence", confidence)
    return wilson_at(hits, n, normal_quantile((1.0 + confidence) / 2.0))


def wilson_at(hits: int, n: int, z: float) -> Interval | None:
    """Wilson's score interval at `z` standard errors; None for n = 0."""
    require_counts(hits, n)
    if n == 0:
        return None
    rate, spread = hits / n, z * z / n
    middle = (rate + spread / 2.0) / (1.0 + spread)
    half = math.sqrt(rate * (1.0 - rate) * spread + spread * spread / 4.0) / (1.0 + spread)
    # Rounding must not turn "none of n" into a bound of 1e-18.
    low = 0.0 if hits == 0 else max(0.0, middle - half)
    return Interval(low, 1.0 if hits == n else min(1.0, middle + half))


def at_least_p(hits: int, n: int, threshold: float) -> float:
    """Exact p-value against "the rate is below the threshold"; 1 for n = 0."""
    require_counts(hits, n)
    return at_least_tail(hits, n, threshold)


def at_most_p(hits: int, n: int, threshold: float) -> float:
    """Exact p-value against "the rate is above the threshold"; 1 for n = 0."""
    require_counts(hits, n)
    return at_most_tail(hits, n, threshold)


def newcombe(a: Count, b: Count, confidence: float = 0.95) -> Interval | None:
    """Newcombe's interval (his method 10) for rate a minus rate b of two separate groups; None if one is empty.

    Newcombe (1998), Statistics in Medicine 17, 873-890.
    """
    require_probability("confidence", confidence)
    return newcombe_at(a, b, normal_quantile((1.0 + confidence) / 2.0))


def newcombe_at(a: Count, b: Count, z: float) -> Interval | None:
    """Newcombe's interval at `z` standard errors; each end alone is a one-sided bound."""
    of_a, of_b = wilson_at(a.hits, a.n, z), wilson_at(b.hits, b.n, z)
    if of_a is None or of_b is None:
        return None
    rate_a, rate_b = a.hits / a.n, b.hits / b.n
    gap = rate_a - rate_b
    below = math.hypot(rate_a - of_a.low, of_b.high - rate_b)
    above = math.hypot(of_a.high - rate_a, rate_b - of_b.low)
    return Interval(max(-1.0, gap - below), min(1.0, gap + above))


def pairwise_gaps(groups: Mapping[str, Count], alpha: float = 0.05, beta: float = 0.05) -> list[Gap]:
    """Every ordered pair of groups that have items, with one-sided bounds: `high` at alpha, `low` at beta."""
    require_probability("alpha", alpha)
    require_probability("beta", beta)
    z_high, z_low = normal_quantile(1.0 - alpha), normal_quantile(1.0 - beta)
    filled = {name: count for name, count in groups.items() if count.n > 0}
    pairs = [(a, b) for a in filled for b in filled if a != b]
    return [_gap(a, b, filled[a], filled[b], z_low, z_high) for a, b in pairs]


def _gap(name_a: str, name_b: str, a: Count, b: Count, z_low: float, z_high: float) -> Gap:
    low, high = newcombe_at(a, b, z_low), newcombe_at(a, b, z_high)
    assert low is not None
    assert high is not None
    return Gap(name_a, name_b, a.hits / a.n - b.hits / b.n, low.low, high.high)


def _pair(low: float | None, high: float | None) -> Interval | None:
    return None if low is None or high is None else Interval(low, high)
