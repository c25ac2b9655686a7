import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.evals.gate import Evidence, Part, applies, difference_bounds, judge
from harness.evals.results import State, Verdict
from tests.evals.builders import evidence, gate, sample, samples


def verdict_of(shown: Evidence, *gates: object, stage: str = "adapter") -> Verdict:
    return judge(stage, "id", "lock", gates, {"suite": shown}, "suite")  # type: ignore[arg-type]


def test_a_gate_passes_when_the_lower_bound_clears_the_threshold() -> None:
    # One-sided 95 % Clopper-Pearson bound of 95/100 is 0.8977 (R: binom.test(95, 100, alternative="greater")).
    verdict = verdict_of(evidence(95, 100), gate(at_least=0.89))

    assert verdict.verdict is State.PASS
    assert verdict.rules[-1].low == pytest.approx(0.8977, abs=2e-4)


def test_a_gate_is_inconclusive_when_the_interval_straddles_the_threshold() -> None:
    verdict = verdict_of(evidence(78, 100), gate(at_least=0.75))

    assert verdict.verdict is State.INCONCLUSIVE
    assert verdict.rules[-1].needed is not None
    assert verdict.rules[-1].needed > 0


def test_the_items_said_to_be_needed_do_settle_the_rule() -> None:
    needed = verdict_of(evidence(80, 100), gate(at_least=0.75)).rules[-1].needed
    assert needed is not None
    n = 100 + needed

    assert verdict_of(evidence(round(0.8 * n), n), gate(at_least=0.75)).verdict is State.PASS


def test_a_gate_fails_when_the_upper_bound_misses_the_threshold() -> None:
    assert verdict_of(evidence(60, 100), gate(at_least=0.75)).verdict is State.FAIL


def test_an_empty_suite_is_never_pass() -> None:
    verdict = verdict_of(Evidence([], 0.02), gate(at_least=0.0))

    assert verdict.verdict is State.INCONCLUSIVE
    assert "empty" in verdict.rules[0].reason


def test_errors_stay_in_the_denominator() -> None:
    found = [*samples(90, 90), *(sample(n, right=False, answer=None, error="boom") for n in range(90, 100))]

    verdict = verdict_of(Evidence(found, max_error_frac=0.5), gate(at_least=0.95))

    assert verdict.rules[-1].n == 100
    assert verdict.rules[-1].score == pytest.approx(0.9)


def test_too_many_errors_fail_whatever_the_score() -> None:
    found = [
        *samples(197, 197),
        *(sample(n, right=False, answer=None, error="boom") for n in range(197, 203)),
    ]

    assert verdict_of(Evidence(found, max_error_frac=0.02), gate(at_least=0.5)).verdict is State.FAIL


def test_nan_never_passes() -> None:
    found = [sample(number, score=math.nan) for number in range(100)]

    assert verdict_of(Evidence(found, 0.02), gate(at_least=0.5)).verdict is not State.PASS


def test_without_a_rule_on_the_answers_nothing_passes() -> None:
    verdict = verdict_of(
        evidence(100, 100, size_bytes=10**6), gate(metric="size_mb", at_most=5), stage="q4_0"
    )

    assert verdict.rules[-1].verdict is State.PASS
    assert verdict.verdict is State.INCONCLUSIVE


def test_small_slices_are_named_and_not_judged() -> None:
    found = [sample(n, slices={"kind": "rare" if n < 5 else "usual"}) for n in range(100)]

    verdict = verdict_of(Evidence(found, 0.02), gate(at_least=0.9, per="kind", min_n=20))

    states = {rule.slice: rule.verdict for rule in verdict.rules[1:]}
    assert states == {"kind=rare": State.SKIPPED, "kind=usual": State.PASS}


@pytest.mark.parametrize("versus", [None, "base"])
def test_a_rule_whose_every_slice_is_too_small_does_not_hold(versus: str | None) -> None:
    found = [sample(n, slices={"kind": f"k{n % 10}"}) for n in range(100)]
    rule = {"better_than": 0, "versus": versus} if versus else {"at_least": 0.5}

    verdict = verdict_of(
        Evidence(found, 0.02, earlier={"base": samples(10, 100)}),
        gate(at_least=0.9),
        gate(per="kind", min_n=20, **rule),
    )

    assert verdict.verdict is State.INCONCLUSIVE
    assert "nothing was judged" in verdict.rules[-1].reason


def test_one_bad_slice_fails_the_release() -> None:
    found = [sample(n, right=n >= 50, slices={"kind": "old" if n < 50 else "fresh"}) for n in range(500)]

    verdict = verdict_of(Evidence(found, 0.02), gate(at_least=0.8), gate(at_least=0.5, per="kind"))

    assert verdict.verdict is State.FAIL
    assert [rule.slice for rule in verdict.rules if rule.verdict is State.FAIL] == ["kind=old"]


def test_recall_counts_a_record_for_each_of_its_gold_labels() -> None:
    found = [sample(n, gold=("a", "b"), answer="a") for n in range(40)]

    rules = verdict_of(Evidence(found, 0.02), gate(metric="recall", per="label", at_least=0.5)).rules[1:]

    assert {rule.slice: rule.score for rule in rules} == {"label=a": 1.0, "label=b": 0.0}


