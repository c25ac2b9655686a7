"""Does a probability of .8 come true 8 times in 10? Temperature, Brier score, log loss, and tests of the gap.

The expected calibration error of a perfect model is far from 0 on few items, so it is shown with what chance
alone gives and never gated. Fit on calibration data; judge on the gate's.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from harness.errors import StatsError
from harness.stats.proportions import Interval
from harness.stats.sequential import Claim
from harness.stats.tails import normal_cdf, require_probability

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    Bools = NDArray[np.bool_]

COLDEST, HOTTEST = 0.02, 50.0
"""Temperatures that are tried."""
LEAST_PROBABILITY = 1e-12
"""Probabilities below this count as this in the log loss, so that one of 0 stays finite."""


class Bin(NamedTuple):
    """A bar of a reliability diagram."""

    low: float
    high: float
    n: int
    confidence: float | None
    """Mean confidence; None in an empty bin."""
    accuracy: float | None


class CalibrationError(NamedTuple):
    """The expected calibration error, beside what a perfectly calibrated model would show."""

    error: float
    chance: float
    """Mean error of a perfect model with these confidences on as many items."""
    chance_high: float
    """The error that a perfect model exceeds once in 20 times."""


class GapTest(NamedTuple):
    """Spiegelhalter's test of "the probabilities are right"."""

    z: float
    """Positive when the Brier score is worse than the probabilities promise."""
    p: float
    """Two-sided: over- and under-confidence both count."""


def fit_temperature(log_probs: Floats, gold: Ints) -> float:
    """The temperature with the least log loss of softmax(log_probs / temperature); above 1 tones down.

    `log_probs`: (n, labels), any constant may be added to a row; `gold`: (n,) column of the right label. Where all
    answers are right with any margin the least loss is at `COLDEST`.

    Raises:
        StatsError: no items, a shape that doesn't fit, or a number that isn't finite.
    """
    _require_table(log_probs, gold)
    low, high = math.log(COLDEST), math.log(HOTTEST)
    ratio = (math.sqrt(5.0) - 1.0) / 2.0
    for _ in range(70):  # the loss has one valley in the temperature
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        is_left = _loss(log_probs, gold, math.exp(left)) <= _loss(log_probs, gold, math.exp(right))
        low, high = (low, right) if is_left else (left, high)
    return math.exp((low + high) / 2.0)


def at_temperature(log_probs: Floats, temperature: float) -> Floats:
    """softmax(log_probs / temperature), shape (n, labels)."""
    import numpy as np

    if not temperature > 0.0:
        raise StatsError(f"temperature {temperature:g}: wanted more than 0")
    scaled = np.asarray(log_probs, float) / temperature
    scaled = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return np.asarray(scaled / scaled.sum(axis=1, keepdims=True), float)


def brier_items(probs: Floats, gold: Ints) -> Floats:
    """Squared distance of each row of probabilities from the truth, 0 to 2, shape (n,)."""
    import numpy as np

    _require_table(probs, gold)
    truth = np.zeros_like(probs, dtype=float)
    truth[np.arange(len(gold)), gold] = 1.0
    return np.asarray(((probs - truth) ** 2).sum(axis=1), float)


def brier(probs: Floats, gold: Ints) -> float | None:
    """Mean squared distance of the probabilities from the truth, 0 to 2; None without items."""
    return float(brier_items(probs, gold).mean()) if len(gold) else None


def log_loss(probs: Floats, gold: Ints) -> float | None:
    """Mean negative log-probability of the right label, in nats; None without items."""
    import numpy as np

    if len(gold) == 0:
        return None
    _require_table(probs, gold)
    right = probs[np.arange(len(gold)), gold]
    return float(-np.log(np.maximum(right, LEAST_PROBABILITY)).mean())


def brier_claim(margin: float, n_max: int, *, alpha: float = 0.05, beta: float = 0.05) -> Claim:
    """ "The candidate's Brier score is worse by at most `margin`", on baseline minus candidate `brier_items`."""
    return Claim(-margin, n_max, alpha, beta, -2.0, 2.0, prior_variance=0.01)


def confidence_gap(confidence: Floats, is_right: Bools) -> float | None:
    """Mean confidence minus accuracy: above 0 for a model that promises too much; None without items."""
    return float(_gaps(confidence, is_right).mean()) if len(confidence) else None


