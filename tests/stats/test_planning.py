from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from harness.errors import StatsError
from harness.stats.paired import paired_bounds
from harness.stats.planning import (
    detectable_gap,
    detectable_margin,
    detectable_rate,
    needed_at,
    paired_curve,
    planned_worth,
)


@pytest.mark.parametrize(("threshold", "rate", "items"), [(0.80, 0.85, 365), (0.90, 0.95, 179)])
def test_items_for_four_fifths_power_are_the_published_ones(
    threshold: float, rate: float, items: int
) -> None:
    assert needed_at(threshold, rate) == items
    assert detectable_rate(items, threshold) == pytest.approx(rate, abs=1e-3)


@given(st.integers(1, 300), st.sampled_from([0.5, 0.8, 0.95]))
def test_the_detectable_rate_has_that_power_by_scipys_binomial(n: int, threshold: float) -> None:
    found = detectable_rate(n, threshold)
    cut = next((k for k in range(n + 1) if stats.binom.sf(k - 1, n, threshold) <= 0.05), None)

    assert (found is None) == (cut is None)
    if found is not None and cut is not None:
        assert stats.binom.sf(cut - 1, n, found) == pytest.approx(0.8, abs=1e-6)


@pytest.mark.parametrize(("margin", "items"), [(0.02, 1546), (0.03, 687), (0.05, 248)])
def test_the_finest_margin_is_the_published_one_and_half_an_item(margin: float, items: int) -> None:
    assert detectable_margin(items, 0.1) == pytest.approx(margin + 0.5 / items, rel=2e-3)
    assert detectable_margin(0) is None


def test_the_finest_gap_is_the_normal_approximations() -> None:
    z = stats.norm.ppf(0.95) + stats.norm.ppf(0.8)

    assert detectable_gap(50, 200, rate=0.7) == pytest.approx(z * math.sqrt(0.21 * (1 / 50 + 1 / 200)))
    assert detectable_gap(0, 200) is None


@pytest.mark.parametrize(
    ("margin", "difference", "discordance"),
    [(0.1, 0.0, 0.15), (0.1, -0.1, 0.15), (0.1, -0.25, 0.1), (-0.1, 0.2, 0.1), (0.3, 1.0, 0.1)],
)
def test_the_paired_curve_is_what_simulated_tables_do(
    margin: float, difference: float, discordance: float
) -> None:
    (point,) = paired_curve(80, margin, [difference], discordance)
    share = max(discordance, abs(difference))
    lost, gained = (share - difference) / 2, (share + difference) / 2
    tables = np.random.default_rng(17).multinomial(80, [lost, gained, 1 - lost - gained], size=4000)
    known = {(b, c): paired_bounds(b, c, 80) for b, c in {(int(b), int(c)) for b, c, _ in tables}}
    bounds = [known[int(b), int(c)] for b, c, _ in tables]
    passes = np.mean([found is not None and found.low > -margin for found in bounds])
    fails = np.mean([found is not None and found.high < -margin for found in bounds])

    for seen, computed in ((passes, point.pass_frac), (fails, point.fail_frac)):
        assert seen == pytest.approx(computed, abs=4 * math.sqrt(max(computed * (1 - computed), 1e-4) / 4000))
    assert (point.rate, point.mean_n) == (difference, 80.0)


def test_items_of_one_unit_are_worth_what_kish_says() -> None:
    """20 units of 8 that correlate .1: a design effect of 1.7, and t quantiles of 159 and 19 degrees."""
    units = [str(item // 8) for item in range(160)]
    shrink = (stats.t.ppf(0.95, 159) / stats.t.ppf(0.95, 19)) ** 2

    assert planned_worth(units, 0.05) == pytest.approx(160 / 1.7 * shrink, rel=1e-3)
    assert planned_worth(units, 0.05, correlation=1.0) == pytest.approx(20.0)
    assert planned_worth([str(item) for item in range(30)], 0.05) == 30.0
    assert planned_worth(["one"] * 9, 0.05) == 1.0
    assert planned_worth([], 0.05) == 0.0


def test_levels_that_are_no_probabilities_are_refused() -> None:
    for wrong in (lambda: detectable_rate(10, 0.8, 0.0), lambda: detectable_margin(10, alpha=1.0)):
        with pytest.raises(StatsError):
            wrong()
