from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from harness.errors import StatsError
from harness.stats.paired import paired_bounds
from harness.stats.power import (
    can_never_pass,
    cuts,
    fewest_items,
    items_for_power,
    items_needed,
    operating_curve,
    paired_items_for_power,
    paired_items_needed,
)
from harness.stats.proportions import lower_bound, upper_bound

counts = st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
thresholds = st.floats(0.02, 0.98)


def test_items_for_80_percent_power() -> None:
    assert items_for_power(0.80, 0.85) == 365
    assert items_for_power(0.90, 0.95) == 179
    assert [paired_items_for_power(margin, 0.10) for margin in (0.02, 0.03, 0.05)] == [1546, 687, 248]


def test_no_number_of_items_proves_what_is_not_so() -> None:
    assert items_for_power(0.80, 0.80) is None
    assert items_for_power(0.80, 0.70) is None
    assert paired_items_for_power(0.05, 0.15, difference=-0.05) is None


def test_operating_curve_of_the_fixed_design() -> None:
    curve = operating_curve(400, 0.80, [0.70, 0.75, 0.80, 0.85, 0.90])

    assert [round(point.pass_frac, 3) for point in curve] == [0.0, 0.0, 0.043, 0.819, 1.0]
    assert [round(point.fail_frac, 3) for point in curve] == [0.998, 0.772, 0.048, 0.0, 0.0]
    assert {point.mean_n for point in curve} == {400.0}


@given(st.integers(0, 400), thresholds, st.floats(0.0, 1.0))
def test_no_outcome_both_passes_and_fails(n: int, threshold: float, rate: float) -> None:
    where = cuts(n, threshold)
    (point,) = operating_curve(n, threshold, [rate])

    assert where.fail_to < where.pass_from
    assert where.fail_to >= -1
    assert where.pass_from <= n + 1
    assert point.pass_frac == pytest.approx(stats.binom.sf(where.pass_from - 1, n, rate), abs=1e-10)
    assert point.fail_frac == pytest.approx(stats.binom.cdf(where.fail_to, n, rate), abs=1e-10)
    assert point.pass_frac + point.fail_frac <= 1.0 + 1e-12


@given(counts, thresholds, st.sampled_from([0.01, 0.05, 0.2]))
def test_cuts_are_where_the_bounds_cross_the_threshold(
    count: tuple[int, int], threshold: float, alpha: float
) -> None:
    hits, n = count
    where = cuts(n, threshold, alpha, alpha)
    low, high = lower_bound(hits, n, alpha), upper_bound(hits, n, alpha)
    assert low is not None
    assert high is not None

    if abs(low - threshold) > 1e-9 and abs(high - threshold) > 1e-9:
        assert (hits >= where.pass_from) == (low > threshold)
        assert (hits <= where.fail_to) == (high < threshold)


def test_the_smallest_suite_that_can_pass() -> None:
    assert can_never_pass(58, 0.95)
    assert not can_never_pass(59, 0.95)
    assert fewest_items(0.95) == 59
    assert fewest_items(1.0) is None
    assert fewest_items(0.0) is not None
    assert can_never_pass(0, 0.5)
    assert can_never_pass(10**6, 1.0)


@given(thresholds, st.sampled_from([0.001, 0.05, 0.3]))
def test_fewest_items_is_the_first_that_can_pass(threshold: float, alpha: float) -> None:
    n = fewest_items(threshold, alpha)
    assert n is not None

    assert not can_never_pass(n, threshold, alpha)
    assert n == 1 or can_never_pass(n - 1, threshold, alpha)


@given(counts, thresholds)
def test_that_many_more_items_at_the_same_score_do_settle_it(
    count: tuple[int, int], threshold: float
) -> None:
    hits, n = count
    more = items_needed(hits, n, at_least=threshold)
    if more is None:
        return

    total = n + more
    passes = lower_bound(min(total, round(hits * total / n + 0.5)), total, 0.05)
    fails = upper_bound(max(0, round(hits * total / n - 0.5)), total, 0.05)
    assert passes is not None
    assert fails is not None
    assert passes >= threshold - 1e-9 or fails <= threshold + 1e-9


@given(counts, thresholds)
def test_a_settled_rule_needs_nothing_more(count: tuple[int, int], threshold: float) -> None:
    hits, n = count
    where = cuts(n, threshold)

    is_settled = hits >= where.pass_from or hits <= where.fail_to

    assert (items_needed(hits, n, at_least=threshold) == 0) == is_settled


@given(counts, thresholds)
def test_at_most_is_at_least_on_the_misses(count: tuple[int, int], threshold: float) -> None:
    hits, n = count

    assert items_needed(hits, n, at_most=threshold) == items_needed(n - hits, n, at_least=1.0 - threshold)


def test_a_score_on_the_threshold_is_never_settled() -> None:
    assert items_needed(80, 100, at_least=0.80) is None
    assert items_needed(0, 0, at_least=0.80) is None
    assert paired_items_needed(10, 5, 100, -0.05) is None
    assert paired_items_needed(0, 0, 0, -0.05) is None


def test_a_rule_needs_one_threshold() -> None:
    with pytest.raises(StatsError, match="exactly one"):
        items_needed(1, 2)
    with pytest.raises(StatsError, match="exactly one"):
        items_needed(1, 2, at_least=0.1, at_most=0.2)


@pytest.mark.parametrize(("b", "c", "n"), [(5, 5, 100), (0, 0, 10), (15, 5, 100), (3, 9, 60)])
def test_more_pairs_of_the_same_kind_settle_non_inferiority(b: int, c: int, n: int) -> None:
    more = paired_items_needed(b, c, n, -0.05)
    assert more is not None

    total = n + more
    bounds = paired_bounds(round(b * total / n), round(c * total / n), total)
    assert bounds is not None
    assert bounds.low > -0.05 or bounds.high < -0.05


def test_questions_about_items_needed_are_answered_at_once() -> None:
    start = time.process_time()

    for hits in range(0, 10_001, 500):
        items_needed(hits, 10_000, at_least=0.8)

    assert time.process_time() - start < 1.0


@pytest.mark.parametrize(("b", "c", "n"), [(2, 2, 4), (3, 3, 6), (1, 1, 2), (49, 51, 100)])
def test_pairs_that_all_differ_can_be_asked_for_more(b: int, c: int, n: int) -> None:
    more = paired_items_needed(b, c, n, -0.05)

    assert more is not None
    assert more > 0
    size = n + more
    bounds = paired_bounds(size - size * c // n, size * c // n, size)
    assert bounds is not None
    assert bounds.low > -0.06
