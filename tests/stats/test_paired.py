from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, stats
from statsmodels.stats.contingency_tables import mcnemar

from harness.errors import StatsError
from harness.stats.paired import (
    mcnemar_exact,
    mcnemar_mid_p,
    noninferiority_p,
    paired_bounds,
    superiority_p,
    tango_interval,
    tango_z,
)

pairs = st.integers(1, 400).flatmap(
    lambda n: st.integers(0, n).flatmap(lambda b: st.tuples(st.just(b), st.integers(0, n - b), st.just(n)))
)


def test_published_mcnemar_values_are_met() -> None:
    assert mcnemar_exact(1, 7) == pytest.approx(0.0703125, abs=1e-9)
    assert mcnemar_mid_p(1, 7) == pytest.approx(0.0390625, abs=1e-9)
    assert mcnemar_exact(7, 1) == pytest.approx(0.0703125, abs=1e-9)


def test_tangos_interval_for_the_published_table() -> None:
    assert tango_interval(7, 1, 21) == pytest.approx((-0.5172, -0.0260), abs=5e-5)
    assert tango_interval(1, 7, 21) == pytest.approx((0.0260, 0.5172), abs=5e-5)


@given(st.integers(0, 300), st.integers(0, 300))
def test_mcnemar_equals_statsmodels_and_scipy(b: int, c: int) -> None:
    if b + c == 0:
        return

    assert mcnemar_exact(b, c) == pytest.approx(float(mcnemar([[0, b], [c, 0]], exact=True).pvalue), rel=1e-8)
    assert superiority_p(b, c) == pytest.approx(
        stats.binomtest(c, b + c, 0.5, alternative="greater").pvalue, rel=1e-8
    )


def test_no_discordant_items_prove_nothing() -> None:
    assert mcnemar_exact(0, 0) == 1.0
    assert mcnemar_mid_p(0, 0) == 1.0
    assert superiority_p(0, 0) == 1.0
    assert noninferiority_p(0, 0, 100, 0.0) == 1.0


def _profile_z(b: int, c: int, n: int, difference: float) -> float:
    """The score statistic with the nuisance parameter found by numerical maximum likelihood."""

    def loss(p_b: float) -> float:
        p_c, both = p_b + difference, 1.0 - 2.0 * p_b - difference
        return -sum(k * math.log(max(p, 1e-300)) for k, p in ((b, p_b), (c, p_c), (n - b - c, both)) if k)

    low, high = max(0.0, -difference), (1.0 - difference) / 2.0
    best = optimize.minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-12}).x
    return float((c - b - n * difference) / math.sqrt(n * (2 * best + difference * (1 - difference))))


@given(pairs, st.floats(-0.9, 0.9))
def test_tangos_standard_error_is_the_one_at_maximum_likelihood(
    table: tuple[int, int, int], difference: float
) -> None:
    b, c, n = table
    if abs(difference) < 1e-3:
        return

    assert tango_z(b, c, n, difference) == pytest.approx(_profile_z(b, c, n, difference), rel=1e-4, abs=1e-4)


@given(pairs, st.floats(0.6, 0.999))
def test_tangos_interval_holds_the_estimate_and_mirrors(
    table: tuple[int, int, int], confidence: float
) -> None:
    b, c, n = table
    interval, mirrored = tango_interval(b, c, n, confidence), tango_interval(c, b, n, confidence)
    assert interval is not None
    assert mirrored is not None

    assert -1.0 <= interval.low <= (c - b) / n <= interval.high <= 1.0
    assert interval == pytest.approx((-mirrored.high, -mirrored.low), abs=1e-9)


@given(pairs, st.floats(-0.3, 0.3), st.sampled_from([0.01, 0.05, 0.1]))
def test_the_bound_and_the_p_value_decide_alike(
    table: tuple[int, int, int], margin: float, alpha: float
) -> None:
    b, c, n = table
    bounds, p = paired_bounds(b, c, n, alpha, alpha), noninferiority_p(b, c, n, margin)
    assert bounds is not None
    assert p is not None

    if abs(p - alpha) > 1e-9 and abs(bounds.low + margin) > 1e-9:
        assert (bounds.low > -margin) == (p < alpha)


@given(pairs)
def test_better_is_said_only_where_the_exact_test_says_it(table: tuple[int, int, int]) -> None:
    b, c, n = table
    bounds = paired_bounds(b, c, n)
    assert bounds is not None

    assert bounds.low < 0.0 or superiority_p(b, c) <= 0.05
    assert bounds.high > 0.0 or superiority_p(c, b) <= 0.05
    assert bounds.low <= (c - b) / n <= bounds.high


@given(pairs)
def test_an_item_won_over_never_lowers_the_bound(table: tuple[int, int, int]) -> None:
    b, c, n = table
    if b == 0:
        return
    before, after = paired_bounds(b, c, n), paired_bounds(b - 1, c, n)
    assert before is not None
    assert after is not None

    assert before.low <= after.low + 1e-12
    assert before.high <= after.high + 1e-12


