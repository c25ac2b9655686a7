"""What else a verdict says: noise, Holm over slices, stale and waived rules, and what old files hold."""

import json
from dataclasses import replace
from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.evals.gate import Evidence, combine, is_borne_out, judge, stale
from harness.evals.repeat import Noise
from harness.evals.results import RuleVerdict, Sample, State, Verdict, Waiver
from harness.evals.rules.evidence import noise_floor
from harness.evals.waivers import apply_waivers
from harness.specs.gate import Gate
from tests.evals.builders import gate, sample, samples

PASSED = {"rule": "accuracy at least 0.5", "suite": "s", "metric": "accuracy", "slice": "all", "n": 9,
          "score": 0.9, "low": 0.6, "high": 1.0, "threshold": 0.5, "verdict": "PASS", "reason": "r"}  # fmt: skip


def verdict_of(asked: Gate, found: list[Sample], **shown: object) -> Verdict:
    return judge("adapter", "m", "l", [asked], {"s": Evidence(found, 1.0, **shown)}, "s")  # type: ignore[arg-type]


def one(state: str, **changes: object) -> RuleVerdict:
    return RuleVerdict.from_json({**PASSED, "verdict": state, **changes})


def noise(items: int = 100, flips: int = 0, upper: float = 0.03, margin_sd: float | None = None) -> Noise:
    return Noise(items, flips, upper, margin_sd, is_sampled=False, margin_sd=margin_sd)


def test_a_verdict_of_an_older_file_loads_without_what_it_did_not_know() -> None:
    data = {"stage": "q8_0", "identity": "m", "lock": "l", "verdict": "PASS", "rules": [PASSED]}

    rule = Verdict.from_json(data).rules[0]

    assert (rule.design, rule.items_used, rule.too_small, rule.noise, rule.waiver) == (
        "fixed",
        None,
        (),
        None,
        None,
    )


def test_a_verdict_with_all_it_can_hold_survives_its_json() -> None:
    waiver = Waiver("accuracy at least 0.5", "s", None, "Ada", "known", "2027-01-31")
    rule = replace(
        one("WAIVED"), design="sequential", items_used=5, items_saved=4, too_small=("a",), noise=0.1,
        waiver=waiver, waived=State.FAIL,
    )  # fmt: skip
    verdict = Verdict("q8_0", "m", "l", State.PASS, (one("PASS"), rule))

    assert Verdict.from_json(json.loads(json.dumps(verdict.to_json()))) == verdict


@pytest.mark.parametrize(
    ("states", "whole"),
    [
        (["PASS"], State.PASS),
        (["PASS", "WAIVED"], State.PASS),
        (["WAIVED"], State.INCONCLUSIVE),
        (["PASS", "STALE"], State.STALE),
        (["PASS", "STALE", "FAIL"], State.FAIL),
        (["PASS", "STALE", "INCONCLUSIVE"], State.STALE),
        (["PASS", "SKIPPED"], State.PASS),
        (["SKIPPED"], State.INCONCLUSIVE),
        ([], State.INCONCLUSIVE),
    ],
)
def test_a_release_is_the_and_of_its_rules(states: list[str], whole: State) -> None:
    assert combine([one(state) for state in states]) is whole


@given(states=st.lists(st.sampled_from(["PASS", "FAIL", "INCONCLUSIVE", "STALE", "WAIVED", "SKIPPED"])))
def test_nothing_that_blocks_ever_passes(states: list[str]) -> None:
    whole = combine([one(state) for state in states])

    assert (whole is State.PASS) == ("PASS" in states and not {"FAIL", "INCONCLUSIVE", "STALE"} & set(states))


def test_a_verdict_on_another_model_or_lock_is_stale() -> None:
    verdict = Verdict("q8_0", "m", "l", State.PASS, (one("PASS"),))

    assert stale(verdict, "m", "l") is verdict
    assert stale(verdict, "other", "l").verdict is State.STALE
    assert stale(verdict, "m", "other").verdict is State.STALE


def test_a_waived_rule_of_todays_gate_no_longer_blocks_and_a_stale_one_does() -> None:
    found = [*samples(95, 100), *(sample(k, right=False, slices={"kind": "odd"}) for k in range(100, 130))]
    rules = [gate(at_least=0.5), gate(at_least=0.5, per="kind")]
    measured = judge("adapter", "m", "l", rules, {"s": Evidence(found, 1.0)}, "s")
    waiver = Waiver(rules[1].name, "s", None, "Ada", "known", "2027-01-31")

    waived = apply_waivers(measured, [waiver], [rules[1].name], combine, date(2026, 12, 1))

    assert (measured.verdict, waived.verdict) == (State.FAIL, State.PASS)


def test_answers_that_repeat_add_no_noise() -> None:
    shown = Evidence(samples(90, 100), 1.0, noise=noise(margin_sd=0.0))

    assert noise_floor(shown) == 0.0
    assert noise_floor(Evidence(samples(90, 100), 1.0)) == 0.0
    assert noise_floor(Evidence(samples(90, 100), 1.0, noise=noise(items=0, upper=1.0))) == 0.0