def confidence_gap_bounds(
    confidence: Floats, is_right: Bools, alpha: float = 0.05, beta: float = 0.05
) -> Interval | None:
    """One-sided bounds for the gap by Student's t: `low` at alpha, `high` at beta.

    The gap is within ±δ at error alpha when both bounds at alpha are. None for fewer than 30 items, and where all
    gaps are equal.
    """
    from scipy.special import stdtrit

    require_probability("alpha", alpha)
    require_probability("beta", beta)
    n = len(confidence)
    gaps = _gaps(confidence, is_right)
    error = float(gaps.std(ddof=1)) / math.sqrt(n) if n >= 30 else 0.0
    if error == 0.0:
        return None
    middle = float(gaps.mean())
    return Interval(
        middle - error * float(stdtrit(n - 1, 1.0 - alpha)),
        middle + error * float(stdtrit(n - 1, 1.0 - beta)),
    )


def reliability(confidence: Floats, is_right: Bools, bins: int = 10) -> tuple[Bin, ...]:
    """The reliability diagram with bins of equal width; a confidence on an edge belongs to the bin below it."""
    which = _bin_of(confidence, bins)
    return tuple(_bar(confidence[which == k], is_right[which == k], k, bins) for k in range(bins))


def expected_calibration_error(
    confidence: Floats, is_right: Bools, *, bins: int = 10, draws: int = 1000, seed: int = 17
) -> CalibrationError | None:
    """The gap between confidence and accuracy, averaged over bins by their items, with its chance level.

    Chance draws right and wrong `draws` times by the confidences themselves. None without items.
    """
    import numpy as np

    gaps, n = _gaps(confidence, is_right), len(confidence)
    if n == 0:
        return None
    which, rng = _bin_of(confidence, bins), np.random.default_rng(seed)
    chance = [_binned(confidence - (rng.random(n) < confidence), which, bins) for _ in range(draws)]
    return CalibrationError(
        _binned(gaps, which, bins), float(np.mean(chance)), float(np.quantile(chance, 0.95))
    )


def spiegelhalter(confidence: Floats, is_right: Bools) -> GapTest | None:
    """Spiegelhalter's test of calibration, two-sided; None where every confidence is 0, ½ or 1.

    Spiegelhalter (1986), Statistics in Medicine 5, 421-433.
    """
    _gaps(confidence, is_right)
    lean = 1.0 - 2.0 * confidence
    spread = float((lean**2 * confidence * (1.0 - confidence)).sum())
    if spread <= 0.0:
        return None
    z = float(((is_right - confidence) * lean).sum()) / math.sqrt(spread)
    return GapTest(z, 2.0 * normal_cdf(-abs(z)))


def _loss(log_probs: Floats, gold: Ints, temperature: float) -> float:
    import numpy as np

    scaled = log_probs / temperature
    top = scaled.max(axis=1)
    total = top + np.log(np.exp(scaled - top[:, None]).sum(axis=1))
    return float((total - scaled[np.arange(len(gold)), gold]).mean())


def _gaps(confidence: Floats, is_right: Bools) -> Floats:
    import numpy as np

    if np.shape(confidence) != np.shape(is_right):
        raise StatsError(f"{len(confidence)} confidences and {len(is_right)} answers: wanted one each")
    if not ((confidence >= 0.0) & (confidence <= 1.0)).all():
        raise StatsError("a confidence is not a number from 0 to 1")
    return np.asarray(confidence - is_right, float)


def _bin_of(confidence: Floats, bins: int) -> Ints:
    import numpy as np

    above = np.ceil(np.asarray(confidence) * bins).astype(np.int64)
    return np.asarray(np.clip(above - 1, 0, bins - 1), np.int64)


def _binned(gaps: Floats, which: Ints, bins: int) -> float:
    import numpy as np

    return float(np.abs(np.bincount(which, weights=gaps, minlength=bins)).sum() / len(gaps))


def _bar(confidence: Floats, is_right: Bools, index: int, bins: int) -> Bin:
    n = len(confidence)
    return Bin(
        index / bins,
        (index + 1) / bins,
        n,
        float(confidence.mean()) if n else None,
        float(is_right.mean()) if n else None,
    )


def _require_table(table: Floats, gold: Ints) -> None:
    import numpy as np

    if np.ndim(table) != 2 or len(table) != len(gold) or len(gold) == 0:
        raise StatsError(f"a table of shape {np.shape(table)} for {len(gold)} items: wanted one row an item")
    if not np.isfinite(table).all():
        raise StatsError("a probability is not a finite number")
    if gold.min() < 0 or gold.max() >= table.shape[1]:
        raise StatsError(f"right labels from {gold.min()} to {gold.max()}: wanted 0 to {table.shape[1] - 1}")
