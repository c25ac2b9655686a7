from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize
from sklearn import metrics

from harness.errors import StatsError
from harness.stats import calibration
from harness.stats.calibration import (
    at_temperature,
    brier,
    brier_claim,
    brier_items,
    confidence_gap,
    confidence_gap_bounds,
    expected_calibration_error,
    fit_temperature,
    log_loss,
    reliability,
    spiegelhalter,
)
from harness.stats.sequential import Betting


def _answers(n: int, seed: int = 41, heat: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Logits of which softmax(logits / heat) is the truth, and labels drawn from it."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0.0, 2.0, size=(n, 4))
    probs = at_temperature(logits, heat)
    gold = (rng.random((n, 1)) > probs.cumsum(axis=1)).sum(axis=1).clip(0, 3)
    return logits, gold


@pytest.mark.parametrize("heat", [0.5, 1.0, 2.5])
def test_the_temperature_that_made_the_labels_is_found(heat: float) -> None:
    logits, gold = _answers(20_000, heat=heat)

    assert fit_temperature(logits, gold) == pytest.approx(heat, rel=0.05)


def test_the_temperature_is_where_scipy_finds_the_least_loss() -> None:
    logits, gold = _answers(300, heat=1.7)

    def loss(log_heat: float) -> float:
        return float(metrics.log_loss(gold, at_temperature(logits, math.exp(log_heat)), labels=[0, 1, 2, 3]))

    best = optimize.minimize_scalar(loss, bounds=(-3, 3), method="bounded", options={"xatol": 1e-9})

    assert fit_temperature(logits, gold) == pytest.approx(math.exp(best.x), rel=1e-4)


def test_a_constant_added_to_a_row_changes_nothing() -> None:
    logits, gold = _answers(100)
    shifted = logits + np.arange(100)[:, None] * 50.0

    assert fit_temperature(shifted, gold) == pytest.approx(fit_temperature(logits, gold), rel=1e-6)
    assert at_temperature(shifted, 1.3) == pytest.approx(at_temperature(logits, 1.3))


def test_answers_that_are_all_right_stay_finite() -> None:
    logits = np.array([[500.0, -500.0], [-500.0, 500.0]])

    assert fit_temperature(logits, np.array([0, 1])) > 0.0
    assert log_loss(np.array([[1.0, 0.0]]), np.array([1])) == pytest.approx(-math.log(1e-12))


def test_scores_equal_scikit_learns() -> None:
    logits, gold = _answers(500)
    probs = at_temperature(logits, 1.0)

    assert log_loss(probs, gold) == pytest.approx(metrics.log_loss(gold, probs))
    assert brier(probs, gold) == pytest.approx(metrics.brier_score_loss(gold, probs, scale_by_half=False))


def test_a_worse_brier_score_fails_its_claim_and_an_equal_one_passes() -> None:
    logits, gold = _answers(3000)
    honest, bold = at_temperature(logits, 1.0), at_temperature(logits, 0.2)
    claim = brier_claim(0.05, 3000)

    worse = Betting(claim).extend((brier_items(honest, gold) - brier_items(bold, gold)).tolist())
    equal = Betting(claim).extend((brier_items(honest, gold) - brier_items(honest, gold)).tolist())

    assert (worse.decision, equal.decision) == ("FAIL", "PASS")


def test_the_gap_is_positive_for_a_model_that_promises_too_much() -> None:
    confidence, is_right = np.full(100, 0.9), np.arange(100) < 70

    assert confidence_gap(confidence, is_right) == pytest.approx(0.2)
    bounds = confidence_gap_bounds(confidence, is_right)
    assert bounds is not None
    assert 0.1 < bounds.low < 0.2 < bounds.high < 0.3


def test_bounds_of_the_gap_miss_as_often_as_stated() -> None:
    rng = np.random.default_rng(42)
    misses = 0
    for _ in range(1000):
        confidence = rng.beta(4, 2, size=100)
        bounds = confidence_gap_bounds(confidence, rng.random(100) < confidence)
        assert bounds is not None
        misses += bounds.low > 0.0

    assert misses / 1000 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 1000)


