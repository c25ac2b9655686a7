"""States that leave the cache: what others look past goes aside, and comes back where it is wanted."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.edge.batching import LONG_ANSWER_TOK, LONG_TOK, Batching
from harness.edge.engine import EdgeEngine
from harness.edge.prefix import HERE_TOK, WORTH_ASIDE_TOK, Kept, Shelf, distinct_tok
from harness.edge.running import Running
from harness.edge.sequences import SPREAD_TOK
from harness.edge.writing import Writing
from harness.models.base import Message
from tests.edge.conftest import Heard, ask
from tests.edge.test_engine_batching import Book, expected, running

OPTIONS = {"adapter": "", "labels": None, "temperature": 0.0, "seed": 0, "max_new_tokens": 2, "start": 0}
STATE = memoryview(b"state")


def batching_over(book: Any) -> Batching:
    return Batching(book, {}, slots=2)


def answered(batching: Batching, number: int, own: list[int]) -> Running:
    run = running(number, {**OPTIONS, "own": own})
    batching.add(run)
    while batching.is_busy:
        batching.step()
    assert isinstance(run.work, Writing)
    assert run.work.ids == expected(run)
    return run


def conversation(number: int, length: int = 300) -> list[int]:
    return [1 + (at * (number + 2) + number) % 23 for at in range(length)]


def test_a_conversation_comes_back_after_others_took_its_place() -> None:
    book = Book(4000)
    batching = batching_over(book)
    for number in range(3):
        answered(batching, number, conversation(number))

    again = answered(batching, 9, [*conversation(0), 5, 6])

    assert again.cached_tok >= 300


def test_a_long_prompt_looks_past_nothing_that_is_kept() -> None:
    book = Book(4000)
    batching = batching_over(book)
    for number in range(3):
        answered(batching, number, conversation(number, 200))
    run = running(9, {**OPTIONS, "own": [7] * (LONG_TOK + 100)})
    batching.add(run)

    batching.step()

    assert set(book.rows) == {run.sequence}


@pytest.mark.parametrize(("new_tok", "is_alone"), [(LONG_ANSWER_TOK, True), (LONG_ANSWER_TOK - 1, False)])
def test_a_long_answer_looks_past_nothing_that_is_kept(new_tok: int, is_alone: bool) -> None:
    book = Book(4000)
    batching = batching_over(book)
    answered(batching, 0, conversation(0, 200))
    run = running(9, {**OPTIONS, "own": [7] * 5, "max_new_tokens": new_tok})
    batching.add(run)

    batching.step()

    assert (set(book.rows) == {run.sequence}) is is_alone


def test_what_was_copied_while_nobody_waited_leaves_the_cache_without_a_copy() -> None:
    book = Book(4000)
    batching = batching_over(book)
    answered(batching, 0, conversation(0))
    answered(batching, 1, [3, 4])
    batching.sequences.copy_kept()
    batching.sequences.copy_kept()
    copies = len(book.saved)

    answered(batching, 2, [7] * (LONG_TOK + 100))

    assert copies == 1, "a short one is computed again as fast"
    assert len(book.saved) == copies
    assert answered(batching, 9, [*conversation(0), 5, 6]).cached_tok >= 300


def test_the_beginning_of_a_long_prompt_stays_in_the_cache() -> None:
    book = Book(4000)
    batching = batching_over(book)
    first = answered(batching, 0, conversation(0, 200))
    run = running(9, {**OPTIONS, "own": [*first.ids, *[7] * (LONG_TOK + 100)]})
    batching.add(run)

    batching.step()

    assert run.cached_tok == 200
    assert len(book.saved) == 0


class Placed(Book):
    """A book whose cells have places, given out as llama.cpp does: on from the last one, or from the first that is free
    where sequences went before it."""

    def __init__(self, cells: int) -> None:
        super().__init__(cells)
        self._head = 0

    @property
    def end(self) -> int:
        """Every cell before it is looked at."""
        return max(self._taken(), default=-1) + 1

    def forget(self, sequence: int) -> None:
        before = self._taken()
        super().forget(sequence)
        self._head = min([self._head, *(before - self._taken())])

    def clear(self) -> None:
        super().clear()
        self._head = 0

    def next_cell(self) -> int:
        taken = self._taken()
        self._head = next(cell for cell in range(self._head, self.cache.cells) if cell not in taken)
        return self._head

    def _taken(self) -> set[int]:
        return {cell for row in self.rows.values() for cell, _, _ in row}


@pytest.mark.parametrize("is_back", [False, True])
def test_a_long_answer_after_others_looks_past_few_empty_cells(is_back: bool) -> None:
    book = Placed(4000)
    batching = batching_over(book)
    own = conversation(1, 250)
    answered(batching, 0, own)
    for number in range(1, 4):
        answered(batching, 10 * number, [7] * 240)
        for other in range(1, 5):
            answered(batching, 10 * number + other, conversation(other + 10 * number, 110))
        if is_back:  # behind what the others left
            answered(batching, 10 * number + 8, [*own, number])
        run = running(
            10 * number + 9, {**OPTIONS, "own": [*own, number, 3], "max_new_tokens": LONG_ANSWER_TOK}
        )
        batching.add(run)
        batching.step()

        assert run.cached_tok >= 250
        assert book.end < len(run.ids) + SPREAD_TOK
        while batching.is_busy:
            batching.step()
        assert isinstance(run.work, Writing)
        assert run.work.ids == expected(run)


def test_a_state_that_no_memory_can_hold_is_computed_again() -> None:
    class Poor(Book):
        def state(self, sequence: int) -> memoryview:
            raise MemoryError

    batching = batching_over(Poor(4000))
    for number in range(4):
        answered(batching, number, conversation(number))

    again = answered(batching, 9, [*conversation(0), 5, 6])

    assert again.cached_tok < 300


def test_a_state_that_does_not_fit_any_more_is_computed_again() -> None:
    class Stubborn(Book):
        def restore(self, sequence: int, state: memoryview) -> bool:
            return False

    book = Stubborn(4000)
    batching = batching_over(book)
    for number in range(3):
        answered(batching, number, conversation(number))

    again = answered(batching, 9, [*conversation(0), 5, 6])

    assert again.cached_tok < 300
    kept = {one.sequence for one in batching.sequences.shelf if one.is_here}
    assert set(book.rows) <= kept


def test_what_is_pinned_comes_back_from_aside() -> None:
    batching = batching_over(Book(4000))
    pinned = conversation(5, 40)
    batching.sequences.keep(pinned, "", "system")
    for number in range(4):
        answered(batching, number, conversation(number))
    assert not any(kept.is_here for kept in batching.sequences.shelf if kept.name)

    assert answered(batching, 9, [*pinned, 5]).cached_tok == 40


def test_a_swapped_adapter_leaves_no_state_of_the_one_before() -> None:
    batching = batching_over(Book(4000))
    for number in range(3):
        answered(batching, number, conversation(number))

    batching.sequences.forget("")

    assert list(batching.sequences.shelf) == []
    assert answered(batching, 9, conversation(0)).cached_tok == 0


IDS = st.lists(st.integers(1, 3), min_size=1, max_size=8).map(tuple)


@given(st.lists(st.tuples(st.sampled_from(["", "tenant"]), IDS), max_size=8))
def test_common_beginnings_are_counted_once(rows: list[tuple[str, tuple[int, ...]]]) -> None:
    beginnings = {(adapter, ids[:end]) for adapter, ids in rows for end in range(1, len(ids) + 1)}

    assert distinct_tok(Kept(0, ids, adapter) for adapter, ids in rows) == len(beginnings)


def test_the_cache_keeps_what_was_used_last_and_a_bounded_rest() -> None:
    shelf = Shelf(cells=10**6)
    for at in range(6):
        shelf.put(Kept(at, tuple(conversation(at, 200)), ""))
    while (oldest := shelf.over()) is not None:
        shelf.put_aside(oldest, STATE)
    here = [kept.sequence for kept in shelf if kept.is_here]
    alone = Shelf(cells=10**6)
    alone.put(Kept(0, tuple(conversation(0, 5000)), ""))

    assert here == [4, 5]
    assert HERE_TOK == 512
    assert alone.over() is None


def test_states_aside_are_bounded_and_pinned_ones_are_not_counted() -> None:
    shelf = Shelf(cells=4000)
    for at in range(8):
        shelf.put(Kept(at, tuple(conversation(at, 300)), "", name="pinned" if at == 0 else ""))
    for kept in list(shelf):
        shelf.put_aside(kept, STATE)

    assert [len(kept.ids) for kept in shelf] == [300] * 4
    assert [kept.name for kept in shelf] == ["pinned", "", "", ""]


def test_only_a_state_with_much_of_its_own_is_worth_putting_aside() -> None:
    shelf, first = Shelf(cells=4000), tuple(conversation(0, 300))
    kept = {
        "first": Kept(0, first, ""),
        "near": Kept(1, (*first, *[9] * (WORTH_ASIDE_TOK - 1)), ""),
        "far": Kept(2, (*first, *[8] * WORTH_ASIDE_TOK), ""),
        "pinned": Kept(3, (*first, 4), "", name="suite"),
        "huge": Kept(4, tuple(conversation(3, 2000)), ""),
    }
    for one in kept.values():
        shelf.put(one)

    worth = {name for name, one in kept.items() if one in list(shelf) and shelf.is_worth_keeping(one)}

    assert worth == {"far", "pinned"}


def test_a_real_cache_answers_from_a_state_that_was_aside_as_before(gguf: Path, sha256: str) -> None:
    labels = ("the", "then", "other")
    prompts = [(Message("user", f"{at}" * 200),) for at in range(4)]
    engine = EdgeEngine(gguf, sha256, threads=1, slots=4)
    try:
        first = Heard(engine, ask("", messages=prompts[0], labels=labels)).done()
        for messages in prompts[1:]:
            Heard(engine, ask("", messages=messages, labels=labels)).done()
        again = Heard(engine, ask("", messages=prompts[0], labels=labels)).done()
    finally:
        engine.close()

    assert again.cached_tok == again.prompt_tok - 1
    assert again.label_logprobs == pytest.approx(first.label_logprobs, abs=0.1)


def test_a_stranger_among_the_kept_gives_nobody_its_state() -> None:
    """Two adapters with the same tokens: each has its own state, aside as in the cache."""
    network: Any = Book(4000)
    batching = Batching(network, {"tenant": SimpleNamespace()}, slots=2)  # type: ignore[dict-item]
    answered(batching, 0, conversation(0))
    other = running(1, {**OPTIONS, "adapter": "tenant", "own": conversation(0)})
    batching.add(other)
    batching.step()

    assert other.cached_tok == 0
