"""How well a number tells right answers from wrong ones."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from harness.errors import StatsError
from harness.stats.tails import normal_quantile

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Area(NamedTuple):
    """Area under the ROC curve with an interval."""

    area: float
    """Probability that a right answer has a larger number than a wrong one; ties count half."""
    low: float | None
    high: float | None
    """None where either kind has fewer than two answers."""


def auroc(
    values: NDArray[np.float64], is_right: NDArray[np.bool_], *, confidence: float = 0.95
) -> Area | None:
    """The area under the ROC curve, with DeLong's two-sided interval; both of shape (n,).

    None where all answers are right, or all are wrong: there is nothing to tell apart. DeLong et al. 1988,
    Biometrics 44, 837-845, by midranks as in Sun & Xu 2014, doi 10.1109/LSP.2014.2337313.

    Raises:
        StatsError: the two differ in length, or a value is NaN.
    """
    import numpy as np

    if values.shape != is_right.shape or np.isnan(values).any():
        raise StatsError(f"{values.shape} values and {is_right.shape} answers: wanted one number each")
    right, wrong = values[is_right], values[~is_right]
    m, n = len(right), len(wrong)
    if not m or not n:
        return None
    ranks = _midranks(np.concatenate([right, wrong]))
    area = (float(ranks[:m].sum()) - m * (m + 1) / 2.0) / (m * n)
    if m < 2 or n < 2:
        return Area(area, None, None)
    by_right = (ranks[:m] - _midranks(right)) / n  # (m,), share of the wrong that each right one beats
    by_wrong = 1.0 - (ranks[m:] - _midranks(wrong)) / m  # (n,), share of the right that beat each wrong one
    error = math.sqrt(float(by_right.var(ddof=1)) / m + float(by_wrong.var(ddof=1)) / n)
    reach = error * normal_quantile(0.5 + confidence / 2.0)
    return Area(area, max(0.0, area - reach), min(1.0, area + reach))


def _midranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks from 1, equal values sharing the mean of theirs; shape as given."""
    import numpy as np

    _, where, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2.0)[where], float)
