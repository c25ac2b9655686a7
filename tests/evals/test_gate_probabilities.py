"""Rules on probabilities, sets and frozen suites, value by value."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from harness.evals.calibrate import AbstentionFit, Calibration, CoverageFit
from harness.evals.repeat import Noise
from harness.evals.results import RuleVerdict, Sample, State
from harness.evals.rules import probabilities, sets
from harness.evals.rules.engine import Range, engine_bounds, unit_ratios
from harness.evals.rules.evidence import Evidence, Planned
from harness.evals.rules.frozen import judge_frozen
from harness.specs.gate import Gate
from harness.stats.calibration import expected_calibration_error
from harness.stats.conformal import GroupThreshold, coverage_band
from harness.stats.f1 import Ratio
from harness.stats.sequential import Betting, Claim
from tests.evals.builders import gate, sample, samples

GAP = gate(metric="confidence_gap", within=0.1)
PROBS = {"a": 0.5, "b": 0.25, "c": 0.25}


def sure(n: int, hits: int, confidence: float, **changes: object) -> list[Sample]:
    return [sample(k, right=k < hits, confidence=confidence, **changes) for k in range(n)]


def calibration(**values: object) -> Calibration:
    return Calibration(**{"suite": "s", "n": 10, "units": 10, "items": "d", "temperature": 2.0, **values})  # type: ignore[arg-type]


# Brier scores and temperatures


def test_the_brier_score_is_the_squared_distance_from_the_truth() -> None:
    assert probabilities.brier_of(sample(0, label_probs=PROBS)) == pytest.approx(0.25 + 2 * 0.0625)
    assert probabilities.brier_of(sample(0, gold=("b",), label_probs=PROBS)) == pytest.approx(
        0.5625 + 0.25 + 0.0625
    )
    assert probabilities.brier_of(sample(0, gold=("a", "b"), label_probs=PROBS)) == pytest.approx(2 * 0.0625)
    assert probabilities.brier_of(sample(0, label_probs={"b": 1.0})) == 2.0
    assert probabilities.brier_of(sample(0, label_probs=PROBS, error="boom")) == 2.0
    assert probabilities.brier_of(sample(0)) is None


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0, 5.0])
def test_a_temperature_takes_probabilities_to_its_inverse_power(temperature: float) -> None:
    powers = {label: p ** (1 / temperature) for label, p in PROBS.items()}

    found = probabilities._tempered(PROBS, temperature)

    assert found == pytest.approx({label: power / sum(powers.values()) for label, power in powers.items()})
    one = sample(0, confidence=0.75, label_probs=PROBS)
    hot = probabilities._confidence(one, temperature)
    assert hot == pytest.approx(0.75 if temperature == 1.0 else max(found.values()))
    brier = sum((found[label] - (label == "a")) ** 2 for label in PROBS)
    assert probabilities.brier_of(one, temperature) == pytest.approx(brier)


def test_a_label_without_probability_stays_finite() -> None:
    assert probabilities._tempered({"a": 1.0, "b": 0.0}, 2.0)["b"] == pytest.approx(1e-6, rel=1e-4)


def test_no_confidence_is_none() -> None:
    assert probabilities._confidence(sample(0), 1.0) is None
    assert probabilities._confidence(sample(0, confidence=0.5), 2.0) is None
    assert probabilities._confidence(sample(0, confidence=0.5, error="boom"), 1.0) is None


@pytest.mark.parametrize("at_most", [0.25, 0.3, 0.5])
def test_a_brier_rule_is_bet_on_from_zero_to_two(at_most: float) -> None:
    found = [
        sample(k, right=k % 3 > 0, label_probs={"a": 0.75, "b": 0.25}, gold=("ab"[k % 5 == 0],))
        for k in range(80)
    ]
    values = [1.125 if k % 5 == 0 else 0.125 for k in range(80)]
    rule = gate(metric="brier", at_most=at_most)
    ratios = unit_ratios([Ratio(v, 1.0) for v in values], [s.unit for s in found], rule.order_seed)
    wanted = engine_bounds(
        ratios, Range(0.0, 2.0, 1.0, 80), 0.05, 0.05, low_at=at_most, high_at=at_most, items=80
    )

    (judged,) = probabilities.judge_brier(rule, "s", Evidence(found, 1.0))

    assert (judged.score, judged.n) == (pytest.approx(np.mean(values)), 80)
    assert (judged.low, judged.high) == (wanted.low, wanted.high)
    missing = Evidence([*found, sample(80)], 1.0)
    assert probabilities.judge_brier(rule, "s", missing)[0].score is None
    assert probabilities.judge_brier(rule, "s", Evidence([], 1.0))[0].score is None


def test_a_paired_brier_rule_is_on_the_baselines_loss_minus_the_candidates() -> None:
    now = [sample(k, label_probs={"a": 0.75, "b": 0.25}) for k in range(60)]
    then = [sample(k, label_probs={"a": 0.5, "b": 0.5}) for k in range(60)]
    rule = gate(metric="brier", versus="base", no_worse_than=0.1)

    (judged,) = probabilities.judge_brier(rule, "s", Evidence(now, 1.0, earlier={"base": then}))

    ratios = [Ratio(0.375, 1.0)] * 60
    within = Range(-2.0, 2.0, 1.0, 60, 0.01, 1.0)
    wanted = engine_bounds(ratios, within, 0.05, 0.05, low_at=-0.1, high_at=-0.1, items=60)
    assert (judged.score, judged.low, judged.high) == (0.375, wanted.low, wanted.high)
    for before in (then[:-1], [*then, sample(99)], [], [*then[:-1], sample(59)]):
        shown = Evidence(now, 1.0, earlier={"base": before})
        assert probabilities.judge_brier(rule, "s", shown)[0].score is None
    hot = gate(metric="brier", versus="base", no_worse_than=0.1, calibrated=True)
    shown = Evidence(now, 1.0, earlier={"base": then}, calibration=calibration())
    tempered = math.sqrt(0.75) / (math.sqrt(0.75) + 0.5)
    assert probabilities.judge_brier(hot, "s", shown)[0].score == pytest.approx(0.5 - 2 * (1 - tempered) ** 2)


# Over-confidence


def test_the_gap_is_within_where_both_ends_are_and_beyond_where_one_is() -> None:
    def state(hits: int, confidence: float, n: int = 400) -> State:
        (judged,) = probabilities.judge_confidence_gap(GAP, "s", Evidence(sure(n, hits, confidence), 1.0))
        assert judged.score == pytest.approx(confidence - hits / n)
        return judged.verdict

    assert state(320, 0.8) is State.PASS
    assert state(200, 0.9) is state(360, 0.5) is State.FAIL
    assert state(280, 0.8) is state(320, 0.7) is State.INCONCLUSIVE
    assert state(16, 0.8, 20) is State.INCONCLUSIVE


@pytest.mark.parametrize("hits", range(78, 92, 2))
def test_a_model_that_promises_too_little_fails_where_the_betting_test_at_the_cap_does(hits: int) -> None:
    found = sure(120, hits, 0.5)
    gaps = unit_ratios([Ratio(0.5 - s.score, 1.0) for s in found], [s.unit for s in found], GAP.order_seed)
    claim = Claim(0.0, 120, 0.05, 0.05, -0.9, 1.1, 0.45 * 0.55)
    decision = Betting(claim).extend([ratio.numerator + 0.1 for ratio in gaps]).decision

    (judged,) = probabilities.judge_confidence_gap(GAP, "s", Evidence(found, 1.0))

    assert (judged.verdict is State.FAIL) is (decision == "FAIL")


def test_the_gaps_bounds_are_the_betting_tests_at_the_cap() -> None:
    found = sure(100, 75, 0.8)
    ratios = unit_ratios([Ratio(0.8 - s.score, 1.0) for s in found], [s.unit for s in found], GAP.order_seed)
    wanted = engine_bounds(
        ratios, Range(-1.0, 1.0, 1.0, 100), 0.05, 0.05, low_at=-0.1, high_at=0.1, items=100
    )

    (judged,) = probabilities.judge_confidence_gap(GAP, "s", Evidence(found, 1.0))

    assert (judged.low, judged.high, judged.threshold) == (wanted.low, wanted.high, 0.1)
    assert judged.needed == wanted.needed()
    assert "confidence minus accuracy +0.0500 is not shown within ±0.1" in judged.reason
    clear = probabilities.judge_confidence_gap(GAP, "s", Evidence(sure(400, 200, 0.9), 1.0))[0]
    assert clear.needed is None


def test_the_gaps_reason_tells_the_calibration_error() -> None:
    (judged,) = probabilities.judge_confidence_gap(GAP, "s", Evidence(sure(100, 75, 0.8), 1.0))
    z = (0.8 * 100 - 75) / math.sqrt(100 * 0.8 * 0.2)

    assert (
        f"Spiegelhalter p {2 * stats.norm.sf(z):.3g}, calibration error 0.050 where chance" in judged.reason
    )
    (flat,) = probabilities.judge_confidence_gap(GAP, "s", Evidence(sure(10, 10, 1.0), 1.0))
    assert "no Spiegelhalter test, calibration error 0.000" in flat.reason


def test_an_answer_without_confidence_leaves_the_gap_unknown() -> None:
    fine = sure(10, 8, 0.8)

    def score(found: list[Sample]) -> float | None:
        return probabilities.judge_confidence_gap(GAP, "s", Evidence(found, 1.0))[0].score

    assert score(fine) == pytest.approx(0.0)
    assert score([*fine, sample(10, error="boom", answer=None)]) == pytest.approx(0.0)
    assert score([*fine, sample(10)]) is score([]) is None
    calibrated = gate(metric="confidence_gap", within=0.1, calibrated=True)
    for fit in (None, calibration(temperature=None, reasons={"temperature": "too few"})):
        (none,) = probabilities.judge_confidence_gap(calibrated, "s", Evidence(fine, 1.0, calibration=fit))
        assert none.score is None
        assert ("too few" in none.reason) is (fit is not None)


@pytest.mark.parametrize("n", [1999, 2000])
def test_the_calibration_error_is_judged_from_two_thousand_items_on(n: int) -> None:
    found = sure(n, n // 2, 0.75)
    right = np.array([s.score == 1.0 for s in found])
    wanted = expected_calibration_error(np.full(n, 0.75), right, draws=400)
    assert wanted is not None

    (judged,) = probabilities.judge_ece(gate(metric="ece", at_most=0.4), "s", Evidence(found, 1.0))

    assert judged.n == n
    if n < 2000:
        assert (judged.score, judged.verdict) == (None, State.INCONCLUSIVE)
        return
    assert judged.score == pytest.approx(0.25)
    assert judged.low == pytest.approx(0.25 - wanted.chance_high)
    assert judged.high == pytest.approx(0.25 + wanted.chance_high)
    none = probabilities.judge_ece(gate(metric="ece", at_most=0.4), "s", Evidence([sample(0)], 1.0))
    assert none[0].score is None
    perfect = [sample(k, right=k % 4 > 0, confidence=0.75) for k in range(n)]
    assert probabilities.judge_ece(gate(metric="ece", at_most=0.4), "s", Evidence(perfect, 1.0))[0].low == 0.0


# Sets


def fit(
    threshold: float = 0.5, n: int = 40, is_pooled: bool = False, **groups: GroupThreshold
) -> CoverageFit:
    named = {name.replace("_", "="): one for name, one in groups.items()}
    return CoverageFit(0.9, ("sex",) if groups else (), GroupThreshold(threshold, n, is_pooled), named)


COVERAGE = gate(metric="coverage", target=0.9, at_least=0.8)


def test_a_label_at_the_threshold_is_in_the_set() -> None:
    found = [
        sample(0, label_probs=PROBS), sample(1, gold=("b",), label_probs=PROBS),
        sample(2, gold=("a", "b"), label_probs=PROBS), sample(3, label_probs=PROBS, error="boom"), sample(4),
        sample(5, gold=("x",), label_probs=PROBS),
    ]  # fmt: skip

    (one,) = sets.prediction_sets_of(COVERAGE, fit(0.5), found).values()
    assert one == sets.Sets([1.0, 0.0, 1.0, 0.0, 0.0, 0.0], [1, 1, 1, 0, 0, 1], [f"r{k}" for k in range(6)])
    (wide,) = sets.prediction_sets_of(COVERAGE, fit(0.75), found).values()
    assert (wide.covered, wide.sizes) == ([1.0, 1.0, 1.0, 0.0, 0.0, 0.0], [3, 3, 3, 0, 0, 3])


def covered(hits: int, n: int, **changes: object) -> list[Sample]:
    return [sample(k, right=k < hits, label_probs={"a": 0.6, "b": 0.4} if k < hits else {"a": 0.4, "b": 0.6}, **changes)
            for k in range(n)]  # fmt: skip


def coverage_rules(found: list[Sample], rule: Gate = COVERAGE, **values: object) -> list[RuleVerdict]:
    shown = {"coverage": (fit(),), "n": 40, "units": 40, **values}
    return sets.judge_coverage(rule, "s", Evidence(found, 1.0, calibration=calibration(**shown)))


def test_coverage_below_its_band_fails_whatever_its_bound() -> None:
    """The band is beta-binomial: of 60 items with 40 calibration items the lowest share at 5 % one-sided."""
    band = coverage_band(40, 60, 1.0 - 0.9, 1.0 - 2.0 * 0.05)
    assert band is not None
    rank = math.ceil(41 * 0.9 - 1e-9)
    assert band.low == pytest.approx(stats.betabinom(60, rank, 41 - rank).ppf(0.05) / 60)
    edge = round(band.low * 60)

    for hits, is_below in ((edge, False), (edge - 1, True)):
        (rule,) = coverage_rules(covered(hits, 60))
        assert (rule.verdict is State.FAIL, f"below {band.low:.4g}" in rule.reason) == (is_below, is_below)
        assert "1 labels a set, 0 empty; 40 calibration items" in rule.reason
    (twice,) = coverage_rules(covered(edge - 1, 60), n=80)
    other = coverage_band(80, 60, 1.0 - 0.9, 0.9, worth=40)
    assert other is not None
    assert (twice.verdict is State.FAIL) is ((edge - 1) / 60 < other.low)


def test_the_band_counts_units_on_both_sides() -> None:
    found = sets.Sets([1.0] * 60, [1] * 60, [f"d{k // 2}" for k in range(60)])

    assert sets._band(COVERAGE, fit(), "all", found, 0.5, 1) == coverage_band(
        40, 30, 1.0 - 0.9, 0.9, worth=20
    )
    assert sets._band(COVERAGE, fit(), "all", found, 1.0, 2) == coverage_band(
        40, 30, 1.0 - 0.9, 1.0 - 0.1 / 2
    )
    assert sets._band(COVERAGE, fit(n=1), "all", found, 0.1, 1) == (1.0, 1.0)
    even = gate(metric="coverage", target=0.5, at_least=0.4)
    one = CoverageFit(0.5, (), GroupThreshold(0.5, 1, False))
    assert sets._band(even, one, "all", found, 0.1, 1) == coverage_band(1, 30, 0.5, 0.9)
    assert sets._band(COVERAGE, fit(is_pooled=True), "all", found, 1.0, 1) is None


def test_a_threshold_of_many_items_in_few_documents_is_not_taken_for_an_infinite_one() -> None:
    """8 documents alone would make an infinite threshold, which covers everything; 64 items of them don't."""
    found = sets.Sets([1.0] * 151 + [0.0] * 9, [1] * 160, [f"d{k // 8}" for k in range(160)])

    band = sets._band(COVERAGE, fit(n=64), "all", found, 1 / 8, 1)

    assert band is not None
    assert band.low < 151 / 160


