"""Beginnings that prompts share: found once, true of each row, and worth their pass."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from harness.models.batching import plan_batches
from harness.models.prefixes import shared_prefixes

ROWS = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=12), max_size=30)


@given(rows=ROWS, factor=st.integers(1, 40), seed=st.integers(0, 9))
def test_a_prefix_is_a_true_one_shorter_than_its_row_and_the_same_in_any_order(
    rows: list[list[int]], factor: int, seed: int
) -> None:
    longer = [[token for token in row for _ in range(factor)] for row in rows]
    shared = shared_prefixes(longer)

    for row, prefix in zip(longer, shared.prefixes, strict=True):
        assert tuple(row[: len(prefix)]) == prefix
        assert len(prefix) < len(row)
        while prefix:
            assert prefix[: len(shared.parents[prefix])] == shared.parents[prefix]
            prefix = shared.parents[prefix]
    order = random.Random(seed).sample(range(len(longer)), len(longer))
    shuffled = shared_prefixes([longer[at] for at in order])
    assert shuffled.prefixes == [shared.prefixes[at] for at in order]
    assert shuffled.order == shared.order


def test_examples_of_each_subject_are_shared_inside_what_all_share() -> None:
    system, law, biology = [1] * 50, [2] * 200, [3] * 200
    rows = [[*system, *subject, 9, at, 8] for subject in (law, biology) for at in range(10, 15)]

    shared = shared_prefixes(rows)

    assert shared.prefixes[0] == (*system, *law, 9)
    assert shared.prefixes[9] == (*system, *biology, 9)
    assert shared.parents[shared.prefixes[0]] == tuple(system)


def test_a_beginning_that_saves_little_is_not_worth_a_pass_of_its_own() -> None:
    rows = [[1, 2, 3, 4, 5, at] for at in range(10, 13)] + [[7, at] for at in range(20)]

    assert set(shared_prefixes(rows).prefixes) == {()}


@given(lengths=st.lists(st.integers(1, 50), max_size=40), groups=st.integers(1, 5), seed=st.integers(0, 9))
def test_a_batch_keeps_its_budget_over_its_groups_and_is_its_own_plan(
    lengths: list[int], groups: int, seed: int
) -> None:
    draw = random.Random(seed)
    kinds = [draw.randrange(groups) for _ in lengths]
    plan = plan_batches(lengths, budget_tok=120, max_items=8, groups=kinds)

    assert sorted(at for batch in plan for at in batch) == list(range(len(lengths)))
    for batch in plan:
        sizes = {kind: [lengths[at] for at in batch if kinds[at] == kind] for kind in set(kinds)}
        assert len(batch) == 1 or sum(len(ones) * max(ones) for ones in sizes.values() if ones) <= 120
        assert len(batch) <= 8
        again = plan_batches(
            [lengths[at] for at in batch], budget_tok=120, max_items=8, groups=[kinds[at] for at in batch]
        )
        assert again == [list(range(len(batch)))]
