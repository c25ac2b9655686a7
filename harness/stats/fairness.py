"""Do groups fare alike? Rates per group, gaps with intervals, and a gate on the largest gap.

The largest gap of several groups is biased upward: its bootstrap interval leaves 0 even where all groups are
alike. It is for display; the gate judges every ordered pair. A rate without a denominator is unknown, not 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from harness.errors import StatsError
from harness.stats.multiplicity import holm
from harness.stats.proportions import Count, Gap, Interval, lower_bound, newcombe_at, pairwise_gaps
from harness.stats.sequential import Decision
from harness.stats.tails import normal_cdf, normal_quantile, require_probability

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Bools = NDArray[np.bool_]

Rate = Literal["selection", "true_positive", "false_positive", "accuracy"]
RATES: tuple[Rate, ...] = ("selection", "true_positive", "false_positive", "accuracy")
SUMMARIES: dict[str, tuple[Rate, ...]] = {
    "demographic_parity": ("selection",),
    "equal_opportunity": ("true_positive",),
    "equalized_odds": ("true_positive", "false_positive"),
    "accuracy_gap": ("accuracy",),
}
"""Each is the largest gap between groups in these rates."""


class Cells(NamedTuple):
    """Answers of one group against the truth."""

    true_positives: int
    false_positives: int
    false_negatives: int
    true_negatives: int


class GapEstimate(NamedTuple):
    """The largest gap between groups, for display."""

    gap: float | None
    """None where fewer than two groups have a rate."""
    interval: Interval | None
    """Percentiles of the bootstrap; it leaves 0 by construction."""
    unknown: tuple[str, ...]
    """Groups with an empty denominator, left out."""


class GapVerdict(NamedTuple):
    """What the gate says of the gaps."""

    decision: Decision | None
    """None where neither is shown."""
    worst: Gap | None
    """PASS and open: the pair with the highest upper bound. FAIL: the pair with the clearest gap."""
    too_small: tuple[str, ...]
    """Groups that could not pass even if they fared exactly like the largest one."""
    under_floor: tuple[str, ...]
    """Groups whose lower bound does not reach the floor."""


def count_cells(gold: Bools, answers: Bools, groups: Sequence[str]) -> dict[str, Cells]:
    """The cells of each group, by name; `gold` and `answers` are yes or no, shape (n,)."""
    import numpy as np

    if not len(gold) == len(answers) == len(groups):
        raise StatsError(f"{len(gold)} truths, {len(answers)} answers, {len(groups)} groups: wanted one each")
    names, which = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    cell = which * 4 + np.where(np.asarray(gold), np.where(answers, 0, 2), np.where(answers, 1, 3))
    table = np.bincount(cell, minlength=4 * len(names)).reshape(-1, 4)
    return {str(name): Cells(*map(int, row)) for name, row in zip(names, table, strict=True)}


def rate_count(cells: Cells, rate: Rate) -> Count:
    """Numerator and denominator of one rate."""
    hits, n = _fraction(cells, rate)
    return Count(hits, n)


def largest_gaps(
    cells: Mapping[str, Cells], *, draws: int = 1000, confidence: float = 0.95, seed: int = 17
) -> dict[str, GapEstimate]:
    """Each of `SUMMARIES` with a bootstrap interval over items.

    A bootstrap of the items is one multinomial draw over the cells, whatever the number of items.
    """
    import numpy as np

    require_probability("confidence", confidence)
    table = np.array([list(group) for group in cells.values()], float).reshape(-1, 4)
    total = int(table.sum())
    if total == 0:
        return {name: GapEstimate(None, None, tuple(cells)) for name in SUMMARIES}
    drawn = np.random.default_rng(seed).multinomial(total, table.ravel() / total, size=draws)
    return {
        name: _estimate(list(cells), table, drawn.reshape(draws, -1, 4).astype(float), rates, confidence)
        for name, rates in SUMMARIES.items()
    }


def gap_gate(
    groups: Mapping[str, Count],
    cap: float,
    *,
    alpha: float = 0.05,
    beta: float = 0.05,
    floor: float | None = None,
) -> GapVerdict:
    """Whether no group fares better than another by more than `cap`.

    PASS when the upper Newcombe bound of every ordered pair is under the cap, and every group's exact lower bound
    over the floor: an intersection-union test, each at alpha. FAIL when a gap over the cap is shown after Holm's
    correction over all pairs at beta. An empty group, or fewer than two groups, can't PASS.
    """
    require_probability("cap", cap)
    gaps = pairwise_gaps(groups, alpha, beta)
    shown = _shown_over(groups, gaps, cap, beta)
    under_floor = _under_floor(groups, floor, alpha)
    too_small = _too_small(groups, cap, alpha)
    if shown is not None:
        return GapVerdict("FAIL", shown, too_small, under_floor)
    worst = max(gaps, key=lambda gap: gap.high, default=None)
    is_complete = worst is not None and all(count.n > 0 for count in groups.values())
    is_pass = is_complete and worst is not None and worst.high < cap and not under_floor
    return GapVerdict("PASS" if is_pass else None, worst, too_small, under_floor)


def gap_p(better: Count, worse: Count, cap: float) -> float:
    """One-sided p-value against "the gap is at most `cap`", by inverting Newcombe's bound; 1 without items."""
    if better.n == 0 or worse.n == 0 or better.hits / better.n - worse.hits / worse.n <= cap:
        return 1.0
    low, high = 0.0, 40.0
    for _ in range(60):
        middle = (low + high) / 2.0
        bound = newcombe_at(better, worse, middle)
        low, high = (middle, high) if bound is not None and bound.low > cap else (low, middle)
    return normal_cdf(-low)


