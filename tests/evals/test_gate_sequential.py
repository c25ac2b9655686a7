"""Rules that stop as soon as they know: the same verdict watched or judged, and never more errors than promised."""

import math
import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.evals.gate import Evidence, Planned, judge
from harness.evals.results import RuleVerdict, Sample, State
from harness.evals.rules.sequential import SequentialGate, can_stop_early, run_order
from harness.specs.gate import Gate
from tests.evals.builders import gate, sample, samples


def rule(**values: object) -> Gate:
    return gate(**{"design": "sequential", **values})


def plan(found: Sequence[Sample]) -> list[Planned]:
    return [Planned(s.id, s.unit, s.gold, s.slices) for s in found]


def verdicts(
    asked: Gate, found: Sequence[Sample], planned: Sequence[Planned], **shown: object
) -> list[RuleVerdict]:
    evidence = Evidence(list(found), 1.0, planned=planned, **shown)  # type: ignore[arg-type]
    return list(judge("adapter", "m", "l", [asked], {"s": evidence}, "s").rules[1:])


def watched(
    asked: Gate, found: Sequence[Sample], step: int = 10, **more: object
) -> tuple[SequentialGate, list[Sample]]:
    """The watch at its end, and the samples that had been seen by then."""
    watch = SequentialGate([asked], plan(found), **more)  # type: ignore[arg-type]
    order = [found[position] for position in watch.order]
    for end in range(step, len(order) + step, step):
        if watch.add(order[end - step : end]):
            return watch, order[:end]
    return watch, order


def shuffled(hits: int, n: int, seed: int = 5, **changes: object) -> list[Sample]:
    right = [k < hits for k in range(n)]
    random.Random(seed).shuffle(right)
    return [sample(k, right=is_right, **changes) for k, is_right in enumerate(right)]


@pytest.mark.parametrize(("hits", "state"), [(380, State.PASS), (250, State.FAIL)])
def test_a_clear_rule_is_decided_long_before_the_last_item(hits: int, state: State) -> None:
    found = shuffled(hits, 400)

    watch, seen = watched(rule(at_least=0.8), found)

    assert watch.is_decided
    assert watch.items_saved == 400 - len(seen) > 100
    (judged,) = verdicts(rule(at_least=0.8), seen, plan(found))
    assert (judged.verdict, judged.design) == (state, "sequential")
    assert judged.items_used is not None
    assert judged.items_used <= len(seen)
    assert judged.items_saved == watch.items_saved


def test_an_open_rule_uses_all_items_and_stays_open() -> None:
    found = shuffled(320, 400)

    watch, seen = watched(rule(at_least=0.8), found)

    (judged,) = verdicts(rule(at_least=0.8), seen, plan(found))
    assert (len(seen), watch.items_saved) == (400, 0)
    assert judged.verdict is State.INCONCLUSIVE
    assert judged.needed is None or judged.needed > 0


@given(
    right=st.lists(st.floats(0, 1), min_size=1, max_size=150), threshold=st.floats(0.1, 0.9),
    step=st.integers(1, 40),
)  # fmt: skip
def test_what_a_watch_saw_is_what_the_verdict_says(right: list[float], threshold: float, step: int) -> None:
    found = [sample(k, score=score) for k, score in enumerate(right)]
    asked = rule(at_least=threshold)

    watch, seen = watched(asked, found, step)

    (early,) = verdicts(asked, seen, plan(found))
    (late,) = verdicts(asked, found, plan(found))
    assert watch.is_decided or len(seen) == len(found)
    assert (early.verdict, early.items_used, early.low, early.high) == (
        late.verdict, late.items_used, late.low, late.high,
    )  # fmt: skip


def test_the_first_crossing_latches_whatever_comes_after() -> None:
    found = samples(400, 800)
    order = run_order(plan(found), 17)
    good_first = [sample(position, right=rank < 400) for rank, position in enumerate(order)]

    (judged,) = verdicts(rule(at_least=0.8), good_first, plan(good_first))

    assert judged.verdict is State.PASS
    assert judged.items_used is not None
    assert judged.items_used < 400


def test_items_that_come_out_of_order_wait_for_those_before_them() -> None:
    found = shuffled(390, 400)
    watch = SequentialGate([rule(at_least=0.8)], plan(found))

    assert not watch.add([found[position] for position in watch.order[1:]])
    assert watch.add([found[watch.order[0]]])


def test_the_order_is_fixed_by_its_seed_and_no_answer_moves_it() -> None:
    found, other = samples(100, 100), samples(0, 100)

    assert run_order(plan(found), 17) == run_order(plan(other), 17)
    assert run_order(plan(found), 17) != run_order(plan(found), 18)
    assert sorted(run_order(plan(found), 17)) == list(range(100))


def test_no_more_units_are_used_than_the_rule_may() -> None:
    found = shuffled(320, 400)

    watch, seen = watched(rule(at_least=0.8, n_max=60), found)

    assert watch.is_decided
    assert len(seen) == 60
    assert verdicts(rule(at_least=0.8, n_max=60), seen, plan(found))[0].items_used == 60


