"""Supervised fine-tuning: one loop from examples to an adapter that stops, resumes and repeats exactly."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import CancelledError, DataError, HarnessError, RunDiedError
from harness.files import digest_json, read_json, sha256_file, write_json
from harness.specs.recipe import Tune
from harness.train import checkpoints
from harness.train.batches import (
    Batch,
    Encoded,
    Example,
    Position,
    batches_from,
    encode_all,
    micro_batches,
    steps_an_epoch,
)
from harness.train.checkpoints import Progress
from harness.train.objectives import Objective, Supervised

if TYPE_CHECKING:
    import torch

    from harness.train.methods import Adapted

OnEvent = Callable[[str, dict[str, Any]], None]
RESULT = "result.json"
ADAPTER = "adapter"
HELD_OUT_LIMIT = 64
"""Held-out examples measured at each checkpoint, spread evenly over those given: a trend, not a verdict."""
RECENT_STEPS = 25
MAX_ROLLBACKS = 3


@dataclass(frozen=True, slots=True)
class TrainPlan:
    """What to train, on what, and how."""

    base: Path
    """A folder with a Transformers checkpoint."""
    examples: Sequence[Example]
    held_out: Sequence[Example]
    """Never trained on; their loss is measured at each checkpoint. May be empty."""
    tune: Tune


@dataclass(frozen=True, slots=True)
class TrainResult:
    """A finished training run."""

    adapter: Path
    steps: int
    loss: float
    """Mean of the last steps' losses, nats a supervised token."""
    held_out_loss: float | None
    seconds: float
    """Spent in training steps, over all attempts."""
    supervised_tok: int
    tok_s: float
    """Prompt and answer tokens a second, padding not counted."""


def train(
    plan: TrainPlan, folder: Path, *, on_event: OnEvent, should_stop: Callable[[], bool]
) -> TrainResult:
    """The finished adapter in `folder/adapter`. Called again it resumes, and a finished run returns at once.

    A run that was killed and resumed ends with the same bytes as one that was not.

    Raises:
        CancelledError: `should_stop` said so; a checkpoint was written first.
        DataError: no example can be trained on, or one is too long and may not be skipped or cut.
        IntegrityError: the folder holds a run of another plan.
        RunDiedError: the loss stayed NaN or infinite after going back and lowering the learning rate.
    """
    from harness.models.chat import load_chat
    from harness.models.identity import checkpoint_identity

    base_identity = checkpoint_identity(plan.base).digest
    digest = plan_digest(plan, base_identity)
    if done := finished(folder, digest):
        return done
    chat = load_chat(plan.base)
    rows = _rows(plan.examples, chat, plan.tune)
    held_out = _spread(_rows(plan.held_out, chat, plan.tune, is_strict=False), HELD_OUT_LIMIT)
    run = _Run(
        plan.base, plan.tune, folder, rows, held_out, base_identity, digest, on_event, pad_id=chat.pad_id,
        objective=Supervised(),
    )  # fmt: skip
    return run.to_the_end(should_stop)


def plan_digest(plan: TrainPlan, base_identity: str) -> str:
    """What makes two training runs the same: base, settings and every example."""
    tune = {
        key: value for key, value in plan.tune.model_dump(mode="json").items() if key != "checkpoint_every"
    }
    examples = [[asdict(example) for example in part] for part in (plan.examples, plan.held_out)]
    return digest_json({"base": base_identity, "tune": tune, "examples": examples})


def finished(folder: Path, digest: str) -> TrainResult | None:
    """The result of a run that ended, when its adapter still has the bytes that it ended with."""
    with suppress(HarnessError, OSError, KeyError, TypeError):
        document = read_json(folder / RESULT)
        files: dict[str, str] = document["files"]
        if document["plan"] == digest and all(sha256_file(folder / f) == sha for f, sha in files.items()):
            return TrainResult(**{**document["result"], "adapter": folder / ADAPTER})
    return None


def learning_rate(step: int, total: int, tune: Tune) -> float:
    """The rate of the step (0-based): linear warm-up from above zero, then the schedule down to zero."""
    warmup = round(tune.warmup_frac * total)
    if step < warmup:
        return tune.learning_rate * (step + 1) / warmup
    done_frac = (step - warmup) / max(1, total - warmup)
    if tune.schedule == "cosine":
        return tune.learning_rate * 0.5 * (1.0 + math.cos(math.pi * done_frac))
    return tune.learning_rate * (1.0 - done_frac) if tune.schedule == "linear" else tune.learning_rate


def total_steps(rows: int, tune: Tune) -> int:
    """Optimizer steps of the whole run."""
    steps = max(1, math.ceil(tune.epochs * steps_an_epoch(rows, tune.batch)))
    return steps if tune.max_steps is None else min(steps, tune.max_steps)


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


