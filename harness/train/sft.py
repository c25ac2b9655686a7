"""Supervised fine-tuning: from examples to an adapter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from harness.errors import DataError
from harness.specs.recipe import Tune
from harness.train.batches import Encoded, Example, encode_all
from harness.train.loop import Loop, Work
from harness.train.objectives import Supervised
from harness.train.plan import OnEvent, TrainPlan, TrainResult, plan_digest
from harness.train.ranks import Ranks
from harness.train.results import finish, finished
from harness.train.selection import Scorer

HELD_OUT_LIMIT = 64
"""Held-out examples measured at each checkpoint, spread evenly over those given: a trend, not a verdict."""


def train(
    plan: TrainPlan,
    folder: Path,
    *,
    on_event: OnEvent,
    should_stop: Callable[[], bool],
    scorer: Scorer | None = None,
    ranks: Ranks = Ranks(),  # noqa: B008 - immutable
) -> TrainResult:
    """The finished adapter in `folder/adapter`. Called again it resumes, and a finished run returns at once.

    A run that was killed and resumed ends with the same bytes as one that was not. `scorer` scores
    checkpoints where `tune.gates` asks for it; then the best of them is the adapter.

    Raises:
        CancelledError: `should_stop` said so; a checkpoint was written first.
        DataError: no example can be trained on, or one is too long and may not be skipped or cut.
        IntegrityError: the folder holds a run of another plan.
        RefusedError: no checkpoint may leave training, or the estimate is above what the recipe allows.
        RunDiedError: the loss stayed NaN or infinite after going back and lowering the learning rate.
    """
    from harness.models.identity import checkpoint_identity

    base_identity = checkpoint_identity(plan.base).digest
    digest = plan_digest(plan, base_identity)
    if done := finished(folder, digest):
        return done
    loop = Loop(prepare(plan, folder, base_identity, digest), ranks, on_event, scorer)
    loop.run(should_stop)
    return finish(loop)


def prepare(plan: TrainPlan, folder: Path, base_identity: str, digest: str) -> Work:
    """The plan as ids.

    Raises:
        DataError: as `train`.
    """
    from harness.models.chat import load_chat

    chat = load_chat(plan.base)
    rows = _rows(plan.examples, chat, plan.tune)
    held_out = _spread(_rows(plan.held_out, chat, plan.tune, is_strict=False), HELD_OUT_LIMIT)
    return Work(plan, folder, Supervised(), rows, held_out, base_identity, digest, chat.pad_id)


def _rows(examples: Sequence[Example], chat: Any, tune: Tune, *, is_strict: bool = True) -> list[Encoded]:
    encoded, too_long = encode_all(examples, chat, max_tokens=tune.max_tokens)
    unusable = [row for row in too_long if not row.is_skipped]
    if is_strict and unusable:
        ids = ", ".join(row.id for row in unusable[:5])
        raise DataError(
            f"{len(unusable)} training records are over tune.max_tokens = {tune.max_tokens}: {ids}",
            hint="raise tune.max_tokens, or set prompt.over_length to skip or truncate",
        )
    rows = [row for row in encoded if row.supervised_tok > 0]
    if is_strict and not rows:
        raise DataError(f"none of {len(examples)} training records has a token to learn from")
    return rows


def _spread(rows: Sequence[Encoded], limit: int) -> list[Encoded]:
    if len(rows) <= limit:
        return list(rows)
    return [rows[at * len(rows) // limit] for at in range(limit)]