def test_a_group_with_the_pooled_threshold_is_promised_nothing() -> None:
    rule = gate(metric="coverage", target=0.9, at_least=0.8, per="sex", min_n=20)
    own, small = GroupThreshold(0.5, 40, False), GroupThreshold(0.5, 3, True)
    one = fit(0.5, 43, sex_f=own, sex_m=small)
    found = [
        *covered(20, 20, slices={"sex": "f"}),
        *covered(5, 20, slices={"sex": "m"}),
        *covered(1, 2, slices={"sex": "x"}),
    ]

    judged = {r.slice: r for r in coverage_rules(found, rule, coverage=(one,))}

    assert list(judged) == ["sex=f", "sex=m", "sex=x"]
    assert judged["sex=m"].too_small == ("sex=m",)
    assert judged["sex=f"].too_small == ()
    assert (judged["sex=x"].verdict, judged["sex=x"].score) == (State.SKIPPED, 0.5)
    assert coverage_rules([], COVERAGE)[0].verdict is State.INCONCLUSIVE
    (none,) = sets.judge_coverage(COVERAGE, "s", Evidence(found, 1.0))
    assert (none.slice, none.score) == ("all", None)
    (unfitted,) = coverage_rules(found, rule, coverage=())
    assert (unfitted.slice, unfitted.score) == ("sex", None)