def test_units_are_used_whole() -> None:
    found = [sample(k, right=k % 12 != 0, unit=f"doc{k // 6}") for k in range(600)]

    (judged,) = verdicts(rule(at_least=0.5), found, plan(found))

    assert judged.verdict is State.PASS
    assert judged.items_used is not None
    assert judged.items_used % 6 == 0


def test_a_rule_per_slice_goes_on_until_every_slice_is_decided() -> None:
    easy = [sample(k, right=k % 20 != 0, slices={"kind": "easy"}) for k in range(300)]
    hard = [sample(k, right=k % 4 != 0, slices={"kind": "hard"}) for k in range(300, 600)]
    asked = rule(at_least=0.6, per="kind")

    _, seen = watched(asked, [*easy, *hard])
    _, alone = watched(asked, easy)

    rules = verdicts(asked, seen, plan([*easy, *hard]))
    assert [one.verdict for one in rules] == [State.PASS, State.PASS]
    assert len(seen) > len(alone)


def test_small_slices_are_reported_and_keep_nobody_waiting() -> None:
    found = [sample(k, slices={"kind": "rare" if k < 5 else "usual"}) for k in range(300)]
    asked = rule(at_least=0.8, per="kind")

    watch, seen = watched(asked, found)

    assert watch.is_decided
    assert {one.slice: one.verdict for one in verdicts(asked, seen, plan(found))} == {
        "kind=rare": State.SKIPPED, "kind=usual": State.PASS,
    }  # fmt: skip


def test_an_earlier_stage_is_compared_item_by_item() -> None:
    found, before = shuffled(360, 400), {"base": shuffled(360, 400, seed=6)}
    asked = rule(versus="base", no_worse_than=0.1)

    watch, seen = watched(asked, found, earlier=before)

    assert watch.is_decided
    assert len(seen) < 400
    assert verdicts(asked, seen, plan(found), earlier=before)[0].verdict is State.PASS
    assert verdicts(asked, seen, plan(found))[0].verdict is State.INCONCLUSIVE


def test_recall_of_a_label_is_planned_by_its_gold_items() -> None:
    found = [sample(k, gold=("a" if k % 2 else "b",), answer="a") for k in range(400)]

    rules = verdicts(rule(metric="recall", per="label", at_least=0.7), found, plan(found))

    assert {one.slice: one.verdict for one in rules} == {"label=a": State.PASS, "label=b": State.FAIL}


def test_more_parts_than_were_planned_for_leave_the_rule_open() -> None:
    found = [sample(k, counts={"x": (5, 0, 0)}) for k in range(200)]
    planned = plan(found)

    (roomy,) = verdicts(rule(metric="f1", average="micro", at_least=0.8, max_parts=12), found, planned)
    (tight,) = verdicts(rule(metric="f1", average="micro", at_least=0.8, max_parts=6), found, planned)

    assert roomy.verdict is State.PASS
    assert (tight.verdict, "set max_parts" in tight.reason) == (State.INCONCLUSIVE, True)


def test_a_rule_that_can_never_pass_one_by_one_says_so() -> None:
    (judged,) = verdicts(rule(at_least=0.99), samples(30, 30), plan(samples(30, 30)))

    assert judged.verdict is State.INCONCLUSIVE
    assert "can never PASS with 30 units" in judged.reason


def test_a_run_may_stop_early_only_when_no_rule_needs_every_item() -> None:
    one = rule(at_least=0.8)

    assert can_stop_early([one])
    assert can_stop_early([one, gate(metric="size_mb", at_most=5)])
    assert not can_stop_early([one, gate(at_least=0.8)])
    assert not can_stop_early([gate(metric="size_mb", at_most=5)])
    assert not can_stop_early([])


def test_noise_that_is_known_beforehand_asks_for_more_items() -> None:
    found = shuffled(370, 400)

    _, quiet = watched(rule(at_least=0.8), found)
    _, noisy = watched(rule(at_least=0.8), found, noise=0.04)

    assert len(noisy) > len(quiet)


@pytest.mark.parametrize("threshold", [0.5, 0.8])
def test_at_the_threshold_both_errors_keep_their_promise(threshold: float) -> None:
    rng, runs = random.Random(11), 300
    counts = {State.PASS: 0, State.FAIL: 0, State.INCONCLUSIVE: 0}
    for _ in range(runs):
        found = [sample(k, right=rng.random() < threshold) for k in range(50)]
        _, seen = watched(rule(at_least=threshold), found, step=20)
        counts[verdicts(rule(at_least=threshold), seen, plan(found))[0].verdict] += 1

    limit = 0.05 + 3 * math.sqrt(0.05 * 0.95 / runs)
    assert counts[State.PASS] / runs <= limit
    assert counts[State.FAIL] / runs <= limit
