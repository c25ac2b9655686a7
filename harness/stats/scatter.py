"""How far a value that is measured twice moves by itself."""

from __future__ import annotations

import math
from collections.abc import Sequence

from harness.stats.tails import require_probability


def scatter_upper_bound(moves: Sequence[float], beta: float = 0.05) -> float | None:
    """An upper bound for the standard deviation of moves around zero; None without moves.

    `moves` are the second measurement minus the first. Were they normal, the true deviation would be above the
    bound with probability beta: n · rms² / sigma² is chi-squared with n degrees of freedom.
    """
    require_probability("beta", beta)
    if not moves:
        return None
    from scipy.special import chdtri

    return math.sqrt(math.fsum(move * move for move in moves) / float(chdtri(len(moves), 1.0 - beta)))


def expected_flips(margins: Sequence[float], deviation: float) -> float:
    """Expected number of margins, each 0 or more, that a normal move of this deviation turns below zero."""
    if deviation <= 0.0:
        return 0.0
    return math.fsum(0.5 * math.erfc(margin / (deviation * math.sqrt(2.0))) for margin in margins)
