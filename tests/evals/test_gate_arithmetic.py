"""What bounds, thresholds and noise make of one another, value by value at the edges."""

from __future__ import annotations

import math
from statistics import NormalDist

import pytest

from harness.evals.gate import applies, combine, is_borne_out, judge, stale
from harness.evals.repeat import Noise
from harness.evals.results import RuleVerdict, State, Verdict
from harness.evals.rules.decide import Aim, Bounds, Compared, aim_of, decide, judge_parts, nothing, skipped
from harness.evals.rules.edge import requests_needed
from harness.evals.rules.evidence import Evidence, Planned, noise_floor, score_of
from tests.evals.builders import evidence, gate, sample, samples

MORE, LESS = Aim(0.5, True, 0.01, 0.2), Aim(0.5, False, 0.01, 0.2)


# Aims


def test_the_bound_that_a_pass_needs_has_the_error_alpha() -> None:
    assert MORE.errors == (0.01, 0.2)
    assert LESS.errors == (0.2, 0.01)


def test_noise_moves_what_a_bound_is_compared_with_outwards() -> None:
    assert MORE.compared(0.125) == Compared(0.625, 0.375)
    assert LESS.compared(0.0) == Compared(0.5, 0.5)


@pytest.mark.parametrize(
    ("low", "noise", "passes"), [(0.5, 0.0, True), (0.49, 0.0, False), (0.75, 0.25, True), (0.7, 0.25, False)]
)
def test_a_bound_at_the_threshold_passes_and_noise_counts_against_it(
    low: float, noise: float, passes: bool
) -> None:
    assert MORE.passes(low, 0.9, noise) is passes
    assert LESS.passes(0.1, 1.0 - low, noise) is passes
    assert not MORE._replace(is_strict=True).passes(0.5 + noise, 0.9, noise)
    assert not LESS._replace(is_strict=True).passes(0.1, 0.5 - noise, noise)
    assert MORE._replace(is_strict=True).passes(0.51 + noise, 0.9, noise)
    assert LESS._replace(is_strict=True).passes(0.1, 0.49 - noise, noise)


def test_no_noise_is_none() -> None:
    assert MORE.passes(0.5, None)
    assert LESS.passes(None, 0.5)
    assert MORE.fails(None, 0.49)
    assert LESS.fails(0.51, None)
    assert not MORE.fails(None, 0.5)
    assert not LESS.fails(0.5, None)


@pytest.mark.parametrize(("end", "fails"), [(0.25, False), (0.24, True)])
def test_a_bound_at_the_threshold_does_not_fail(end: float, fails: bool) -> None:
    assert MORE.fails(0.0, end, 0.25) is fails
    assert LESS.fails(1.0 - end, 1.0, 0.25) is fails


def test_without_a_bound_nothing_passes_or_fails() -> None:
    for aim in (MORE, LESS):
        assert not aim.passes(None, None)
        assert not aim.fails(None, None)


def test_each_kind_of_rule_aims_at_its_number() -> None:
    assert aim_of(gate(versus="base", better_than=0.1)) == Aim(0.1, True, 0.05, 0.05, True)
    assert aim_of(gate(versus="base", better_than=0.0)) == Aim(0.0, True, 0.05, 0.05, True)
    assert aim_of(gate(versus="base", no_worse_than=0.1, alpha=0.01)) == Aim(-0.1, True, 0.01, 0.05, False)
    assert aim_of(gate(versus="base", no_worse_than=0.0)).threshold == 0.0
    assert aim_of(gate(at_least=0.7, beta=0.1)) == Aim(0.7, True, 0.05, 0.1, False)
    assert aim_of(gate(at_most=0.2)) == Aim(0.2, False, 0.05, 0.05, False)
    assert aim_of(gate(gap=0.1, per="sex")) == Aim(0.1, False, 0.05, 0.05, True)
    assert aim_of(gate(metric="confidence_gap", within=0.05)) == Aim(0.05, False, 0.05, 0.05, False)


