"""Which requests are computed together, and answers in the order of their requests."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from harness.models.base import Answer

T = TypeVar("T")


def plan_batches(lengths_tok: Sequence[int], *, budget_tok: int, max_items: int) -> list[list[int]]:
    """Indices in the order of execution, alike lengths together.

    A batch's padded size, its items times its longest, stays within `budget_tok`; an item that is longer
    goes alone. Within a batch the order is by length, then by index. The plan depends on nothing but the
    arguments, and the plan of one batch by itself is that batch.
    """
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths_tok)), key=lambda i: (lengths_tok[i], i)):
        last = batches[-1] if batches else []
        if last and len(last) < max_items and (len(last) + 1) * lengths_tok[index] <= budget_tok:
            last.append(index)
        else:
            batches.append([index])
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
