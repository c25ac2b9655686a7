from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from harness.errors import StatsError
from harness.stats.sequential import Betting, Claim, paired_claim, simulate

RUNS = 4000


def _ceiling(error: float = 0.05, runs: int = RUNS) -> float:
    return error + 3 * math.sqrt(error * (1 - error) / runs)


@pytest.mark.parametrize("threshold", [0.5, 0.8, 0.95, 0.99])
@pytest.mark.parametrize("n_max", [30, 400])
def test_both_errors_stay_under_their_limits_at_the_threshold(threshold: float, n_max: int) -> None:
    rng = np.random.default_rng(11)
    scores = (rng.random((RUNS, n_max)) < threshold).astype(float)

    ends = simulate(Claim(threshold, n_max), scores)

    assert ends.passes.mean() <= _ceiling()
    assert ends.fails.mean() <= _ceiling()
    assert not (ends.passes & ends.fails).any()


@pytest.mark.parametrize("threshold", [0.3, 0.9])
def test_skewed_scores_keep_the_errors_under_their_limits(threshold: float) -> None:
    rng = np.random.default_rng(12)
    weight = 0.4
    scores = rng.beta(weight * threshold, weight * (1 - threshold), size=(RUNS, 200))

    ends = simulate(Claim(threshold, 200), scores)

    assert ends.passes.mean() <= _ceiling()
    assert ends.fails.mean() <= _ceiling()


def test_the_error_holds_beyond_the_planned_number_of_items() -> None:
    scores = (np.random.default_rng(13).random((RUNS, 300)) < 0.8).astype(float)

    ends = simulate(Claim(0.8, 100), scores)

    assert ends.passes.mean() <= _ceiling()
    assert ends.fails.mean() <= _ceiling()


def test_a_wrong_guess_of_the_discordance_costs_no_validity() -> None:
    rng = np.random.default_rng(14)
    u = rng.random((RUNS, 300))
    scores = np.where(u < 0.05, 1.0, np.where(u < 0.15, -1.0, 0.0))

    for guess in (0.01, 0.9):
        ends = simulate(paired_claim(0.05, 300, guess), scores)
        assert ends.passes.mean() <= _ceiling()
        assert ends.fails.mean() <= _ceiling()


@pytest.mark.parametrize(
    ("rate", "passes", "fails", "mean_n"),
    [(0.70, 0.0, 0.997, 188), (0.75, 0.0, 0.76, 307), (0.85, 0.78, 0.0, 286), (0.90, 1.0, 0.0, 145)],
)
def test_operating_characteristics_of_a_rate(rate: float, passes: float, fails: float, mean_n: float) -> None:
    scores = (np.random.default_rng(15).random((RUNS, 400)) < rate).astype(float)

    ends = simulate(Claim(0.80, 400), scores)

    assert ends.passes.mean() == pytest.approx(passes, abs=0.03)
    assert ends.fails.mean() == pytest.approx(fails, abs=0.03)
    assert ends.n.mean() == pytest.approx(mean_n, abs=8)


@pytest.mark.parametrize(
    ("difference", "passes", "fails", "mean_n"),
    [(-0.10, 0.0, 0.82, 285), (0.0, 0.77, 0.0, 293), (0.03, 0.99, 0.0, 204)],
)
def test_operating_characteristics_of_a_pair(
    difference: float, passes: float, fails: float, mean_n: float
) -> None:
    u = np.random.default_rng(16).random((RUNS, 400))
    wins = (0.15 + difference) / 2
    scores = np.where(u < wins, 1.0, np.where(u < 0.15, -1.0, 0.0))

    ends = simulate(paired_claim(0.05, 400, 0.15), scores)

    assert ends.passes.mean() == pytest.approx(passes, abs=0.03)
    assert ends.fails.mean() == pytest.approx(fails, abs=0.03)
    assert ends.n.mean() == pytest.approx(mean_n, abs=8)


rows = hnp.arrays(np.float64, st.tuples(st.just(3), st.integers(1, 120)), elements=st.floats(0.0, 1.0))


@given(rows, st.floats(0.05, 0.95))
def test_many_runs_at_once_end_as_each_would_alone(scores: np.ndarray, threshold: float) -> None:
    claim = Claim(threshold, 60, alpha=0.1, beta=0.2)

    together = simulate(claim, scores)

    for row, passes, fails, n in zip(scores, *together, strict=True):
        alone = Betting(claim).extend(row.tolist())
        assert (alone.decision == "PASS", alone.decision == "FAIL", alone.n) == (passes, fails, n)


@given(
    st.lists(st.floats(0.0, 1.0), min_size=1, max_size=100),
    st.sampled_from([0.25, 0.5, 0.75]),
    st.sampled_from([(-2.0, 4.0), (0.0, 8.0), (-1.0, 2.0)]),
)
def test_the_outcome_does_not_depend_on_the_scale(
    scores: list[float], threshold: float, scale: tuple[float, float]
) -> None:
    low, width = scale
    plain = Betting(Claim(threshold, 100)).extend(scores)

    scaled_claim = Claim(low + width * threshold, 100, low=low, high=low + width)
    scaled = Betting(scaled_claim).extend([min(low + width, max(low, low + width * s)) for s in scores])

    assert (scaled.decision, scaled.n) == (plain.decision, plain.n)
    assert scaled.pass_p == pytest.approx(plain.pass_p, rel=1e-6)
    assert scaled.fail_p == pytest.approx(plain.fail_p, rel=1e-6)


@given(st.lists(st.booleans(), max_size=400), st.floats(0.001, 0.999), st.integers(1, 500))
def test_wealth_is_never_nan_and_p_values_stay_between_0_and_1(
    answers: list[bool], threshold: float, n_max: int
) -> None:
    outcome = Betting(Claim(threshold, n_max)).extend(map(float, answers))

    assert 0.0 <= outcome.pass_p <= 1.0
    assert 0.0 <= outcome.fail_p <= 1.0
    assert outcome.decision != "PASS" or outcome.pass_p <= 0.05 * (1 + 1e-12)
    assert outcome.decision != "FAIL" or outcome.fail_p <= 0.05 * (1 + 1e-12)


def test_no_items_decide_nothing() -> None:
    assert Betting(Claim(0.5, 10)).outcome == (None, 0, 1.0, 1.0)


def test_the_first_crossing_latches() -> None:
    test = Betting(Claim(0.5, 200))
    decided = test.extend([1.0] * 200)
    assert decided.decision == "PASS"
    assert decided.n < 200

    test.extend([0.0] * 10_000)

    assert test.outcome == decided


@pytest.mark.parametrize("score", [1.5, -0.1, float("nan"), float("inf")])
def test_a_score_outside_the_range_is_refused(score: float) -> None:
    with pytest.raises(StatsError, match="wanted a number from 0 to 1"):
        Betting(Claim(0.5, 10)).add(score)


@pytest.mark.parametrize(
    ("threshold", "n_max", "alpha"), [(0.0, 10, 0.05), (1.0, 10, 0.05), (0.5, 0, 0.05), (0.5, 10, 0.0)]
)
def test_a_claim_that_cannot_be_tested_is_refused(threshold: float, n_max: int, alpha: float) -> None:
    with pytest.raises(StatsError, match="wanted"):
        Claim(threshold, n_max, alpha)
