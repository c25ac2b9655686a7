"""Looking at a rate a fixed number of times: O'Brien-Fleming bounds, exact for hits of n.

The chance of crossing a bound is computed by dynamic programming over the number of hits, so the stated error
is the real one and not a normal approximation of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from harness.errors import StatsError
from harness.stats.power import OperatingPoint
from harness.stats.sequential import Decision
from harness.stats.tails import log_choose, normal_cdf, normal_quantile, require_probability

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

LEAST_MASS = 1e-22
"""Probability at the edge of a distribution that is cut off; all that is cut stays under 1e-15."""


class Look(NamedTuple):
    """When the rule is looked at, and what decides then."""

    n: int
    pass_from: int
    """Fewest hits that pass; more than n where none do."""
    fail_to: int
    """Most hits that fail; negative where none do."""


class Absorbed(NamedTuple):
    """Probability of each end, look by look."""

    passes: tuple[float, ...]
    fails: tuple[float, ...]
    open: float
    """Probability that no look decides."""


def obrien_fleming(
    n_max: int, threshold: float, *, alpha: float = 0.05, beta: float = 0.05, looks: int = 20
) -> tuple[Look, ...]:
    """The looks of "the rate is at least `threshold`", evenly spread up to `n_max` items.

    Each look may spend what Lan & DeMets' O'Brien-Fleming function has set free by then; its cut is the most
    generous whole number whose exact chance at the threshold keeps within that, counting no help from the
    other side.
    """
    require_probability("alpha", alpha)
    require_probability("beta", beta)
    require_probability("threshold", threshold)
    sizes = look_sizes(n_max, looks)
    above = _cuts(sizes, threshold, alpha)
    below = _cuts(sizes, 1.0 - threshold, beta)
    return tuple(Look(n, up, n - down) for n, up, down in zip(sizes, above, below, strict=True))


def spending(frac: float, alpha: float) -> float:
    """Share of alpha's probability that may be spent when `frac` of the items are in, 0 < frac ≤ 1.

    Lan & DeMets (1983), Biometrika 70, 659-663: the function that resembles O'Brien and Fleming's bounds.
    """
    return 2.0 * normal_cdf(normal_quantile(alpha / 2.0) / math.sqrt(frac))


def look_sizes(n_max: int, looks: int) -> tuple[int, ...]:
    """Numbers of items at which to look: evenly spread, the last is `n_max`; fewer looks where items are few."""
    if n_max < 1 or looks < 1:
        raise StatsError(f"{looks} looks at {n_max} items: wanted 1 or more of each")
    return tuple(sorted({math.ceil(n_max * look / looks) for look in range(1, looks + 1)}))


def absorb(looks: Sequence[Look], rate: float) -> Absorbed:
    """Probability of PASS and of FAIL at each look when the true rate is `rate`; exact."""
    import numpy as np

    mass, first, before = np.ones(1), 0, 0
    passes, fails = [], []
    for look in looks:
        mass, first = _grow(mass, first, look.n - before, rate)
        before = look.n
        hits = first + np.arange(len(mass))
        passes.append(float(mass[hits >= look.pass_from].sum()))
        fails.append(float(mass[hits <= look.fail_to].sum()))
        mass = np.where((hits >= look.pass_from) | (hits <= look.fail_to), 0.0, mass)
    return Absorbed(tuple(passes), tuple(fails), float(mass.sum()))


def operating_point(looks: Sequence[Look], rate: float) -> OperatingPoint:
    """P(PASS), P(FAIL) and the mean number of items when the true rate is `rate`; exact."""
    ends = absorb(looks, rate)
    used = sum(
        look.n * (passed + failed)
        for look, passed, failed in zip(looks, ends.passes, ends.fails, strict=True)
    )
    return OperatingPoint(rate, sum(ends.passes), sum(ends.fails), used + looks[-1].n * ends.open)


def decide(looks: Sequence[Look], hits: int, n: int) -> Decision | None:
    """What the look at exactly n items says; None where it decides nothing, or where there is no look at n."""
    look = next((look for look in looks if look.n == n), None)
    if look is None:
        return None
    return "PASS" if hits >= look.pass_from else "FAIL" if hits <= look.fail_to else None


def z_bounds(looks: int, alpha: float = 0.05) -> tuple[float, ...]:
    """One-sided O'Brien-Fleming bounds for a z statistic at evenly spread looks, such as Tango's for pairs."""
    require_probability("alpha", alpha)
    constant = _root(lambda c: _gaussian_crossing(c * math.sqrt(looks), looks) - alpha, 0.0, 8.0)
    return tuple(constant * math.sqrt(looks / look) for look in range(1, looks + 1))


def _cuts(sizes: Sequence[int], threshold: float, alpha: float) -> list[int]:
    """Fewest hits that pass at each look; one more than its items where none do."""
    import numpy as np

    mass, first, before, spent, found = np.ones(1), 0, 0, 0.0, []
    for n in sizes:
        mass, first = _grow(mass, first, n - before, threshold)
        tail = np.cumsum(mass[::-1])[::-1]  # P(this many hits or more, and still open)
        is_affordable = spent + tail <= spending(n / sizes[-1], alpha)
        cut = int(np.argmax(is_affordable)) if is_affordable.any() else len(mass)
        spent += float(mass[cut:].sum())
        found.append(min(n + 1, first + cut))
        mass, before = np.where(np.arange(len(mass)) >= cut, 0.0, mass), n
    return found


def _grow(mass: Floats, first: int, items: int, rate: float) -> tuple[Floats, int]:
    """The distribution of hits after `items` more; `first` is the number of hits of its first entry."""
    import numpy as np

    step, skipped = _binomial(items, rate)
    return _trim(np.convolve(mass, step), first + skipped)


def _binomial(n: int, rate: float) -> tuple[Floats, int]:
    """Probabilities of a run of hits, and the first of these hits."""
    import numpy as np

    if rate <= 0.0 or rate >= 1.0:
        return np.ones(1), n if rate >= 1.0 else 0
    logs = [log_choose(n, k) + k * math.log(rate) + (n - k) * math.log1p(-rate) for k in range(n + 1)]
    mass = np.exp(np.array(logs))
    return _trim(mass / mass.sum(), 0)


def _trim(mass: Floats, first: int) -> tuple[Floats, int]:
    import numpy as np

    kept = np.flatnonzero(mass > LEAST_MASS)
    return (mass, first) if len(kept) == 0 else (mass[kept[0] : kept[-1] + 1], first + int(kept[0]))


def _gaussian_crossing(bound: float, looks: int) -> float:
    """P(a random walk with standard normal steps is at `bound` or above after one of `looks` steps)."""
    import numpy as np

    nodes, weights = _legendre()
    floor = -8.0 * math.sqrt(looks)
    half = (bound - floor) / 2.0
    at, weights = floor + half * (nodes + 1.0), weights * half
    kernel = np.exp(-0.5 * (at[:, None] - at[None, :]) ** 2) / math.sqrt(2.0 * math.pi)  # (to, from)
    density = np.exp(-0.5 * at**2) / math.sqrt(2.0 * math.pi)
    for _ in range(looks - 1):
        density = kernel @ (weights * density)
    return 1.0 - float(weights @ density)


@cache
def _legendre() -> tuple[Floats, Floats]:
    import numpy as np

    return np.polynomial.legendre.leggauss(120)


def _root(decreasing: Callable[[float], float], low: float, high: float) -> float:
    for _ in range(45):
        middle = (low + high) / 2.0
        low, high = (middle, high) if decreasing(middle) > 0.0 else (low, middle)
    return (low + high) / 2.0
