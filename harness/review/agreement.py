"""How well two who judged the same answers agree, beyond chance."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

Z95 = 1.959963984540054


class Agreement(NamedTuple):
    """Cohen's kappa of two raters."""

    n: int
    """Items that both judged."""
    observed: float | None
    """Share on which they say the same; None for n = 0."""
    kappa: float | None
    """None where it is not defined: no items, or both always say the same one thing."""
    low: float | None
    high: float | None
    """95 % bounds; None for n < 2."""


def cohens_kappa(a: Mapping[str, bool], b: Mapping[str, bool]) -> Agreement:
    """The agreement on the items that both judged.

    Cohen (1960), with the large-sample standard error of Fleiss, Cohen and Everitt (1969).
    """
    both = sorted(a.keys() & b.keys())
    n = len(both)
    if not n:
        return Agreement(0, None, None, None, None)
    shares = [[0.0, 0.0], [0.0, 0.0]]
    for item in both:
        shares[a[item]][b[item]] += 1.0 / n
    rows = [sum(row) for row in shares]
    columns = [shares[0][at] + shares[1][at] for at in (0, 1)]
    observed = shares[0][0] + shares[1][1]
    chance = sum(row * column for row, column in zip(rows, columns, strict=True))
    if math.isclose(chance, 1.0):
        return Agreement(n, observed, None, None, None)
    kappa = (observed - chance) / (1.0 - chance)
    if n < 2:
        return Agreement(n, observed, kappa, None, None)
    half = Z95 * math.sqrt(_variance(shares, rows, columns, kappa, chance) / n)
    return Agreement(n, observed, kappa, max(-1.0, kappa - half), min(1.0, kappa + half))


def _variance(
    shares: list[list[float]], rows: list[float], columns: list[float], kappa: float, chance: float
) -> float:
    """n times the variance of kappa."""
    same = sum(shares[i][i] * (1 - (rows[i] + columns[i]) * (1 - kappa)) ** 2 for i in (0, 1))
    other = sum(shares[i][j] * (columns[i] + rows[j]) ** 2 for i in (0, 1) for j in (0, 1) if i != j)
    rest = (kappa - chance * (1 - kappa)) ** 2
    return max(0.0, same + (1 - kappa) ** 2 * other - rest) / (1 - chance) ** 2
