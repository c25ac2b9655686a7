from __future__ import annotations

from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from harness.errors import DataError, IntegrityError, RefusedError
from harness.evals.gate import combine
from harness.evals.results import RuleVerdict, State, Verdict, Waiver
from harness.evals.waivers import (
    WAIVERS,
    add_waiver,
    apply_waivers,
    describe_waiver,
    read_waivers,
    require_waivable,
)

TODAY = date(2026, 11, 22)
WAIVER = Waiver(
    "accuracy per style at least 0.5", "s", None, "Ada Lovelace", "too few terse contracts", "2026-12-31"
)


def rule(name: str, state: State, slice_name: str = "all") -> RuleVerdict:
    return RuleVerdict(name, "s", "accuracy", slice_name, 100, 0.8, 0.7, 0.9, 0.5, state, "because")


PASSED = rule("accuracy at least 0.5", State.PASS)
BLOCKED = rule(WAIVER.rule, State.INCONCLUSIVE, "style=terse")
OTHER_SLICE = rule(WAIVER.rule, State.FAIL, "style=plain")


def verdict(*rules: RuleVerdict) -> Verdict:
    return Verdict("adapter", "m", "l", combine(rules), rules)


def test_a_waived_rule_no_longer_blocks_and_says_who_answers_for_it() -> None:
    judged = apply_waivers(verdict(PASSED, BLOCKED), [WAIVER], [WAIVER.rule], combine, TODAY)

    assert judged.verdict is State.PASS
    assert judged.rules[1].verdict is State.WAIVED
    assert judged.rules[1].waived is State.INCONCLUSIVE
    assert judged.rules[1].waiver == WAIVER
    assert judged.rules[1].reason == (
        "waived by Ada Lovelace until 2026-12-31: too few terse contracts; it was INCONCLUSIVE: because"
    )
    assert Verdict.from_json(judged.to_json()) == judged


def test_a_waiver_of_one_slice_leaves_the_others_blocking() -> None:
    narrow = replace(WAIVER, slice="style=terse")

    judged = apply_waivers(verdict(PASSED, BLOCKED, OTHER_SLICE), [narrow], [WAIVER.rule], combine, TODAY)

    assert [one.verdict for one in judged.rules] == [State.PASS, State.WAIVED, State.FAIL]
    assert judged.verdict is State.FAIL


def test_what_is_waived_proves_nothing() -> None:
    judged = apply_waivers(verdict(BLOCKED), [WAIVER], [WAIVER.rule], combine, TODAY)

    assert judged.rules[0].verdict is State.WAIVED
    assert judged.verdict is State.INCONCLUSIVE


@pytest.mark.parametrize(
    ("today", "state"), [(date(2026, 12, 31), State.PASS), (date(2027, 1, 1), State.INCONCLUSIVE)]
)
def test_a_waiver_holds_on_its_last_day_and_is_void_after_it(today: date, state: State) -> None:
    judged = apply_waivers(verdict(PASSED, BLOCKED), [WAIVER], [WAIVER.rule], combine, today)

    assert judged.verdict is state
    assert ("(void)" in describe_waiver(WAIVER, today)) is (state is not State.PASS)


@pytest.mark.parametrize(
    "changed",
    [
        replace(WAIVER, suite="other"),
        replace(WAIVER, rule="accuracy at least 0.5"),
        replace(WAIVER, slice="style=plain"),
    ],
)
def test_a_waiver_of_something_else_changes_nothing(changed: Waiver) -> None:
    before = verdict(PASSED, BLOCKED)

    assert apply_waivers(before, [changed], [WAIVER.rule], combine, TODAY) is before


def test_rules_that_nobody_may_waive_stay_as_they_are() -> None:
    before = verdict(PASSED, BLOCKED)

    assert apply_waivers(before, [WAIVER], [], combine, TODAY) is before
    with pytest.raises(RefusedError, match="binding"):
        require_waivable("a", binding=["a"], of_recipe=["a", "b"])
    with pytest.raises(RefusedError, match="no rule of the recipe"):
        require_waivable("errors within the suite's limit", binding=["a"], of_recipe=["a", "b"])
    require_waivable("b", binding=["a"], of_recipe=["a", "b"])


def test_waivers_are_kept_in_the_run_in_their_order(tmp_path: Path) -> None:
    second = replace(WAIVER, slice="style=terse", who="Grace Hopper")
    for one in (WAIVER, second):
        add_waiver(tmp_path, one, waivable=[BLOCKED], today=TODAY)

    assert read_waivers(tmp_path) == [WAIVER, second]
    judged = apply_waivers(verdict(PASSED, BLOCKED), read_waivers(tmp_path), [WAIVER.rule], combine, TODAY)
    assert judged.rules[1].waiver == second  # the last word counts


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"who": "  "}, "--who"), ({"why": ""}, "--why"), ({"expires": "2026-11-21"}, "past"),
        ({"expires": "tomorrow"}, "no date"), ({"rule": "another"}, "blocks this run"),
    ],
)  # fmt: skip
def test_a_waiver_needs_a_name_a_reason_a_day_and_a_rule_that_blocks(
    tmp_path: Path, changes: dict[str, str], named: str
) -> None:
    with pytest.raises(DataError, match=named):
        add_waiver(tmp_path, replace(WAIVER, **changes), waivable=[BLOCKED], today=TODAY)

    assert read_waivers(tmp_path) == []


def test_an_edited_waiver_is_tampered(tmp_path: Path) -> None:
    add_waiver(tmp_path, WAIVER, waivable=[BLOCKED], today=TODAY)
    path = tmp_path / WAIVERS
    path.write_text(path.read_text().replace("2026-12-31", "2036-12-31"))

    with pytest.raises(IntegrityError, match="TAMPERED"):
        read_waivers(tmp_path)
