from __future__ import annotations

import math
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint

from harness.errors import StatsError
from harness.stats import tails
from harness.stats.proportions import (
    Count,
    at_least_p,
    at_most_p,
    clopper_pearson,
    lower_bound,
    newcombe,
    pairwise_gaps,
    upper_bound,
    wilson,
)

counts = st.integers(1, 3000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
levels = st.floats(1e-9, 0.499)


@pytest.mark.parametrize(
    ("hits", "n", "expected_wilson", "expected_exact"),
    [(81, 263, (0.25529, 0.36621), (0.25274, 0.36762)), (0, 20, (0.0, 0.16113), (0.0, 0.16843))],
)
def test_published_intervals_are_met(
    hits: int, n: int, expected_wilson: tuple[float, float], expected_exact: tuple[float, float]
) -> None:
    assert wilson(hits, n) == pytest.approx(expected_wilson, abs=5e-6)
    assert clopper_pearson(hits, n) == pytest.approx(expected_exact, abs=5e-6)


@given(counts, levels)
def test_exact_bounds_equal_the_beta_quantiles(count: tuple[int, int], level: float) -> None:
    hits, n = count

    low = stats.beta.ppf(level, hits, n - hits + 1) if hits else 0.0
    high = stats.beta.isf(level, hits + 1, n - hits) if hits < n else 1.0

    assert lower_bound(hits, n, level) == pytest.approx(low, rel=1e-8, abs=1e-300)
    assert upper_bound(hits, n, level) == pytest.approx(high, rel=1e-8)


@given(counts, st.floats(0.5, 0.999))
def test_wilson_equals_statsmodels(count: tuple[int, int], confidence: float) -> None:
    hits, n = count

    expected = proportion_confint(hits, n, alpha=1 - confidence, method="wilson")

    assert wilson(hits, n, confidence) == pytest.approx(expected, abs=1e-9)


@given(counts, counts)
def test_newcombe_equals_statsmodels(a: tuple[int, int], b: tuple[int, int]) -> None:
    expected = confint_proportions_2indep(*a, *b, method="newcomb", compare="diff")

    assert newcombe(Count(*a), Count(*b)) == pytest.approx(expected, abs=1e-9)


def test_newcombe_equals_his_published_example() -> None:
    interval = newcombe(Count(56, 70), Count(48, 80))

    assert interval == pytest.approx((0.0524, 0.3339), abs=5e-5)


@given(counts, st.sampled_from([0.0, 1.0]) | st.floats(1e-9, 1 - 1e-9))
def test_tails_equal_scipys(count: tuple[int, int], rate: float) -> None:
    hits, n = count

    assert tails.at_least_tail(hits, n, rate) == pytest.approx(
        stats.binom.sf(hits - 1, n, rate), rel=1e-8, abs=1e-280
    )
    assert tails.at_most_tail(hits, n, rate) == pytest.approx(
        stats.binom.cdf(hits, n, rate), rel=1e-8, abs=1e-280
    )
    assert tails.point_mass(hits, n, rate) == pytest.approx(
        stats.binom.pmf(hits, n, rate), rel=1e-8, abs=1e-280
    )


@given(st.floats(1e-300, 1 - 1e-12))
def test_normal_quantile_equals_scipys(probability: float) -> None:
    assert tails.normal_quantile(probability) == pytest.approx(
        stats.norm.ppf(probability), rel=1e-9, abs=1e-12
    )


@given(counts, levels)
def test_a_bound_and_its_p_value_agree(count: tuple[int, int], level: float) -> None:
    hits, n = count
    low, high = lower_bound(hits, n, level), upper_bound(hits, n, level)
    assert low is not None
    assert high is not None

    assert low == 0.0 or at_least_p(hits, n, low) == pytest.approx(level, rel=1e-6)
    assert high == 1.0 or at_most_p(hits, n, high) == pytest.approx(level, rel=1e-6)
    assert low <= hits / n <= high


@given(counts, levels)
def test_one_more_right_never_lowers_a_bound(count: tuple[int, int], level: float) -> None:
    hits, n = count
    if hits == n:
        return

    assert (lower_bound(hits, n, level) or 0.0) <= (lower_bound(hits + 1, n, level) or 0.0)
    assert (upper_bound(hits, n, level) or 0.0) <= (upper_bound(hits + 1, n, level) or 0.0)


@pytest.mark.parametrize("n", [10, 10_000, 2_000_000])
@pytest.mark.parametrize("missed", [0, 1])
def test_bounds_near_the_ends_are_numbers_between_0_and_1(n: int, missed: int) -> None:
    for hits in (missed, n - missed):
        interval, shown = clopper_pearson(hits, n), wilson(hits, n)
        assert interval is not None
        assert shown is not None
        for low, high in (interval, shown):
            assert 0.0 <= low <= hits / n <= high <= 1.0
            assert math.isfinite(low)
            assert math.isfinite(high)


def test_none_of_n_keeps_a_lower_bound_of_exactly_zero() -> None:
    assert wilson(0, 7) == (0.0, pytest.approx(0.35433, abs=1e-4))
    assert lower_bound(0, 7, 0.05) == 0.0
    assert upper_bound(7, 7, 0.05) == 1.0


def test_no_items_have_no_interval() -> None:
    assert clopper_pearson(0, 0) is None
    assert wilson(0, 0) is None
    assert lower_bound(0, 0, 0.05) is None
    assert upper_bound(0, 0, 0.05) is None
    assert newcombe(Count(0, 0), Count(1, 2)) is None
    assert at_least_p(0, 0, 0.9) == 1.0
    assert at_most_p(0, 0, 0.1) == 1.0


@pytest.mark.parametrize(("hits", "n"), [(-1, 5), (6, 5), (0, -1)])
def test_impossible_counts_are_refused(hits: int, n: int) -> None:
    with pytest.raises(StatsError, match="wanted 0 ≤ right ≤ items"):
        clopper_pearson(hits, n)


@pytest.mark.parametrize("level", [0.0, 1.0, -0.1, float("nan")])
def test_levels_outside_0_and_1_are_refused(level: float) -> None:
    with pytest.raises(StatsError, match="strictly between 0 and 1"):
        lower_bound(1, 2, level)


def test_gaps_name_every_ordered_pair_and_leave_empty_groups_out() -> None:
    gaps = pairwise_gaps({"a": Count(90, 100), "b": Count(70, 100), "empty": Count(0, 0)})

    assert [(gap.better, gap.worse) for gap in gaps] == [("a", "b"), ("b", "a")]
    both = newcombe(Count(90, 100), Count(70, 100), 0.90)
    assert both is not None
    assert gaps[0].gap == pytest.approx(0.2)
    assert (gaps[0].low, gaps[0].high) == pytest.approx(both)
    assert gaps[1].low == pytest.approx(-both.high)


def test_the_exact_false_pass_rate_is_at_most_alpha_on_the_whole_grid() -> None:
    for threshold in (0.5, 0.7, 0.8, 0.9, 0.95, 0.99):
        for n in (30, 100, 400, 1000):
            passing = [hits for hits in range(n + 1) if (lower_bound(hits, n, 0.05) or 0.0) >= threshold]
            false_pass = sum(stats.binom.pmf(passing, n, threshold)) if passing else 0.0
            assert false_pass <= 0.05


def test_the_hot_path_loads_neither_numpy_nor_scipy() -> None:
    code = "import harness.stats.proportions, harness.stats.paired, harness.stats.power, sys\n"
    code += "print(sorted({'numpy', 'scipy', 'torch'} & set(sys.modules)))"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"
