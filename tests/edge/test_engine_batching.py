"""Continuous batching over a network that computes by the book: nothing mixed, nothing lost, nothing leaked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any
from zlib import crc32

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.edge.base import Ask
from harness.edge.batching import Batching
from harness.edge.labelling import Labelling
from harness.edge.network import NoRoomError
from harness.edge.running import Running, Told
from harness.edge.sequences import STEP_TOK
from harness.edge.writing import Writing, Written
from harness.models.gguf_api import Feed
from harness.models.gguf_scoring import MAX_SEQUENCES

VOCAB, END = 24, 0
LOOSE = settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])


class Book:
    """A cache as cells that sequences mark, and logits that depend on the whole sequence and the adapter."""

    def __init__(self, cells: int) -> None:
        self.cache = SimpleNamespace(cells=cells)
        self.adapter: Any = None
        self.rows: dict[int, list[tuple[int, int, Any]]] = {}
        """By sequence: (cell, token, adapter) at each position."""
        self.most = 0
        self.saved: list[list[tuple[int, Any]]] = []
        """What was put aside; a state names its place here."""
        self._cells = 0

    def share(self, source: int, target: int, tokens: int) -> None:
        assert not self.rows.get(target), "a sequence that is written to must be empty"
        assert tokens <= len(self.rows.get(source, []))
        self.rows[target] = self.rows.get(source, [])[:tokens]

    def forget(self, sequence: int) -> None:
        self.rows.pop(sequence, None)

    def clear(self) -> None:
        self.rows.clear()

    def cut(self, sequence: int, tokens: int) -> None:
        del self.rows[sequence][tokens:]

    def state(self, sequence: int) -> memoryview:
        self.saved.append([(token, by) for _, token, by in self.rows[sequence]])
        return memoryview(str(len(self.saved) - 1).encode())

    def restore(self, sequence: int, state: memoryview) -> bool:
        assert not self.rows.get(sequence), "a sequence that is written to must be empty"
        row = self.saved[int(bytes(state))]
        if self.live() + len(row) > self.cache.cells:
            return False
        placed = self.rows.setdefault(sequence, [])
        for token, by in row:
            placed.append((self.next_cell(), token, by))
        return True

    def use(self, adapter: Any) -> None:
        self.adapter = adapter

    def live(self) -> int:
        return len({cell for row in self.rows.values() for cell, _, _ in row})

    def next_cell(self) -> int:
        self._cells += 1
        return self._cells

    def decode(self, feeds: Sequence[Feed]) -> Any:
        assert 0 < len(feeds) <= STEP_TOK
        if self.live() + len(feeds) > self.cache.cells:
            raise NoRoomError
        self.most = max(self.most, len(feeds))
        scored = []
        for feed in feeds:
            cell = self.next_cell()
            for sequence in feed.sequences:
                row = self.rows.setdefault(sequence, [])
                assert len(row) == feed.position, "a gap, or a position twice"
                row.append((cell, feed.token, self.adapter))
            if feed.is_scored:
                scored.append(logits_after(self.rows[feed.sequences[0]], self.adapter))
        return np.array(scored).reshape(len(scored), VOCAB)


def logits_after(row: Sequence[tuple[int, int, Any]], adapter: Any) -> Any:
    assert all(by == adapter for _, _, by in row), "a state of another adapter"
    return logits_of([token for _, token, _ in row], adapter)


def logits_of(tokens: Sequence[int], adapter: Any) -> Any:
    seed = crc32(
        repr((tuple(tokens), str(adapter))).encode()
    )  # `hash` of text differs from process to process
    return np.random.default_rng(seed).normal(size=VOCAB) * 2.0


class Letters:
    is_exact = True

    def bytes_of(self, token: int, is_first: bool) -> bytes:
        return bytes([96 + token])


def encode(text: str) -> list[int]:
    return [ord(letter) - 96 for letter in text]


CHAT: Any = SimpleNamespace(encode=encode, end_id=END)
LABELS = st.lists(st.text("abcdef", min_size=1, max_size=5), min_size=1, max_size=60, unique=True)
ASKS = st.fixed_dictionaries({
    "start": st.sampled_from([0, 40, 300]), "shift": st.sampled_from([0, 0, 7, 9]),
    "own": st.lists(st.integers(1, VOCAB - 1), min_size=1, max_size=30),
    "max_new_tokens": st.integers(1, 12), "adapter": st.sampled_from(["", "tenant"]),
    "labels": st.none() | LABELS, "temperature": st.sampled_from([0.0, 1.0]), "seed": st.integers(0, 9),
    "after": st.integers(0, 6), "withdrawn": st.none() | st.integers(0, 8),
})  # fmt: skip


def running(number: int, options: dict[str, Any]) -> Running:
    shift = options.get("shift", 0)
    ids = [1 + (at + shift) % (VOCAB - 1) for at in range(options["start"])] + options["own"]
    ask = Ask(
        str(number), max_new_tokens=options["max_new_tokens"], adapter=options["adapter"],
        labels=tuple(options["labels"] or ()), temperature=options["temperature"], seed=options["seed"],
    )  # fmt: skip
    pieces: Any = Letters()
    work = Labelling(ask.labels, CHAT) if ask.labels else Writing(ask, (END,), pieces, None, Written())
    return Running(number, ask, ids, len(ids), False, work, None)


def expected(run: Running) -> Any:
    """The answer by the book: one whole sequence at a time."""
    if run.ask.labels:
        return {label: score(run.ids, encode(label), run.ask.adapter) for label in run.ask.labels}
    pieces: Any = Letters()
    alone, ids = Writing(run.ask, (END,), pieces, None, Written()), list(run.ids)
    while alone.finish is None:
        alone.extend(logits_of(ids, adapter_of(run.ask.adapter)))
        ids.append(alone.ids[-1])
    return alone.ids


def score(prompt: list[int], label: list[int], adapter: str) -> float:
    total, ids = 0.0, list(prompt)
    for token in [*label, END]:
        logits = logits_of(ids, adapter_of(adapter))
        total += float(logits[token] - logits.max() - math.log(np.exp(logits - logits.max()).sum()))
        ids.append(token)
    return total


def adapter_of(name: str) -> Any:
    return ADAPTERS.get(name)


ADAPTERS: Any = {"tenant": "the tenant's"}


def run_all(asks: list[dict[str, Any]], cells: int) -> tuple[Batching, Book, dict[int, Running], list[Told]]:
    book = Book(cells)
    network: Any = book
    batching = Batching(network, ADAPTERS, slots=4)
    runs = {number: running(number, options) for number, options in enumerate(asks)}
    told: list[Told] = []
    for step in range(10_000):
        for number, options in enumerate(asks):
            if options["after"] == step:
                batching.add(runs[number])
            if options["withdrawn"] is not None and options["after"] + options["withdrawn"] == step:
                told += batching.withdraw(number)
        told += batching.step()
        if step > 20 and not batching.is_busy:
            return batching, book, runs, told
    raise AssertionError("it never ends")


@LOOSE
@given(st.lists(ASKS, max_size=10), st.sampled_from([900, 4000]))
def test_each_request_gets_the_answer_that_the_book_gives_it_alone(
    asks: list[dict[str, Any]], cells: int
) -> None:
    batching, book, runs, told = run_all(asks, cells)

    ends = [one.run.number for one in told if one.finish or one.trouble]
    assert sorted(ends) == sorted(runs)
    for one in told:
        if one.finish in ("stop", "length"):
            work, wanted = one.run.work, expected(one.run)
            if isinstance(work, Labelling):
                best = max(wanted.values())
                for label, found in work.logprobs().items():
                    assert math.isclose(found, wanted[label], abs_tol=1e-6) or wanted[label] < best - 15
            else:
                assert work.ids == wanted
        elif one.finish == "cancelled":
            assert asks[one.run.number]["withdrawn"] is not None
    kept = {one.sequence for one in batching.sequences.shelf if one.is_here}
    assert set(book.rows) <= kept, "a sequence was left behind"
    assert len(batching.sequences.free) + len(kept) == MAX_SEQUENCES
    assert len(set(batching.sequences.free) | kept) == MAX_SEQUENCES


def test_a_prompt_in_work_goes_through_in_small_parts_while_another_is_written() -> None:
    book = Book(4000)
    network: Any = book
    batching = Batching(network, {}, slots=4)
    options = {"adapter": "", "labels": None, "temperature": 0.0, "seed": 0, "max_new_tokens": 12}
    batching.add(running(0, {**options, "start": 0, "own": [3]}))
    batching.step()
    book.most = 0
    batching.add(running(1, {**options, "start": 900, "own": [5], "max_new_tokens": 1}))
    batching.step()

    assert book.most <= 65


def test_time_that_runs_out_is_seen_at_the_next_step() -> None:
    now = [0.0]
    network: Any = Book(4000)
    batching = Batching(network, {}, slots=1, clock=lambda: now[0])
    options = {"adapter": "", "labels": None, "temperature": 0.0, "seed": 0, "max_new_tokens": 12}
    runs = [running(number, {**options, "start": 300, "own": [number + 1]}) for number in range(2)]
    for run in runs:
        run.deadline = 5.0
        batching.add(run)
    batching.step()

    now[0] = 6.0
    told = batching.step()

    assert [(one.run.number, one.finish) for one in told] == [(0, "budget"), (1, "budget")]
    assert not batching.is_busy


def test_a_pinned_prefix_is_never_let_go_of() -> None:
    network: Any = Book(700)
    batching = Batching(network, {}, slots=2)
    pinned = [1 + at % 20 for at in range(100)]
    assert batching.sequences.keep(pinned, "", "system") == 0
    options = {"adapter": "", "labels": None, "temperature": 0.0, "seed": 0, "max_new_tokens": 2, "start": 0}
    for number in range(12):
        own = [1 + (at * (number + 2)) % 23 for at in range(200)]
        batching.add(running(number, {**options, "own": own}))
        while batching.is_busy:
            batching.step()
    last = running(99, {**options, "own": [*pinned, 5]})
    batching.add(last)
    batching.step()

    assert last.cached_tok == 100
    assert batching.sequences.keep(pinned, "", "system") == 100


def test_a_turn_that_follows_an_answer_takes_over_just_what_was_computed() -> None:
    """The last token of an answer was chosen and never fed: its state is not there."""
    network: Any = Book(4000)
    batching = Batching(network, {}, slots=2)
    options = {"adapter": "", "labels": None, "temperature": 0.0, "seed": 0, "max_new_tokens": 5, "start": 40}
    first = running(0, {**options, "own": [3]})
    batching.add(first)
    while batching.is_busy:
        batching.step()
    assert isinstance(first.work, Writing)
    second = running(1, {**options, "start": 0, "own": [*first.ids, *first.work.ids, 7]})
    batching.add(second)
    while batching.is_busy:
        batching.step()

    assert second.cached_tok == len(first.ids) + len(first.work.ids) - 1
    assert isinstance(second.work, Writing)
    assert second.work.ids == expected(second)
