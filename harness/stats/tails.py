"""Tail probabilities of the binomial and the normal, in plain Python.

A gate has to answer at once, and importing scipy costs more than all of a gate's arithmetic.
Accurate to about 1e-10 of the value up to a million items; `scipy.stats` is the oracle in the tests.
"""

from __future__ import annotations

import math

from harness.errors import StatsError

MAX_TERMS = 100_000
"""Of a continued fraction; about the square root of n are needed."""
TINY = 1e-300


def beta_cdf(x: float, a: float, b: float) -> float:
    """P(Beta(a, b) ≤ x), the regularised incomplete beta function, for a, b > 0."""
    if x <= 0.0:
        return 0.0
    if x >= 1.0:
        return 1.0
    if x > (a + 1.0) / (a + b + 2.0):
        return 1.0 - _beta_tail(1.0 - x, b, a, math.log1p(-x), math.log(x))
    return _beta_tail(x, a, b, math.log(x), math.log1p(-x))


def at_least_tail(hits: int, n: int, rate: float) -> float:
    """P(X ≥ hits) for X binomial(n, rate)."""
    if hits <= 0:
        return 1.0
    return 0.0 if hits > n else beta_cdf(rate, hits, n - hits + 1)


def at_most_tail(hits: int, n: int, rate: float) -> float:
    """P(X ≤ hits) for X binomial(n, rate)."""
    if hits >= n:
        return 1.0
    return 0.0 if hits < 0 else beta_cdf(1.0 - rate, n - hits, hits + 1)


def log_choose(n: int, k: int) -> float:
    """log of the number of ways to choose k of n."""
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def point_mass(hits: int, n: int, rate: float) -> float:
    """P(X = hits) for X binomial(n, rate)."""
    if rate <= 0.0 or rate >= 1.0:
        return 1.0 if hits == (0 if rate <= 0.0 else n) else 0.0
    return math.exp(log_choose(n, hits) + hits * math.log(rate) + (n - hits) * math.log1p(-rate))


def beta_quantile(probability: float, a: float, b: float) -> float:
    """x with P(Beta(a, b) ≤ x) = probability, by Newton's method on the logarithm inside a bracket."""
    low, high, x = 0.0, 1.0, a / (a + b)
    log_target = math.log(probability)
    log_norm = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    for _ in range(200):
        cdf = beta_cdf(x, a, b)
        low, high = (x, high) if cdf < probability else (low, x)
        log_density = log_norm + (a - 1.0) * math.log(x) + (b - 1.0) * math.log1p(-x)
        step = _newton_step(cdf, log_target, log_density)
        following = x - step if low < x - step < high else (low + high) / 2.0
        if abs(following - x) <= 1e-15 * x or high - low <= 1e-15 * high:
            return following
        x = following
    return x


def normal_cdf(z: float) -> float:
    """P(Z ≤ z) for a standard normal Z, without cancellation in either tail."""
    return math.erfc(-z / math.sqrt(2.0)) / 2.0


def normal_quantile(probability: float) -> float:
    """z with P(Z ≤ z) = probability, for a probability strictly between 0 and 1."""
    require_probability("probability", probability)
    if probability > 0.5:
        return -normal_quantile(1.0 - probability)
    z = -math.sqrt(-2.0 * math.log(probability)) if probability < 0.02 else 0.0
    for _ in range(60):
        density = math.exp(-z * z / 2.0) / math.sqrt(2.0 * math.pi)
        cdf = normal_cdf(z)
        step = cdf * math.log(cdf / probability) / density
        z -= step
        if abs(step) < 1e-14 * max(1.0, abs(z)):
            break
    return z


def require_probability(name: str, value: float) -> None:
    """Nothing for a probability strictly between 0 and 1; StatsError for anything else, NaN included."""
    if not 0.0 < value < 1.0:
        raise StatsError(f"{name} = {value:g}: wanted a number strictly between 0 and 1")


def require_counts(hits: int, n: int) -> None:
    """Nothing for 0 ≤ hits ≤ n; StatsError for anything else."""
    if not 0 <= hits <= n:
        raise StatsError(f"{hits} right of {n}: wanted 0 ≤ right ≤ items")


def _newton_step(cdf: float, log_target: float, log_density: float) -> float:
    if cdf <= 0.0 or log_density < -700.0:
        return math.inf
    return cdf * (math.log(cdf) - log_target) / math.exp(min(log_density, 700.0))


def _beta_tail(x: float, a: float, b: float, log_x: float, log_rest: float) -> float:
    # Lentz's method; converges quickly for x ≤ (a+1)/(a+b+2), which the caller sees to.
    log_norm = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    log_front = log_norm + a * log_x + b * log_rest - math.log(a)
    return min(1.0, math.exp(log_front) * _continued_fraction(x, a, b)) if log_front > -745.0 else 0.0


def _continued_fraction(x: float, a: float, b: float) -> float:
    c, d = 1.0, _away_from_zero(1.0 - (a + b) * x / (a + 1.0))
    d = 1.0 / d
    fraction = d
    for m in range(1, MAX_TERMS):
        even = m * (b - m) * x / ((a + 2 * m - 1.0) * (a + 2 * m))
        d, c = 1.0 / _away_from_zero(1.0 + even * d), _away_from_zero(1.0 + even / c)
        fraction *= d * c
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1.0))
        d, c = 1.0 / _away_from_zero(1.0 + odd * d), _away_from_zero(1.0 + odd / c)
        fraction *= d * c
        if abs(d * c - 1.0) < 1e-15:
            return fraction
    raise StatsError(f"the incomplete beta function did not settle at x = {x}, a = {a}, b = {b}")


def _away_from_zero(value: float) -> float:
    return value if abs(value) > TINY else TINY
