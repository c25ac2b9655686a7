"""Supervised fine-tuning: from examples to an adapter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from harness.errors import DataError
from harness.files import write_json
from harness.specs.tune import Preferences, Tune
from harness.train.batches import Encoded, Example, encode_all
from harness.train.distill import Distilled, teach
from harness.train.dpo import DirectPreference, encode_pairs
from harness.train.loop import Loop, Work
from harness.train.objectives import Objective, Supervised
from harness.train.plan import OnEvent, TrainPlan, TrainResult, plan_digest
from harness.train.privacy_dp import Mechanism, check_clipping, forget_secret, plan_budget, secret_of
from harness.train.ranks import Ranks
from harness.train.results import finish, finished
from harness.train.schedule import total_steps
from harness.train.selection import Scorer

PRIVACY = "privacy.json"
"""What the run spends of each record's privacy."""
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
    work = prepare(plan, folder, base_identity, digest, on_event=on_event, should_stop=should_stop)
    loop = Loop(work, ranks, on_event, scorer)
    loop.run(should_stop)
    result = finish(loop)
    forget_secret(folder)
    return result


def prepare(
    plan: TrainPlan,
    folder: Path,
    base_identity: str,
    digest: str,
    *,
    on_event: OnEvent = lambda *_: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Work:
    """The plan as ids, and the loss that its objective names.

    Raises:
        CancelledError: `should_stop` said so while a teacher was asked.
        DataError: as `train`.
    """
    from harness.models.chat import load_chat

    chat = load_chat(plan.base)
    rows = _rows(plan.examples, chat, plan.tune)
    held_out = _spread(_rows(plan.held_out, chat, plan.tune, is_strict=False), HELD_OUT_LIMIT)
    objective: Objective = Supervised()
    if plan.tune.objective == "dpo":
        objective = DirectPreference(plan.tune.dpo or Preferences())
    elif plan.tune.distill is not None:
        asked = [*rows, *held_out]
        objective = _taught(plan, folder, asked, chat.pad_id, on_event=on_event, should_stop=should_stop)
    privacy = _mechanism(plan, folder, rows, chat.pad_id) if plan.tune.dp else None
    return Work(plan, folder, objective, rows, held_out, base_identity, digest, chat.pad_id, privacy)


def _mechanism(plan: TrainPlan, folder: Path, rows: Sequence[Encoded], pad_id: int) -> Mechanism:
    """The noise of the run, after a look at whether it is each record's own gradient that gets clipped.

    Raises:
        RefusedError: it is not, or the budget can't be what it says.
    """
    tune, trained = plan.tune, {row.id for row in rows}
    assert tune.dp is not None
    examples = [example for example in plan.examples if example.id in trained]
    budget = plan_budget(tune.dp, examples, batch=tune.batch, steps=total_steps(len(rows), tune))
    from harness.train.methods import adapt

    check_clipping(adapt(plan.base, tune), rows, clip=budget.clip, pad_id=pad_id)
    write_json(folder / PRIVACY, budget.to_json())
    return Mechanism(budget, secret_of(folder))


def _taught(
    plan: TrainPlan,
    folder: Path,
    rows: Sequence[Encoded],
    pad_id: int,
    *,
    on_event: OnEvent,
    should_stop: Callable[[], bool],
) -> Objective:
    from harness.models.load import resolve_base

    settings = plan.tune.distill
    assert settings is not None

    def tell(done: int, total: int) -> None:
        progress = {"done": done, "total": total, "unit": "records", "rate": None, "eta_s": None}
        on_event("step.progress", {"step": "train", **progress, "note": "asking the teacher"})

    lessons = teach(
        rows,
        folder / "teacher",
        teacher=resolve_base(settings.teacher),
        student=plan.base,
        settings=settings,
        pad_id=pad_id,
        on_progress=tell,
        should_stop=should_stop,
    )
    return Distilled(lessons, settings)


def _rows(examples: Sequence[Example], chat: Any, tune: Tune, *, is_strict: bool = True) -> list[Any]:
    """The examples as rows of the objective: answers, or pairs of them."""
    encode = encode_pairs if tune.objective == "dpo" else encode_all
    encoded, too_long = encode(examples, chat, max_tokens=tune.max_tokens)
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


def _spread(rows: Sequence[Any], limit: int) -> list[Any]:
    if len(rows) <= limit:
        return list(rows)
    return [rows[at * len(rows) // limit] for at in range(limit)]
