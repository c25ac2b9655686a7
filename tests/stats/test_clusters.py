from __future__ import annotations

import math

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import StatsError
from harness.stats.clusters import bet_on_clusters, cluster_means, clustered_bounds, clustered_mean
from harness.stats.proportions import at_least_p
from harness.stats.sequential import Claim, simulate

SCORES = [0, 1, 1, 1, 0, 1, 1, 0, 1, 1, 1, 1]
UNITS = [unit for unit in "abcd" for _ in range(3)]


def test_published_cluster_robust_errors_are_met() -> None:
    plain, corrected = clustered_mean(SCORES, UNITS, "CR0"), clustered_mean(SCORES, UNITS, "CR1")
    assert plain is not None
    assert corrected is not None

    assert plain.error == pytest.approx(0.07216878, abs=5e-9)
    assert corrected.error == pytest.approx(0.08333333, abs=5e-9)
    assert (corrected.mean, corrected.clusters, corrected.items) == (0.75, 4, 12)


@given(st.lists(st.tuples(st.floats(0.0, 1.0), st.integers(0, 8)), min_size=3, max_size=80))
def test_errors_equal_statsmodels(items: list[tuple[float, int]]) -> None:
    scores, groups = [score for score, _ in items], [group for _, group in items]
    found = clustered_mean(scores, [str(group) for group in groups])
    if found is None:
        assert len(set(groups)) < 2
        return
    fit = sm.OLS(np.array(scores), np.ones(len(scores)))
    robust = fit.fit(cov_type="cluster", cov_kwds={"groups": np.array(groups), "use_correction": True})

    assert found.mean == pytest.approx(float(robust.params[0]), abs=1e-9)
    assert found.error == pytest.approx(float(robust.bse[0]), abs=1e-7)


def _clustered_answers(
    rng: np.random.Generator, runs: int, clusters: int, rate: float, icc: float
) -> np.ndarray:
    """Right or wrong, shape (runs, clusters, 5), beta-binomial with this intra-cluster correlation."""
    strength = (1 - icc) / icc
    rates = rng.beta(rate * strength, (1 - rate) * strength, size=(runs, clusters, 1))
    return (rng.random((runs, clusters, 5)) < rates).astype(float)


def test_the_engine_on_cluster_means_keeps_the_error_that_the_naive_test_breaks() -> None:
    answers = _clustered_answers(np.random.default_rng(31), 3000, 80, 0.8, 0.3)
    hits = answers.sum(axis=(1, 2)).astype(int).tolist()

    naive = np.mean([at_least_p(count, 400, 0.8) <= 0.05 for count in hits])
    engine = simulate(Claim(0.8, 80), answers.mean(axis=2))

    assert naive > 0.10
    assert engine.passes.mean() <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 3000)
    assert engine.fails.mean() <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 3000)


def test_bounds_cover_the_mean_about_as_often_as_stated() -> None:
    answers = _clustered_answers(np.random.default_rng(32), 1000, 80, 0.6, 0.3)
    units = [str(cluster) for cluster in range(80) for _ in range(5)]
    misses = 0
    for run in answers:
        bounds = clustered_bounds(run.ravel().tolist(), units)
        assert bounds is not None
        misses += bounds.low > 0.6

    assert misses / 1000 <= 0.055 + 3 * math.sqrt(0.055 * 0.945 / 1000)


def test_betting_counts_each_cluster_once() -> None:
    claim = Claim(0.5, 40)
    scores = [1.0] * 400 + [0.0] * 39
    units = ["big"] * 400 + [f"small {index}" for index in range(39)]

    assert bet_on_clusters(claim, scores, units).decision == "FAIL"


def test_means_keep_the_order_of_first_appearance() -> None:
    assert cluster_means([1.0, 0.0, 0.0, 1.0], ["b", "a", "b", "a"]) == [0.5, 0.5]
    assert cluster_means([1.0, 0.0, 1.0], ["b", "a", "b"]) == [1.0, 0.0]


def test_one_cluster_says_nothing_about_others() -> None:
    assert clustered_mean([1.0, 0.0], ["a", "a"]) is None
    assert clustered_mean([], []) is None
    assert clustered_bounds([1.0, 1.0], ["a", "b"]) is None


def test_a_score_without_a_unit_is_refused() -> None:
    with pytest.raises(StatsError, match="one unit a score"):
        clustered_mean([1.0, 0.0], ["a"])