# Verdicts


def measured(p: float) -> object:
    """A slice whose failure is shown at every level from `p` on."""
    return lambda _low, high: Bounds(10, 0.4, 0.3, 0.45 if high >= p else 0.55)


@pytest.mark.parametrize(
    ("p_values", "standing"),
    [
        ((0.01, 0.02, 0.04), {0, 1, 2}), ((0.01, 0.03, 0.04), {0}), ((0.02, 0.02, 0.02), set()),
        ((0.04, 0.01, 0.02), {0, 1, 2}), ((0.01, 0.2, 0.2), {0}), ((0.04,), {0}), ((0.06,), set()),
        ((0.03, 0.03), set()),
        ((0.02, 0.2), {0}), ((0.05 / 3, 0.05 / 2, 0.05), {0, 1, 2}),
    ],
)  # fmt: skip
def test_of_several_failures_those_of_holms_table_stand(
    p_values: tuple[float, ...], standing: set[int]
) -> None:
    parts = {f"s{k}": measured(p) for k, p in enumerate(p_values)}

    found = judge_parts(gate(at_least=0.5), "s", parts)  # type: ignore[arg-type]

    assert [rule.slice for rule in found] == list(parts)
    assert {k for k, rule in enumerate(found) if rule.verdict is State.FAIL} == standing
    assert all(rule.verdict is not State.PASS for rule in found)


def test_noise_keeps_a_failure_from_standing() -> None:
    parts = {name: measured(0.001) for name in "ab"}

    for noise, state in ((0.04, State.FAIL), (0.06, State.INCONCLUSIVE)):
        found = judge_parts(gate(at_least=0.5), "s", parts, noise=noise)  # type: ignore[arg-type]
        assert {rule.verdict for rule in found} == {state}
        assert {rule.noise for rule in found} == {noise}
    assert {rule.noise for rule in judge_parts(gate(at_least=0.5), "s", parts)} == {None}  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("low", "high", "more", "less"),
    [
        (0.6, 0.7, "lower bound 0.6 clears 0.5", "lower bound 0.6 misses 0.5"),
        (0.3, 0.4, "upper bound 0.4 misses 0.5", "upper bound 0.4 clears 0.5"),
        (0.4, 0.6, "lower bound 0.4 does not clear 0.5", "upper bound 0.6 does not clear 0.5"),
        (None, None, "no bound does not clear 0.5", "no bound does not clear 0.5"),
    ],
)
def test_the_reason_names_the_bound_that_decides(
    low: float | None, high: float | None, more: str, less: str
) -> None:
    bounds = Bounds(10, 0.5, low, high)

    assert decide(gate(at_least=0.5), "s", "all", bounds).reason == more
    assert decide(gate(at_most=0.5), "s", "all", bounds).reason == less


def test_more_items_are_asked_for_only_where_a_rule_is_open() -> None:
    def ask(low: float, high: float, score: float | None = 0.5) -> int | None:
        bounds = Bounds(10, score, low, high, "why", lambda: 7)
        return decide(gate(at_least=0.5), "s", "all", bounds).needed

    assert ask(0.4, 0.6) == 7
    assert ask(0.5, 0.6) is ask(0.3, 0.4) is ask(0.4, 0.6, None) is None
    assert decide(gate(at_least=0.5), "s", "all", Bounds(10, 0.5, 0.4, 0.6)).needed is None


def test_nothing_is_known_of_no_items() -> None:
    found = decide(gate(at_least=0.5), "s", "all", nothing("why not"))

    assert (found.n, found.score, found.verdict, found.reason) == (0, None, State.INCONCLUSIVE, "why not")
    assert nothing("x", 3) == Bounds(3, None, None, None, "x", nothing("x").needed)
    assert decide(gate(at_least=0.5), "s", "all", Bounds(0, None, 0.9, 0.95)).reason == "no number"
    small = skipped(gate(at_least=0.5), "s", "a", 3, 0.5)
    assert (small.verdict, small.n, small.threshold) == (State.SKIPPED, 3, 0.5)