def test_no_items_have_no_bounds() -> None:
    assert paired_bounds(0, 0, 0) is None
    assert tango_interval(0, 0, 0) is None
    assert noninferiority_p(0, 0, 0, 0.05) is None


def test_one_item_proves_no_margin_worth_having() -> None:
    for b, c in ((0, 0), (1, 0), (0, 1)):
        bounds = paired_bounds(b, c, 1)
        assert bounds is not None
        assert bounds.low < -0.4
        assert bounds.high > 0.4


@pytest.mark.parametrize(("b", "c", "n"), [(-1, 0, 5), (3, 3, 5), (0, 1, 0)])
def test_impossible_tables_are_refused(b: int, c: int, n: int) -> None:
    with pytest.raises(StatsError, match="wanted counts of 0 or more"):
        paired_bounds(b, c, n)


def test_identical_answers_pass_a_margin_once_there_are_enough_items() -> None:
    few, many = paired_bounds(0, 0, 30), paired_bounds(0, 0, 200)
    assert few is not None
    assert many is not None

    assert few.low < -0.05 < many.low
    assert many.high > 0.0


@given(pairs, st.sampled_from([0.01, 0.05, 0.2]))
def test_at_both_ends_of_the_discordance_the_exact_binomial_bound_is_kept(
    table: tuple[int, int, int], alpha: float
) -> None:
    b, _c, n = table
    fewest, most = paired_bounds(b, 0, n, alpha), paired_bounds(b, n - b, n, alpha)
    assert fewest is not None
    assert most is not None

    assert fewest.low <= -stats.beta.isf(alpha, b + 1, n - b) + 1e-9 if b < n else fewest.low == -1.0
    assert most.low <= 2 * (stats.beta.ppf(alpha, n - b, b + 1) if b < n else 0.0) - 1 + 1e-9


@pytest.mark.parametrize(
    ("b", "c", "n", "margin", "expected"),
    [
        (9, 11, 20, 0.1, stats.binom.sf(10, 20, 0.45)),  # all discordant
        (0, 0, 40, 0.05, 0.95**40),  # none discordant
        (0, 6, 100, 0.0, 0.5**6),  # superiority
        (0, 6, 100, 0.005, 0.5**6),  # a margin of half an item is still superiority
    ],
)
def test_the_exact_tail_that_decides(b: int, c: int, n: int, margin: float, expected: float) -> None:
    p = noninferiority_p(b, c, n, margin)
    assert p is not None

    assert p >= expected - 1e-12
    assert p == pytest.approx(expected, rel=0.5)


def test_a_gain_of_a_size_is_bounded_by_the_binomial() -> None:
    bounds, p = paired_bounds(0, 12, 40), noninferiority_p(0, 12, 40, -0.1)
    assert bounds is not None
    assert p is not None

    assert p >= stats.binom.sf(11, 40, 0.1)
    assert 0.1 < bounds.low <= stats.beta.ppf(0.05, 12, 29) + 1e-9


def test_no_loss_is_greater_than_all_items() -> None:
    assert noninferiority_p(3, 2, 10, 1.0) == 0.0
    assert noninferiority_p(10, 0, 10, 1.0) == 1.0


def _worst_false_pass(n: int, margin: float, alpha: float) -> float:
    """Largest probability of rejecting a true null at the margin, over all discordances; exact."""
    region = [
        (b, c)
        for b in range(n + 1)
        for c in range(n + 1 - b)
        if (noninferiority_p(b, c, n, margin) or 0.0) <= alpha
    ]
    if not region:
        return 0.0
    tables = np.array([(b, c, n - b - c) for b, c in region])
    return max(
        float(stats.multinomial.pmf(tables, n, [(x + margin) / 2, (x - margin) / 2, 1 - x]).sum())
        for x in np.linspace(abs(margin), 1.0, 60)
    )


@pytest.mark.parametrize("n", [8, 20, 45])
@pytest.mark.parametrize("margin", [0.01, 0.05, 0.15, 0.0, -0.05])
def test_non_inferiority_keeps_its_error_rate_whatever_the_discordance(n: int, margin: float) -> None:
    assert _worst_false_pass(n, margin, 0.05) <= 0.05


def test_the_error_rate_is_not_bought_with_all_of_the_power() -> None:
    assert _worst_false_pass(45, 0.05, 0.05) >= 0.04


@pytest.mark.parametrize("n", [100, 400])
def test_non_inferiority_keeps_its_error_rate_on_larger_samples(n: int) -> None:
    rng = np.random.default_rng(5)
    draws = rng.multinomial(n, [0.10, 0.05, 0.85], size=4000)

    false_pass = np.mean([(noninferiority_p(b, c, n, 0.05) or 0.0) <= 0.05 for b, c, _ in draws.tolist()])

    assert false_pass <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 4000)
