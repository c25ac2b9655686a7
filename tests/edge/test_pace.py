"""How many threads a step goes through: what was fastest lately, found at little cost and unlearned when it changes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from harness.edge.pace import LATEST_STEPS, SMALL_ROWS, Pace

Cost = Callable[[int], float]
ROWS = st.integers(1, SMALL_ROWS)


def steps(pace: Pace, cost: Cost, count: int, *, rows: int = 1) -> list[int]:
    """The threads of so many steps, each of which takes what `cost` says of its threads."""
    taken = []
    for _ in range(count):
        choice = pace.choose(rows)
        pace.took(choice, cost(choice.threads) * rows)
        taken.append(choice.threads)
    return taken


@given(st.floats(0.001, 10), st.floats(0.001, 10), ROWS)
def test_nearly_all_steps_go_through_what_is_faster(alone: float, both: float, rows: int) -> None:
    pace = Pace(2)
    taken = steps(pace, lambda threads: alone if threads == 1 else both, 2000, rows=rows)

    if max(alone, both) > 1.01 * min(alone, both):
        slower = 1 if alone > both else 2
        assert taken.count(slower) <= 9


@given(st.sampled_from([3, 4, 6, 8, 64]), ROWS)
def test_of_many_numbers_of_threads_the_fastest_is_found(threads: int, rows: int) -> None:
    counts = {1, *(2**at for at in range(7) if 2**at < threads), threads}
    for fastest in counts:
        pace = Pace(threads)
        taken = steps(pace, lambda count, best=fastest: 1.0 if count == best else 2.0, 400, rows=rows)

        assert set(taken) == counts
        assert Counter(taken[len(counts) :]).most_common(1)[0][0] == fastest


def test_when_other_programs_take_the_cores_one_thread_goes_on_alone_within_a_few_steps() -> None:
    pace = Pace(2)
    steps(pace, {1: 9.0, 2: 6.0}.__getitem__, 500)

    taken = steps(pace, {1: 20.0, 2: 500.0}.__getitem__, 200)

    assert taken[:20].count(2) <= 12
    assert taken[20:].count(2) <= 4  # trials


def test_when_the_cores_are_free_again_all_threads_are_back() -> None:
    pace = Pace(2)
    steps(pace, {1: 20.0, 2: 500.0}.__getitem__, 3000)

    taken = steps(pace, {1: 9.0, 2: 6.0}.__getitem__, 20 * LATEST_STEPS)

    assert set(taken[-LATEST_STEPS:]) >= {2}
    assert taken[-LATEST_STEPS:].count(1) <= 2


@given(st.integers(1, 64), st.integers(SMALL_ROWS + 1, 512))
def test_a_long_step_goes_through_all_threads(threads: int, rows: int) -> None:
    pace = Pace(threads)

    assert set(steps(pace, lambda count: float(count), 20, rows=rows)) == {threads}


def test_one_thread_is_no_choice() -> None:
    assert set(steps(Pace(1), lambda _threads: 1.0, 50)) == {1}


def test_steps_of_other_sizes_are_learned_apart() -> None:
    """One row is faster alone, eight are faster together."""
    pace = Pace(2)
    for _ in range(200):
        alone = steps(pace, {1: 6.0, 2: 9.0}.__getitem__, 1)
        together = steps(pace, {1: 6.0, 2: 4.0}.__getitem__, 1, rows=8)

    assert (alone, together) == ([1], [2])
