from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from harness.errors import StatsError
from harness.stats.conformal import (
    Claimed,
    Count,
    GroupThreshold,
    abstention_threshold,
    calibration_items,
    conformal_rank,
    conformal_threshold,
    coverage,
    coverage_band,
    factuality_scores,
    group_thresholds,
    interval_scores,
    kept_claims,
    lac_scores,
    prediction_sets,
    thresholds_for,
    widened,
)


def _population(n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probabilities of a model that is too bold, right labels, and groups of which the last is hard."""
    rng = np.random.default_rng(seed)
    groups = rng.choice(3, p=[0.6, 0.3, 0.1], size=n)
    logits = rng.normal(0.0, 1.0, size=(n, 5))
    gold = rng.integers(0, 5, size=n)
    logits[np.arange(n), gold] += np.array([3.0, 2.0, 0.5])[groups]
    bold = np.exp(2.0 * logits)
    return bold / bold.sum(axis=1, keepdims=True), gold, groups


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=80), st.sampled_from([0.05, 0.1, 0.25, 0.5]))
def test_the_threshold_is_the_score_of_the_right_rank(scores: list[float], alpha: float) -> None:
    n, threshold = len(scores), conformal_threshold(scores, alpha)
    rank = conformal_rank(n, alpha)

    assert rank >= (n + 1) * (1 - alpha) - 1e-6 > rank - 1 - 1e-6
    assert threshold == (sorted(scores)[rank - 1] if rank <= n else math.inf)


def test_rounding_costs_no_rank() -> None:
    assert conformal_rank(9, 0.1) == 9
    assert conformal_rank(19, 0.05) == 19
    assert conformal_rank(99, 0.3) == 70


def test_too_few_scores_keep_everything() -> None:
    assert conformal_threshold([], 0.1) == math.inf
    assert conformal_threshold([0.1] * 8, 0.1) == math.inf
    assert prediction_sets(np.array([[0.0, 1.0]]), math.inf).all()


def test_coverage_over_many_calibrations_is_the_promised_one() -> None:
    covered = []
    for seed in range(300):
        probs, gold, _ = _population(300, seed)
        threshold = conformal_threshold(lac_scores(probs[:100], gold[:100]), 0.1)
        found = coverage(prediction_sets(probs[100:], threshold), gold[100:]).covered
        covered.append(found.hits / found.n)

    assert np.mean(covered) == pytest.approx(
        conformal_rank(100, 0.1) / 101, abs=3 * np.std(covered) / math.sqrt(300)
    )


def test_every_group_is_covered_when_it_has_its_own_threshold() -> None:
    probs, gold, groups = _population(30_000, 51)
    names = [f"group {group}" for group in groups.tolist()]
    scores = lac_scores(probs, gold)
    known = group_thresholds(scores[:6000].tolist(), names[:6000], 0.1)
    pooled = conformal_threshold(scores[:6000].tolist(), 0.1)

    own = prediction_sets(probs[6000:], thresholds_for(names[6000:], known, pooled))
    together = prediction_sets(probs[6000:], pooled)

    hard = groups[6000:] == 2
    marginal, mondrian = (coverage(sets[hard], gold[6000:][hard]).covered for sets in (together, own))
    assert marginal.hits / marginal.n < 0.8
    assert mondrian.hits / mondrian.n > 0.87


def test_a_small_group_takes_the_pooled_threshold_and_is_marked() -> None:
    scores, groups = [0.1 * k for k in range(20)] + [5.0] * 9, ["large"] * 20 + ["small"] * 9

    found = group_thresholds(scores, groups, 0.1)

    assert found["small"] == GroupThreshold(conformal_threshold(scores, 0.1), 9, True)
    assert found["large"] == GroupThreshold(conformal_threshold(scores[:20], 0.1), 20, False)
    assert thresholds_for(["never seen", "large"], found, 7.0).tolist() == [7.0, found["large"].threshold]


def test_a_group_of_exactly_one_over_alpha_is_on_its_own() -> None:
    assert not group_thresholds([0.0] * 10, ["a"] * 10, 0.1)["a"].is_pooled


def test_intervals_cover_after_calibration_though_the_model_is_too_sure() -> None:
    rng = np.random.default_rng(52)
    centre = rng.normal(size=20_000)
    truth = centre + rng.normal(size=20_000)
    low, high = centre - 0.3, centre + 0.3
    threshold = conformal_threshold(interval_scores(low[:2000], high[:2000], truth[:2000]).tolist(), 0.1)

    lows, highs = widened(low[2000:], high[2000:], threshold)

    assert np.mean((lows <= truth[2000:]) & (truth[2000:] <= highs)) == pytest.approx(0.9, abs=0.025)


def test_an_interval_is_never_turned_inside_out() -> None:
    lows, highs = widened(np.array([0.0]), np.array([1.0]), -3.0)

    assert lows.tolist() == highs.tolist() == [0.5]


def _abstaining(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    confidence = rng.random(n)
    return confidence, rng.random(n) < 0.6 + 0.4 * confidence**0.5


def test_answers_above_the_threshold_are_precise_as_often_as_promised() -> None:
    broken = found = 0
    for seed in range(400):
        confidence, is_right = _abstaining(500, seed)
        got = abstention_threshold(confidence.tolist(), is_right.tolist(), precision=0.93, alpha=0.1)
        if got is None:
            continue
        found += 1
        above = np.linspace(max(got.threshold, 0.0), 1.0, 2001)
        broken += float(np.mean(0.6 + 0.4 * above**0.5)) < 0.93

    assert found > 40
    assert broken / 400 <= 0.1 + 3 * math.sqrt(0.1 * 0.9 / 400)


def test_a_model_that_is_always_right_may_always_answer() -> None:
    got = abstention_threshold([0.1 * k for k in range(100)], [True] * 100, precision=0.9)

    assert got is not None
    assert got.coverage == 1.0
    assert got.threshold == -math.inf
    assert got.kept == Count(100, 100)
    assert got.p == pytest.approx(0.9**100)


def test_no_threshold_is_no_promise() -> None:
    assert abstention_threshold([0.5] * 100, [True] * 50 + [False] * 50, precision=0.95) is None
    assert abstention_threshold([], [], precision=0.95) is None


def test_ties_at_the_threshold_are_left_out() -> None:
    confidence = [0.9] * 60 + [0.5] * 140
    got = abstention_threshold(confidence, [True] * 60 + [False] * 140, precision=0.9, least_coverage=0.35)

    assert got is not None
    assert got.threshold == 0.5
    assert got.kept == Count(60, 60)


def test_all_kept_claims_are_true_as_often_as_promised() -> None:
    rng = np.random.default_rng(53)

    def answer() -> list[Claimed]:
        truths = rng.random(rng.integers(1, 8)) < 0.7
        return [Claimed(float(rng.normal(1.5 if truth else 0.0)), bool(truth)) for truth in truths]

    kept_true = []
    for _ in range(200):
        threshold = conformal_threshold(factuality_scores(answer() for _ in range(60)), 0.2)
        fresh = [answer() for _ in range(30)]
        kept = [kept_claims([claim.score for claim in claims], threshold) for claims in fresh]
        kept_true += [
            all(claim.is_true for claim, is_kept in zip(claims, keep, strict=True) if is_kept)
            for claims, keep in zip(fresh, kept, strict=True)
        ]

    assert np.mean(kept_true) == pytest.approx(conformal_rank(60, 0.2) / 61, abs=0.02)


def test_an_answer_without_false_claims_asks_for_no_cut() -> None:
    assert factuality_scores([[Claimed(0.2, True)], [], [Claimed(0.4, False), Claimed(0.9, True)]]) == [
        -math.inf,
        -math.inf,
        0.4,
    ]


@pytest.mark.parametrize(("n_cal", "n_test", "alpha"), [(200, 300, 0.1), (50, 40, 0.2), (19, 1000, 0.05)])
def test_the_band_is_beta_binomial(n_cal: int, n_test: int, alpha: float) -> None:
    rank = conformal_rank(n_cal, alpha)
    expected = stats.betabinom(n_test, rank, n_cal + 1 - rank).ppf([0.025, 0.975]) / n_test

    assert coverage_band(n_cal, n_test, alpha) == pytest.approx(tuple(expected))


def test_the_band_holds_where_the_items_of_a_unit_are_all_alike() -> None:
    """8 calibration units of 8 equal scores, 20 test units of 8: the share of coverages below the lower end."""
    rng = np.random.default_rng(17)
    band = coverage_band(64, 20, 0.1, 0.9, worth=8)
    assert band is not None

    below = 0
    for _ in range(4000):
        threshold = conformal_threshold(rng.random(8).repeat(8).tolist(), 0.1)
        below += (rng.random(20) <= threshold).mean() < band.low

    assert below / 4000 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 4000)
    assert band.low >= 0.4


@pytest.mark.parametrize(("n_cal", "worth"), [(64, 8), (40, 12.5)])
def test_the_band_of_dependent_items_is_that_of_their_worth(n_cal: int, worth: float) -> None:
    rank = conformal_rank(n_cal, 0.1) * worth / n_cal
    expected = stats.betabinom(30, rank, worth + 1 - rank).ppf([0.025, 0.975]) / 30

    assert coverage_band(n_cal, 30, 0.1, worth=worth) == pytest.approx(tuple(expected))
    assert coverage_band(n_cal, 30, 0.1, worth=n_cal) == coverage_band(n_cal, 30, 0.1)


def test_no_band_without_items() -> None:
    assert coverage_band(0, 10, 0.1) is None
    assert coverage_band(10, 0, 0.1) is None
    assert coverage_band(5, 10, 0.1) == (1.0, 1.0)
    assert coverage(np.zeros((0, 3), bool), np.zeros(0, int)).mean_size is None


@pytest.mark.parametrize(("slack", "expected"), [(0.05, 68), (0.03, 228), (0.02, 558), (0.01, 2338)])
def test_calibration_items_for_95_percent_certainty(slack: float, expected: int) -> None:
    assert calibration_items(0.1, slack) == expected


def test_what_cannot_be_calibrated_is_refused() -> None:
    with pytest.raises(StatsError, match="not a number"):
        conformal_threshold([0.1, float("nan")], 0.1)
    with pytest.raises(StatsError, match="wanted one each"):
        group_thresholds([0.1], [], 0.1)
    with pytest.raises(StatsError, match="not a number"):
        abstention_threshold([float("nan")], [True], precision=0.9)
