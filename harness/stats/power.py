"""What a gate can see: items needed, operating curves, and suites that can never pass.

A rate rule says PASS when its exact one-sided p-value is at most alpha and FAIL when the opposite one is at
most beta, so with n items everything follows from two whole numbers: the fewest hits that pass and the most
that fail.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from harness.errors import StatsError
from harness.stats.paired import paired_bounds
from harness.stats.tails import (
    at_least_tail,
    at_most_tail,
    normal_quantile,
    require_counts,
    require_probability,
)

MOST_ITEMS = 10_000_000
"""Where a search for the items needed gives up."""


class Cuts(NamedTuple):
    """Where a rule "at least" decides among 0 … n hits."""

    pass_from: int
    """Fewest hits that pass; n + 1 when none can."""
    fail_to: int
    """Most hits that fail; -1 when none can."""


class OperatingPoint(NamedTuple):
    """What a rule does when the truth is `rate`."""

    rate: float
    pass_frac: float
    fail_frac: float
    mean_n: float
    """Items used on average: all of them with a fixed design."""


def can_never_pass(n: int, threshold: float, alpha: float = 0.05) -> bool:
    """Whether even n right of n is no proof that the rate is at least `threshold`."""
    require_probability("alpha", alpha)
    return at_least_tail(n, n, threshold) > alpha


def fewest_items(threshold: float, alpha: float = 0.05) -> int | None:
    """Fewest items with which a rule "at least" can pass at all; None for a threshold of 1."""
    require_probability("alpha", alpha)
    if threshold >= 1.0:
        return None
    n = 1 if threshold <= 0.0 else max(1, math.ceil(math.log(alpha) / math.log(threshold) - 1e-9))
    return n + 1 if can_never_pass(n, threshold, alpha) else n


def cuts(n: int, threshold: float, alpha: float = 0.05, beta: float = 0.05) -> Cuts:
    """Fewest hits of n that pass "at least `threshold`", and most that fail it."""
    require_probability("alpha", alpha)
    require_probability("beta", beta)
    pass_from = _first(lambda hits: at_least_tail(hits, n, threshold) <= alpha, 0, n + 1)
    fail_to = _first(lambda hits: at_most_tail(hits, n, threshold) > beta, 0, n) - 1
    return Cuts(pass_from, fail_to)


def operating_curve(
    n: int, threshold: float, rates: Sequence[float], alpha: float = 0.05, beta: float = 0.05
) -> tuple[OperatingPoint, ...]:
    """What "at least `threshold`" does with n items at each true rate; exact.

    A rule "at most" is the same rule on misses: give 1 - threshold and 1 - rate.
    """
    where = cuts(n, threshold, alpha, beta)
    return tuple(
        OperatingPoint(
            rate, at_least_tail(where.pass_from, n, rate), at_most_tail(where.fail_to, n, rate), float(n)
        )
        for rate in rates
    )


def items_needed(
    hits: int,
    n: int,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    alpha: float = 0.05,
    beta: float = 0.05,
) -> int | None:
    """How many more items settle the rule, PASS or FAIL, if the score stays hits/n; 0 when it is settled.

    None where no number does: no items yet, a score equal to the threshold, or more than `MOST_ITEMS`.

    Raises:
        StatsError: not exactly one of `at_least` and `at_most`.
    """
    require_counts(hits, n)
    if (at_least is None) == (at_most is None):
        raise StatsError("items_needed wants exactly one of at_least and at_most")
    if at_most is not None:
        return items_needed(n - hits, n, at_least=1.0 - at_most, alpha=alpha, beta=beta)
    assert at_least is not None
    return None if n == 0 else _more_items(n, _rate_settler(hits / n, at_least, alpha, beta))


def paired_items_needed(
    b: int, c: int, n: int, difference: float, alpha: float = 0.05, beta: float = 0.05
) -> int | None:
    """How many more pairs settle "candidate minus baseline is above `difference`" at the same b/n and c/n.

    `difference` is minus the margin of a rule "no worse than", or the gain of a rule "better than". None as in
    `items_needed`.
    """
    if n == 0:
        return None

    def is_settled(size: int) -> bool:
        lost = round(b * size / n)
        gained = min(round(c * size / n), size - lost)  # both rounded up, they could be more than there are
        bounds = paired_bounds(lost, gained, size, alpha, beta)
        return bounds is not None and (bounds.low > difference or bounds.high < difference)

    return None if (c - b) / n == difference else _more_items(n, is_settled)


def items_for_power(
    threshold: float, rate: float, *, alpha: float = 0.05, power: float = 0.8, most: int = 1_000_000
) -> int | None:
    """Fewest items with which "at least `threshold`" passes with this power when the truth is `rate`.

    Exact power goes up and down by a little as n grows; this is the first n that reaches it. None where the
    true rate is no better than the threshold, or more than `most` items are needed.
    """
    require_probability("power", power)
    if rate <= threshold:
        return None
    start = max(1, int(0.7 * normal_items(threshold, rate, alpha, power)))
    return next((n for n in range(start, most + 1) if _power(n, threshold, rate, alpha) >= power), None)


def normal_items(threshold: float, rate: float, alpha: float = 0.05, power: float = 0.8) -> float:
    """Items for this power by the normal approximation, not rounded."""
    z_alpha, z_power = normal_quantile(1.0 - alpha), normal_quantile(power)
    spread = z_alpha * math.sqrt(threshold * (1.0 - threshold)) + z_power * math.sqrt(rate * (1.0 - rate))
    return (spread / (rate - threshold)) ** 2


def paired_items_for_power(
    margin: float, discordance: float, *, difference: float = 0.0, alpha: float = 0.05, power: float = 0.8
) -> int | None:
    """Pairs with which "no worse by `margin`" passes with this power, by the normal approximation.

    `discordance` is the share of items on which exactly one model is right, `difference` the true candidate
    minus baseline. None where the truth is no better than minus the margin.
    """
    require_probability("power", power)
    distance = difference + margin
    if distance <= 0.0:
        return None
    z = normal_quantile(1.0 - alpha) + normal_quantile(power)
    return max(1, math.ceil(z * z * (discordance - difference * difference) / (distance * distance)))


def _rate_settler(rate: float, threshold: float, alpha: float, beta: float) -> Callable[[int], bool]:
    # Hits are rounded towards the threshold, so that the answer doesn't rest on a lucky rounding.
    if rate > threshold:
        return lambda size: at_least_tail(math.floor(rate * size + 1e-9), size, threshold) <= alpha
    if rate < threshold:
        return lambda size: at_most_tail(math.ceil(rate * size - 1e-9), size, threshold) <= beta
    return lambda _size: False


def _more_items(n: int, is_settled: Callable[[int], bool]) -> int | None:
    size = n
    while not is_settled(size):
        size *= 2
        if size > MOST_ITEMS:
            return None
    return _first(is_settled, n if size == n else size // 2, size) - n


def _first(holds: Callable[[int], bool], low: int, high: int) -> int:
    """The first whole number from `low` that holds; `high` is taken to hold."""
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low


def _power(n: int, threshold: float, rate: float, alpha: float) -> float:
    pass_from = _first(lambda hits: at_least_tail(hits, n, threshold) <= alpha, 0, n + 1)
    return at_least_tail(pass_from, n, rate)
