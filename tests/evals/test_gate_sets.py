"""Rules that use the calibration split, and rules on whether probabilities are right."""

import json
import math
import random
from dataclasses import replace

import numpy as np
import pytest

from harness.errors import DataError
from harness.evals.calibrate import Calibration, fit_calibration, needs_calibration
from harness.evals.gate import Evidence, Planned, judge
from harness.evals.results import RuleVerdict, Sample, State
from harness.specs.gate import Gate
from tests.evals.builders import gate, sample

COVERAGE = gate(metric="coverage", target=0.9, at_least=0.8)
ABSTAIN = gate(metric="abstention", precision=0.9, at_least=0.3)


def answered(n: int, seed: int, *, heat: float = 1.0, start: int = 0, **slices: str) -> list[Sample]:
    """Answers of a model whose probabilities are right, or too bold where `heat` is under 1."""
    rng = np.random.default_rng(seed)
    found = []
    for k in range(n):
        logits = rng.normal(0.0, 2.0, size=3)
        true = np.exp(logits) / np.exp(logits).sum()
        shown = np.exp(logits / heat) / np.exp(logits / heat).sum()
        gold = "abc"[rng.choice(3, p=true)]
        said = "abc"[int(shown.argmax())]
        probs = dict(zip("abc", shown.tolist(), strict=True))
        found.append(
            sample(
                start + k, gold=(gold,), answer=said, score=float(said == gold), label_probs=probs,
                confidence=probs[said], slices=dict(slices),
            )
        )  # fmt: skip
    return found


def planned(found: list[Sample]) -> list[Planned]:
    return [Planned(s.id, s.unit, s.gold, s.slices) for s in found]


def rules_of(rule: Gate, found: list[Sample], **shown: object) -> list[RuleVerdict]:
    return list(judge("adapter", "m", "l", [rule], {"s": Evidence(found, 1.0, **shown)}, "s").rules[1:])  # type: ignore[arg-type]


def fitted(rule: Gate, calibration: list[Sample], judged: list[Sample]) -> Calibration:
    return fit_calibration(calibration, [rule], suite="s", judged=planned(judged))


def test_sets_of_alike_items_cover_what_they_were_made_for() -> None:
    cal, found = answered(1000, 11), answered(1000, 12, start=1000)

    (rule,) = rules_of(COVERAGE, found, calibration=fitted(COVERAGE, cal, found))

    assert rule.verdict is State.PASS
    assert rule.score == pytest.approx(0.9, abs=0.03)
    assert "labels a set" in rule.reason


def test_sets_fail_where_the_items_are_not_like_those_of_the_calibration() -> None:
    cal, found = answered(1000, 1), answered(1000, 2, heat=0.2, start=1000)

    (rule,) = rules_of(COVERAGE, found, calibration=fitted(COVERAGE, cal, found))

    assert rule.verdict is State.FAIL


def test_the_threshold_is_the_order_statistic_that_conformal_prediction_wants() -> None:
    cal = answered(99, 1)

    fit = fitted(COVERAGE, cal, []).coverage_for(COVERAGE)

    scores = sorted(1.0 - (s.label_probs or {})[s.gold[0]] for s in cal)
    assert fit is not None
    assert fit.pooled.threshold == scores[89]  # rank ceil(100 · .9) = 90


def test_each_group_is_covered_by_thresholds_of_its_own() -> None:
    # One group's probabilities are much too bold: one threshold for all would leave it uncovered.
    per = gate(metric="coverage", target=0.9, at_least=0.8, per="ward")
    cal = [*answered(900, 1, ward="a"), *answered(300, 2, heat=0.2, start=900, ward="b")]
    found = [*answered(900, 3, start=2000, ward="a"), *answered(300, 4, heat=0.2, start=3000, ward="b")]

    grouped = rules_of(per, found, calibration=fitted(per, cal, found))
    pooled = fitted(COVERAGE, cal, found)
    alone = rules_of(COVERAGE, found[900:], calibration=pooled)

    assert [(rule.slice, rule.verdict) for rule in grouped] == [
        ("ward=a", State.PASS), ("ward=b", State.PASS),
    ]  # fmt: skip
    assert alone[0].verdict is State.FAIL


