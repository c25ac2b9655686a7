"""Scores that come in clusters: documents with several questions, patients with several notes.

Items of one cluster resemble each other, so they are worth fewer independent ones. With clusters of 5 and an
intra-cluster correlation of .3, a test that takes items for independent passes falsely 13 % of the time.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from harness.errors import StatsError
from harness.stats.proportions import Interval
from harness.stats.sequential import Betting, Claim, Outcome
from harness.stats.tails import require_probability


class ClusterMean(NamedTuple):
    """A mean over all items with an error that allows for clusters."""

    mean: float
    error: float
    """Standard error."""
    clusters: int
    items: int


def cluster_means(scores: Sequence[float], units: Sequence[str]) -> list[float]:
    """The mean score of each unit, in order of first appearance."""
    sums = _sums(scores, units)
    return [total / count for total, count in sums.values()]


def clustered_mean(
    scores: Sequence[float], units: Sequence[str], correction: Literal["CR0", "CR1"] = "CR1"
) -> ClusterMean | None:
    """The mean of all items and its cluster-robust standard error; None for fewer than 2 clusters.

    `scores` and `units` have one entry an item, shape (n,). CR1 scales the variance by G / (G - 1) for G clusters;
    see Cameron & Miller (2015), Journal of Human Resources 50, 317-372.
    """
    sums = _sums(scores, units)
    clusters, items = len(sums), len(scores)
    if clusters < 2:
        return None
    mean = math.fsum(scores) / items
    squares = math.fsum((total - count * mean) ** 2 for total, count in sums.values())
    scale = clusters / (clusters - 1) if correction == "CR1" else 1.0
    return ClusterMean(mean, math.sqrt(scale * squares) / items, clusters, items)


def clustered_bounds(
    scores: Sequence[float], units: Sequence[str], alpha: float = 0.05, beta: float = 0.05
) -> Interval | None:
    """One-sided bounds for the mean by CR1 and Student's t: `low` at alpha, `high` at beta.

    For 50 clusters and more with scores that aren't skewed; else `bet_on_clusters`. None for fewer than 2
    clusters, and where all clusters agree, which says nothing about how they would differ.
    """
    from scipy.special import stdtrit

    require_probability("alpha", alpha)
    require_probability("beta", beta)
    found = clustered_mean(scores, units)
    if found is None or found.error == 0.0:
        return None
    below = found.error * float(stdtrit(found.clusters - 1, 1.0 - alpha))
    above = found.error * float(stdtrit(found.clusters - 1, 1.0 - beta))
    return Interval(found.mean - below, found.mean + above)


def bet_on_clusters(claim: Claim, scores: Sequence[float], units: Sequence[str]) -> Outcome:
    """Where the betting test stands after the clusters' means, in order of first appearance.

    The claim is on the mean over clusters, each counting once, and its `n_max` counts clusters. Valid however
    few or skewed they are.
    """
    return Betting(claim).extend(cluster_means(scores, units))


def _sums(scores: Iterable[float], units: Sequence[str]) -> dict[str, tuple[float, int]]:
    sums: dict[str, tuple[float, int]] = {}
    scores = list(scores)
    if len(scores) != len(units):
        raise StatsError(f"{len(scores)} scores and {len(units)} units: wanted one unit a score")
    for score, unit in zip(scores, units, strict=True):
        total, count = sums.get(unit, (0.0, 0))
        sums[unit] = (total + score, count + 1)
    return sums
