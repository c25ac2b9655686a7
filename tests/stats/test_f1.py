from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from harness.errors import StatsError
from harness.stats.f1 import (
    Confusion,
    Ratio,
    f1,
    f1_at_least_p,
    f1_bounds,
    f1_ratio,
    f1_to_overlap,
    overlap_to_f1,
    precision_count,
    precision_ratio,
    ratio_bounds,
    ratio_claim,
    ratio_scores,
    recall_count,
    recall_ratio,
)
from harness.stats.sequential import simulate

confusions = st.builds(Confusion, st.integers(0, 200), st.integers(0, 200), st.integers(0, 200))


@given(confusions)
def test_f1_equals_scikit_learns(confusion: Confusion) -> None:
    tp, fp, fn = confusion
    gold, answer = [1] * tp + [0] * fp + [1] * fn, [1] * tp + [1] * fp + [0] * fn
    if not gold:
        assert f1(confusion) is None
        return

    assert f1(confusion) == pytest.approx(f1_score(gold, answer, zero_division=0.0))


@given(st.floats(0.0, 1.0))
def test_f1_and_overlap_turn_into_each_other(score: float) -> None:
    assert overlap_to_f1(f1_to_overlap(score)) == pytest.approx(score, abs=1e-12)


@given(confusions, st.floats(0.01, 0.99))
def test_the_bound_and_the_p_value_of_f1_decide_alike(confusion: Confusion, threshold: float) -> None:
    bounds = f1_bounds(confusion)
    p = f1_at_least_p(confusion, threshold)
    if bounds is None:
        assert p == 1.0
        return

    assert abs(p - 0.05) < 1e-9 or (bounds.low > threshold) == (p < 0.05)
    value = f1(confusion)
    assert value is not None
    assert bounds.low <= value + 1e-12
    assert value <= bounds.high + 1e-12


def test_f1_passes_falsely_no_more_often_than_alpha() -> None:
    rng = np.random.default_rng(21)
    overlap = f1_to_overlap(0.8)
    shares = [0.5 * overlap, 0.3 * (1 - overlap), 0.2 * (1 - overlap), 0.5]  # TP, FP, FN, TN
    draws = rng.multinomial(300, shares, size=3000)

    passes = np.mean([f1_at_least_p(Confusion(*row[:3]), 0.8) <= 0.05 for row in draws.tolist()])

    assert passes <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 3000)


def test_precision_and_recall_count_what_their_names_say() -> None:
    confusion = Confusion(true_positives=8, false_positives=2, false_negatives=4)

    assert precision_count(confusion) == (8, 10)
    assert recall_count(confusion) == (8, 12)
    assert precision_ratio(confusion) == Ratio(8, 10)
    assert recall_ratio(confusion) == Ratio(8, 12)
    assert f1_ratio(confusion) == Ratio(16, 22)


def test_nothing_to_count_is_unknown() -> None:
    assert f1(Confusion(0, 0, 0)) is None
    assert f1_bounds(Confusion(0, 0, 0)) is None
    assert ratio_bounds([Ratio(1, 2)]) is None
    assert ratio_bounds([Ratio(0, 0)] * 60) is None
    assert ratio_bounds([Ratio(1, 2)] * 60) is None


def _documents(rng: np.random.Generator, runs: int, documents: int) -> np.ndarray:
    """Confusions with document effects, shape (runs, documents, 3); F1 of the whole population is 0.8."""
    sizes = rng.integers(1, 6, size=(runs, documents))
    easy = rng.random((runs, documents)) < 0.5
    overlap = f1_to_overlap(0.8)
    hits = rng.binomial(sizes, np.where(easy, min(1.0, overlap + 0.3), overlap - 0.3))
    false_positives = rng.binomial(sizes - hits, 0.5)
    return np.stack([hits, false_positives, sizes - hits - false_positives], axis=-1)


def test_the_betting_claim_by_document_keeps_its_error() -> None:
    runs = _documents(np.random.default_rng(22), 3000, 150)
    scores = 2 * runs[..., 0] - 0.8 * (2 * runs[..., 0] + runs[..., 1] + runs[..., 2])

    ends = simulate(ratio_claim(0.8, 10, 150, prior_variance=0.02), scores)

    assert ends.passes.mean() <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 3000)
    assert ends.fails.mean() <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 3000)


def test_linearised_bounds_cover_the_ratio_as_often_as_stated() -> None:
    runs = _documents(np.random.default_rng(23), 1500, 100)
    low_misses = high_misses = 0
    for run in runs.tolist():
        bounds = ratio_bounds([f1_ratio(Confusion(*document)) for document in run])
        assert bounds is not None
        low_misses += bounds.low > 0.8
        high_misses += bounds.high < 0.8

    assert low_misses / 1500 <= 0.055 + 3 * math.sqrt(0.055 * 0.945 / 1500)
    assert high_misses / 1500 <= 0.055 + 3 * math.sqrt(0.055 * 0.945 / 1500)


def test_scores_by_document_lie_in_the_claims_range() -> None:
    claim = ratio_claim(0.8, 10, 50)

    scores = ratio_scores([Ratio(10, 10), Ratio(0, 10), Ratio(0, 0)], 0.8, 10)

    assert scores == pytest.approx([claim.high, claim.low, claim.threshold])


@pytest.mark.parametrize("ratio", [Ratio(3, 2), Ratio(1, 11), Ratio(-1, 2)])
def test_a_document_outside_the_promised_size_is_refused(ratio: Ratio) -> None:
    with pytest.raises(StatsError, match="wanted 0 ≤ numerator"):
        ratio_scores([ratio], 0.8, 10)