ABSTAIN = gate(metric="abstention", precision=0.9, at_least=0.3)


def test_answers_above_the_threshold_are_given_and_judged() -> None:
    one = AbstentionFit(0.9, None, True, 0.5, 0.6, 0.01)
    found = [
        *(sample(k, right=k > 0, confidence=0.75) for k in range(30)),
        *(sample(k, confidence=0.5) for k in range(30, 50)), *(sample(k) for k in range(50, 60)),
    ]  # fmt: skip

    share, precision = sets.judge_abstention(
        ABSTAIN, "s", Evidence(found, 1.0, calibration=calibration(abstention=(one,)))
    )

    assert (share.n, share.score, share.threshold, share.verdict) == (60, 0.5, 0.3, State.PASS)
    assert (precision.n, precision.score, precision.threshold) == (30, pytest.approx(29 / 30), 0.9)
    assert precision.low == pytest.approx(stats.beta.ppf(0.05, 29, 2))
    everything = AbstentionFit(0.9, None, True, None, 1.0, 0.01)
    assert [sets.is_answered(everything, s) for s in (found[0], found[-1])] == [True, False]


def test_without_a_threshold_nothing_is_known_of_answers() -> None:
    found = [sample(k, confidence=0.1) for k in range(5)]
    lost = AbstentionFit(0.9, None, False, None, None, None)
    high = AbstentionFit(0.9, None, True, 0.5, 0.1, 0.01)

    for fitted in (
        None,
        calibration(),
        calibration(abstention=(lost,), reasons={"abstention 0.9": "too few"}),
    ):
        judged = sets.judge_abstention(ABSTAIN, "s", Evidence(found, 1.0, calibration=fitted))
        assert [rule.score for rule in judged] == [None, None]
        assert all(("too few" in rule.reason) is bool(fitted and fitted.reasons) for rule in judged)
    silent = sets.judge_abstention(
        ABSTAIN, "s", Evidence(found, 1.0, calibration=calibration(abstention=(high,)))
    )
    assert [rule.score for rule in silent] == [0.0, None]