def test_a_group_with_too_few_calibration_items_is_named() -> None:
    per = gate(metric="coverage", target=0.9, at_least=0.7, per="ward")
    cal = [*answered(500, 1, ward="a"), *answered(5, 2, start=500, ward="b")]
    found = [*answered(200, 3, start=1000, ward="a"), *answered(200, 4, start=2000, ward="b")]

    rules = rules_of(per, found, calibration=fitted(per, cal, found))

    assert [rule.too_small for rule in rules] == [(), ("ward=b",)]
    assert "5 calibration items, too few" in rules[1].reason


def test_an_error_is_never_covered() -> None:
    cal = answered(500, 1)
    found = [
        replace(s, error="boom", label_probs=None, confidence=None, answer=None, score=0.0)
        if k % 4 == 0
        else s
        for k, s in enumerate(answered(500, 2, start=500))
    ]

    (rule,) = rules_of(COVERAGE, found, calibration=fitted(COVERAGE, cal, found))

    assert rule.n == 500
    assert rule.verdict is State.FAIL


@pytest.mark.parametrize("rule", [COVERAGE, ABSTAIN])
def test_without_a_calibration_split_nothing_is_known(rule: Gate) -> None:
    found = rules_of(rule, answered(200, 1))

    assert {one.verdict for one in found} == {State.INCONCLUSIVE}
    assert "calibration split was not scored" in found[0].reason


@pytest.mark.parametrize("changes", [{}, {"id": "other"}])
def test_items_that_the_gate_judges_are_refused_as_calibration_data(changes: dict[str, str]) -> None:
    cal = answered(50, 1)
    judged = [Planned(changes.get("id", cal[7].id), cal[7].unit, ("a",), {})]

    with pytest.raises(DataError, match="share an id or a unit"):
        fit_calibration(cal, [COVERAGE], suite="s", judged=judged)


def test_a_temperature_finds_how_much_too_bold_the_model_is() -> None:
    rule = gate(metric="confidence_gap", within=0.05, calibrated=True)

    found = fitted(rule, answered(3000, 1, heat=0.5), [])

    assert found.temperature == pytest.approx(2.0, rel=0.1)
    assert found.tests["kolmogorov_smirnov_p"] is not None
    assert found.tests["kolmogorov_smirnov_p"] < 0.01


def test_a_number_that_could_not_be_had_is_null_with_its_reason() -> None:
    texts = [sample(k, label_probs=None) for k in range(100)]
    found = fit_calibration(texts, [ABSTAIN], suite="s", judged=[])

    assert found.temperature is None
    assert found.reasons["temperature"].startswith("not every answer")
    assert found.reasons["abstention 0.9"] == "no answer has a confidence"


def test_what_was_fitted_survives_its_json() -> None:
    # With 5 items no finite threshold keeps 90 %: it is infinite, and JSON has no word for that.
    for cal in (answered(400, 1, ward="a"), answered(5, 1, ward="a")):
        found = fit_calibration(
            cal, [gate(metric="coverage", target=0.9, at_least=0.8, per="ward"), COVERAGE, ABSTAIN], suite="s",
            judged=[],
        )  # fmt: skip

        again = Calibration.from_json(json.loads(json.dumps(found.to_json(), allow_nan=False)))

        assert again == found


def test_answers_are_held_back_until_those_given_are_right_often_enough() -> None:
    cal, found = answered(2000, 1), answered(2000, 2, start=2000)

    share, precision = rules_of(ABSTAIN, found, calibration=fitted(ABSTAIN, cal, found))

    assert (share.slice, precision.slice) == ("share answered", "precision of answers")
    assert (share.threshold, precision.threshold) == (0.3, 0.9)
    assert share.verdict is State.PASS
    assert precision.score is not None
    assert precision.score > 0.88 > sum(s.score for s in found) / len(found)
    assert precision.n < share.n == 2000


def test_a_model_that_knows_too_little_answers_too_little() -> None:
    wants = gate(metric="abstention", precision=0.9, at_least=0.95)
    cal, found = answered(2000, 1), answered(2000, 2, start=2000)

    share, _ = rules_of(wants, found, calibration=fitted(wants, cal, found))

    assert share.verdict is State.FAIL