def _shown_over(groups: Mapping[str, Count], gaps: Sequence[Gap], cap: float, beta: float) -> Gap | None:
    p_values = [gap_p(groups[gap.better], groups[gap.worse], cap) for gap in gaps]
    shown = [(p, -gap.gap, gap) for p, gap in zip(holm(p_values), gaps, strict=True) if p <= beta]
    return min(shown)[2] if shown else None


def _under_floor(groups: Mapping[str, Count], floor: float | None, alpha: float) -> tuple[str, ...]:
    if floor is None:
        return ()
    bounds = {name: lower_bound(count.hits, count.n, alpha) for name, count in groups.items()}
    return tuple(name for name, bound in bounds.items() if bound is None or bound < floor)


def _too_small(groups: Mapping[str, Count], cap: float, alpha: float) -> tuple[str, ...]:
    z = normal_quantile(1.0 - alpha)
    most = max((count.n for count in groups.values()), default=0)
    return tuple(name for name, count in groups.items() if not _could_pass(count, most, cap, z))


def _could_pass(count: Count, most: int, cap: float, z: float) -> bool:
    """Whether a group of `most` items with the same rate would be shown to be within the cap, both ways."""
    if count.n == 0:
        return False
    peer = Count(round(most * count.hits / count.n), most)
    ahead, behind = newcombe_at(count, peer, z), newcombe_at(peer, count, z)
    return ahead is not None and behind is not None and max(ahead.high, behind.high) < cap


def _estimate(
    names: Sequence[str], table: Floats, drawn: Floats, rates: Sequence[Rate], confidence: float
) -> GapEstimate:
    import numpy as np

    observed = [_rates(table[None], rate)[0] for rate in rates]
    unknown = tuple(name for k, name in enumerate(names) if any(math.isnan(values[k]) for values in observed))
    known = [k for k, name in enumerate(names) if name not in unknown]
    if len(known) < 2:
        return GapEstimate(None, None, unknown)
    gap = max(float(np.ptp(values[known])) for values in observed)
    spread = np.max([_span(_rates(drawn[:, known], rate)) for rate in rates], axis=0)
    low, high = np.nanquantile(spread, [(1.0 - confidence) / 2.0, (1.0 + confidence) / 2.0])
    return GapEstimate(gap, Interval(float(low), float(high)), unknown)


def _rates(table: Floats, rate: Rate) -> Floats:
    """The rate of each group in tables of shape (draws, groups, 4); NaN where the denominator is empty."""
    import numpy as np

    hits, n = _fraction(np.moveaxis(table, -1, 0), rate)
    return np.asarray(np.divide(hits, n, out=np.full(np.shape(hits), np.nan), where=n > 0), float)


def _fraction(cells: Any, rate: Rate) -> tuple[Any, Any]:
    """Numerator and denominator, of whole numbers or of arrays of them."""
    tp, fp, fn, tn = cells
    fractions = {
        "selection": (tp + fp, tp + fp + fn + tn),
        "true_positive": (tp, tp + fn),
        "false_positive": (fp, fp + tn),
        "accuracy": (tp + tn, tp + fp + fn + tn),
    }
    return fractions[rate]


def _span(rates: Floats) -> Floats:
    """Largest minus smallest rate of each draw, among the groups that have one."""
    import numpy as np

    high, low = np.fmax.reduce(rates, axis=1), np.fmin.reduce(rates, axis=1)
    return np.asarray(high - low, float)