def test_precision_counts_what_was_said() -> None:
    found = [sample(n, answer="a", gold=("a",) if n < 30 else ("b",), score=float(n < 30)) for n in range(40)]

    rules = verdict_of(Evidence(found, 0.02), gate(metric="precision", per="label", at_least=0.5)).rules[1:]

    assert [(rule.slice, rule.n, rule.score) for rule in rules] == [("label=a", 40, 0.75)]


def test_paired_rules_compare_the_same_items() -> None:
    earlier = {"base": samples(10, 100)}

    verdict = verdict_of(evidence(90, 100, earlier=earlier), gate(versus="base", better_than=0.5))

    assert verdict.verdict is State.PASS
    assert verdict.rules[-1].score == pytest.approx(0.8)


def test_paired_rules_on_other_items_are_inconclusive() -> None:
    earlier = {"base": samples(10, 99)}

    rule = verdict_of(evidence(90, 100, earlier=earlier), gate(versus="base", better_than=0)).rules[-1]

    assert rule.verdict is State.INCONCLUSIVE
    assert "same items" in rule.reason


def test_a_loss_beyond_the_margin_fails_non_inferiority() -> None:
    earlier = {"f16": samples(190, 200)}

    verdict = verdict_of(
        evidence(150, 200, earlier=earlier), gate(versus="f16", no_worse_than=0.05), stage="q4_0"
    )

    assert verdict.verdict is State.FAIL


def test_items_of_one_document_are_worth_less_than_independent_ones() -> None:
    alone = samples(430, 500)
    # Whole documents right or wrong: 50 documents of 10 items carry the information of 50 items.
    together = [sample(n, right=n < 430, unit=f"doc{n // 10}") for n in range(500)]

    assert verdict_of(Evidence(alone, 0.02), gate(at_least=0.8)).verdict is State.PASS
    clustered = verdict_of(Evidence(together, 0.02), gate(at_least=0.8))
    assert clustered.verdict is State.INCONCLUSIVE
    assert "50 units" in clustered.rules[-1].reason


def test_at_most_passes_on_its_upper_bound() -> None:
    found = [sample(n, is_truncated=n < 2) for n in range(200)]
    rule = gate(metric="truncated_rate", at_most=0.05)

    verdict = verdict_of(Evidence(found, 0.02), rule, gate(at_least=0.9))

    assert verdict.rules[1].verdict is State.PASS
    assert verdict.rules[1].high == pytest.approx(0.0311, abs=2e-4)  # upper Clopper-Pearson bound of 2/200


def test_size_is_judged_on_quants_alone() -> None:
    rule = gate(metric="size_mb", at_most=100)

    assert [applies(rule, stage) for stage in ("base", "adapter", "merged", "f16", "q4_0")] == [False] * 4 + [
        True
    ]


def test_versus_judges_only_later_stages() -> None:
    rule = gate(versus="f16", no_worse_than=0.05)

    assert [applies(rule, stage) for stage in ("base", "adapter", "f16", "q8_0")] == [
        False,
        False,
        False,
        True,
    ]


@given(n=st.integers(1, 300), data=st.data(), threshold=st.floats(0.05, 0.95))
def test_more_right_answers_never_turn_a_pass_into_less(
    n: int, data: st.DataObject, threshold: float
) -> None:
    hits = data.draw(st.integers(0, n - 1))
    order = [State.FAIL, State.INCONCLUSIVE, State.PASS]

    worse = verdict_of(evidence(hits, n), gate(at_least=threshold)).rules[-1].verdict
    better = verdict_of(evidence(hits + 1, n), gate(at_least=threshold)).rules[-1].verdict

    assert order.index(better) >= order.index(worse)


def test_a_verdict_survives_its_json() -> None:
    verdict = verdict_of(evidence(78, 100), gate(at_least=0.75))

    assert Verdict.from_json(verdict.to_json()) == verdict


def test_three_units_lost_whole_are_judged_as_the_few_items_they_are_worth() -> None:
    # 3, 3 and 4 items, all lost: worth 2.94 items, of which 2 at most can count as lost.
    def at(right: bool) -> list:
        return [sample(number, right=right, unit=f"u{min(number // 3, 2)}") for number in range(10)]

    shown = Evidence(at(False), max_error_frac=0.02, earlier={"base": at(True)})

    assert verdict_of(shown, gate(versus="base", no_worse_than=0.2)).verdict is State.INCONCLUSIVE


@given(
    pairs=st.lists(
        st.tuples(st.sampled_from([-1.0, 0.0, 1.0]), st.sampled_from("abcd")), min_size=1, max_size=40
    )
)
def test_paired_bounds_of_clusters_hold_the_difference(pairs: list[tuple[float, str]]) -> None:
    differences = [difference for difference, _ in pairs]

    found = difference_bounds(Part("all", differences, [unit for _, unit in pairs]), 0.05, 0.05)

    assert found.low is not None
    assert found.high is not None
    assert -1.0 <= found.low <= sum(differences) / len(differences) <= found.high <= 1.0