# What was seen


def test_each_metric_reads_its_own_number() -> None:
    one = sample(0, score=0.25, scores={"rouge_l": 0.75}, error="boom", is_truncated=True)
    fine = sample(1)

    assert score_of(gate(at_least=0.5), one) == 0.25
    assert score_of(gate(metric="score", score="rouge_l", at_least=0.5), one) == 0.75
    assert score_of(gate(metric="score", score="chrf", at_least=0.5), one) is None
    for metric in ("error_rate", "truncated_rate"):
        assert [score_of(gate(metric=metric, at_most=0.5), each) for each in (one, fine)] == [1.0, 0.0]


def noise(flips: int, upper: float, margin_sd: float | None = None, items: int = 10) -> Noise:
    return Noise(items, flips, upper, None, False, margin_sd)


def test_the_noise_floor_without_probabilities_is_the_upper_bound_where_answers_flipped() -> None:
    found = samples(5, 10)

    assert noise_floor(Evidence(found, 1.0)) == 0.0
    assert noise_floor(Evidence(found, 1.0, noise=noise(1, 0.3, items=0))) == 0.0
    assert noise_floor(Evidence(found, 1.0, noise=noise(0, 0.3))) == 0.0
    assert noise_floor(Evidence(found, 1.0, noise=noise(1, 0.3))) == 0.3
    assert noise_floor(Evidence(found, 1.0, noise=noise(1, 0.3, 0.1))) == 0.3
    assert noise_floor(Evidence([], 1.0, noise=noise(1, 0.3, 0.1))) == 0.3
    single = [sample(0, label_probs={"a": 1.0})]
    assert noise_floor(Evidence(single, 1.0, noise=noise(1, 0.3, 0.1))) == 0.3
    assert noise_floor(Evidence(found, 1.0, noise=noise(1, 0.3, 0.1, items=1))) == 0.3


def test_the_noise_floor_is_the_share_expected_to_flip_between_the_bounds_of_what_flipped() -> None:
    probs = [
        {"a": 0.6, "b": 0.3, "c": 0.1},
        {"a": 0.5, "b": 0.45},
        {"a": 0.9, "b": 0.1},
        {"a": 1.0, "b": 0.0},
    ]
    found = [sample(k, label_probs=each) for k, each in enumerate(probs)]
    found.append(sample(4, error="boom", answer=None))
    margins = [math.log(0.6 / 0.3), math.log(0.5 / 0.45), math.log(0.9 / 0.1)]

    def floor(margin_sd: float, flips: int = 0, upper: float = 0.9, items: int = 10) -> float:
        return noise_floor(Evidence(found, 1.0, noise=noise(flips, upper, margin_sd, items)))

    for margin_sd in (0.05, 0.4):
        expected = sum(NormalDist().cdf(-margin / margin_sd) for margin in margins) / 5
        assert floor(margin_sd) == pytest.approx(expected, rel=1e-6)
    assert floor(0.0) == 0.0
    assert floor(100.0, upper=0.25) == 0.25
    # 0.3933758 is scipy.stats.beta.ppf(0.05, 7, 4): Clopper-Pearson's one-sided bound for 7 of 10
    assert floor(0.05, flips=7) == pytest.approx(0.3933758, abs=1e-6)


def test_without_a_plan_the_samples_are_all_there_is() -> None:
    found = samples(1, 2)

    assert Evidence(found, 1.0).plan == [Planned(s.id, s.unit, s.gold, s.slices) for s in found]
    other = [Planned("x", "x", ("a",), {})]
    assert Evidence(found, 1.0, planned=other).plan == other


# The verdict of a stage