@pytest.mark.parametrize(("n", "expected"), [(50, 0.121), (200, 0.062), (2000, 0.020)])
def test_a_perfect_model_shows_an_error_that_chance_explains(n: int, expected: float) -> None:
    rng = np.random.default_rng(43)
    confidence = rng.uniform(0.25, 1.0, size=n)
    found = expected_calibration_error(confidence, rng.random(n) < confidence)
    assert found is not None

    assert found.chance == pytest.approx(expected, rel=0.25)
    assert found.chance < found.chance_high
    assert found.error < found.chance_high * 1.3


@given(st.lists(st.tuples(st.floats(0.0, 1.0), st.booleans()), min_size=1, max_size=60), st.integers(1, 15))
def test_the_error_is_the_sum_over_the_bars_of_the_diagram(
    items: list[tuple[float, bool]], bins: int
) -> None:
    confidence, is_right = np.array([c for c, _ in items]), np.array([r for _, r in items])
    bars = reliability(confidence, is_right, bins)
    found = expected_calibration_error(confidence, is_right, bins=bins, draws=5)
    assert found is not None

    by_hand = sum(
        bar.n * abs(bar.confidence - bar.accuracy)
        for bar in bars
        if bar.confidence is not None and bar.accuracy is not None
    )

    assert sum(bar.n for bar in bars) == len(items)
    assert found.error == pytest.approx(by_hand / len(items), abs=1e-9)
    assert all(
        bar.low - 1e-12 <= bar.confidence <= bar.high + 1e-12 for bar in bars if bar.confidence is not None
    )


@pytest.mark.parametrize(("shift", "is_caught"), [(0.0, False), (0.12, True), (-0.12, True)])
def test_spiegelhalter_catches_too_bold_and_too_shy(shift: float, is_caught: bool) -> None:
    rng = np.random.default_rng(44)
    confidence = rng.uniform(0.55, 0.85, size=4000)

    found = spiegelhalter(confidence, rng.random(4000) < confidence - shift)

    assert found is not None
    assert (found.p < 0.01) == is_caught


def test_spiegelhalters_p_values_are_uniform_for_a_perfect_model() -> None:
    rng = np.random.default_rng(45)
    p_values = []
    for _ in range(2000):
        confidence = rng.uniform(0.0, 1.0, size=300)
        found = spiegelhalter(confidence, rng.random(300) < confidence)
        assert found is not None
        p_values.append(found.p)

    assert np.mean(np.array(p_values) < 0.05) == pytest.approx(0.05, abs=3 * math.sqrt(0.05 * 0.95 / 2000))


def test_no_items_have_no_score() -> None:
    none, no_labels = np.zeros(0), np.zeros(0, bool)

    assert confidence_gap(none, no_labels) is None
    assert confidence_gap_bounds(none, no_labels) is None
    assert expected_calibration_error(none, no_labels) is None
    assert spiegelhalter(none, no_labels) is None
    assert brier(np.zeros((0, 3)), np.zeros(0, int)) is None
    assert log_loss(np.zeros((0, 3)), np.zeros(0, int)) is None


def test_certain_answers_say_nothing_to_spiegelhalter() -> None:
    assert spiegelhalter(np.array([1.0, 0.0, 0.5]), np.array([True, False, True])) is None


def test_wrong_tables_are_refused() -> None:
    with pytest.raises(StatsError, match="one row an item"):
        fit_temperature(np.zeros((2, 3)), np.array([0]))
    with pytest.raises(StatsError, match="finite"):
        fit_temperature(np.array([[np.nan, 0.0]]), np.array([0]))
    with pytest.raises(StatsError, match="wanted 0 to 1"):
        fit_temperature(np.zeros((1, 2)), np.array([2]))
    with pytest.raises(StatsError, match="from 0 to 1"):
        confidence_gap(np.array([1.2]), np.array([True]))
    with pytest.raises(StatsError, match="more than 0"):
        calibration.at_temperature(np.zeros((1, 2)), 0.0)
