"""The loss of many rows in few at a time, the same however they are cut."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from harness.train.batches import micro_batches

if TYPE_CHECKING:
    from harness.train.methods import Adapted
    from harness.train.objectives import Objective


def accumulate(
    adapted: Adapted,
    objective: Objective,
    rows: Sequence[Any],
    *,
    micro: int,
    pad_id: int,
    count: int | None = None,
) -> float:
    """The mean loss of the rows, its gradient added up over micro-batches.

    Each piece is divided by what *all* rows count, such as their supervised tokens, so that the gradient
    does not depend on how the rows are cut. `count` includes the rows that other processes have of the batch.
    """
    count = objective.count(rows) if count is None else count
    total = 0.0
    for some in micro_batches(rows, micro):
        loss = objective.summed_loss(adapted, some, pad_id=pad_id) / count
        loss.backward()  # type: ignore[no-untyped-call]
        total += float(loss.detach())
    return total


def mean_loss(
    adapted: Adapted, objective: Objective, rows: Sequence[Any], *, micro: int, pad_id: int
) -> float | None:
    """The objective over the rows, such as nats a supervised token, without dropout; None for no rows."""
    import torch

    if not rows:
        return None
    by_length = sorted(rows, key=lambda row: len(row.ids))
    adapted.model.eval()
    with torch.no_grad():
        sums = [
            float(objective.summed_loss(adapted, some, pad_id=pad_id))
            for some in micro_batches(by_length, micro)
        ]
    adapted.model.train()
    return sum(sums) / objective.count(rows)
