"""Each step of a rule that watches a run, beside the plain betting test on the same units."""

from __future__ import annotations

import pytest

from harness.evals.gate import Evidence, Planned
from harness.evals.repeat import Noise
from harness.evals.results import RuleVerdict, Sample, State
from harness.evals.rules import sequential
from harness.evals.rules.engine import Range, engine_bounds, seeded_order
from harness.evals.rules.sequential import SequentialGate, judge_sequential, run_order
from harness.specs.gate import Gate
from harness.stats.f1 import Confusion, Ratio
from harness.stats.sequential import Betting, Claim
from tests.evals.builders import gate, sample


def rule(**values: object) -> Gate:
    return gate(**{"design": "sequential", **values})


def plan(found: list[Sample]) -> list[Planned]:
    return [Planned(s.id, s.unit, s.gold, s.slices) for s in found]


def judged(asked: Gate, found: list[Sample], **shown: object) -> list[RuleVerdict]:
    values = {"planned": plan(found), **shown}
    return judge_sequential(asked, "s", Evidence(found, 1.0, **values))  # type: ignore[arg-type]


def mixed(n: int, every: int, **changes: object) -> list[Sample]:
    return [sample(k, right=k % every != 0, **changes) for k in range(n)]


def ordered(found: list[Sample], seed: int = 17) -> list[Sample]:
    by_unit = {one.unit: one for one in found}
    return [by_unit[unit] for unit in seeded_order(by_unit, seed)]


def plain(
    found: list[Sample], threshold: float, n_max: int, beta: float = 0.05, side: str | None = None
) -> int | None:
    """Items until the plain test decides, or decides so."""
    claim = Claim(0.0, n_max, 0.05, beta, -threshold, 1.0 - threshold, threshold * (1.0 - threshold))
    outcome = Betting(claim).extend([one.score - threshold for one in ordered(found)])
    return outcome.n if outcome.decision is not None and side in (None, outcome.decision) else None


@pytest.mark.parametrize("every", [2, 3, 4, 8, 20])
def test_a_rule_uses_the_items_that_the_plain_test_uses(every: int) -> None:
    found = mixed(300, every)
    n = plain(found, 0.7, 300)

    (one,) = judged(rule(at_least=0.7), found)

    assert one.items_used == (n or 300)
    assert (one.verdict is State.INCONCLUSIVE) is (n is None)
    assert (one.items_saved, one.n) == (0, n or 300)
    scored = ordered(found)[: n or 300]
    (early,) = judged(rule(at_least=0.7), scored, planned=plan(found))
    assert (early.items_used, early.items_saved) == (n or 300, 300 - (n or 300))


def test_at_most_is_decided_on_the_other_side() -> None:
    found = mixed(300, 10)

    (passed,) = judged(rule(at_most=0.98), found)
    (failed,) = judged(rule(at_most=0.5), found)
    assert (passed.verdict, failed.verdict) == (State.PASS, State.FAIL)


def test_a_failure_among_several_slices_spends_its_part_of_beta() -> None:
    found = [sample(k, right=k % 3 != 0, slices={"kind": "ab"[k % 2]}) for k in range(400)]
    asked = rule(at_least=0.8, per="kind")

    for one in judged(asked, found):
        mine = [s for s in found if f"kind={s.slices['kind']}" == one.slice]
        halved, whole = plain(mine, 0.8, 200, 0.025), plain(mine, 0.8, 200, 0.05)
        assert (one.verdict, one.items_used) == (State.FAIL, halved)
        assert halved != whole


@pytest.mark.parametrize(("min_n", "state"), [(30, State.PASS), (31, State.SKIPPED)])
def test_a_slice_of_min_n_planned_items_is_watched(min_n: int, state: State) -> None:
    found = [sample(k, slices={"kind": "a" if k < 30 else "b"}) for k in range(100)]

    by_slice = {one.slice: one for one in judged(rule(at_least=0.5, per="kind", min_n=min_n), found)}

    assert by_slice["kind=a"].verdict is state
    assert by_slice["kind=b"].verdict is State.PASS


