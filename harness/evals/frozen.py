"""Verdicts on a suite whose own records are all that is meant: a licensing exam, a fixed list of forbidden answers.

Then nothing is inferred beyond the records. With all of them scored, the share that is right is known; with a random
subset (`limit`), the number right among all N is bounded by drawing without replacement, which is exact and narrower
than bounds for records without end. Units have no part in it: which records were drawn is all that chance decides.
"""

from __future__ import annotations

import math

from harness.errors import StatsError
from harness.stats.tails import require_counts, require_probability

_ROUNDING = 1.0 + 1e-9
"""A probability that is alpha itself rejects, however its last digit was rounded."""


def frozen_lower(hits: int, n: int, population: int, alpha: float) -> float | None:
    """One-sided lower bound for the share of the population that is right; None for n = 0.

    The least number M of right ones with which `hits` or more among n are drawn with P > alpha.

    Raises:
        StatsError: more items than the population has.
    """
    _require(hits, n, population)
    require_probability("alpha", alpha)
    if n == 0:
        return None
    low, high = hits, population - (n - hits)
    while low < high:
        middle = (low + high) // 2
        low, high = (
            (low, middle)
            if at_least_drawn(hits, n, middle, population) > alpha * _ROUNDING
            else (middle + 1, high)
        )
    return low / population


def frozen_upper(hits: int, n: int, population: int, beta: float) -> float | None:
    """One-sided upper bound for the share of the population that is right; None for n = 0.

    Raises:
        StatsError: more items than the population has.
    """
    low = frozen_lower(n - hits, n, population, beta)
    return None if low is None else 1.0 - low


def at_least_drawn(hits: int, n: int, right: int, population: int) -> float:
    """P(at least `hits` of n items drawn without replacement are among the `right` ones of the population)."""
    last = min(n, right)
    if hits <= max(0, n - (population - right)):
        return 1.0
    if hits > last:
        return 0.0
    masses = (_log_mass(k, n, right, population) for k in range(hits, last + 1))
    return min(1.0, math.fsum(map(math.exp, masses)))


def _log_mass(k: int, n: int, right: int, population: int) -> float:
    return _log_choose(right, k) + _log_choose(population - right, n - k) - _log_choose(population, n)


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def _require(hits: int, n: int, population: int) -> None:
    require_counts(hits, n)
    if n > population:
        raise StatsError(f"{n} items of a population of {population}: wanted at most as many")