@dataclass
class _Run:
    """One training run; `progress` is all of its state besides tensors."""

    base: Path
    tune: Tune
    folder: Path
    rows: Sequence[Encoded]
    held_out: Sequence[Encoded]
    base_identity: str
    digest: str
    on_event: OnEvent
    pad_id: int
    objective: Objective

    def __post_init__(self) -> None:
        self.total = total_steps(len(self.rows), self.tune)
        self.micro = self.tune.micro_batch or self.tune.batch
        self.progress = Progress()
        self.is_saved = False

    def to_the_end(self, should_stop: Callable[[], bool]) -> TrainResult:
        self._prepare()
        self._resume()
        batches = self._batches()
        while self.progress.step < self.total:
            if should_stop():
                self._checkpoint()
                raise CancelledError(f"training stopped after step {self.progress.step} of {self.total}")
            if not self._step(next(batches)):
                self._roll_back()
                batches = self._batches()
            elif self._is_checkpoint_due():
                self._measure()
                self._checkpoint()
        return self._finish()

    def _prepare(self) -> None:
        import torch

        from harness.train.methods import adapt, parameter_groups

        torch.manual_seed(self.tune.seed)
        self.adapted = adapt(self.base, self.tune)
        self.adapted.model.train()
        self.optimizer = torch.optim.AdamW(
            parameter_groups(self.adapted, self.tune),
            lr=self.tune.learning_rate,
            weight_decay=self.tune.weight_decay,
            fused=True,
        )

    def _resume(self) -> None:
        found = checkpoints.newest(self.folder / "checkpoints", plan_digest=self.digest)
        for line in found.rejected:
            self.on_event("note", {"level": "warning", "text": f"checkpoint passed over: {line}"})
        if found.path is None or found.progress is None:
            self._checkpoint()
            return
        self._load(found.path)
        self.progress = found.progress
        self.is_saved = True

    def _load(self, path: Path) -> None:
        from harness.train.methods import load_adapter

        load_adapter(self.adapted, path, base_identity=self.base_identity)
        set_optimizer_state(self.optimizer, self.adapted.parameters, checkpoints.load_optimizer(path))
        checkpoints.restore_random(path)

    def _batches(self) -> Any:
        return batches_from(self.rows, self.progress.position, batch=self.tune.batch, seed=self.tune.seed)

    def _step(self, batch: Batch) -> bool:
        """One optimizer step; False, and nothing applied, when loss or gradient is NaN or infinite."""
        import torch

        started = time.perf_counter()
        rate = learning_rate(self.progress.step, self.total, self.tune) * self.progress.lr_scale
        self.optimizer.zero_grad(set_to_none=True)
        loss = accumulate(self.adapted, self.objective, batch.rows, micro=self.micro, pad_id=self.pad_id)
        parameters = list(self.adapted.parameters.values())
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, self.tune.clip_norm))
        if not (math.isfinite(loss) and math.isfinite(norm)):
            self._note_bad_step(batch, loss, norm)
            return False
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["rate_ratio"]
        self.optimizer.step()
        self._advance(batch, loss, time.perf_counter() - started)
        self._report(loss, rate, norm, batch, time.perf_counter() - started)
        return True

    def _advance(self, batch: Batch, loss: float, seconds: float) -> None:
        at = batch.position
        is_last = at.batch + 1 >= steps_an_epoch(len(self.rows), self.tune.batch)
        was = self.progress
        self.progress = replace(
            was,
            step=was.step + 1,
            position=Position(at.epoch + 1, 0) if is_last else Position(at.epoch, at.batch + 1),
            seconds=was.seconds + seconds,
            tokens=was.tokens + batch.tokens,
            supervised_tok=was.supervised_tok + batch.supervised_tok,
            recent_losses=(*was.recent_losses, loss)[-RECENT_STEPS:],
        )
        self.is_saved = False

    def _report(self, loss: float, rate: float, norm: float, batch: Batch, seconds: float) -> None:
        now = self.progress
        steps_left = self.total - now.step
        eta_s = round(now.seconds / now.step * steps_left, 1)
        self.on_event(
            "train.step",
            {
                "step": now.step,
                "of": self.total,
                "loss": round(loss, 5),
                "lr": rate,
                "grad_norm": round(norm, 5),
                "tok_s": round(batch.tokens / seconds, 1),
                "supervised_tok": now.supervised_tok,
                "eta_s": eta_s,
                "memory_mb": peak_memory_mb(),
            },
        )
        steps_s = round(now.step / now.seconds, 3)
        note = f"loss {loss:.3f}"
        progress = {"done": now.step, "total": self.total, "unit": "steps", "rate": steps_s}
        self.on_event("step.progress", {"step": "train", **progress, "eta_s": eta_s, "note": note})

    def _is_checkpoint_due(self) -> bool:
        return self.progress.step % self.tune.checkpoint_every == 0 or self.progress.step == self.total

    def _measure(self) -> None:
        loss = mean_loss(self.adapted, self.objective, self.held_out, micro=self.micro, pad_id=self.pad_id)
        if loss is None:
            return
        step = self.progress.step
        self.progress = replace(self.progress, held_out=(*self.progress.held_out, (step, loss)))
        shown = round(loss, 5) if math.isfinite(loss) else None
        self.on_event("train.held_out", {"step": step, "loss": shown})

    def _checkpoint(self) -> None:
        if self.is_saved:
            return
        saved = checkpoints.save(
            self.folder / "checkpoints",
            self.progress,
            plan_digest=self.digest,
            optimizer=optimizer_state(self.optimizer, self.adapted.parameters),
            write_adapter=self._write_adapter,
        )
        self.is_saved = True
        where = str(saved.path.relative_to(self.folder))
        self.on_event("train.checkpoint", {"step": self.progress.step, "path": where, "digest": saved.digest})

    def _write_adapter(self, folder: Path) -> None:
        from harness.train.methods import save_adapter

        save_adapter(self.adapted, folder, base_identity=self.base_identity, method=self.tune.method)

    def _note_bad_step(self, batch: Batch, loss: float, norm: float) -> None:
        step, ids = self.progress.step + 1, ", ".join(batch.ids[:8])
        text = f"step {step}: loss {loss}, gradient norm {norm}; records {ids}"
        self.on_event("note", {"level": "warning", "text": text})
        if self.progress.rollbacks >= MAX_ROLLBACKS:
            raise RunDiedError(
                f"training diverged: {text}",
                hint=f"lower tune.learning_rate (it is {self.tune.learning_rate:g}), or look at these records",
            )

    def _roll_back(self) -> None:
        """Back to the newest checkpoint that verifies, with half the learning rate from there on."""
        rollbacks, lr_scale = self.progress.rollbacks + 1, self.progress.lr_scale / 2
        found = checkpoints.newest(self.folder / "checkpoints", plan_digest=self.digest)
        if found.path is None or found.progress is None:
            raise RunDiedError("training diverged, and no checkpoint verifies to go back to")
        self._load(found.path)
        self.progress = replace(found.progress, rollbacks=rollbacks, lr_scale=lr_scale)
        text = f"back to step {self.progress.step}, learning rate x {lr_scale:g}"
        self.on_event("note", {"level": "warning", "text": text})

    def _finish(self) -> TrainResult:
        from harness.files import folder_written_whole

        with folder_written_whole(self.folder / ADAPTER) as part:
            self._write_adapter(part)
        now = self.progress
        result = TrainResult(
            adapter=self.folder / ADAPTER,
            steps=now.step,
            loss=sum(now.recent_losses) / len(now.recent_losses),
            held_out_loss=now.held_out[-1][1] if now.held_out else None,
            seconds=round(now.seconds, 3),
            supervised_tok=now.supervised_tok,
            tok_s=round(now.tokens / now.seconds, 1),
        )
        files = {f"{ADAPTER}/{p.name}": sha256_file(p) for p in sorted((self.folder / ADAPTER).iterdir())}
        document = {**asdict(result), "adapter": ADAPTER}
        write_json(self.folder / RESULT, {"plan": self.digest, "files": files, "result": document})
        return result