# Frozen suites


def frozen(rule: Gate, found: list[Sample], whole: int, **slices: str) -> list[RuleVerdict]:
    population = [Planned(f"r{k}", f"r{k}", ("a",), dict(slices)) for k in range(whole)]
    return judge_frozen(rule, "s", Evidence(found, 1.0, population=population))


def test_a_part_of_the_records_is_bounded_by_drawing_without_replacement() -> None:
    """All of 8 of 10 right: with M right ones among 10 the chance is C(M, 8) / C(10, 8), 1/45 for M = 8, .2 for 9."""
    rule = gate(at_least=0.85, population="frozen")

    (found,) = frozen(rule, samples(8, 8), 10)
    assert (found.low, found.high, found.score, found.verdict) == (0.9, 1.0, 1.0, State.PASS)
    (whole,) = frozen(rule, samples(9, 10), 10)
    assert (whole.low, whole.high, whole.score) == (0.9, 0.9, 0.9)
    for bad in (frozen(rule, samples(8, 8), 7), frozen(rule, [*samples(7, 7), sample(8, score=0.5)], 10),
                frozen(rule, [*samples(7, 7), sample(8, score=math.nan)], 8)):  # fmt: skip
        assert (bad[0].score, bad[0].n) == (None, 8)
    (credit,) = frozen(rule, [*samples(7, 7), sample(8, score=0.5)], 8)
    assert credit.score == 7.5 / 8