def test_rules_judge_the_stages_that_they_are_for() -> None:
    named, size = gate(at_least=0.5, stages=("f16",)), gate(metric="size_mb", at_most=9.0)
    versus = gate(versus="merged", no_worse_than=0.1)

    assert [applies(named, stage) for stage in ("f16", "merged")] == [True, False]
    assert [applies(size, stage) for stage in ("f16", "q4_0")] == [False, True]
    assert [applies(versus, stage) for stage in ("base", "merged", "f16", "q4_0")] == [
        False,
        False,
        True,
        True,
    ]
    assert applies(gate(versus="baseline", no_worse_than=0.1), "base")
    assert applies(gate(at_least=0.5), "base")
    assert not applies(gate(versus="q4_0", no_worse_than=0.1), "q8_0")


def verdict(state: State, metric: str = "accuracy", **values: object) -> RuleVerdict:
    shown: dict[str, object] = {"score": 0.5, "low": 0.4, "high": 0.6, "threshold": 0.4, **values}
    return RuleVerdict("r", "s", metric, "all", 9, verdict=state, reason="", **shown)  # type: ignore[arg-type]


def test_the_worst_rule_decides_and_a_pass_takes_a_measured_one() -> None:
    passed, failed = verdict(State.PASS), verdict(State.FAIL)
    is_stale, is_open = verdict(State.STALE), verdict(State.INCONCLUSIVE)

    assert combine([passed, is_open, is_stale, failed]) is State.FAIL
    assert combine([passed, is_open, is_stale]) is State.STALE
    assert combine([passed, is_open]) is State.INCONCLUSIVE
    assert combine([passed, verdict(State.WAIVED), verdict(State.SKIPPED)]) is State.PASS
    assert combine([verdict(State.WAIVED)]) is combine([]) is State.INCONCLUSIVE
    assert combine([verdict(State.PASS, "size_mb")]) is State.INCONCLUSIVE


def test_a_pass_is_borne_out_by_numbers_that_reach_the_threshold() -> None:
    rule = gate(at_least=0.5)
    for low, noise_frac, threshold, is_fine in (
        (0.5, None, 0.5, True), (0.49, None, 0.5, False), (0.5, 0.125, 0.5, False), (0.625, 0.125, 0.5, True),
        (0.9, None, 0.4, False), (None, None, 0.5, False),
    ):  # fmt: skip
        shown = verdict(State.PASS, low=low, threshold=threshold, noise=noise_frac)
        assert is_borne_out(shown, rule) is is_fine


@pytest.mark.parametrize(
    ("low", "high", "is_fine"),
    [
        (-0.1, 0.1, True), (-0.11, 0.1, False), (-0.1, 0.11, False), (None, 0.0, False), (0.0, None, False),
        (0.0, 0.0, True), (0.05, 0.09, True), (-0.09, -0.05, True),
    ],
)  # fmt: skip
def test_a_gap_within_a_cap_is_borne_out_by_both_ends(
    low: float | None, high: float | None, is_fine: bool
) -> None:
    rule = gate(metric="confidence_gap", within=0.1)

    assert is_borne_out(verdict(State.PASS, "confidence_gap", low=low, high=high), rule) is is_fine


def test_both_parts_of_an_abstention_rule_are_borne_out_by_their_own_threshold() -> None:
    rule = gate(metric="abstention", precision=0.9, at_least=0.3)

    for low, threshold, is_fine in ((0.9, 0.9, True), (0.8, 0.9, False), (0.3, 0.3, True), (0.2, 0.3, False)):
        assert is_borne_out(verdict(State.PASS, "abstention", low=low, threshold=threshold), rule) is is_fine


def test_a_verdict_on_another_model_or_lock_is_stale() -> None:
    found = Verdict("f16", "model", "lock", State.PASS, ())

    assert stale(found, "model", "lock") is found
    assert stale(found, "other", "lock").verdict is stale(found, "model", "other").verdict is State.STALE


