"""What a training step makes smaller: the part of the loop that differs between tuning, preferences and distilling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from harness.train.batches import Encoded

if TYPE_CHECKING:
    import torch

    from harness.train.methods import Adapted

LOGIT_ROWS = 1024
"""Supervised rows whose logits exist at one time: 1024 x 49k x 4 bytes are 200 MB."""


class Row(Protocol):
    """A training record as the loop sees it: what batches are made of."""

    @property
    def id(self) -> str: ...
    @property
    def ids(self) -> tuple[int, ...]:
        """All token ids that the record costs; batches are bucketed by their number."""

    @property
    def supervised_tok(self) -> int: ...


class Objective(Protocol):
    """A loss over rows, as a sum and what the sum is divided by, so that micro-batches add up."""

    def summed_loss(self, adapted: Adapted, rows: Sequence[Any], *, pad_id: int) -> torch.Tensor:
        """The loss of the rows, not yet divided; a scalar with a gradient."""

    def count(self, rows: Sequence[Any]) -> int:
        """What the rows' loss is a mean over: supervised tokens, or pairs."""


class Supervised:
    """Cross-entropy of the answers' tokens."""

    def summed_loss(self, adapted: Adapted, rows: Sequence[Encoded], *, pad_id: int) -> torch.Tensor:
        return summed_loss(adapted, rows, pad_id=pad_id)

    def count(self, rows: Sequence[Encoded]) -> int:
        return sum(row.supervised_tok for row in rows)


def summed_loss(adapted: Adapted, rows: Sequence[Encoded], *, pad_id: int) -> torch.Tensor:
    """Cross-entropy summed over the rows' supervised tokens, in float32, with logits for those alone."""
    from torch import split, stack
    from torch.nn.functional import cross_entropy
    from torch.utils.checkpoint import checkpoint

    hidden, targets = adapted.hidden_and_targets(rows, pad_id=pad_id)
    head = adapted.model.get_output_embeddings()  # type: ignore[operator]

    def piece(states: torch.Tensor, gold: torch.Tensor) -> torch.Tensor:
        return cross_entropy(head(states).float(), gold, reduction="sum")

    pieces = list(zip(split(hidden, LOGIT_ROWS), split(targets, LOGIT_ROWS), strict=True))
    if len(pieces) == 1:
        return piece(*pieces[0])
    return stack([checkpoint(piece, *both, use_reentrant=False) for both in pieces]).sum()


def token_log_probs(adapted: Adapted, rows: Sequence[Encoded], *, pad_id: int) -> torch.Tensor:
    """The log-probability of each supervised token, in float32; shape (supervised,), row by row."""
    from torch import cat, split
    from torch.nn.functional import cross_entropy
    from torch.utils.checkpoint import checkpoint

    hidden, targets = adapted.hidden_and_targets(rows, pad_id=pad_id)
    head = adapted.model.get_output_embeddings()  # type: ignore[operator]

    def piece(states: torch.Tensor, gold: torch.Tensor) -> torch.Tensor:
        return -cross_entropy(head(states).float(), gold, reduction="none")

    pieces = zip(split(hidden, LOGIT_ROWS), split(targets, LOGIT_ROWS), strict=True)
    return cat([checkpoint(piece, *both, use_reentrant=False) for both in pieces])