def test_noise_counts_against_answers_of_a_frozen_suite_and_not_against_errors() -> None:
    shaky = Noise(10, 1, 0.25, None, False)
    population = [Planned(f"r{k}", f"r{k}", ("a",), {}) for k in range(10)]
    shown = Evidence(samples(9, 10), 1.0, population=population, noise=shaky)

    (accuracy,) = judge_frozen(gate(at_least=0.75, population="frozen"), "s", shown)
    (errors,) = judge_frozen(gate(metric="error_rate", at_most=0.1, population="frozen"), "s", shown)
    assert (accuracy.noise, accuracy.verdict) == (0.25, State.INCONCLUSIVE)
    assert (errors.noise, errors.verdict) == (None, State.PASS)


def test_records_that_the_suite_does_not_know_are_not_all_of_it() -> None:
    (unknown,) = frozen(gate(at_least=0.5, population="frozen"), samples(1, 1), 0)
    assert (unknown.score, unknown.n) == (None, 1)
    sliced = gate(at_least=0.5, population="frozen", per="sex", min_n=1)
    (strange,) = frozen(sliced, samples(1, 1, slices={"sex": "m"}), 5, sex="f")
    assert (strange.slice, strange.verdict) == ("sex=m", State.SKIPPED)


@pytest.mark.parametrize("min_n", [10, 11])
def test_a_frozen_slice_of_min_n_records_is_judged(min_n: int) -> None:
    rule = gate(at_least=0.5, population="frozen", per="sex", min_n=min_n)

    (found,) = frozen(rule, samples(4, 5, slices={"sex": "f"}), 10, sex="f")

    assert (found.slice, found.verdict is State.SKIPPED) == ("sex=f", min_n == 11)
    assert found.score == 0.8


def test_a_frozen_recall_is_the_share_of_a_labels_records_answered_with_it() -> None:
    rule = gate(metric="recall", per="label", at_least=0.5, min_n=4, population="frozen")

    (found,) = frozen(rule, samples(3, 4), 4)
    assert (found.slice, found.score, found.n) == ("label=a", 0.75, 4)
