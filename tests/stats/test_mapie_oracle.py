"""MAPIE as an oracle where it is right: sets of likely labels, and widened quantile intervals.

Among the numbers of calibration items are some for which (n + 1)(1 - alpha) is whole, where rounding could cost a rank.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from mapie.classification import SplitConformalClassifier
from mapie.regression import ConformalizedQuantileRegressor
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin

from harness.stats.conformal import (
    conformal_threshold,
    coverage,
    group_thresholds,
    interval_scores,
    lac_scores,
    prediction_sets,
    thresholds_for,
    widened,
)

LABELS = 5


class KnownProbs(ClassifierMixin, BaseEstimator):
    """A classifier whose features are its label probabilities."""

    classes_ = np.arange(LABELS)
    n_features_in_ = LABELS

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def fit(self, features: np.ndarray, gold: np.ndarray) -> KnownProbs:
        raise AssertionError("a prefit model is never fitted")

    def predict_proba(self, features: np.ndarray) -> np.ndarray:
        return np.asarray(features)

    def predict(self, features: np.ndarray) -> np.ndarray:
        return np.asarray(features).argmax(axis=1)


class KnownQuantile(RegressorMixin, BaseEstimator):
    """A regressor that reads its answer from one feature."""

    n_features_in_ = 3

    def __init__(self, column: int = 0) -> None:
        self.column = column

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def fit(self, features: np.ndarray, truth: np.ndarray) -> KnownQuantile:
        raise AssertionError("a prefit model is never fitted")

    def predict(self, features: np.ndarray) -> np.ndarray:
        return np.asarray(features)[:, self.column]


def answered(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Label probabilities of a bold model, shape (n, labels), and the right labels."""
    rng = np.random.default_rng(seed)
    logits, gold = rng.normal(0.0, 1.0, size=(n, LABELS)), rng.integers(0, LABELS, size=n)
    logits[np.arange(n), gold] += 1.5
    bold = np.exp(1.5 * logits)
    return bold / bold.sum(axis=1, keepdims=True), gold


def measured(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Features (low, high, median) that are too narrow and off centre, and the truth."""
    rng = np.random.default_rng(seed)
    truth, width = rng.normal(0.0, 1.0, size=n), rng.uniform(0.2, 0.8, size=n)
    middle = truth + rng.normal(0.3, 0.7, size=n)
    return np.column_stack([middle - width, middle + width, middle]), truth


@pytest.mark.parametrize("n", [37, 99, 803])
@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.3])
def test_sets_of_likely_labels_equal_mapies(n: int, alpha: float) -> None:
    (probs, gold), (unseen, right) = answered(n, seed=n), answered(400, seed=1)
    mapie = SplitConformalClassifier(
        KnownProbs(), confidence_level=1.0 - alpha, conformity_score="lac", prefit=True
    ).conformalize(probs, gold)
    labels, expected = mapie.predict_set(unseen)

    threshold = conformal_threshold(lac_scores(probs, gold), alpha)
    sets = prediction_sets(unseen, threshold)

    np.testing.assert_allclose(lac_scores(probs, gold), mapie.conformity_scores.ravel(), rtol=0, atol=1e-15)
    assert threshold == pytest.approx(mapie._mapie_classifier.conformity_score_function_.quantiles_.item())
    np.testing.assert_array_equal(sets, expected[:, :, 0])
    assert coverage(sets, right).covered.hits == int(expected[np.arange(400), right, 0].sum())
    assert 0.0 < threshold < 1.0
    assert (labels == unseen.argmax(axis=1)).all()


def test_one_threshold_a_group_equals_one_mapie_a_group() -> None:
    (probs, gold), (unseen, _) = answered(300, seed=5), answered(200, seed=6)
    names, asked = np.array(["a", "b", "b"] * 100), np.array(["b", "a"] * 100)

    known = group_thresholds(lac_scores(probs, gold).tolist(), names.tolist(), 0.1)
    sets = prediction_sets(unseen, thresholds_for(asked.tolist(), known, math.inf))

    for name in ("a", "b"):
        mapie = SplitConformalClassifier(KnownProbs(), confidence_level=0.9, prefit=True)
        mapie.conformalize(probs[names == name], gold[names == name])
        np.testing.assert_array_equal(
            sets[asked == name], mapie.predict_set(unseen[asked == name])[1][:, :, 0]
        )
    assert known["a"].threshold != known["b"].threshold


@pytest.mark.parametrize("n", [37, 99, 803])
@pytest.mark.parametrize("alpha", [0.1, 0.3])
def test_widened_intervals_equal_mapies(n: int, alpha: float) -> None:
    (features, truth), (unseen, _) = measured(n, seed=n), measured(200, seed=2)
    mapie = ConformalizedQuantileRegressor(
        [KnownQuantile(0), KnownQuantile(1), KnownQuantile(2)], confidence_level=1.0 - alpha, prefit=True
    ).conformalize(features, truth)
    _, expected = mapie.predict_interval(unseen, symmetric_correction=True)

    scores = interval_scores(features[:, 0], features[:, 1], truth)
    low, high = widened(unseen[:, 0], unseen[:, 1], conformal_threshold(scores, alpha))

    np.testing.assert_allclose(scores, mapie.conformity_scores[2], rtol=0, atol=1e-15)
    np.testing.assert_allclose(low, expected[:, 0, 0], rtol=0, atol=1e-12)
    np.testing.assert_allclose(high, expected[:, 1, 0], rtol=0, atol=1e-12)
    assert (low < high).all()
