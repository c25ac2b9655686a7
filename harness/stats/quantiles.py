"""Bounds for a quantile, such as a latency's 95th percentile, whatever the distribution.

The number of values at or under the true quantile is binomial, so an order statistic is a bound with an exact
confidence (David & Nagaraja, Order Statistics, 2003, section 7.1).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from harness.errors import StatsError
from harness.stats.power import fewest_items
from harness.stats.proportions import Interval
from harness.stats.tails import at_least_tail, at_most_tail, require_probability


def quantile(values: Sequence[float], share: float) -> float | None:
    """The least value that at least `share` of the values don't exceed; None without values."""
    require_probability("share", share)
    ordered = _sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * share - 1e-9) - 1)] if ordered else None


def quantile_upper_bound(values: Sequence[float], share: float, alpha: float = 0.05) -> float | None:
    """A value that the true quantile exceeds with probability alpha at most; None with too few values.

    For the 95th percentile and alpha 5 %, 59 values are the fewest (`items_for_quantile`).
    """
    require_probability("share", share)
    require_probability("alpha", alpha)
    ordered = _sorted(values)
    n = len(ordered)
    rank = _first_rank(n, lambda rank: at_least_tail(rank, n, share) <= alpha)
    return None if rank is None else ordered[rank - 1]


def quantile_lower_bound(values: Sequence[float], share: float, beta: float = 0.05) -> float | None:
    """A value that the true quantile falls short of with probability beta at most; None with too few values."""
    require_probability("share", share)
    require_probability("beta", beta)
    ordered = _sorted(values)
    n = len(ordered)
    rank = _first_rank(n + 1, lambda rank: at_most_tail(rank - 1, n, share) > beta)
    return None if rank is None or rank == 1 else ordered[rank - 2]


def quantile_interval(values: Sequence[float], share: float, confidence: float = 0.95) -> Interval | None:
    """A two-sided interval for the quantile; None with too few values for both ends."""
    tail = (1.0 - confidence) / 2.0
    low, high = quantile_lower_bound(values, share, tail), quantile_upper_bound(values, share, tail)
    return None if low is None or high is None else Interval(low, high)


def items_for_quantile(share: float, alpha: float = 0.05) -> int | None:
    """Fewest values that have an upper bound for this quantile."""
    require_probability("share", share)
    return fewest_items(share, alpha)


def _first_rank(most: int, holds: Callable[[int], bool]) -> int | None:
    """The first rank from 1 to `most` that holds, where all after it do too; None where none does."""
    if most < 1 or not holds(most):
        return None
    low, high = 1, most
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low


def _sorted(values: Sequence[float]) -> list[float]:
    if any(math.isnan(value) for value in values):
        raise StatsError("a value is not a number")
    return sorted(values)