@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_noise_moves_the_threshold_of_either_side_outwards(noise: float) -> None:
    for every, side, at in ((20, "PASS", 0.7 + noise), (2, "FAIL", 0.7 - noise)):
        found = mixed(400, every)
        watch = SequentialGate([rule(at_least=0.7)], plan(found), noise=noise)
        order = [found[position] for position in watch.order]
        used = next(n for n in range(1, 401) if watch.add(order[n - 1 : n]))
        assert used == plain(found, at, 400, side=side)
        assert (watch.items_used, watch.items_saved) == (used, 400 - used)


def test_a_watch_goes_on_until_every_rule_is_decided() -> None:
    found = [sample(k) for k in range(200)]
    easy, hard = (
        SequentialGate([rule(at_least=at) for at in thresholds], plan(found))
        for thresholds in ((0.3,), (0.3, 0.9))
    )
    order = [found[position] for position in easy.order]
    used = next(n for n in range(1, 201) if easy.add(order[n - 1 : n]))

    assert not hard.add(order[:used])
    assert hard.add(order)


def test_a_watch_without_rules_decides_nothing() -> None:
    found = mixed(10, 2)
    watch = SequentialGate([], plan(found))

    assert not watch.add(found)
    assert watch.order == run_order(plan(found), 17)
    assert (watch.items_used, watch.items_saved) == (10, 0)


def test_units_come_whole_in_their_seeded_order_and_items_in_theirs() -> None:
    found = [sample(k, unit=f"d{k % 3}") for k in range(7)]
    units = seeded_order(["d0", "d1", "d2"], 5)

    assert run_order(plan(found), 5) == [k for unit in units for k in range(7) if found[k].unit == unit]


def units(*sizes: int) -> list[list[Planned]]:
    return [[Planned(f"{u}.{k}", str(u), ("a",), {}) for k in range(size)] for u, size in enumerate(sizes)]


def test_the_range_of_a_watch_is_known_from_its_plan() -> None:
    shrink = (1 / 16 + 1 / 4 + 1) / 3

    assert sequential._range(rule(at_least=0.5), units(1, 2, 4)) == Range(
        0.0, 1.0, 4.0, 3, None, pytest.approx(shrink)
    )
    capped = sequential._range(rule(at_least=0.5, n_max=2), units(1, 2, 4))
    assert (capped.n_max, capped.largest) == (2, 4.0)
    assert sequential._range(rule(at_least=0.5, n_max=9), units(1, 2, 4)).n_max == 3
    f1 = rule(metric="f1", average="micro", at_least=0.5)
    assert sequential._range(f1, units(1, 2, 4)) == Range(0.0, 1.0, 8.0, 3, None, pytest.approx(shrink))
    parts = rule(metric="f1", average="micro", at_least=0.5, max_parts=12)
    assert sequential._range(parts, units(1, 2, 4)) == Range(0.0, 1.0, 12.0, 3, None, 0.25)
    versus = rule(versus="base", no_worse_than=0.1)
    assert sequential._range(versus, units(1, 2, 4)) == Range(
        -1.0, 1.0, 4.0, 3, pytest.approx(0.15 / 4 * shrink), pytest.approx(shrink)
    )
    assert sequential._range(rule(at_least=0.5), []) == Range(0.0, 1.0, 1.0, 1, None, 0.0)


def test_a_sample_adds_its_counts_its_score_or_its_difference() -> None:
    one = sample(0, score=0.75, counts={"x": (2, 1, 1), "y": (0, 0, 3)})
    before = {"r0": sample(0, score=0.5)}

    def ratio(asked: Gate, part: str = "all", earlier: dict[str, Sample] | None = None) -> Ratio | None:
        return sequential._ratio(asked, part, one, earlier or {})

    assert ratio(rule(at_least=0.5)) == Ratio(0.75, 1.0)
    assert ratio(rule(metric="score", score="chrf", at_least=0.5)) is None
    assert ratio(rule(versus="base", no_worse_than=0.1), "all", before) == Ratio(0.25, 1.0)
    assert ratio(rule(versus="base", no_worse_than=0.1)) is None
    recall = rule(metric="recall", per="label", at_least=0.5)
    assert ratio(recall, "label=x") == Ratio(2, 3)
    assert ratio(recall, "label=z") == Ratio(0, 0)
    micro = rule(metric="precision", average="micro", at_least=0.5)
    assert ratio(micro) == Ratio(2, 3)
    assert sequential.overall_counts(one) == Confusion(2, 1, 4)


