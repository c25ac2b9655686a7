"""The tree of choices and its search, on tables of log-probabilities instead of a network."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.models.base import Answer
from harness.models.batching import in_order, plan_batches
from harness.models.trie import PRUNE_NATS, ROOT, Search, Trie, build_trie

END = 9
CHOICES = st.lists(st.lists(st.integers(0, 4), max_size=5), min_size=1, max_size=8)


def table(seed: int, spread: float, path: tuple[int, ...]) -> dict[int, float]:
    """A distribution over 0..9 for each path; wide spreads make hopeless branches."""
    rng = random.Random(f"{seed} {path}")
    logits = [rng.uniform(-spread, spread) for _ in range(10)]
    total = math.log(sum(math.exp(value) for value in logits))
    return {token: value - total for token, value in enumerate(logits)}


def textbook(choice: list[int], seed: int, spread: float) -> float:
    steps = [*choice, END]
    return sum(table(seed, spread, tuple(steps[:at]))[token] for at, token in enumerate(steps))


def run(trie: Trie, seed: int, spread: float, *, exact: bool) -> tuple[Search, int]:
    search = Search(trie, exact=exact)
    nodes, count = [ROOT], 0
    while nodes:
        for node in nodes:
            path = tuple(trie.tokens[above] for above in trie.path(node))
            here = table(seed, spread, path)
            search.record(node, [here[token] for token in trie.wanted[node]])
        count += len(nodes)
        nodes = search.take()
    return search, count


@given(choices=CHOICES, seed=st.integers(0, 99), spread=st.floats(0.1, 30))
def test_an_exact_search_is_the_textbook_sum_and_visits_each_node_once(
    choices: list[list[int]], seed: int, spread: float
) -> None:
    trie = build_trie(choices, END)

    search, count = run(trie, seed, spread, exact=True)

    wanted = [textbook(choice, seed, spread) for choice in choices]
    assert list(search.logprobs()) == pytest.approx(wanted, abs=1e-9)
    assert count == len({tuple(c[:n]) for c in choices for n in range(len(c) + 1)}) == len(trie.tokens)


@given(choices=CHOICES, seed=st.integers(0, 99), spread=st.floats(0.1, 30))
def test_a_pruned_search_bounds_what_it_left_out(choices: list[list[int]], seed: int, spread: float) -> None:
    trie = build_trie(choices, END)

    search, count = run(trie, seed, spread, exact=False)

    wanted = [textbook(choice, seed, spread) for choice in choices]
    assert count <= len(trie.tokens)
    for found, exact in zip(search.logprobs(), wanted, strict=True):
        is_followed = found == pytest.approx(exact, abs=1e-9)
        assert is_followed or exact <= found < max(wanted) - PRUNE_NATS


def test_hopeless_branches_are_not_followed() -> None:
    trie = build_trie([[0, 0, 0], [1, 1, 1, 1, 1]], END)
    search = Search(trie)
    search.record(ROOT, [-0.001, -30.0])

    nodes = search.take()

    assert [trie.tokens[node] for node in nodes] == [0, 0, 0]
    for node in nodes:
        search.record(node, [-0.1])
    assert search.take() == []
    assert search.logprobs() == pytest.approx((-0.301, -30.0))


def test_a_value_that_is_no_number_breaks_the_search() -> None:
    search = Search(build_trie([[0], [1]], END))

    search.record(ROOT, [-1.0, math.nan])

    assert search.is_broken
    assert search.take() == []


@given(
    lengths=st.lists(st.integers(1, 300), max_size=60),
    budget=st.integers(1, 1000),
    most=st.integers(1, 20),
)
def test_a_plan_holds_every_request_once_and_repeats_itself(
    lengths: list[int], budget: int, most: int
) -> None:
    plan = plan_batches(lengths, budget_tok=budget, max_items=most)

    assert sorted(index for batch in plan for index in batch) == list(range(len(lengths)))
    for batch in plan:
        sizes = [lengths[index] for index in batch]
        assert len(batch) == 1 or len(batch) * max(sizes) <= budget
        assert len(batch) <= most
        alone = plan_batches(sizes, budget_tok=budget, max_items=most)
        assert alone == [list(range(len(batch)))]


def test_answers_come_in_the_order_of_the_requests_and_only_when_asked_for() -> None:
    computed: list[list[str]] = []

    def answer(batch: list[str]) -> list[Answer]:
        computed.append(batch)
        return [Answer(name) for name in batch]

    found = in_order(["a", "b", "c", "d"], [[0, 2], [3], [1]], answer)

    assert next(found).id == "a"
    assert computed == [["a", "c"]]
    assert [one.id for one in found] == ["b", "c", "d"]
