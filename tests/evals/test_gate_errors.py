"""How often a rule is wrong: exactly where all outcomes can be counted, by simulation elsewhere."""

import math
import random

import pytest
from scipy.stats import binom

from harness.evals.gate import Evidence, judge
from harness.evals.results import Sample, State
from harness.specs.gate import Gate
from tests.evals.builders import gate, sample, samples

ALPHA = 0.05
RUNS = 250
SLACK = 3 * math.sqrt(ALPHA * (1 - ALPHA) / RUNS)


def state_of(asked: Gate, found: list[Sample], **shown: object) -> State:
    verdict = judge("adapter", "m", "l", [asked], {"s": Evidence(found, 1.0, **shown)}, "s")  # type: ignore[arg-type]
    return verdict.rules[1].verdict


@pytest.mark.parametrize("n", [1, 5, 30, 100])
@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.8, 0.9, 0.95, 0.99])
def test_a_rate_at_its_threshold_passes_and_fails_falsely_no_more_than_promised(
    n: int, threshold: float
) -> None:
    states = [state_of(gate(at_least=threshold), samples(hits, n)) for hits in range(n + 1)]

    for wanted in (State.PASS, State.FAIL):
        chance = sum(binom.pmf(hits, n, threshold) for hits, state in enumerate(states) if state is wanted)
        assert chance <= ALPHA + 1e-12
    ranks = [[State.FAIL, State.INCONCLUSIVE, State.PASS].index(state) for state in states]
    assert ranks == sorted(ranks)


@pytest.mark.parametrize("n", [20, 80])
@pytest.mark.parametrize("threshold", [0.6, 0.9])
def test_an_f1_at_its_threshold_passes_and_fails_falsely_no_more_than_promised(
    n: int, threshold: float
) -> None:
    overlap = threshold / (2 - threshold)

    def outcome(hits: int) -> State:
        found = [
            sample(k, gold=("a",), answer="a" if k < hits else None, score=float(k < hits)) for k in range(n)
        ]
        return state_of(gate(metric="f1", per="label", at_least=threshold, min_n=1), found)

    states = [outcome(hits) for hits in range(n + 1)]
    for wanted in (State.PASS, State.FAIL):
        chance = sum(binom.pmf(hits, n, overlap) for hits, state in enumerate(states) if state is wanted)
        assert chance <= ALPHA + 1e-12


@pytest.mark.parametrize(("threshold", "n"), [(0.5, 40), (0.8, 40), (0.9, 40)])
def test_a_skewed_score_at_its_threshold_keeps_both_errors(threshold: float, n: int) -> None:
    rng = random.Random(3)

    def world() -> list[Sample]:
        # Most of the mass at both ends, as partial credit has it.
        return [sample(k, score=rng.betavariate(0.5 * threshold, 0.5 * (1 - threshold))) for k in range(n)]

    assert_errors_kept(gate(at_least=threshold), world)


def test_documents_of_several_parts_keep_both_errors() -> None:
    rng, threshold = random.Random(4), 0.8

    def world() -> list[Sample]:
        found = []
        for k in range(40):
            size, rate = rng.randint(1, 5), 1.0 if rng.random() < 0.5 else 2 * threshold - 1.0
            hits = sum(rng.random() < rate for _ in range(size))
            found.append(sample(k, counts={"x": (hits, 0, size - hits)}))
        return found

    assert_errors_kept(gate(metric="recall", average="micro", at_least=threshold), world)


def test_paired_scores_at_the_margin_keep_both_errors() -> None:
    rng, margin = random.Random(5), 0.1

    def world() -> tuple[list[Sample], dict[str, object]]:
        before = [sample(k, score=0.3 + 0.5 * rng.random()) for k in range(40)]
        now = [
            sample(k, score=min(1.0, max(0.0, old.score - margin + rng.uniform(-0.2, 0.2))))
            for k, old in enumerate(before)
        ]
        return now, {"earlier": {"base": before}}

    asked, counts = gate(versus="base", no_worse_than=margin), {State.PASS: 0, State.FAIL: 0}
    for _ in range(RUNS):
        now, shown = world()
        state = state_of(asked, now, **shown)
        counts[state] = counts.get(state, 0) + 1
    assert counts[State.PASS] / RUNS <= ALPHA + SLACK
    assert counts[State.FAIL] / RUNS <= ALPHA + SLACK


def test_the_mean_of_uneven_labels_keeps_both_errors() -> None:
    rng, threshold = random.Random(6), 0.75

    def world() -> list[Sample]:
        found = []
        for label, size in (("a", 120), ("b", 40), ("c", 12)):
            for _ in range(size):
                said = label if rng.random() < threshold else rng.choice("xyz")
                found.append(sample(len(found), gold=(label,), answer=said, score=float(said == label)))
        return found

    assert_errors_kept(gate(metric="recall", average="macro", at_least=threshold), world)


def assert_errors_kept(asked: Gate, world: object) -> None:
    states = [state_of(asked, world()) for _ in range(RUNS)]  # type: ignore[operator]

    assert states.count(State.PASS) / RUNS <= ALPHA + SLACK
    assert states.count(State.FAIL) / RUNS <= ALPHA + SLACK


@pytest.mark.parametrize(
    "values",
    [
        {"at_least": 0.0},
        {"at_least": 0.5, "per": "kind"},
        {"at_least": 0.5, "design": "sequential"},
        {"metric": "score", "score": "x", "at_least": 0.1},
        {"metric": "f1", "average": "macro", "at_least": 0.1},
        {"metric": "f1", "average": "micro", "at_least": 0.1},
        {"metric": "recall", "per": "label", "at_least": 0.1},
        {"gap": 0.1, "per": "kind"},
        {"metric": "equalized_odds", "gap": 0.1, "per": "kind", "positive": "a"},
        {"metric": "coverage", "target": 0.9, "at_least": 0.5},
        {"metric": "abstention", "precision": 0.5, "at_least": 0.1},
        {"metric": "confidence_gap", "within": 0.5},
        {"metric": "brier", "at_most": 2.0},
        {"metric": "ece", "at_most": 1.0},
        {"versus": "base", "no_worse_than": 1.0},
        {"metric": "brier", "versus": "base", "no_worse_than": 1.0},
    ],
)  # fmt: skip
def test_nothing_at_all_is_inconclusive_for_every_rule(values: dict[str, object]) -> None:
    verdict = judge("adapter", "m", "l", [gate(**values)], {"s": Evidence([], 1.0)}, "s")

    assert verdict.verdict is State.INCONCLUSIVE
    assert {rule.verdict for rule in verdict.rules[1:]} == {State.INCONCLUSIVE}