@pytest.mark.parametrize(("errors", "state"), [(1, State.PASS), (2, State.PASS), (3, State.FAIL)])
def test_errors_up_to_the_suites_share_are_borne(errors: int, state: State) -> None:
    found = [*samples(8, 8 - errors), *(sample(k, error="boom", answer=None) for k in range(8 - errors, 8))]

    first = judge("f16", "m", "l", [], {"s": Evidence(found, 0.25)}, "s").rules[0]

    assert (first.verdict, first.n, first.score, first.threshold) == (state, 8, errors / 8, 0.25)


def test_a_rule_reads_its_own_suite_and_is_left_out_without_it() -> None:
    shown = {"one": evidence(9, 10), "two": evidence(1, 10)}

    found = judge("f16", "m", "l", [gate(at_least=0.5), gate(at_least=0.5, suite="two")], shown, "one")
    assert [(rule.suite, rule.score) for rule in found.rules[2:]] == [("one", 0.9), ("two", 0.1)]
    assert len(judge("f16", "m", "l", [gate(at_least=0.5, suite="three")], shown, "one").rules) == 2
    assert len(judge("f16", "m", "l", [gate(at_least=0.5, stages=("base",))], shown, "one").rules) == 2


def test_a_rule_none_of_whose_slices_is_large_enough_has_judged_nothing() -> None:
    found = samples(9, 10, slices={"sex": "f"})

    rules = judge("f16", "m", "l", [gate(at_least=0.5, per="sex")], {"s": Evidence(found, 1.0)}, "s").rules
    assert [(rule.slice, rule.verdict) for rule in rules[1:]] == [
        ("sex=f", State.SKIPPED), ("sex", State.INCONCLUSIVE),
    ]  # fmt: skip
    assert rules[-1].score is None


# What ships


def test_a_file_is_judged_by_its_megabytes() -> None:
    size = gate(metric="size_mb", at_most=5.0)
    for size_bytes, state in ((5_000_000, State.PASS), (5_000_001, State.FAIL), (None, State.INCONCLUSIVE)):
        shown = evidence(1, 1, size_bytes=size_bytes)
        found = judge("q4_0", "m", "l", [size], {"s": shown}, "s").rules[-1]
        assert found.verdict is state
    memory = judge(
        "q4_0", "m", "l", [gate(metric="memory_mb", at_most=5.0)], {"s": evidence(1, 1, memory_mb=5.0)}, "s"
    ).rules[-1]
    assert (memory.verdict, memory.n, memory.low, memory.high) == (State.PASS, 1, 5.0, 5.0)


def test_a_latency_is_bounded_by_its_order_statistics() -> None:
    """Of 59 requests the slowest bounds the 95th percentile at 5 %: 0.95 ** 59 = 0.0485, and 0.95 ** 58 = 0.0510."""
    rule = gate(metric="latency_p95_ms", at_most=1000.0)

    for n, high in ((58, None), (59, 59.0)):
        shown = evidence(1, 1, latencies_ms=[float(k) for k in range(1, n + 1)])
        found = judge("q4_0", "m", "l", [rule], {"s": shown}, "s").rules[-1]
        assert (found.n, found.score, found.high) == (n, float(math.ceil(0.95 * n)), high)
        assert ("too few" in found.reason) is (high is None)
    none = judge("q4_0", "m", "l", [rule], {"s": evidence(1, 1)}, "s").rules[-1]
    assert (none.n, none.verdict) == (0, State.INCONCLUSIVE)


@pytest.mark.parametrize(("metric", "requests"), [("p50", 120), ("p95", 120), ("p99", 598)])
def test_twice_the_fewest_requests_with_a_bound_are_sent(metric: str, requests: int) -> None:
    """The fewest are 5, 59 and 299: the first n with share ** n <= 0.05."""
    assert requests_needed(gate(metric=f"latency_{metric}_ms", at_most=9.0)) == requests
