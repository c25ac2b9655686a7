"""Bounds beside the textbook's formula, written out with scipy's own distributions: an error in a sign, a quantile's
degrees of freedom or a level shows at once, where a simulation needs many runs to see it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from harness.errors import StatsError
from harness.stats.calibration import (
    brier_claim,
    confidence_gap_bounds,
    expected_calibration_error,
    reliability,
    spiegelhalter,
)
from harness.stats.clusters import bet_on_clusters, clustered_bounds
from harness.stats.conformal import (
    abstention_threshold,
    calibration_items,
    conformal_threshold,
    coverage,
    coverage_band,
    group_thresholds,
    kept_claims,
    prediction_sets,
)
from harness.stats.f1 import Confusion, Ratio, f1_bounds, ratio_bounds
from harness.stats.fairness import Cells, count_cells, gap_gate, gap_p, largest_gaps, rate_count
from harness.stats.group_sequential import absorb, look_sizes, obrien_fleming, operating_point
from harness.stats.paired import mcnemar_exact, mcnemar_mid_p, noninferiority_p, paired_bounds, tango_z
from harness.stats.power import (
    cuts,
    fewest_items,
    items_for_power,
    items_needed,
    normal_items,
    paired_items_for_power,
    paired_items_needed,
)
from harness.stats.ppi import corrected_bounds, corrected_mean
from harness.stats.proportions import Count, newcombe, newcombe_at, wilson, wilson_at
from harness.stats.quantiles import quantile_interval, quantile_lower_bound, quantile_upper_bound
from harness.stats.sequential import Betting, Claim, paired_claim
from harness.stats.survey import student_quantile


def t_bounds(mean: float, error: float, freedom: int, alpha: float, beta: float) -> tuple[float, float]:
    return (
        mean - error * float(stats.t.ppf(1 - alpha, freedom)), mean + error * float(stats.t.ppf(1 - beta, freedom)),
    )  # fmt: skip


# Means in clusters, over labels and judges, and of confidences


def test_clustered_bounds_are_students_with_a_degree_less_than_clusters() -> None:
    scores = [0.0, 1.0, 1.0, 1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0, 1.0]
    units = [str(item // 3) for item in range(12)]

    found = clustered_bounds(scores, units, alpha=0.05, beta=0.2)

    assert found == pytest.approx(t_bounds(0.75, 0.08333333333, 3, 0.05, 0.2))


def test_scores_and_units_go_together() -> None:
    with pytest.raises(StatsError):
        bet_on_clusters(Claim(0.5, 4), [1.0, 0.0, 1.0], ["a", "b"])


def judged(n: int, rest: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    labels = (rng.random(n) < 0.6).astype(float)
    return labels, 0.3 + 0.5 * labels + 0.05 * rng.random(n), 0.3 + 0.5 * (rng.random(rest) < 0.7)


def test_the_corrected_mean_is_the_published_estimator() -> None:
    """PPI++ (Angelopoulos et al. 2023): weight = cov / ((1 + n/N) var), mean = w·rest + mean(label - w·judge)."""
    labels, judge, rest = judged(40, 60)
    weight = np.cov(labels, judge)[0, 1] / ((1 + 40 / 60) * np.var(np.concatenate([judge, rest]), ddof=1))
    assert 0.0 < weight < 2.0
    weight = min(1.0, weight)
    mean = weight * rest.mean() + (labels - weight * judge).mean()
    error = math.sqrt(weight**2 * rest.var(ddof=1) / 60 + (labels - weight * judge).var(ddof=1) / 40)

    found = corrected_mean(labels, judge, rest)

    assert found is not None
    assert (found.weight, found.mean, found.error) == pytest.approx((weight, mean, error))
    assert found.worth == pytest.approx(labels.var(ddof=1) / error**2)
    assert corrected_bounds(labels, judge, rest, 0.05, 0.2) == pytest.approx(
        t_bounds(mean, error, 39, 0.05, 0.2)
    )


def test_a_weak_judge_has_the_published_weight() -> None:
    rng = np.random.default_rng(6)
    labels = (rng.random(50) < 0.5).astype(float)
    judge, rest = 0.2 * labels + rng.random(50), rng.random(70)
    weight = np.cov(labels, judge)[0, 1] / ((1 + 50 / 70) * np.var(np.concatenate([judge, rest]), ddof=1))
    error = math.sqrt(weight**2 * rest.var(ddof=1) / 70 + (labels - weight * judge).var(ddof=1) / 50)

    found = corrected_mean(labels, judge, rest)

    assert found is not None
    assert 0.05 < weight < 0.95
    assert (found.weight, found.error) == pytest.approx((weight, error))


def test_two_labels_and_two_further_items_are_the_fewest() -> None:
    labels, judge, rest = np.array([1.0, 0.0]), np.array([0.9, 0.2]), np.array([0.4, 0.8])

    assert corrected_mean(labels[:1], judge[:1], rest) is None
    found = corrected_mean(labels, judge, rest)
    assert found is not None
    assert found.weight > 0.0
    single = corrected_mean(np.array([1.0, 0.0, 1.0]), np.array([0.9, 0.2, 0.5]), rest[:1])
    assert single is not None
    assert single.weight == 0.0


def test_a_judge_that_always_says_the_same_is_left_out() -> None:
    found = corrected_mean(np.array([1.0, 0.0, 1.0]), np.full(3, 0.5), np.full(9, 0.5))

    assert found is not None
    assert (found.weight, found.mean) == (0.0, pytest.approx(2 / 3))


def test_thirty_labels_are_the_fewest_with_bounds() -> None:
    labels, judge, rest = judged(31, 50)

    assert corrected_bounds(labels[:29], judge[:29], rest) is None
    assert corrected_bounds(labels[:30], judge[:30], rest) is not None


def test_confidence_gap_bounds_are_students() -> None:
    confidence = np.linspace(0.5, 0.95, 30)
    right = np.arange(30) % 4 != 0
    gaps = confidence - right

    found = confidence_gap_bounds(confidence, right, 0.05, 0.2)

    wanted = t_bounds(float(gaps.mean()), float(gaps.std(ddof=1)) / math.sqrt(30), 29, 0.05, 0.2)
    assert found == pytest.approx(wanted)
    assert confidence_gap_bounds(confidence[:29], right[:29]) is None


def test_reliability_has_ten_bars_that_touch() -> None:
    bars = reliability(np.array([0.05, 0.1, 0.11, 1.0]), np.array([True, False, True, True]))

    assert [bar[0] for bar in bars] == pytest.approx([k / 10 for k in range(10)])
    assert [bar[1] for bar in bars] == pytest.approx([(k + 1) / 10 for k in range(10)])
    assert [bar[2] for bar in bars] == [2, 1, 0, 0, 0, 0, 0, 0, 0, 1]


def test_the_calibration_error_has_ten_bins_and_a_chance_level_that_repeats() -> None:
    confidence = np.random.default_rng(3).uniform(0.5, 1.0, 200)
    right = np.random.default_rng(4).random(200) < 0.7
    which = np.clip(np.ceil(confidence * 10).astype(int) - 1, 0, 9)
    seen = sum(abs(float((confidence - right)[which == k].sum())) for k in range(10)) / 200
    rng = np.random.default_rng(99)
    chance = [
        sum(abs(float((confidence - drawn)[which == k].sum())) for k in range(10)) / 200
        for drawn in (rng.random((2000, 200)) < confidence)
    ]

    found = expected_calibration_error(confidence, right)

    assert found is not None
    assert found == expected_calibration_error(confidence, right, bins=10, draws=1000, seed=17)
    assert found[0] == pytest.approx(seen)
    assert found[1] == pytest.approx(np.mean(chance), rel=0.03)
    assert found[2] == pytest.approx(np.quantile(chance, 0.95), rel=0.05)


def test_spiegelhalter_says_nothing_of_confidences_without_spread() -> None:
    assert spiegelhalter(np.array([0.0, 0.5, 1.0]), np.array([False, True, True])) is None
    assert spiegelhalter(np.array([0.01, 0.5]), np.array([False, True])) is not None


def test_the_claim_on_brier_scores_spans_all_differences() -> None:
    claim = brier_claim(0.02, 100)

    assert (claim.low, claim.high, claim.threshold, claim.prior_variance) == (-2.0, 2.0, -0.02, 0.01)
    assert paired_claim(0.05, 100, 0.2).prior_variance == pytest.approx(0.05)


# F1


def test_ratio_bounds_are_the_linearised_ones() -> None:
    tops, bottoms = np.array([3.0, 2.0, 4.0, 0.0, 5.0]), np.array([4.0, 2.0, 6.0, 1.0, 5.0])
    estimate = tops.sum() / bottoms.sum()
    error = math.sqrt(((tops - estimate * bottoms) ** 2).sum() * 5 / 4) / bottoms.sum()

    found = ratio_bounds([Ratio(*pair) for pair in zip(tops, bottoms, strict=True)], 0.2, 0.3)

    assert found == pytest.approx(t_bounds(estimate, error, 4, 0.2, 0.3))
    assert ratio_bounds([Ratio(1.0, 2.0)]) is None
    assert ratio_bounds([Ratio(0.0, 0.0), Ratio(0.0, 0.0)]) is None
    assert ratio_bounds([Ratio(1.0, 1.0), Ratio(0.0, 1.0)]) == (0.0, 1.0)
    assert ratio_bounds([Ratio(0.5, 1.0), Ratio(0.4, 0.5)], 0.4, 0.4) is not None


def test_f1_of_nothing_has_no_bounds() -> None:
    assert f1_bounds(Confusion(0, 0, 0)) is None


# Conformal sets and abstention


def test_a_label_at_the_threshold_is_in_the_set() -> None:
    probs = np.array([[0.75, 0.25], [0.5, 0.5]])

    assert prediction_sets(probs, 0.25).tolist() == [[True, False], [False, False]]
    assert prediction_sets(probs, np.array([0.75, 0.5])).tolist() == [[True, True], [True, True]]
    found = coverage(prediction_sets(np.array([*probs, [0.1, 0.9]]), 0.25), np.array([0, 0, 1]))
    assert (found.covered, found.mean_size, found.empty) == (Count(2, 3), pytest.approx(2 / 3), 1)


def test_claims_at_the_threshold_are_dropped() -> None:
    assert kept_claims([0.4, 0.5, 0.6], 0.5) == [False, False, True]


@pytest.mark.parametrize(("n_cal", "n_test"), [(19, 1), (19, 2), (1, 5), (100, 40)])
def test_the_band_is_scipys_beta_binomial(n_cal: int, n_test: int) -> None:
    alpha = 0.5 if n_cal == 1 else 0.1
    rank = math.ceil((n_cal + 1) * (1 - alpha) - 1e-9)
    law = stats.betabinom(n_test, rank, n_cal + 1 - rank)

    assert coverage_band(n_cal, n_test, alpha) == pytest.approx(
        (law.ppf(0.025) / n_test, law.ppf(0.975) / n_test)
    )
    assert coverage_band(0, n_test, alpha) is None
    assert coverage_band(n_cal, 0, alpha) is None


@pytest.mark.parametrize(("slack", "items"), [(0.05, 68), (0.03, 228), (0.02, 558), (0.01, 2338)])
def test_calibration_items_are_the_published_ones(slack: float, items: int) -> None:
    assert calibration_items(0.1, slack) == items


def test_a_group_has_a_threshold_of_its_own_from_one_over_alpha_items_on() -> None:
    scores = [k / 100 for k in range(19)]

    for n, is_pooled in ((9, True), (10, False)):
        found = group_thresholds(scores, ["a"] * n + ["b"] * (19 - n), 0.1)
        assert found["a"].is_pooled is is_pooled
    assert group_thresholds(scores, ["a"] * 19, 0.1)["a"].threshold == conformal_threshold(scores, 0.1)


def test_abstention_is_tried_at_evenly_spread_coverages_up_to_all() -> None:
    """Right above the middle, wrong below: of 25 coverages from .2 to 1 the last with few enough wrong ones is kept."""
    confidence = [k / 500 for k in range(500)]
    right = [k >= 250 for k in range(500)]
    shares = [0.2 + 0.8 * step / 24 for step in range(25)]
    sizes = [round(share * 500) for share in shares]

    def p_value(size: int) -> float:
        return float(stats.binom.sf(min(size, 250) - 1, size, 0.9))

    kept = [size for size in sizes if p_value(size) <= 0.05]
    found = abstention_threshold(confidence, right, precision=0.9)

    assert found is not None
    assert found.coverage == pytest.approx(max(kept) / 500)
    assert found.kept == Count(250 if max(kept) > 250 else max(kept), max(kept))
    whole = abstention_threshold(confidence, [True] * 500, precision=0.9)
    assert whole is not None
    assert whole.coverage == 1.0
    once = abstention_threshold(confidence, [True] * 500, precision=0.9, steps=1)
    assert once is not None
    assert once.coverage == pytest.approx(0.2)


# Groups


def test_cells_are_counted_by_hand() -> None:
    gold, said = [True, True, True, False, False], [True, False, False, True, False]
    found = count_cells(np.array([*gold, True]), np.array([*said, False]), ["a"] * 5 + ["b"])

    assert found["a"] == Cells(1, 1, 2, 1)
    assert found["b"] == Cells(0, 0, 1, 0)
    counts = {
        rate: rate_count(found["a"], rate)
        for rate in ("selection", "true_positive", "false_positive", "accuracy")
    }  # type: ignore[arg-type]
    assert counts == {
        "selection": Count(2, 5), "true_positive": Count(1, 3), "false_positive": Count(1, 2), "accuracy": Count(2, 5),
    }  # fmt: skip


def test_gaps_are_found_by_hand_and_repeat() -> None:
    cells = {"a": Cells(40, 10, 10, 40), "b": Cells(20, 10, 30, 40), "c": Cells(0, 5, 0, 5)}

    found = largest_gaps(cells)

    assert found["demographic_parity"].gap == pytest.approx(0.5 - 0.3)
    assert found["equal_opportunity"].gap == pytest.approx(0.8 - 0.4)
    assert found["equal_opportunity"].unknown == ("c",)
    assert found["demographic_parity"].unknown == ()
    assert largest_gaps(cells, draws=1000, seed=17) == found


def test_the_gaps_p_value_inverts_newcombes_bound() -> None:
    better, worse = Count(90, 100), Count(60, 100)
    p = gap_p(better, worse, 0.1)
    bound = newcombe_at(better, worse, float(stats.norm.isf(p)))

    assert bound is not None
    assert bound.low == pytest.approx(0.1, abs=1e-9)
    assert gap_p(Count(70, 100), Count(60, 100), 0.1) == 1.0
    assert gap_p(Count(0, 0), worse, 0.1) == gap_p(better, Count(0, 0), 0.1) == 1.0
    assert gap_p(Count(72, 100), Count(60, 100), 0.1) < 0.5


def test_an_empty_group_never_passes_and_is_too_small() -> None:
    groups = {"a": Count(900, 1000), "b": Count(900, 1000)}

    assert gap_gate(groups, 0.1).decision == "PASS"
    assert gap_gate({"a": Count(900, 1000)}, 0.1).decision is None
    empty = gap_gate({**groups, "c": Count(0, 0)}, 0.1)
    assert (empty.decision, empty.too_small) == (None, ("c",))
    assert gap_gate({**groups, "c": Count(1, 1)}, 0.1).too_small == ("c",)
    assert gap_gate({"a": Count(19, 20), "b": Count(1, 20)}, 0.1).worst is not None


def test_of_several_gaps_the_clearest_fails() -> None:
    found = gap_gate({"a": Count(950, 1000), "b": Count(500, 1000), "c": Count(700, 1000)}, 0.1)

    assert found.decision == "FAIL"
    assert found.worst is not None
    assert (found.worst.better, found.worst.worse) == ("a", "b")


# Looks at a run


def test_looks_are_spread_evenly_and_spend_no_more_than_alpha() -> None:
    assert look_sizes(10, 1) == (10,)
    assert look_sizes(1, 1) == (1,)
    assert look_sizes(10, 3) == (4, 7, 10)
    looks = obrien_fleming(100, 0.8, looks=4)
    assert sum(absorb(looks, 0.8).passes) <= 0.05
    assert sum(absorb(looks, 0.8).fails) <= 0.05
    # Letting one more hit pass at the last look would overspend: the cut is the most generous one.
    more = (*looks[:-1], looks[-1]._replace(pass_from=looks[-1].pass_from - 1))
    assert sum(absorb(more, 0.8).passes) > 0.05
    for bad in ((0, 3), (3, 0)):
        with pytest.raises(StatsError):
            look_sizes(*bad)


@pytest.mark.parametrize(("rate", "ends"), [(1.0, (1.0, 0.0)), (0.0, (0.0, 1.0))])
def test_a_certain_truth_is_decided_for_certain(rate: float, ends: tuple[float, float]) -> None:
    point = operating_point(obrien_fleming(100, 0.5, looks=5), rate)

    assert (point.pass_frac, point.fail_frac) == pytest.approx(ends)
    assert point.mean_n < 100


# Pairs


def test_mcnemar_is_symmetric_and_at_most_one() -> None:
    assert mcnemar_exact(3, 9) == mcnemar_exact(9, 3) == pytest.approx(2 * stats.binom.cdf(3, 12, 0.5))
    assert (
        mcnemar_mid_p(3, 9)
        == mcnemar_mid_p(9, 3)
        == pytest.approx(mcnemar_exact(3, 9) - stats.binom.pmf(3, 12, 0.5))
    )
    assert mcnemar_exact(5, 5) == mcnemar_mid_p(5, 5) == 1.0
    assert mcnemar_mid_p(0, 0) == 1.0


def test_a_margin_of_one_is_always_kept() -> None:
    assert noninferiority_p(3, 1, 10, 1.0) == pytest.approx(max(0.0, stats.binom.cdf(2, 10, 1.0)))
    assert tango_z(0, 0, 10, 0.0) == 0.0
    assert tango_z(0, 0, 10, 0.0, 0.5) == -math.inf


@pytest.mark.parametrize(
    ("b", "c"), [(0, 0), (0, 3), (3, 0), (4, 4), (10, 0), (0, 10), (2, 8), (8, 2), (1, 0), (0, 1)]
)
@pytest.mark.parametrize("alpha", [0.05, 0.3])
def test_the_bound_is_where_the_p_value_is_alpha(b: int, c: int, alpha: float) -> None:
    found = paired_bounds(b, c, 10, alpha, alpha)

    assert found is not None
    assert -1.0 <= found.low <= (c - b) / 10 <= found.high <= 1.0
    other = paired_bounds(c, b, 10, alpha, alpha)
    assert other is not None
    assert other.high == pytest.approx(-found.low)
    for step, is_under in ((1e-4, True), (-1e-4, False)):
        if -1.0 < found.low - step < 1.0:
            p = noninferiority_p(b, c, 10, -(found.low - step))
            assert p is not None
            assert (p < alpha) is is_under


# Sizes


@pytest.mark.parametrize(("threshold", "fewest"), [(0.8, 14), (0.9, 29), (0.95, 59), (0.5, 5), (0.0, 1)])
def test_the_fewest_items_are_those_of_all_right(threshold: float, fewest: int) -> None:
    assert fewest_items(threshold) == fewest
    assert threshold**fewest <= 0.05
    assert threshold == 0.0 or threshold ** (fewest - 1) > 0.05


@pytest.mark.parametrize("n", [1, 2, 5, 13, 14, 40])
def test_cuts_are_scipys(n: int) -> None:
    passing = [hits for hits in range(n + 1) if stats.binom.sf(hits - 1, n, 0.8) <= 0.05]
    failing = [hits for hits in range(n + 1) if stats.binom.cdf(hits, n, 0.8) <= 0.05]

    assert cuts(n, 0.8) == (min(passing, default=n + 1), max(failing, default=-1))


def test_cuts_take_a_probability_that_is_the_level_itself() -> None:
    assert cuts(2, 0.5, 0.25, 0.25) == (2, 0)


def test_normal_items_are_the_textbooks() -> None:
    z_alpha, z_power = stats.norm.ppf(0.95), stats.norm.ppf(0.8)
    wanted = ((z_alpha * math.sqrt(0.16) + z_power * math.sqrt(0.1275)) / 0.05) ** 2

    assert normal_items(0.8, 0.85) == pytest.approx(wanted)
    assert normal_items(0.8, 0.85, 0.05, 0.8) == normal_items(0.8, 0.85)


@pytest.mark.parametrize(("threshold", "rate"), [(0.8, 0.85), (0.5, 0.9), (0.1, 0.99), (0.9, 0.95)])
def test_items_for_power_are_the_first_of_all_that_reach_it(threshold: float, rate: float) -> None:
    def power(n: int) -> float:
        least = next((k for k in range(n + 2) if stats.binom.sf(k - 1, n, threshold) <= 0.05), n + 1)
        return float(stats.binom.sf(least - 1, n, rate))

    found = items_for_power(threshold, rate)
    assert found is not None
    assert power(found) >= 0.8
    assert all(power(n) < 0.8 for n in range(max(1, int(0.8 * found)), found))
    assert items_for_power(threshold, rate, most=found) == found
    assert items_for_power(threshold, rate, most=found - 1) is None
    assert items_for_power(threshold, threshold) is None


def test_paired_items_are_the_textbooks() -> None:
    z = stats.norm.ppf(0.95) + stats.norm.ppf(0.8)

    for difference in (0.0, 0.02, -0.02):
        wanted = math.ceil(z**2 * (0.1 - difference**2) / (0.05 + difference) ** 2)
        assert paired_items_for_power(0.05, 0.1, difference=difference) == wanted
    assert paired_items_for_power(0.9, 0.01) == 1
    assert paired_items_for_power(0.05, 0.1, difference=-0.05) is None


def test_more_items_are_the_first_number_that_settles() -> None:
    for hits, n, at_least in ((85, 100, 0.8), (3, 4, 0.5), (75, 100, 0.8), (1, 1, 0.8)):
        more = items_needed(hits, n, at_least=at_least)
        assert more is not None
        assert more > 0

        def settled(size: int, rate: float = hits / n, bound: float = at_least) -> bool:
            if rate > bound:
                return bool(stats.binom.sf(math.floor(rate * size + 1e-9) - 1, size, bound) <= 0.05)
            return bool(stats.binom.cdf(math.ceil(rate * size - 1e-9), size, bound) <= 0.05)

        assert settled(n + more)
        assert not settled(n)
    assert items_needed(99, 100, at_least=0.8) == 0
    assert items_needed(80, 100, at_least=0.8) is None


def test_more_pairs_are_asked_for_until_a_bound_settles() -> None:
    for b, c, difference in ((5, 5, -0.05), (8, 3, -0.02), (2, 9, 0.02)):
        more = paired_items_needed(b, c, 100, difference)
        assert more is not None
        assert more > 0
        size = 100 + more
        bounds = paired_bounds(round(b * size / 100), round(c * size / 100), size)
        assert bounds is not None
        assert bounds.low > difference or bounds.high < difference
    assert paired_items_needed(5, 10, 100, 0.05) is None
    assert paired_items_needed(0, 0, 0, 0.05) is None


# Rates and quantiles


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.99])
def test_intervals_use_the_two_sided_quantile(confidence: float) -> None:
    z = float(stats.norm.ppf((1 + confidence) / 2))

    assert wilson(7, 20, confidence) == pytest.approx(wilson_at(7, 20, z))
    assert newcombe(Count(7, 20), Count(3, 20), confidence) == pytest.approx(
        newcombe_at(Count(7, 20), Count(3, 20), z)
    )


def test_all_of_n_reaches_one_and_gaps_stay_within_one() -> None:
    assert wilson(20, 20) == pytest.approx((20 / (20 + stats.norm.ppf(0.975) ** 2), 1.0))
    assert newcombe(Count(20, 20), Count(0, 20)) == pytest.approx(
        newcombe_at(Count(20, 20), Count(0, 20), float(stats.norm.ppf(0.975)))
    )
    found = newcombe(Count(1, 1), Count(0, 1))
    assert found is not None
    assert found.high <= 1.0
    worse = newcombe(Count(0, 1), Count(1, 1))
    assert worse is not None
    assert worse.low >= -1.0


@pytest.mark.parametrize("n", [1, 5, 6, 58, 59, 90])
@pytest.mark.parametrize("share", [0.5, 0.95])
def test_quantile_bounds_are_the_order_statistics_of_the_binomial(n: int, share: float) -> None:
    values = [float(k) for k in range(1, n + 1)]
    up = [rank for rank in range(1, n + 1) if stats.binom.sf(rank - 1, n, share) <= 0.05]
    down = [rank for rank in range(1, n + 1) if stats.binom.cdf(rank - 1, n, share) <= 0.05]

    assert quantile_upper_bound(values, share) == (float(min(up)) if up else None)
    assert quantile_lower_bound(values, share) == (float(max(down)) if down else None)
    both = quantile_interval(values, share, 0.9)
    assert (both is None) == (not up or not down)
    assert both is None or both == (float(max(down)), float(min(up)))


def test_a_level_that_is_the_probability_itself_is_kept() -> None:
    assert quantile_upper_bound([1.0, 2.0], 0.5, 0.25) == 2.0
    assert quantile_lower_bound([1.0, 2.0], 0.5, 0.25) == 1.0


@pytest.mark.parametrize("freedom", [1, 2, 3, 5, 19, 200])
def test_students_quantile_is_scipys(freedom: int) -> None:
    for probability in (0.9, 0.95, 0.975):
        assert student_quantile(probability, freedom) == pytest.approx(
            stats.t.ppf(probability, freedom), rel=2e-3
        )


# The betting test


def bets(scores: list[float], claim: Claim) -> list[tuple[float, float]]:
    """Log-wealth of both players after each score, as the published rule has it, in its plainest form."""
    m = (claim.threshold - claim.low) / (claim.high - claim.low)
    prior = m * (1 - m) if claim.prior_variance is None else claim.prior_variance
    seen, squares, wealth = 20 * m, 20 * prior, [0.0, 0.0]
    path = []
    for n, score in enumerate(scores):
        x = (score - claim.low) / (claim.high - claim.low)
        variance, left = max(squares / (20 + n), 1e-6), max(claim.n_max - n, 1)
        needed = [
            max(math.log(1 / error) - w, 0.05)
            for error, w in zip((claim.alpha, claim.beta), wealth, strict=True)
        ]
        up = min(math.sqrt(2 * needed[0] / (left * variance)), 0.9 / m)
        down = min(math.sqrt(2 * needed[1] / (left * variance)), 0.9 / (1 - m))
        wealth = [wealth[0] + math.log(1 + up * (x - m)), wealth[1] + math.log(1 - down * (x - m))]
        seen += x
        squares += (x - seen / (20 + n + 1)) ** 2
        path.append((wealth[0], wealth[1]))
    return path


@pytest.mark.parametrize(
    "claim",
    [
        Claim(0.7, 60), Claim(0.7, 60, 0.01, 0.2), Claim(-0.05, 60, 0.05, 0.05, -1.0, 1.0),
        paired_claim(0.05, 60, 0.1), Claim(0.9, 30), Claim(0.05, 8), Claim(1.5, 60, low=0.0, high=2.0),
    ],
)  # fmt: skip
def test_the_betting_test_is_the_published_rule(claim: Claim) -> None:
    draw = np.random.default_rng(8)
    for rate in (0.05, 0.4, 0.7, 0.97):
        scores = [float(one) for one in np.where(draw.random(60) < rate, claim.high, claim.low)]
        path = bets(scores, claim)
        test = Betting(claim)
        goals = -math.log(claim.alpha), -math.log(claim.beta)
        for n, (score, (up, down)) in enumerate(zip(scores, path, strict=True), 1):
            decision = test.add(score)
            best = [max(0.0, *(step[side] for step in path[:n])) for side in (0, 1)]
            assert decision == ("PASS" if up >= goals[0] else "FAIL" if down >= goals[1] else None)
            assert test.outcome.n == n
            assert (test.outcome[2], test.outcome[3]) == pytest.approx(
                (math.exp(-best[0]), math.exp(-best[1]))
            )
            if decision:
                break


def test_scores_between_the_ends_are_bet_on_as_they_are() -> None:
    claim = Claim(0.6, 40)
    scores = [float(one) for one in np.random.default_rng(9).random(40)]
    test = Betting(claim)
    for score in scores:
        test.add(score)
    path = bets(scores, claim)
    n = test.outcome.n

    assert test.outcome[2] == pytest.approx(math.exp(-max(0.0, *(step[0] for step in path[:n]))))
