"""Sets, intervals, abstention and kept claims with a guarantee, from calibration data alone.

A threshold is an order statistic of the calibration scores, so an item from the same population is covered with
the promised probability whatever the model is. Calibration items must never be the gate's.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple

from harness.errors import StatsError
from harness.stats.power import can_never_pass
from harness.stats.proportions import Count, Interval, at_least_p
from harness.stats.tails import beta_cdf, require_probability

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    Bools = NDArray[np.bool_]

STEPS = 25
"""Coverages at which an abstention threshold is tried."""


class GroupThreshold(NamedTuple):
    """A threshold for one group."""

    threshold: float
    n: int
    """Calibration items of the group."""
    is_pooled: bool
    """Too few items for a threshold of its own: that of all groups together, without a promise for this one."""


class Coverage(NamedTuple):
    """How prediction sets did."""

    covered: Count
    mean_size: float | None
    """Labels in a set, on average; None without items."""
    empty: int
    """Sets without a label."""


class Abstention(NamedTuple):
    """From which confidence on a model may answer."""

    threshold: float
    """Answer where the confidence is greater than this."""
    kept: Count
    """Right of the calibration items that it answers."""
    coverage: float
    """Share of the calibration items that it answers."""
    p: float
    """Exact p-value against "the precision of its answers is below the target"."""


class Claimed(NamedTuple):
    """One claim in an answer."""

    score: float
    """How sure we are of it."""
    is_true: bool


def conformal_threshold(scores: Iterable[float], alpha: float) -> float:
    """The threshold that the next score keeps with probability 1 - alpha at least; inf with too few scores.

    It is the score of rank ceil((n + 1)(1 - alpha)).
    """
    require_probability("alpha", alpha)
    ordered = sorted(float(score) for score in scores)
    if any(math.isnan(score) for score in ordered):
        raise StatsError("a score is not a number")
    rank = conformal_rank(len(ordered), alpha)
    return ordered[rank - 1] if rank <= len(ordered) else math.inf


def conformal_rank(n: int, alpha: float) -> int:
    """Rank of the threshold among n calibration scores; n + 1 where they are too few."""
    # Without the nudge, (n + 1)·(1 - .1) = 9.000000000000002 would cost a rank.
    return math.ceil((n + 1) * (1.0 - alpha) - 1e-9)


def lac_scores(probs: Floats, gold: Ints) -> Floats:
    """1 - probability of the right label, shape (n,), for sets of the labels that are likely enough.

    Sadinle, Lei & Wasserman (2019), Journal of the American Statistical Association 114, 223-234.
    """
    import numpy as np

    return np.asarray(1.0 - probs[np.arange(len(gold)), gold], float)


def prediction_sets(probs: Floats, threshold: float | Floats) -> Bools:
    """Which labels are in the set of each item, shape (n, labels); one threshold, or one an item."""
    import numpy as np

    limits = np.asarray(threshold, float)
    return np.asarray(1.0 - probs <= (limits[:, None] if limits.ndim else limits), np.bool_)


def coverage(sets: Bools, gold: Ints) -> Coverage:
    """How many sets hold the right label, and how large they are."""
    import numpy as np

    n = len(gold)
    sizes = sets.sum(axis=1)
    covered = int(sets[np.arange(n), gold].sum())
    return Coverage(Count(covered, n), float(sizes.mean()) if n else None, int((sizes == 0).sum()))


def group_thresholds(
    scores: Sequence[float], groups: Sequence[str], alpha: float
) -> dict[str, GroupThreshold]:
    """A threshold for every group, so that each is covered and not only all together.

    Groups with fewer than 1/alpha items take the pooled threshold and are marked.
    """
    if len(scores) != len(groups):
        raise StatsError(f"{len(scores)} scores and {len(groups)} groups: wanted one each")
    pooled = conformal_threshold(scores, alpha)
    by_group: dict[str, list[float]] = {}
    for score, group in zip(scores, groups, strict=True):
        by_group.setdefault(group, []).append(float(score))
    return {group: _group_threshold(own, pooled, alpha) for group, own in by_group.items()}


def thresholds_for(groups: Sequence[str], known: Mapping[str, GroupThreshold], pooled: float) -> Floats:
    """One threshold an item, shape (n,); a group that calibration never saw takes the pooled one."""
    import numpy as np

    return np.array([known[group].threshold if group in known else pooled for group in groups], float)


def interval_scores(low: Floats, high: Floats, truth: Floats) -> Floats:
    """How far each truth lies outside its predicted interval, negative inside; shape (n,).

    Romano, Patterson & Candès (2019), Conformalized quantile regression, arXiv 1905.03222.
    """
    import numpy as np

    return np.asarray(np.maximum(low - truth, truth - high), float)


def widened(low: Floats, high: Floats, threshold: float) -> tuple[Floats, Floats]:
    """The intervals widened by the threshold, or narrowed by a negative one to no less than their middle."""
    import numpy as np

    middle = (low + high) / 2.0
    return np.minimum(low - threshold, middle), np.maximum(high + threshold, middle)


def abstention_threshold(
    confidence: Sequence[float],
    is_right: Sequence[bool],
    *,
    precision: float,
    alpha: float = 0.05,
    least_coverage: float = 0.2,
    steps: int = STEPS,
) -> Abstention | None:
    """The most generous threshold above which answers are right with `precision`, wrongly with probability alpha.

    Learn-then-test (Angelopoulos et al., arXiv 2110.01052) with a fixed sequence: coverages from `least_coverage`
    to 1 are tested in this order with the exact binomial until one fails, so no correction is due. Coverages with
    too few items to prove anything are left out. None where not even the first holds.
    """
    require_probability("precision", precision)
    require_probability("alpha", alpha)
    order = _by_confidence(confidence, is_right)
    best = None
    for step in range(steps):
        share = least_coverage + (1.0 - least_coverage) * step / max(1, steps - 1)
        size = round(share * len(order))
        if can_never_pass(size, precision, alpha):  # known before any answer is seen, so free to leave out
            continue
        tried = _abstention(order, size, precision)
        if tried.p > alpha:
            break
        best = tried
    return best


def factuality_scores(answers: Iterable[Sequence[Claimed]]) -> list[float]:
    """The highest score of a false claim in each answer, -inf where all are true.

    With their `conformal_threshold` at alpha, all claims kept of an answer are true with probability 1 - alpha:
    Mohri & Hashimoto (2024), arXiv 2402.10978.
    """
    return [
        max((claim.score for claim in claims if not claim.is_true), default=-math.inf) for claims in answers
    ]


def kept_claims(scores: Sequence[float], threshold: float) -> list[bool]:
    """Which claims of an answer are kept: those that score above the threshold."""
    return [score > threshold for score in scores]


def coverage_band(
    n_cal: int, n_test: int, alpha: float, confidence: float = 0.95, *, worth: float | None = None
) -> Interval | None:
    """Where the coverage of n_test items lies with this confidence, if all is well; None without either.

    The threshold is itself random, so the count covered is beta-binomial, wider than binomial. An infinite
    threshold covers everything. `worth` says as how many independent items the n_cal count. The rank among so many is
    rank · worth / n_cal, not rounded up: where whole units are alike the true one is that or higher.
    """
    require_probability("alpha", alpha)
    if n_cal < 1 or n_test < 1:
        return None
    rank = conformal_rank(n_cal, alpha)
    if rank > n_cal:
        return Interval(1.0, 1.0)
    tail, units = (1.0 - confidence) / 2.0, float(n_cal) if worth is None else worth
    below_it = rank * units / n_cal
    masses = (_beta_binomial(hits, n_test, below_it, units + 1.0 - below_it) for hits in range(n_test + 1))
    below = list(accumulate(masses))
    low, high = (min(bisect_left(below, share), n_test) for share in (tail, 1.0 - tail))
    return Interval(low / n_test, high / n_test)


def calibration_items(alpha: float, slack: float, certainty: float = 0.95) -> int:
    """Fewest calibration items with which coverage is at least 1 - alpha - slack with this certainty.

    Coverage given the calibration data is a beta variable that moves by whole ranks: some larger numbers of items
    do a little worse than the one returned.
    """
    require_probability("alpha", alpha)
    require_probability("certainty", certainty)
    require_probability("slack", slack)
    floor, n = 1.0 - alpha - slack, 1
    while conformal_rank(n, alpha) > n:  # the threshold would be infinite and the sets useless
        n += 1
    while not _is_certain(n, alpha, floor, certainty):
        n += 1
    return n


def _is_certain(n: int, alpha: float, floor: float, certainty: float) -> bool:
    rank = conformal_rank(n, alpha)
    return beta_cdf(floor, rank, n + 1 - rank) <= 1.0 - certainty


def _group_threshold(own: list[float], pooled: float, alpha: float) -> GroupThreshold:
    is_pooled = len(own) < 1.0 / alpha - 1e-9
    return GroupThreshold(pooled if is_pooled else conformal_threshold(own, alpha), len(own), is_pooled)


def _by_confidence(confidence: Sequence[float], is_right: Sequence[bool]) -> list[tuple[float, bool]]:
    if len(confidence) != len(is_right):
        raise StatsError(f"{len(confidence)} confidences and {len(is_right)} answers: wanted one each")
    if any(math.isnan(value) for value in confidence):
        raise StatsError("a confidence is not a number")
    pairs = [(float(sure), bool(right)) for sure, right in zip(confidence, is_right, strict=True)]
    return sorted(pairs, key=lambda pair: -pair[0])


def _abstention(order: Sequence[tuple[float, bool]], size: int, precision: float) -> Abstention:
    # The items above the next confidence are an independent sample of all that lie above it.
    threshold = order[size][0] if size < len(order) else -math.inf
    kept = [right for sure, right in order[:size] if sure > threshold]
    count = Count(sum(kept), len(kept))
    share = len(kept) / len(order) if order else 0.0
    return Abstention(threshold, count, share, at_least_p(*count, precision))


def _beta_binomial(hits: int, n: int, a: float, b: float) -> float:
    ways = math.lgamma(n + 1) - math.lgamma(hits + 1) - math.lgamma(n - hits + 1)
    top = math.lgamma(hits + a) + math.lgamma(n - hits + b) - math.lgamma(n + a + b)
    return math.exp(ways + top - math.lgamma(a) - math.lgamma(b) + math.lgamma(a + b))
