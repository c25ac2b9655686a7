"""A judge model on many items, corrected by people on a few: prediction-powered inference.

Taking the judge's word alone, a 95 % interval covers the truth 74 % of the time. The people's labels measure the
judge's bias, and the judge's scores on the rest cut the variance.

Angelopoulos, Duchi & Zrnic (2023), "PPI++: Efficient prediction-powered inference", arXiv 2311.01453.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from harness.errors import StatsError
from harness.stats.proportions import Interval
from harness.stats.tails import require_probability

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


class Corrected(NamedTuple):
    """A mean of the people's labels, estimated with the judge's help."""

    mean: float
    error: float
    """Standard error."""
    weight: float
    """How much the judge is trusted: 0 not at all, 1 as far as it goes."""
    labelled: int
    worth: float
    """People's labels that would give the same error without the judge."""


def corrected_mean(labels: Floats, judged: Floats, judged_rest: Floats) -> Corrected | None:
    """The mean label of the population; None for fewer than 2 labels, or labels and judge without any spread.

    `labels` are people's and `judged` the judge's scores of the same items, shape (n,); `judged_rest` the judge's
    on further items of the same population, shape (N,). The weight is the one with the least variance.
    """
    import numpy as np

    if len(labels) != len(judged):
        raise StatsError(f"{len(labels)} labels and {len(judged)} judged: wanted the same items")
    if not all(np.isfinite(values).all() for values in (labels, judged, judged_rest)):
        raise StatsError("a label or a score is not a finite number")
    if len(labels) < 2:
        return None
    weight = _weight(labels, judged, judged_rest)
    rest = judged_rest if len(judged_rest) else np.zeros(1)
    mean = weight * float(rest.mean()) + float((labels - weight * judged).mean())
    from_rest = weight**2 * float(rest.var(ddof=1)) / len(rest) if len(rest) > 1 else 0.0
    error = math.sqrt(from_rest + float((labels - weight * judged).var(ddof=1)) / len(labels))
    plain = float(labels.var(ddof=1))
    return None if error == 0.0 else Corrected(mean, error, weight, len(labels), plain / error**2)


def corrected_bounds(
    labels: Floats, judged: Floats, judged_rest: Floats, alpha: float = 0.05, beta: float = 0.05
) -> Interval | None:
    """One-sided bounds for the mean label by Student's t: `low` at alpha, `high` at beta.

    None for fewer than 30 labels, where the approximation isn't to be trusted, and as in `corrected_mean`.
    """
    from scipy.special import stdtrit

    require_probability("alpha", alpha)
    require_probability("beta", beta)
    found = corrected_mean(labels, judged, judged_rest)
    if found is None or found.labelled < 30:
        return None
    below = found.error * float(stdtrit(found.labelled - 1, 1.0 - alpha))
    above = found.error * float(stdtrit(found.labelled - 1, 1.0 - beta))
    return Interval(found.mean - below, found.mean + above)


def _weight(labels: Floats, judged: Floats, judged_rest: Floats) -> float:
    import numpy as np

    if len(judged_rest) < 2:
        return 0.0
    spread = float(np.concatenate([judged, judged_rest]).var(ddof=1))
    if spread == 0.0:
        return 0.0
    shared = float(np.cov(labels, judged)[0, 1])
    return min(1.0, max(0.0, shared / ((1.0 + len(labels) / len(judged_rest)) * spread)))
