"""Which requests are computed together, and answers in the order of their requests."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from harness.models.base import Answer

T = TypeVar("T")


def plan_batches(
    lengths_tok: Sequence[int], *, budget_tok: int, max_items: int, groups: Sequence[int] | None = None
) -> list[list[int]]:
    """Indices in the order of execution: group by group, alike lengths together.

    A batch's padded size, for each of its groups the items times the longest, stays within `budget_tok`;
    an item that is longer goes alone. Within a group the order is by length, then by index. The plan
    depends on nothing but the arguments, and the plan of one batch by itself is that batch.
    """
    kinds = groups if groups is not None else [0] * len(lengths_tok)
    batches: list[list[int]] = []
    done_tok = count = 0  # padded size of the batch's finished groups; its items of the last group
    for index in sorted(range(len(lengths_tok)), key=lambda i: (kinds[i], lengths_tok[i], i)):
        last = batches[-1] if batches else []
        if last and kinds[last[-1]] != kinds[index]:
            done_tok, count = done_tok + count * lengths_tok[last[-1]], 0
        if last and len(last) < max_items and done_tok + (count + 1) * lengths_tok[index] <= budget_tok:
            last.append(index)
            count += 1
        else:
            batches.append([index])
            done_tok, count = 0, 1
    return batches


def in_order(
    requests: Sequence[T],
    batches: Sequence[Sequence[int]],
    answer: Callable[[list[T]], list[Answer]],
) -> Iterator[Answer]:
    """The answers in the order of the requests, each as soon as it and all before it are there."""
    ready: dict[int, Answer] = {}
    due = 0
    for batch in batches:
        ready.update(zip(batch, answer([requests[index] for index in batch]), strict=True))
        while due in ready:
            yield ready.pop(due)
            due += 1
