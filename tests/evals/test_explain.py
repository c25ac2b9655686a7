from __future__ import annotations

from harness.evals.explain import TOP, explain, worst_decided
from harness.evals.results import RuleVerdict, State, Verdict
from tests.evals.builders import sample


def half(number: int, *, right: bool, style: str, **changes: object) -> object:
    return sample(number, right=right, slices={"style": style}, **changes)


def test_the_slice_that_holds_more_failures_than_chance_comes_first() -> None:
    """20 of 40 terse items are wrong and 5 of 160 plain ones: 12.5 % are, so terse ones 4 times as often."""
    items = [half(k, right=k >= 20, style="terse") for k in range(40)]
    items += [half(k, right=k >= 45, style="plain") for k in range(40, 200)]

    found = explain("s", items)

    assert (found.n, found.failures) == (200, 25)
    (first,) = found.groups
    assert (first.name, first.failures, first.n) == ("style=terse", 20, 40)
    assert first.lift == (20 / 40) / (25 / 200)
    assert first.p is not None
    assert first.p < 1e-12
    assert first.ids == ("r0", "r1", "r2")


def test_confusions_count_against_the_items_of_their_gold() -> None:
    items = [
        sample(k, gold=("cap",), answer="fee", right=False, score=0.0, label_probs={"cap": 0.2})
        for k in range(4)
    ]
    items += [sample(k, gold=("cap",), answer="cap", label_probs={"cap": 0.9}) for k in range(4, 10)]
    items += [sample(k, gold=("fee",), answer="fee", label_probs={"fee": 0.9}) for k in range(10, 20)]

    (found,) = explain("s", items).groups

    assert (found.kind, found.name, found.failures, found.n) == ("confusion", "cap → fee", 4, 10)
    assert found.lift == (4 / 10) / (4 / 20)


def test_free_texts_are_no_confusions() -> None:
    items = [sample(k, right=False, answer="some text", score=0.0) for k in range(9)]

    assert explain("s", items).groups == ()


def test_error_classes_and_errors_are_counted_with_their_numbers_taken_out() -> None:
    items = [sample(k, right=False, error_class="unit_slip") for k in range(3)]
    items += [sample(k, right=False, error=f"prompt of {k + 500} tokens", answer=None) for k in range(3, 5)]
    items += [sample(5, right=False, error_class="sign_slip"), sample(6)]

    groups = {group.name: group for group in explain("s", items).groups}

    assert groups["unit_slip"].failures == 3
    assert groups["unit_slip"].lift is None
    assert groups["prompt of ### tokens"].failures == 2
    assert "sign_slip" not in groups  # one wrong item is no group


def test_many_groups_are_cut_to_the_top() -> None:
    items = [sample(k, right=k % 2 == 0 or k >= 150, slices={"key": str(k // 10)}) for k in range(200)]

    assert len(explain("s", items).groups) == TOP


def test_nothing_wrong_and_nothing_there_need_no_explanation() -> None:
    assert explain("s", []).groups == ()
    right = explain("s", [half(k, right=True, style="a" if k else "b") for k in range(9)])
    assert (right.failures, right.groups) == (0, ())


def rule(state: State, score: float | None, name: str = "r") -> RuleVerdict:
    return RuleVerdict(name, "s", "accuracy", "all", 10, score, None, None, 0.8, state, "")


def test_the_worst_rule_is_a_failure_then_the_furthest_off() -> None:
    rules = (
        rule(State.PASS, 0.1), rule(State.INCONCLUSIVE, 0.2), rule(State.FAIL, 0.7, "near"),
        rule(State.FAIL, 0.5, "far"), rule(State.FAIL, None, "unknown"),
    )  # fmt: skip

    assert worst_decided(Verdict("a", "m", "l", State.FAIL, rules)) == rules[3]
    assert worst_decided(Verdict("a", "m", "l", State.PASS, rules[:1])) is None
