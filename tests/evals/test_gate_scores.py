"""Rules on scores that are not only right or wrong, of any scorer of the suite."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.evals.gate import Evidence, judge
from harness.evals.results import RuleVerdict, Sample, State
from harness.evals.rules.engine import Range, engine_bounds
from harness.specs.gate import Gate
from harness.stats.f1 import Ratio
from tests.evals.builders import gate, sample, samples

ORDER = [State.FAIL, State.INCONCLUSIVE, State.PASS]


def rule_of(rule: Gate, found: list[Sample], **shown: object) -> RuleVerdict:
    return judge("adapter", "m", "l", [rule], {"s": Evidence(found, 1.0, **shown)}, "s").rules[-1]  # type: ignore[arg-type]


def partial(scores: list[float], **changes: object) -> list[Sample]:
    return [sample(k, score=score, **changes) for k, score in enumerate(scores)]


def test_partial_credit_is_judged_by_its_mean() -> None:
    found = partial([0.7 + 0.2 * (k % 2) for k in range(200)])

    assert rule_of(gate(at_least=0.7), found).verdict is State.PASS
    assert rule_of(gate(at_least=0.9), found).verdict is State.FAIL
    assert rule_of(gate(at_least=0.7), found).score == pytest.approx(0.8)


def test_scores_that_vary_less_are_known_better() -> None:
    narrow = rule_of(gate(at_least=0.7), partial([0.75 + 0.1 * (k % 2) for k in range(100)]))
    wide = rule_of(gate(at_least=0.7), samples(80, 100))

    assert narrow.score == wide.score == pytest.approx(0.8)
    assert narrow.low is not None
    assert wide.low is not None
    assert narrow.low > wide.low


def test_another_scorer_is_read_by_its_name() -> None:
    found = [
        sample(k, right=False, scores={"label": 0.0, "rouge_l": 0.6 + 0.2 * (k % 2)}) for k in range(200)
    ]

    assert rule_of(gate(metric="score", score="rouge_l", at_least=0.6), found).verdict is State.PASS
    missing = rule_of(gate(metric="score", score="chrf", at_least=0.1), found)
    assert (missing.verdict, "chrf" in missing.reason) == (State.INCONCLUSIVE, True)


def test_a_scorer_that_says_the_same_of_every_answer_proves_nothing() -> None:
    assert rule_of(gate(at_least=0.1), partial([0.9] * 500)).verdict is State.INCONCLUSIVE


@pytest.mark.parametrize("bad", [math.nan, math.inf, 1.5, -0.1])
def test_a_score_out_of_range_never_passes(bad: float) -> None:
    found = partial([0.9 + 0.05 * (k % 2) for k in range(200)] + [bad])

    assert rule_of(gate(at_least=0.1), found).verdict is State.INCONCLUSIVE


def test_partial_credit_at_most_is_the_same_rule_on_the_loss() -> None:
    found = partial([0.1 + 0.2 * (k % 2) for k in range(200)])

    assert rule_of(gate(at_most=0.3), found).verdict is State.PASS
    assert rule_of(gate(at_most=0.1), found).verdict is State.FAIL


def test_parts_of_one_document_are_worth_less_than_independent_ones() -> None:
    scores = [0.6 + 0.39 * (k < 300) for k in range(400)]
    alone = rule_of(gate(at_least=0.83), partial(scores))
    # Whole documents good or not so good: 20 documents of 20 items.
    found = [sample(k, score=score, unit=f"doc{k // 20}") for k, score in enumerate(scores)]
    together = rule_of(gate(at_least=0.83), found)

    assert alone.verdict is State.PASS
    assert together.verdict is State.INCONCLUSIVE
    assert "20 units" in together.reason
    assert together.needed is not None
    assert together.needed > 0


def test_the_order_of_the_samples_changes_nothing() -> None:
    found = partial([(k * 37 % 100) / 100 for k in range(150)])

    assert rule_of(gate(at_least=0.4), found) == rule_of(gate(at_least=0.4), found[::-1])


def test_paired_partial_credit_is_judged_by_its_differences() -> None:
    now = partial([0.70 + 0.01 * (k % 20) for k in range(200)])
    before = partial([0.72 + 0.01 * (k * 7 % 20) for k in range(200)])
    shown = {"earlier": {"base": before}}

    assert rule_of(gate(versus="base", no_worse_than=0.1), now, **shown).verdict is State.PASS
    assert rule_of(gate(versus="base", better_than=0.1), now, **shown).verdict is State.FAIL


def test_an_equal_model_is_not_better_and_not_worse() -> None:
    found = partial([0.5 + 0.4 * (k % 2) for k in range(300)])
    shown = {"earlier": {"base": found}}

    assert rule_of(gate(versus="base", better_than=0.0), found, **shown).verdict is not State.PASS
    assert rule_of(gate(versus="base", no_worse_than=0.05), found, **shown).verdict is State.PASS


def test_the_items_said_to_be_needed_do_settle_a_rule_on_partial_credit() -> None:
    scores = [0.6 + 0.4 * (k % 2) for k in range(60)]
    needed = rule_of(gate(at_least=0.75), partial(scores)).needed
    assert needed is not None

    more = [0.6 + 0.4 * (k % 2) for k in range(60 + 2 * needed)]
    assert rule_of(gate(at_least=0.75), partial(more)).verdict is State.PASS


@given(
    scores=st.lists(st.floats(0, 1), min_size=1, max_size=60),
    at=st.integers(0, 10**6),
    gain=st.floats(0, 1),
    threshold=st.floats(0.05, 0.95),
)  # fmt: skip
def test_a_verdict_on_any_scores_is_a_verdict(
    scores: list[float], at: int, gain: float, threshold: float
) -> None:
    rule = rule_of(gate(at_least=threshold), partial(scores))

    assert rule.verdict in ORDER
    for bound in (rule.low, rule.high):
        assert bound is None or 0.0 <= bound <= 1.0
    if rule.low is not None and rule.high is not None and rule.score is not None:
        assert rule.low <= rule.score + 1e-9
        assert rule.high >= rule.score - 1e-9
    assert not (rule.verdict is State.PASS and rule.high is not None and rule.high < threshold)


@given(
    scores=st.lists(st.floats(0, 1), min_size=2, max_size=80),
    low=st.floats(-5, 5),
    size=st.sampled_from([0.5, 1.0, 2.0, 100.0]),
)  # fmt: skip
def test_the_scale_of_the_scores_changes_nothing(scores: list[float], low: float, size: float) -> None:
    plain = [Ratio(score, 1.0) for score in scores]
    moved = [Ratio(low + size * score, 1.0) for score in scores]

    a = engine_bounds(plain, Range(0, 1, 1, len(plain)), 0.05, 0.05, low_at=0.5, high_at=0.5, items=1)
    at = low + size * 0.5
    b = engine_bounds(
        moved, Range(low, low + size, 1, len(moved)), 0.05, 0.05, low_at=at, high_at=at, items=1
    )

    assert a.low is not None
    assert b.low is not None
    assert b.low == pytest.approx(low + size * a.low, abs=2e-2 * size)
    assert b.high == pytest.approx(low + size * (a.high or 0.0), abs=2e-2 * size)
