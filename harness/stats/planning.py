"""What a rule will be able to see, before anything is measured.

What is not known yet is assumed, and said: items of one unit correlate by `CORRELATION`, and two models that are
equally good differ on the share `DISCORDANCE` of the items.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence

from harness.stats.paired import noninferiority_p
from harness.stats.power import OperatingPoint, items_for_power
from harness.stats.survey import student_quantile
from harness.stats.tails import at_least_tail, normal_quantile, point_mass, require_probability

CORRELATION = 0.1
"""Between items of one unit: clauses of one contract, questions on one passage."""
DISCORDANCE = 0.1
POWER = 0.8
_SPREAD = 7.0
"""Standard deviations on each side within which tables are enumerated: what is left out has probability 1e-11."""


def planned_worth(units: Sequence[str], alpha: float, correlation: float = CORRELATION) -> float:
    """Independent items that the items will be worth, if items of a unit correlate as assumed; 0 for none.

    The design effect is 1 + (m - 1) · correlation (Kish 1965) with m the mean size of a unit, weighted by size; few
    units shrink it further, as `harness.stats.survey.effective_sample` does.
    """
    n = len(units)
    sizes = Counter(units).values()
    clusters = len(sizes)
    if clusters == n:
        return float(n)
    if clusters < 2:
        return 1.0
    largest = sum(size * size for size in sizes) / n
    shrink = (student_quantile(1.0 - alpha, n - 1) / student_quantile(1.0 - alpha, clusters - 1)) ** 2
    return max(n / (1.0 + (largest - 1.0) * correlation) * shrink, n / largest)


def detectable_rate(n: int, threshold: float, alpha: float = 0.05, power: float = POWER) -> float | None:
    """The least true rate that passes "at least `threshold`" with this power; None where none does."""
    require_probability("alpha", alpha)
    require_probability("power", power)
    pass_from = next((hits for hits in range(n + 1) if at_least_tail(hits, n, threshold) <= alpha), None)
    if pass_from is None:
        return None
    low, high = threshold, 1.0
    for _ in range(40):
        middle = (low + high) / 2.0
        low, high = (low, middle) if at_least_tail(pass_from, n, middle) >= power else (middle, high)
    return high


def needed_at(threshold: float, rate: float, alpha: float = 0.05, power: float = POWER) -> int | None:
    """Items with which "at least `threshold`" passes with this power at the true rate; None where none do."""
    return items_for_power(threshold, rate, alpha=alpha, power=power)


def detectable_margin(
    n: float, discordance: float = DISCORDANCE, alpha: float = 0.05, power: float = POWER
) -> float | None:
    """The finest margin with which two equally good models pass "no worse than" with this power; None for no pairs.

    By the normal approximation, with the half item that the gate's continuity correction costs.
    """
    require_probability("alpha", alpha)
    require_probability("power", power)
    if n < 1:
        return None
    z = normal_quantile(1.0 - alpha) + normal_quantile(power)
    return z * math.sqrt(discordance / n) + 0.5 / n


def detectable_gap(
    n_a: int, n_b: int, rate: float = 0.8, alpha: float = 0.05, power: float = POWER
) -> float | None:
    """The finest cap under which the gap of two equally served groups is shown with this power; None for no items."""
    if min(n_a, n_b) < 1:
        return None
    z = normal_quantile(1.0 - alpha) + normal_quantile(power)
    return z * math.sqrt(rate * (1.0 - rate) * (1.0 / n_a + 1.0 / n_b))


def paired_curve(
    n: int, margin: float, differences: Sequence[float], discordance: float = DISCORDANCE,
    alpha: float = 0.05, beta: float = 0.05,
) -> tuple[OperatingPoint, ...]:  # fmt: skip
    """What "no worse by `margin`" does with n pairs at each true difference, candidate minus baseline.

    By enumeration of the tables, for models that differ on the share `discordance` of the items, or on as many as the
    difference needs. A negative margin asks for a gain of that size.
    """
    passes = _Cut(n, lambda b, c: (noninferiority_p(b, c, n, margin) or 0.0) < alpha)
    fails = _Cut(n, lambda b, c: (noninferiority_p(b, c, n, -margin) or 0.0) < beta)
    points = []
    for difference in differences:
        share = max(discordance, abs(difference))
        lost, gained = (share - difference) / 2.0, (share + difference) / 2.0
        passed = passes.probability(lost, gained)
        failed = fails.probability(gained, lost)  # the same rule with the models exchanged
        points.append(OperatingPoint(difference, passed, failed, float(n)))
    return tuple(points)


class _Cut:
    """The tables (b, c) of n pairs that a rule takes, where one more `c` never harms and one more `b` never helps."""

    def __init__(self, n: int, takes: Callable[[int, int], bool]) -> None:
        self._n, self._takes = n, takes
        self._least: dict[int, int] = {}

    def probability(self, p_b: float, p_c: float) -> float:
        """P(the table is taken) for n pairs with these shares."""
        middle, spread = self._n * p_b, _SPREAD * math.sqrt(self._n * p_b * (1.0 - p_b)) + 1.0
        first, last = max(0, math.floor(middle - spread)), min(self._n, math.ceil(middle + spread))
        share = min(1.0, p_c / (1.0 - p_b)) if p_b < 1.0 else 0.0
        tables = (
            point_mass(b, self._n, p_b) * at_least_tail(self.least(b), self._n - b, share)
            for b in range(first, last + 1)
        )
        return min(1.0, math.fsum(tables))

    def least(self, b: int) -> int:
        """Fewest `c` with which the table is taken; one more than there can be where it never is."""
        if b not in self._least:
            low, high = 0, self._n - b + 1
            while low < high:
                middle = (low + high) // 2
                low, high = (low, middle) if self._takes(b, middle) else (middle + 1, high)
            self._least[b] = low
        return self._least[b]
