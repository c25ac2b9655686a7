from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from harness.errors import StatsError
from harness.stats.group_sequential import (
    Look,
    absorb,
    decide,
    look_sizes,
    obrien_fleming,
    operating_point,
    spending,
    z_bounds,
)


def test_published_obrien_fleming_bounds_are_met() -> None:
    assert z_bounds(5, 0.05) == pytest.approx((3.915055, 2.768362, 2.260358, 1.957527, 1.750866), abs=1e-6)


def test_one_look_is_the_plain_test() -> None:
    assert z_bounds(1, 0.05) == pytest.approx([stats.norm.isf(0.05)], abs=1e-7)


def test_the_exact_sprt_has_its_published_mean_sample_size() -> None:
    win, loss, goal = math.log(0.85 / 0.75), math.log(0.15 / 0.25), math.log(0.95 / 0.05)
    looks = [
        Look(n, math.ceil((goal - n * loss) / (win - loss)), math.floor((-goal - n * loss) / (win - loss)))
        for n in range(1, 2000)
    ]

    assert operating_point(looks, 0.75).mean_n == pytest.approx(84.1, abs=0.05)
    assert operating_point(looks, 0.85).mean_n == pytest.approx(92.3, abs=0.06)


@pytest.mark.parametrize(
    ("rate", "passes", "fails", "mean_n"),
    [
        (0.70, 0.0, 0.998, 177),
        (0.75, 0.0, 0.76, 300),
        (0.80, 0.049, 0.049, 391),
        (0.85, 0.81, 0.0, 291),
        (0.90, 1.0, 0.0, 157),
    ],
)
def test_operating_characteristics_of_twenty_looks(
    rate: float, passes: float, fails: float, mean_n: float
) -> None:
    point = operating_point(obrien_fleming(400, 0.80), rate)

    assert point.pass_frac == pytest.approx(passes, abs=0.005)
    assert point.fail_frac == pytest.approx(fails, abs=0.005)
    assert point.mean_n == pytest.approx(mean_n, abs=0.5)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 500), st.floats(0.01, 0.99), st.sampled_from([0.01, 0.05, 0.2]), st.floats(0.0, 1.0))
def test_probabilities_sum_to_one_and_errors_hold(
    n: int, threshold: float, alpha: float, rate: float
) -> None:
    looks = obrien_fleming(n, threshold, alpha=alpha, beta=alpha)
    anywhere, edge = absorb(looks, rate), absorb(looks, threshold)

    assert sum(anywhere.passes) + sum(anywhere.fails) + anywhere.open == pytest.approx(1.0, abs=1e-12)
    assert sum(edge.passes) <= alpha + 1e-12
    assert sum(edge.fails) <= alpha + 1e-12
    assert all(look.fail_to < look.pass_from for look in looks)


def test_the_dynamic_program_agrees_with_simulated_runs() -> None:
    looks = obrien_fleming(100, 0.7, looks=5)
    hits = (np.random.default_rng(3).random((20_000, 100)) < 0.75).cumsum(axis=1)
    is_open, passes = np.ones(20_000, bool), np.zeros(20_000, bool)
    for look in looks:
        here = hits[:, look.n - 1]
        passes |= is_open & (here >= look.pass_from)
        is_open &= (here < look.pass_from) & (here > look.fail_to)

    assert passes.mean() == pytest.approx(operating_point(looks, 0.75).pass_frac, abs=0.012)


def test_the_whole_error_is_set_free_at_the_end() -> None:
    assert spending(1.0, 0.05) == pytest.approx(0.05)
    assert spending(0.05, 0.05) < 1e-15


def test_looks_are_evenly_spread_and_end_at_the_last_item() -> None:
    assert look_sizes(400, 4) == (100, 200, 300, 400)
    assert look_sizes(3, 20) == (1, 2, 3)
    with pytest.raises(StatsError, match="wanted 1 or more"):
        look_sizes(0, 20)


def test_only_a_planned_look_decides() -> None:
    looks = (Look(10, 10, 2), Look(20, 15, 14))

    assert decide(looks, 10, 10) == "PASS"
    assert decide(looks, 2, 10) == "FAIL"
    assert decide(looks, 5, 10) is None
    assert decide(looks, 11, 11) is None
    assert decide(looks, 14, 20) == "FAIL"
