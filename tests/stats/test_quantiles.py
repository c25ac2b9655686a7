from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from harness.errors import StatsError
from harness.stats.quantiles import (
    items_for_quantile,
    quantile,
    quantile_interval,
    quantile_lower_bound,
    quantile_upper_bound,
)

values = st.lists(st.floats(-1e6, 1e6), max_size=150)
shares = st.sampled_from([0.05, 0.5, 0.9, 0.95, 0.99])


def test_the_95th_percentile_needs_59_values_for_an_upper_bound() -> None:
    assert items_for_quantile(0.95) == 59
    assert quantile_upper_bound(range(58), 0.95) is None
    assert quantile_upper_bound(range(59), 0.95) == 58


def test_ranks_for_a_hundred_values_by_the_binomial() -> None:
    latencies = [float(value) for value in range(1, 101)]

    assert quantile(latencies, 0.95) == 95.0
    assert quantile_upper_bound(latencies, 0.95) == float(stats.binom.ppf(0.95, 100, 0.95)) + 1
    assert quantile_lower_bound(latencies, 0.95) == float(stats.binom.ppf(0.05, 100, 0.95))


@given(values, shares, st.sampled_from([0.01, 0.05, 0.2]))
def test_bounds_keep_their_stated_error(sample: list[float], share: float, alpha: float) -> None:
    n, ordered = len(sample), sorted(sample)
    high, low = quantile_upper_bound(sample, share, alpha), quantile_lower_bound(sample, share, alpha)

    if high is not None and len(set(sample)) == n:
        rank = ordered.index(high) + 1
        assert stats.binom.sf(rank - 1, n, share) <= alpha
        assert rank == 1 or stats.binom.sf(rank - 2, n, share) > alpha
    if low is not None and len(set(sample)) == n:
        rank = ordered.index(low) + 1
        assert stats.binom.cdf(rank - 1, n, share) <= alpha
        assert rank == n or stats.binom.cdf(rank, n, share) > alpha


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=150), shares)
def test_the_bounds_hold_the_estimate_between_them(sample: list[float], share: float) -> None:
    middle = quantile(sample, share)
    assert middle is not None
    high, low = quantile_upper_bound(sample, share, 0.05), quantile_lower_bound(sample, share, 0.05)

    assert high is None or middle <= high
    assert low is None or low <= middle


def test_the_upper_bound_misses_no_more_often_than_stated_with_ties() -> None:
    rng = np.random.default_rng(8)
    samples = np.floor(rng.exponential(3.0, size=(4000, 80)))
    true = float(np.floor(stats.expon.ppf(0.9, scale=3.0)))

    misses = np.mean([(quantile_upper_bound(row, 0.9, 0.05) or 0.0) < true for row in samples.tolist()])

    assert misses <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 4000)


def test_no_values_have_no_quantile() -> None:
    assert quantile([], 0.5) is None
    assert quantile_upper_bound([], 0.5) is None
    assert quantile_lower_bound([], 0.5) is None
    assert quantile_interval([1.0, 2.0], 0.5) is None


def test_a_value_that_is_no_number_is_refused() -> None:
    with pytest.raises(StatsError, match="not a number"):
        quantile([1.0, float("nan")], 0.5)
