"""Precision, recall and F1: per label, over all counts, and as the mean of the labels."""

import random

import pytest
from sklearn.metrics import f1_score, precision_score, recall_score

from harness.evals.gate import Evidence, judge
from harness.evals.results import RuleVerdict, Sample, State
from harness.specs.gate import Gate
from harness.stats.f1 import Confusion, f1_bounds
from tests.evals.builders import gate, sample

LABELS = ["a", "b", "c", "d"]


def rules_of(rule: Gate, found: list[Sample]) -> list[RuleVerdict]:
    return list(judge("adapter", "m", "l", [rule], {"s": Evidence(found, 1.0)}, "s").rules[1:])


def answers(n: int, right: float, seed: int = 3) -> list[Sample]:
    rng = random.Random(seed)
    found = []
    for k in range(n):
        gold = rng.choice(LABELS)
        said = gold if rng.random() < right else rng.choice(LABELS)
        found.append(sample(k, gold=(gold,), answer=said, score=float(gold == said)))
    return found


@pytest.mark.parametrize("average", ["micro", "macro"])
@pytest.mark.parametrize(
    ("metric", "oracle"), [("f1", f1_score), ("precision", precision_score), ("recall", recall_score)]
)
def test_averages_are_those_of_scikit_learn(average: str, metric: str, oracle: object) -> None:
    found = answers(300, 0.7)

    (rule,) = rules_of(gate(metric=metric, average=average, at_least=0.5), found)

    gold, said = [s.gold[0] for s in found], [s.answer for s in found]
    assert rule.score == pytest.approx(oracle(gold, said, average=average))  # type: ignore[operator]
    assert rule.verdict is State.PASS


@pytest.mark.parametrize(("metric", "oracle"), [("f1", f1_score), ("precision", precision_score)])
def test_labels_score_as_scikit_learn_says(metric: str, oracle: object) -> None:
    found = answers(200, 0.6)

    rules = rules_of(gate(metric=metric, per="label", at_least=0.1), found)

    gold, said = [s.gold[0] for s in found], [s.answer for s in found]
    expected = oracle(gold, said, average=None, labels=LABELS)  # type: ignore[operator]
    assert [rule.slice for rule in rules] == [f"label={label}" for label in LABELS]
    assert [rule.score for rule in rules] == pytest.approx(list(expected))


def test_the_f1_of_one_answer_an_item_has_exact_bounds() -> None:
    found = [
        *[sample(k, gold=("a",), answer="a") for k in range(60)],
        *[sample(k, gold=("b",), answer="a", score=0.0) for k in range(60, 70)],
        *[sample(k, gold=("a",), answer="b", score=0.0) for k in range(70, 75)],
        *[sample(k, gold=("b",), answer="b") for k in range(75, 200)],
    ]

    rule = rules_of(gate(metric="f1", per="label", at_least=0.8), found)[0]

    exact = f1_bounds(Confusion(60, 10, 5))
    assert exact is not None
    assert (rule.slice, rule.n, rule.score) == ("label=a", 75, pytest.approx(120 / 135))
    assert (rule.low, rule.high) == pytest.approx(exact)


def test_an_answer_of_several_parts_is_counted_part_by_part() -> None:
    found = [sample(k, counts={"name": (2, 0, 0), "date": (1, k % 2, 0)}) for k in range(120)]

    (micro,) = rules_of(gate(metric="precision", average="micro", at_least=0.7), found)
    by_field = rules_of(gate(metric="precision", per="label", at_least=0.7), found)

    assert micro.score == pytest.approx(360 / 420)
    assert micro.verdict is State.PASS
    assert {rule.slice: rule.score for rule in by_field} == {
        "label=date": pytest.approx(120 / 180), "label=name": 1.0,
    }  # fmt: skip


def test_parts_of_one_answer_are_no_independent_proof() -> None:
    # 30 documents of 20 parts, all right or all wrong: 600 parts would pass with ease.
    found = [sample(k, counts={"x": (20, 0, 0) if k % 10 else (0, 0, 20)}) for k in range(30)]

    (rule,) = rules_of(gate(metric="recall", average="micro", at_least=0.85), found)

    assert rule.score == pytest.approx(0.9)
    assert rule.verdict is State.INCONCLUSIVE


def test_a_rare_label_keeps_the_mean_of_the_labels_uncertain() -> None:
    frequent = [sample(k, gold=("a",), answer="a") for k in range(400)]
    rare = [sample(k, gold=("b",), answer="b") for k in range(400, 402)]

    (alone,) = rules_of(gate(metric="recall", average="macro", at_least=0.8), frequent)
    (both,) = rules_of(gate(metric="recall", average="macro", at_least=0.8), [*frequent, *rare])

    assert alone.verdict is State.PASS
    assert both.score == 1.0
    assert both.verdict is State.INCONCLUSIVE
    assert "label=b" in both.reason


def test_a_label_that_is_never_answered_counts_as_nothing_right() -> None:
    found = [sample(k, gold=("a",) if k % 2 else ("b",), answer="a", score=float(k % 2)) for k in range(100)]

    (rule,) = rules_of(gate(metric="precision", average="macro", at_least=0.5), found)

    assert rule.score == pytest.approx(0.25)
    assert rule.high is not None
    assert rule.high > 0.5  # what it would be right about, had it answered, is not known
    assert rule.verdict is State.INCONCLUSIVE


def test_an_answer_that_could_not_be_read_is_missed_and_not_said() -> None:
    found = [sample(k, answer="a" if k < 80 else None, score=float(k < 80)) for k in range(100)]

    (precision,) = rules_of(gate(metric="precision", average="micro", at_least=0.9), found)
    (recall,) = rules_of(gate(metric="recall", average="micro", at_least=0.9), found)

    assert (precision.n, precision.score) == (80, 1.0)
    assert (recall.n, recall.score) == (100, 0.8)