def test_a_bold_model_is_told_so_and_its_temperature_mends_it() -> None:
    plain, mended = (gate(metric="confidence_gap", within=0.05, calibrated=on) for on in (False, True))
    cal, found = answered(3000, 1, heat=0.4), answered(2000, 2, heat=0.4, start=3000)
    calibration = fitted(mended, cal, found)

    (bold,) = rules_of(plain, found, calibration=calibration)
    (better,) = rules_of(mended, found, calibration=calibration)

    assert bold.verdict is State.FAIL
    assert bold.score is not None
    assert bold.score > 0.05
    assert better.verdict is State.PASS
    assert "Spiegelhalter p" in bold.reason


def test_few_items_settle_nothing_about_confidence() -> None:
    (rule,) = rules_of(gate(metric="confidence_gap", within=0.05), answered(40, 1))

    assert rule.verdict is State.INCONCLUSIVE


def test_a_brier_score_is_compared_with_an_earlier_stage_on_the_same_items() -> None:
    now, bold = answered(1500, 1), answered(1500, 1, heat=0.2)
    rule = gate(metric="brier", versus="base", no_worse_than=0.04)

    (kept,) = rules_of(rule, now, earlier={"base": now})
    (lost,) = rules_of(rule, bold, earlier={"base": now})
    (other,) = rules_of(rule, now, earlier={"base": now[1:]})

    assert kept.verdict is State.PASS
    assert lost.verdict is State.FAIL
    assert (other.verdict, "same items" in other.reason) == (State.INCONCLUSIVE, True)


def test_the_brier_score_is_the_mean_squared_distance_from_the_truth() -> None:
    probs = {"a": 0.7, "b": 0.2, "c": 0.1}
    found = [
        sample(k, gold=("a",) if k % 2 else ("b",), answer="a", label_probs=probs, confidence=0.7, score=float(k % 2))
        for k in range(400)
    ]  # fmt: skip

    (rule,) = rules_of(gate(metric="brier", at_most=1.0), found)

    right, wrong = 0.3**2 + 0.2**2 + 0.1**2, 0.7**2 + 0.8**2 + 0.1**2
    assert rule.score == pytest.approx((right + wrong) / 2)
    assert rule.verdict is State.PASS


def test_the_calibration_error_of_few_items_is_shown_and_never_judged() -> None:
    rule = gate(metric="ece", at_most=0.5)
    (few,) = rules_of(rule, answered(1999, 1))
    (many,) = rules_of(rule, answered(2000, 1))
    (bold,) = rules_of(gate(metric="ece", at_most=0.02), answered(4000, 1, heat=0.3))

    assert few.verdict is State.INCONCLUSIVE
    assert "a perfect model shows" in few.reason
    assert many.verdict is State.PASS
    assert bold.verdict is State.FAIL


def test_only_rules_that_need_it_ask_for_the_calibration_split() -> None:
    assert needs_calibration([COVERAGE])
    assert needs_calibration([gate(metric="brier", at_most=0.3, calibrated=True)])
    assert not needs_calibration([gate(at_least=0.5), gate(metric="confidence_gap", within=0.1)])


def test_sets_that_keep_their_promise_rarely_fail() -> None:
    runs, rng = 300, random.Random(7)
    fails = 0
    for _ in range(runs):
        cal, found = ([_scored(k, rng.random()) for k in range(start, start + 150)] for start in (0, 150))
        fails += rules_of(COVERAGE, found, calibration=fitted(COVERAGE, cal, found))[0].verdict is State.FAIL

    assert fails / runs <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / runs)


def _scored(k: int, score: float) -> Sample:
    probs = {"a": 1.0 - score, "b": score}
    return sample(k, gold=("a",), answer="a", label_probs=probs, confidence=max(probs.values()))


def test_nothing_is_ever_not_a_number() -> None:
    cal = answered(60, 1)
    for n in (0, 1, 2):
        found = answered(n, 2, start=100)
        for rule in (
            COVERAGE,
            ABSTAIN,
            gate(metric="confidence_gap", within=0.1),
            gate(metric="ece", at_most=0.1),
        ):
            calibration = fitted(rule, cal, found) if needs_calibration([rule]) else None
            for one in rules_of(rule, found, calibration=calibration):
                assert one.verdict is not State.PASS
                numbers = (one.score, one.low, one.high)
                assert not any(value is not None and math.isnan(value) for value in numbers)
