"""Several claims, several attempts.

A release is the AND of its rules and needs no correction: it passes falsely only where every rule passes, which
happens with probability alpha at most. Claims that something is worse, made of many groups at once, do need one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from harness.errors import StatsError
from harness.stats.tails import require_probability


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Holm's adjusted p-values, in the order given: reject those at or under alpha.

    Holm (1979), Scandinavian Journal of Statistics 6, 65-70.
    """
    for p in p_values:
        if not 0.0 <= p <= 1.0:
            raise StatsError(f"p = {p:g}: wanted 0 to 1")
    count, worst = len(p_values), 0.0
    adjusted = [0.0] * count
    for rank, index in enumerate(sorted(range(count), key=p_values.__getitem__)):
        worst = max(worst, min(1.0, (count - rank) * p_values[index]))
        adjusted[index] = worst
    return tuple(adjusted)


def alpha_for_attempt(alpha: float, attempt: int) -> float:
    """What attempt number `attempt`, from 1, on the same sealed items may spend; all attempts together spend alpha."""
    require_probability("alpha", alpha)
    if attempt < 1:
        raise StatsError(f"attempt {attempt}: wanted 1 or more")
    return alpha * 6.0 / (math.pi * attempt) ** 2
