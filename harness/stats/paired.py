"""Two models on the same items: McNemar's test, Tango's score interval and non-inferiority.

Only the items on which exactly one model is right tell the two apart:
`b` counts those that the baseline alone gets right, `c` those that the candidate alone gets right.
Differences are candidate minus baseline, (c - b) / n. No items means no interval: None for n = 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from harness.errors import StatsError
from harness.stats.proportions import Interval, lower_bound, upper_bound
from harness.stats.tails import (
    at_least_tail,
    at_most_tail,
    normal_cdf,
    normal_quantile,
    point_mass,
    require_probability,
)

HALF_AN_ITEM = 0.5


def mcnemar_exact(b: int, c: int) -> float:
    """Two-sided exact p-value of "both models are right equally often"; 1 without discordant items."""
    _require_pairs(b, c, b + c)
    return min(1.0, 2.0 * at_most_tail(min(b, c), b + c, 0.5))


def mcnemar_mid_p(b: int, c: int) -> float:
    """Two-sided mid-p value: the exact one counting the observed table by half; less conservative."""
    _require_pairs(b, c, b + c)
    return min(1.0, mcnemar_exact(b, c) - point_mass(min(b, c), b + c, 0.5)) if b != c else 1.0


def superiority_p(b: int, c: int) -> float:
    """Exact one-sided p-value against "the candidate is no better": P(at least c of b + c tosses)."""
    _require_pairs(b, c, b + c)
    return at_least_tail(c, b + c, 0.5)


def noninferiority_p(b: int, c: int, n: int, margin: float) -> float | None:
    """One-sided p-value against "the candidate is worse by `margin` or more"; None for n = 0.

    A margin under half an item asks for superiority, a negative one for a gain of that size. Tango's score,
    corrected so that its error rate holds whatever the discordance: plain, it rejects a true null up to 7 % of
    the time at a nominal 5 % with 30 items, and 5.9 % with 150. Half an item of continuity correction mends the
    middle; at the two ends of the discordance the table is binomial, and the exact tail is asked.
    """
    _require_pairs(b, c, n)
    if n == 0:
        return None
    score = normal_cdf(-tango_z(b, c, n, -margin, HALF_AN_ITEM)) if margin < 1.0 else 0.0
    return max(score, *_exact_tails(b, c, n, margin))


def tango_z(b: int, c: int, n: int, difference: float, correction: float = 0.0) -> float:
    """Standard errors by which the observed difference exceeds `difference`, -1 < difference < 1, n > 0.

    Tango (1998), Statistics in Medicine 17, 891-908: the standard error is the one that holds when the true
    difference is `difference`, with the most likely discordance. `correction` is in items.
    """
    excess = c - b - n * difference - correction
    p_b = _likeliest_b(b, c, n, difference)
    variance = n * (2.0 * p_b + difference * (1.0 - difference))
    if variance <= 0.0:
        return 0.0 if excess == 0.0 else math.copysign(math.inf, excess)
    return excess / math.sqrt(variance)


def tango_interval(b: int, c: int, n: int, confidence: float = 0.95) -> Interval | None:
    """Tango's score interval for candidate minus baseline; None for n = 0."""
    _require_pairs(b, c, n)
    require_probability("confidence", confidence)
    if n == 0:
        return None
    z = normal_quantile((1.0 + confidence) / 2.0)
    return Interval(_tango_low(b, c, n, z), -_tango_low(c, b, n, z))


def paired_bounds(b: int, c: int, n: int, alpha: float = 0.05, beta: float = 0.05) -> Interval | None:
    """One-sided bounds for candidate minus baseline: `low` at alpha for PASS, `high` at beta for FAIL.

    `low` is above -margin exactly where `noninferiority_p` of that margin is under alpha. None for n = 0.
    """
    _require_pairs(b, c, n)
    require_probability("alpha", alpha)
    require_probability("beta", beta)
    if n == 0:
        return None
    return Interval(_one_sided_low(b, c, n, alpha), -_one_sided_low(c, b, n, beta))


def _one_sided_low(b: int, c: int, n: int, alpha: float) -> float:
    score = _tango_low(b, c, n, normal_quantile(1.0 - alpha), HALF_AN_ITEM)
    return min(score, *_exact_lows(b, c, n, alpha))


def _exact_lows(b: int, c: int, n: int, alpha: float) -> Iterator[float]:
    """Bounds that invert `_exact_tails`."""
    if c > b:
        yield lower_bound(c - b, n, alpha) or 0.0
    else:
        yield -(upper_bound(b - c, n, alpha) or 0.0)
    yield 2.0 * (lower_bound(n - b, n, alpha) or 0.0) - 1.0
    if superiority_p(b, c) > alpha:
        yield -HALF_AN_ITEM / n  # below 0, so that a rule "at least 0" can't pass on what may be no gain


def _exact_tails(b: int, c: int, n: int, margin: float) -> Iterator[float]:
    """P-values where the discordance is as small or as large as it can be, and of the claim "better at all"."""
    if margin > 0.0 and b >= c:
        yield at_most_tail(b - c, n, min(margin, 1.0))
    if margin < 0.0:
        yield at_least_tail(c - b, n, min(-margin, 1.0))
    # With every item discordant, c would be n - b; asking all tables keeps the answer monotone in b and c.
    yield at_least_tail(n - b, n, max(0.0, (1.0 - margin) / 2.0))
    if margin <= HALF_AN_ITEM / n:
        yield superiority_p(b, c)


def _tango_low(b: int, c: int, n: int, z: float, correction: float = 0.0) -> float:
    if b == n:
        return -1.0
    return bisect(lambda difference: tango_z(b, c, n, difference, correction) > z, -1.0, (c - b) / n)


def bisect(is_excluded: Callable[[float], bool], low: float, high: float) -> float:
    """The largest value that is still excluded, where all below it are and those above it are not."""
    for _ in range(60):
        middle = (low + high) / 2.0
        low, high = (middle, high) if is_excluded(middle) else (low, middle)
    return low


def _likeliest_b(b: int, c: int, n: int, difference: float) -> float:
    """Most likely P(the baseline alone is right) when P(candidate alone) - P(baseline alone) = difference."""
    first = 2.0 * n
    second = -b - c + (2.0 * n - c + b) * difference
    third = -b * difference * (1.0 - difference)
    root = math.sqrt(max(0.0, second * second - 4.0 * first * third))
    # The other form of the quadratic's root, where the usual one would subtract two equal numbers.
    estimate = (root - second) / (2.0 * first) if second <= 0.0 else -2.0 * third / (second + root)
    return max(estimate, 0.0, -difference)


def _require_pairs(b: int, c: int, n: int) -> None:
    if b < 0 or c < 0 or b + c > n:
        raise StatsError(
            f"{b} + {c} items told the models apart, of {n}: wanted counts of 0 or more, at most n"
        )