def accumulate(
    adapted: Adapted, objective: Objective, rows: Sequence[Any], *, micro: int, pad_id: int
) -> float:
    """The mean loss of the rows, its gradient added up over micro-batches.

    Each piece is divided by what *all* rows count, such as their supervised tokens, so that the gradient
    does not depend on how the rows are cut.
    """
    count = objective.count(rows)
    total = 0.0
    for some in micro_batches(rows, micro):
        loss = objective.summed_loss(adapted, some, pad_id=pad_id) / count
        loss.backward()  # type: ignore[no-untyped-call]
        total += float(loss.detach())
    return total


def optimizer_state(optimizer: torch.optim.Optimizer, parameters: Any) -> dict[str, torch.Tensor]:
    """The optimizer's tensors by `kind/parameter`; empty before the first step."""
    return {
        f"{kind}/{name}": value.detach().cpu().contiguous()
        for name, parameter in parameters.items()
        for kind, value in optimizer.state.get(parameter, {}).items()
    }


def set_optimizer_state(
    optimizer: torch.optim.Optimizer, parameters: Any, tensors_by_name: dict[str, torch.Tensor]
) -> None:
    """Puts back what `optimizer_state` gave; parameters without tensors start afresh."""
    optimizer.state.clear()
    for key, value in tensors_by_name.items():
        kind, _, name = key.partition("/")
        parameter = parameters[name]
        place = value.device if kind == "step" and parameter.device.type == "cpu" else parameter.device
        optimizer.state[parameter][kind] = value.to(place)


def peak_memory_mb() -> int:
    """The most memory that this process had so far, on the GPU where one is used."""
    import torch

    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated() // 2**20)
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak // 2**20 if sys.platform == "darwin" else peak // 2**10)