def test_answers_that_flip_move_both_bounds_against_the_claim() -> None:
    flipping = noise(flips=1, upper=0.05)
    # 1,000 items: bounds .8828 and .9151 around .90.
    found = samples(900, 1000)

    quiet = verdict_of(gate(at_least=0.88), found).rules[-1]
    noisy = verdict_of(gate(at_least=0.88), found, noise=flipping).rules[-1]
    failing = verdict_of(gate(at_least=0.93), found).rules[-1]
    unsure = verdict_of(gate(at_least=0.93), found, noise=flipping).rules[-1]

    assert (quiet.verdict, noisy.verdict) == (State.PASS, State.INCONCLUSIVE)
    assert (failing.verdict, unsure.verdict) == (State.FAIL, State.INCONCLUSIVE)
    assert (noisy.noise, "by the noise floor 0.05" in noisy.reason) == (0.05, True)


def test_noise_touches_only_rules_on_the_answers() -> None:
    found = [sample(k, is_truncated=k < 2) for k in range(200)]

    rule = verdict_of(
        gate(metric="truncated_rate", at_most=0.05), found, noise=noise(flips=5, upper=0.2)
    ).rules[-1]

    assert (rule.verdict, rule.noise) == (State.PASS, None)


def test_only_near_ties_can_flip_where_label_probabilities_are_known() -> None:
    def at(p: float, k: int) -> Sample:
        return sample(k, label_probs={"a": p, "b": 1.0 - p})

    found = [at(0.9, k) for k in range(98)] + [at(0.5, k) for k in range(98, 100)]

    def floor(**seen: Any) -> float:
        return noise_floor(Evidence(found, 1.0, noise=noise(margin_sd=0.001, **seen)))

    # Two ties of a hundred, each turned by half of the moves.
    assert floor(upper=0.2) == pytest.approx(0.01)
    # Clopper-Pearson's lower bound for 4 of 20: scipy.stats.beta.ppf(0.05, 4, 17).
    assert floor(items=20, flips=4, upper=0.9) == pytest.approx(0.0713539, abs=1e-6)
    assert floor(upper=0.005) == 0.005


def test_many_slices_fail_only_as_far_as_holm_lets_them() -> None:
    # 14 of 20 at .9: the exact p-value is .0113 (R: pbinom(14, 20, .9)), under .05 and over .05 / 10.
    def at(kinds: int) -> list[Sample]:
        return [
            sample(20 * kind + k, right=k < (14 if kind == 0 else 20), slices={"kind": str(kind)})
            for kind in range(kinds)
            for k in range(20)
        ]

    alone = verdict_of(gate(at_least=0.9, per="kind"), at(1)).rules[-1]
    among_ten = [
        rule for rule in verdict_of(gate(at_least=0.9, per="kind"), at(10)).rules if rule.slice == "kind=0"
    ]

    assert alone.verdict is State.FAIL
    assert among_ten[0].verdict is State.INCONCLUSIVE
    assert "Holm's correction over 10 slices" in among_ten[0].reason


def test_a_slice_that_is_clearly_bad_fails_among_many() -> None:
    found = [
        sample(20 * kind + k, right=kind > 1 or k < 4, slices={"kind": str(kind)})
        for kind in range(10)
        for k in range(20)
    ]

    rules = verdict_of(gate(at_least=0.9, per="kind"), found).rules[1:]

    assert [rule.slice for rule in rules if rule.verdict is State.FAIL] == ["kind=0", "kind=1"]


@given(
    hits=st.integers(0, 200), n=st.integers(1, 200), threshold=st.floats(0.05, 0.95),
    kind=st.sampled_from(["at_least", "at_most"]), upper=st.sampled_from([0.0, 0.02]),
)  # fmt: skip
def test_the_numbers_of_every_pass_bear_it_out(
    hits: int, n: int, threshold: float, kind: str, upper: float
) -> None:
    asked = gate(**{kind: threshold})

    rule = verdict_of(asked, samples(min(hits, n), n), noise=noise(flips=1, upper=upper)).rules[-1]

    assert is_borne_out(rule, asked) == (rule.verdict is State.PASS)
    assert not is_borne_out(replace(rule, threshold=threshold / 2, low=None, high=None), asked)


@pytest.mark.parametrize(
    ("metric", "values", "state"),
    [
        ("latency_p50_ms", [9.0] * 40, State.PASS),
        ("latency_p99_ms", [9.0] * 298, State.INCONCLUSIVE),
        ("latency_p99_ms", [9.0] * 299, State.PASS),
        ("latency_p95_ms", [11.0] * 100, State.FAIL),
        ("latency_p95_ms", [], State.INCONCLUSIVE),
    ],
)
def test_a_latency_needs_enough_requests_for_its_percentile(
    metric: str, values: list[float], state: State
) -> None:
    # 299 is the fewest for the 99th percentile: .99^299 < .05 (Wilks 1941).
    shown = {"s": Evidence(samples(9, 9), 1.0, latencies_ms=values)}

    rule = judge("q4_0", "m", "l", [gate(metric=metric, at_most=10)], shown, "s").rules[-1]

    assert rule.verdict is state


@pytest.mark.parametrize(
    ("memory_mb", "state"), [(None, State.INCONCLUSIVE), (500.0, State.PASS), (1500.0, State.FAIL)]
)
def test_memory_that_was_not_measured_is_not_zero(memory_mb: float | None, state: State) -> None:
    shown = {"s": Evidence(samples(9, 9), 1.0, memory_mb=memory_mb)}

    rule = judge("q4_0", "m", "l", [gate(metric="memory_mb", at_most=1000)], shown, "s").rules[-1]

    assert rule.verdict is state