def test_an_item_without_a_score_or_with_too_many_parts_breaks_the_rule() -> None:
    found = mixed(40, 4)
    missing = [*found[:-1], sample(39, score=float("nan"))]
    asked = rule(metric="f1", average="micro", at_least=0.5, max_parts=6)

    (unknown,) = judged(rule(at_least=0.74), missing)
    assert (unknown.score, "no score for an item" in unknown.reason) == (None, True)
    for counts, is_fine in (((3, 0, 0), True), ((3, 1, 0), False)):
        (one,) = judged(asked, [sample(k, counts={"x": counts}) for k in range(40)])
        assert (one.score is not None) is is_fine


@pytest.mark.parametrize(
    ("values", "n", "can"),
    [
        ({"at_least": 1.0}, 30, True), ({"at_least": 0.99}, 30, False), ({"at_least": 0.5}, 30, True),
        ({"at_most": 0.0}, 30, True), ({"at_most": 0.01}, 30, False), ({"at_most": 0.5}, 30, True),
        ({"at_least": 0.5}, 3, False),
    ],
)  # fmt: skip
def test_a_rule_that_the_best_units_would_not_pass_says_so(
    values: dict[str, float], n: int, can: bool
) -> None:
    (at,) = values.values()
    spread = min(0.1, at, 1.0 - at)
    found = [sample(k, score=at + spread * (1 if k % 2 else -1)) for k in range(n)]

    (one,) = judged(rule(**values), found)

    assert ("can never PASS" in one.reason) is not can
    assert can or one.verdict is State.INCONCLUSIVE
    assert can or one.needed is None


def test_noise_counts_where_answers_can_flip() -> None:
    shaky = Noise(10, 1, 0.0625, None, False)
    (accuracy,) = judged(rule(at_least=0.7), mixed(300, 3), noise=shaky)
    (errors,) = judged(rule(metric="error_rate", at_most=0.5), mixed(300, 3), noise=shaky)
    assert (accuracy.noise, errors.noise) == (0.0625, None)

    close = [sample(k, score=0.85 + 0.1 * (k % 2)) for k in range(60)]
    (quiet,) = judged(rule(at_least=0.9), close)
    (noisy,) = judged(rule(at_least=0.9), close, noise=Noise(10, 1, 0.09, None, False))
    assert ["can never PASS" in one.reason for one in (quiet, noisy)] == [False, True]


def test_units_of_several_items_can_be_all_right() -> None:
    found = [sample(k, right=k % 2 == 0, unit=f"d{k // 4}") for k in range(120)]

    (one,) = judged(rule(at_least=0.5), found)

    assert one.verdict is State.INCONCLUSIVE
    assert "can never PASS" not in one.reason


def test_a_claim_at_the_end_of_the_range_is_read_to_the_last_item() -> None:
    found = [sample(k) for k in range(30)]

    (perfect,) = judged(rule(at_least=1.0), found)
    assert (perfect.items_used, perfect.score) == (30, 1.0)
    assert "can never PASS" not in perfect.reason


def test_the_bounds_of_a_watch_are_the_engines_on_the_units_read() -> None:
    found = [sample(k, score=(k * 37 % 100) / 100) for k in range(60)]
    asked = rule(at_least=0.5)
    read = [Ratio(one.score, 1.0) for one in ordered(found)]
    wanted = engine_bounds(read, Range(0.0, 1.0, 1.0, 60), 0.05, 0.05, low_at=0.5, high_at=0.5, items=60)

    (one,) = judged(asked, found)

    assert one.items_used == 60
    assert (one.low, one.high, one.score) == (wanted.low, wanted.high, pytest.approx(wanted.score))
    assert one.reason.endswith("betting test, 60 items used, 0 not needed")
    assert (one.design, one.needed) == ("sequential", wanted.needed())


def test_nothing_planned_or_scored_is_nothing_known() -> None:
    (none,) = judged(rule(at_least=0.5), [])
    assert (none.verdict, none.score, none.slice) == (State.INCONCLUSIVE, None, "all")
    (unread,) = judged(rule(at_least=0.5), [], planned=plan(mixed(5, 2)))
    assert (unread.score, unread.items_used, unread.items_saved) == (None, 0, 5)
    (absent,) = judged(rule(at_least=0.5, per="kind"), mixed(5, 2))
    assert absent.slice == "kind"
