from __future__ import annotations

import numpy as np
import pytest

from harness.errors import StatsError
from harness.stats.ppi import corrected_bounds, corrected_mean


def _judged(n: int, rest: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels of which 60 % are right, and a judge that is too kind and right about 85 % of the time."""
    truth = (rng.random(n + rest) < 0.6).astype(float)
    judge = np.where(truth == 1, rng.random(n + rest) < 0.95, rng.random(n + rest) < 0.3).astype(float)
    return truth[:n], judge[:n], judge[n:]


def test_bounds_cover_the_truth_that_the_judge_alone_misses() -> None:
    rng = np.random.default_rng(71)
    misses = judge_misses = 0
    for _ in range(1500):
        labels, judged, rest = _judged(100, 1000, rng)
        bounds = corrected_bounds(labels, judged, rest)
        assert bounds is not None
        misses += bounds.low > 0.6
        judge_misses += rest.mean() - 1.645 * rest.std() / np.sqrt(1000) > 0.6

    assert misses / 1500 <= 0.055 + 3 * np.sqrt(0.055 * 0.945 / 1500)
    assert judge_misses / 1500 > 0.5


def test_the_stated_error_is_the_spread_of_the_estimate_and_below_that_of_labels_alone() -> None:
    rng = np.random.default_rng(72)
    found = [corrected_mean(*_judged(200, 5000, rng)) for _ in range(1500)]
    known = [one for one in found if one is not None]
    spread = float(np.std([one.mean for one in known]))

    assert len(known) == 1500
    assert np.mean([one.error for one in known]) == pytest.approx(spread, rel=0.08)
    assert np.mean([one.mean for one in known]) == pytest.approx(0.6, abs=0.005)
    assert np.mean([one.worth for one in known]) > 1.5 * 200


def test_a_useless_judge_is_not_trusted() -> None:
    rng = np.random.default_rng(73)
    labels = (rng.random(400) < 0.6).astype(float)

    found = corrected_mean(labels, rng.random(400), rng.random(4000))

    assert found is not None
    assert found.weight < 0.15
    assert found.mean == pytest.approx(float(labels.mean()), abs=0.01)


def test_without_further_items_it_is_the_mean_of_the_labels() -> None:
    labels = np.array([1.0, 0.0, 1.0, 1.0])

    found = corrected_mean(labels, np.array([1.0, 0.5, 0.5, 1.0]), np.zeros(0))

    assert found is not None
    assert found.mean == 0.75
    assert found.error == pytest.approx(float(labels.std(ddof=1)) / 2)
    assert found.worth == pytest.approx(4.0)


def test_too_little_is_unknown() -> None:
    assert corrected_mean(np.array([1.0]), np.array([1.0]), np.ones(5)) is None
    assert corrected_mean(np.ones(5), np.ones(5), np.ones(5)) is None
    assert corrected_bounds(np.arange(29.0), np.arange(29.0), np.arange(5.0)) is None


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(StatsError, match="wanted the same items"):
        corrected_mean(np.ones(2), np.ones(3), np.ones(1))
    with pytest.raises(StatsError, match="finite"):
        corrected_mean(np.array([1.0, np.nan]), np.ones(2), np.ones(1))
