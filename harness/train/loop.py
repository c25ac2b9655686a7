"""The training loop: steps, checkpoints, gates; it stops, resumes and repeats exactly."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from harness.errors import CancelledError, RunDiedError
from harness.jobs import steering
from harness.jobs.steering import Order
from harness.train import checkpoints, telemetry
from harness.train.batches import Batch, Position, batches_from, steps_an_epoch
from harness.train.checkpoints import Gate, Progress
from harness.train.loss import accumulate, mean_loss
from harness.train.objectives import Objective
from harness.train.optimizers import make_optimizer, optimizer_state, set_optimizer_state
from harness.train.plan import OnEvent, TrainPlan
from harness.train.privacy_dp import Mechanism
from harness.train.probe import open_budget
from harness.train.ranks import Ranks
from harness.train.schedule import learning_rate, total_steps
from harness.train.selection import Action, Scorer, Selection, best_of, best_trained

RECENT_STEPS = 25
MAX_ROLLBACKS = 3
PAUSE_POLL_S = 0.2
POLLS_A_WORD = 25
"""Of a pause: one word in five seconds."""


@dataclass(frozen=True)
class Work:
    """A plan as ids, and where its training lives."""

    plan: TrainPlan
    folder: Path
    objective: Objective
    rows: Sequence[Any]
    held_out: Sequence[Any]
    base_identity: str
    digest: str
    """Of the plan: checkpoints of another one are not resumed."""
    pad_id: int
    privacy: Mechanism | None = None
    """With `tune.dp`: draws the batches, and releases their gradients."""


class Step(NamedTuple):
    """What one optimizer step measured."""

    loss: float
    """Nats a supervised token, over the whole batch."""
    grad_norm: float
    """Before clipping."""
    rate: float
    seconds: float

    @property
    def is_finite(self) -> bool:
        return math.isfinite(self.loss) and math.isfinite(self.grad_norm)


class Loop:
    """One training run; `progress` is all of its state besides tensors."""

    def __init__(self, work: Work, ranks: Ranks, on_event: OnEvent, scorer: Scorer | None) -> None:
        self.work, self.ranks, self.tune = work, ranks, work.plan.tune
        self.on_event: OnEvent = on_event if ranks.is_first else lambda *_: None
        self.total = total_steps(len(work.rows), self.tune)
        self.micro = self.tune.micro_batch or self.tune.batch
        self.progress = Progress()
        self.is_saved = False
        self.selection = Selection(self.tune.gates, work.folder, scorer) if self.tune.gates else None

    def run(self, should_stop: Callable[[], bool]) -> Progress:
        """Trains to the end; what it came to."""
        self._prepare()
        self._resume()
        self.budget = open_budget(self)
        batches = self._batches()
        while (action := self._gate()) is not Action.STOP and self.progress.step < self.total:
            action = self._asked(should_stop) or action
            if action is Action.STOP:
                break
            if action is Action.ROLL_BACK:
                self._return_to_best()
                batches = self._batches()
                continue
            if self.ranks.agree(should_stop()):
                self._checkpoint()
                raise CancelledError(f"training stopped after step {self.progress.step} of {self.total}")
            batch = next(batches)
            step = self._step(batch)
            if not step.is_finite and self.work.privacy is not None:
                # A step taken again elsewhere with the same noise would give the noise away.
                raise RunDiedError("training with dp diverged", hint="lower tune.learning_rate")
            if not step.is_finite:
                self._give_up_or_note(batch, step)
                self._return_to_newest()
                batches = self._batches()
                continue
            self._advance(batch, step)
            if self._is_checkpoint_due():
                self._measure()
                self._checkpoint()
        return self.progress

    def _prepare(self) -> None:
        import torch

        from harness.train.methods import adapt, parameter_groups

        if self.work.plan.threads:
            torch.set_num_threads(self.work.plan.threads)
        torch.manual_seed(self.tune.seed + self.ranks.rank)
        self.adapted = adapt(self.work.plan.base, self.tune)
        self.adapted.model.train()
        if self.tune.shard_base and self.ranks.world > 1:
            adapters = self.adapted.parameters.values()
            self.ranks.shard(self.adapted.model, list(adapters), self.adapted.device.type)
        self.optimizer = make_optimizer(
            parameter_groups(self.adapted, self.tune), self.tune, self.adapted.device.type
        )

    def _batches(self) -> Iterator[Batch]:
        if self.work.privacy is not None:
            at = self.progress.position
            return self.work.privacy.batches(self.work.rows, at, batch=self.tune.batch)
        return batches_from(
            self.work.rows, self.progress.position, batch=self.tune.batch, seed=self.tune.seed
        )

    def _step(self, batch: Batch) -> Step:
        """One optimizer step; nothing is applied when the loss or the gradient is NaN or infinite."""
        from torch.nn.utils import clip_grad_norm_

        began = time.perf_counter()
        rate = learning_rate(self.progress.step, self.total, self.tune) * self.progress.lr_scale
        parameters = list(self.adapted.parameters.values())
        self.optimizer.zero_grad(set_to_none=True)
        mine, count = self.ranks.share(batch.rows), self.work.objective.count(batch.rows)
        if self.work.privacy is not None:
            loss = self.work.privacy.accumulate(
                self.adapted, batch.rows, micro=self.micro, pad_id=self.work.pad_id, step=self.progress.step
            )
            norm = float(clip_grad_norm_(parameters, math.inf))  # each record's was clipped
        else:
            loss = accumulate(
                self.adapted,
                self.work.objective,
                mine,
                micro=self.micro,
                pad_id=self.work.pad_id,
                count=count,
            )
            loss = self.ranks.sum_gradients(parameters, loss)
            norm = float(clip_grad_norm_(parameters, self.tune.clip_norm))
        if math.isfinite(loss) and math.isfinite(norm):
            for group in self.optimizer.param_groups:
                group["lr"] = rate * group["rate_ratio"]
            self.optimizer.step()
        return Step(loss, norm, rate, time.perf_counter() - began)

    def _advance(self, batch: Batch, step: Step) -> None:
        at, was = batch.position, self.progress
        is_last = at.batch + 1 >= steps_an_epoch(len(self.work.rows), self.tune.batch)
        self.progress = replace(
            was,
            step=was.step + 1,
            position=Position(at.epoch + 1, 0) if is_last else Position(at.epoch, at.batch + 1),
            seconds=was.seconds + step.seconds,
            tokens=was.tokens + batch.tokens,
            supervised_tok=was.supervised_tok + batch.supervised_tok,
            recent_losses=(*was.recent_losses, step.loss)[-RECENT_STEPS:],
        )
        self.is_saved = False
        telemetry.tell_step(self.on_event, self.progress, self.total, batch, step)

    def _is_checkpoint_due(self) -> bool:
        step = self.progress.step
        is_gated = self.selection is not None and self.selection.is_due(step, self.total)
        return step % self.tune.checkpoint_every == 0 or step == self.total or is_gated

    def _measure(self) -> None:
        work = self.work
        loss = mean_loss(self.adapted, work.objective, work.held_out, micro=self.micro, pad_id=work.pad_id)
        if loss is None:
            return
        step, is_finite = self.progress.step, math.isfinite(loss)
        if is_finite:
            self.progress = replace(self.progress, held_out=(*self.progress.held_out, (step, loss)))
        self.on_event("train.held_out", {"step": step, "loss": round(loss, 5) if is_finite else None})

    def _gate(self, *, is_asked: bool = False) -> Action:
        """Scores the checkpoint of this step where one is due or asked for, and what follows from it."""
        step = self.progress.step
        if self.selection is None or any(gate.step == step for gate in self.progress.gates):
            return Action.GO_ON
        if not is_asked and not self.selection.is_wanted(self.progress, self.total):
            return Action.GO_ON
        self._checkpoint()  # what is scored is a file that could leave training
        progress, action = self.selection.judge(
            self.progress, self._checkpoints(), self.total, self.ranks, self.on_event
        )
        self.progress, self.is_saved = progress, False
        return action

    # What a person asks

    def _asked(self, should_stop: Callable[[], bool]) -> Action | None:
        """What follows from an order; None where there is none. A pause waits here for the next one."""
        order = self._order()
        if order is None:
            return None
        self._note_order(order)
        if order is Order.PAUSE:
            self._checkpoint()
        polls = 0
        while order is Order.PAUSE and not self.ranks.agree(should_stop()):
            if polls % POLLS_A_WORD == 0:
                self._tell_paused()
            time.sleep(PAUSE_POLL_S)
            polls += 1
            if (following := self._order()) is not None:
                order = following
                self._note_order(order)
        return self._obey(order)

    def _order(self) -> Order | None:
        if self.progress.step == 0:
            return None  # the first step brings something to keep, to score and to go back to
        return self.ranks.agree(steering.take(self.work.folder) if self.ranks.is_first else None)

    def _note_order(self, order: Order) -> None:
        step = self.progress.step
        self.progress = replace(self.progress, orders=(*self.progress.orders, f"step {step}: {order.value}"))
        self.is_saved = False
        self.on_event("train.order", {"step": step, "order": order.value})

    def _obey(self, order: Order) -> Action | None:
        if order is Order.GATE and self.selection is None:
            self._warn("no gate to ask: the recipe has no tune.gates")
        elif order is Order.GATE:
            return self._gate(is_asked=True)
        elif order is Order.ROLL_BACK and self.work.privacy is not None:
            self._warn("not rolled back: with dp, a step taken again would give the noise away")
        elif order is Order.ROLL_BACK:
            return Action.ROLL_BACK
        elif order is Order.FINISH:
            self._measure()
            self._gate(is_asked=True)
            self._checkpoint()
            return Action.STOP
        return None

    def _tell_paused(self) -> None:
        """Says so now and then: a parent that reads what this process tells looks for a cancel only when it does."""
        progress = {
            "done": self.progress.step,
            "total": self.total,
            "unit": "steps",
            "rate": None,
            "eta_s": None,
        }
        self.on_event("step.progress", {"step": "train", **progress, "note": "paused"})

    def _warn(self, text: str) -> None:
        self.on_event("note", {"level": "warning", "text": text})

    # State on disk

    def _checkpoints(self) -> Path:
        return self.work.folder / "checkpoints"

    def _checkpoint(self) -> None:
        if self.is_saved:
            return
        states = self.ranks.gather(checkpoints.random_state())
        self.is_saved = True
        if not self.ranks.is_first:
            return
        saved = checkpoints.save(
            self._checkpoints(),
            self.progress,
            plan_digest=self.work.digest,
            optimizer=optimizer_state(self.optimizer, self.adapted.parameters),
            random=states,
            write_adapter=self.write_adapter,
            protect=self._protected(),
        )
        where = str(saved.path.relative_to(self.work.folder))
        self.on_event("train.checkpoint", {"step": self.progress.step, "path": where, "digest": saved.digest})

    def _best(self) -> Gate:
        """The gate to go back to: the best, or the untrained one where every other was vetoed."""
        return best_of(self.progress.gates) or self.progress.gates[0]

    def _protected(self) -> list[str]:
        """Checkpoints that may still be gone back to, or leave."""
        gates = self.progress.gates
        return [gate.checkpoint for gate in (self._best(), best_trained(gates)) if gate] if gates else []

    def write_adapter(self, folder: Path) -> None:
        """The adapters as they are now, as files in the folder."""
        from harness.train.adapters import save_adapter

        save_adapter(self.adapted, folder, base_identity=self.work.base_identity, method=self.tune.method)

    def _resume(self) -> None:
        found = self.ranks.agree(checkpoints.newest(self._checkpoints(), plan_digest=self.work.digest))
        for line in found.rejected:
            self.on_event("note", {"level": "warning", "text": f"checkpoint passed over: {line}"})
        if found.path is None or found.progress is None:
            self._checkpoint()
            return
        self._load(found.path)
        self.progress, self.is_saved = found.progress, True

    def load_adapter(self, path: Path) -> None:
        """Puts the checkpoint's tensors into the adapters."""
        from harness.train.adapters import load_adapter

        load_adapter(self.adapted, path, base_identity=self.work.base_identity)

    def _load(self, path: Path) -> None:
        self.load_adapter(path)
        set_optimizer_state(self.optimizer, self.adapted.parameters, checkpoints.load_optimizer(path))
        checkpoints.restore_random(path, self.ranks.rank)

    # Going back

    def _give_up_or_note(self, batch: Batch, step: Step) -> None:
        ids = ", ".join(batch.ids[:8])
        text = (
            f"step {self.progress.step + 1}: loss {step.loss}, gradient norm {step.grad_norm}; records {ids}"
        )
        self.on_event("note", {"level": "warning", "text": text})
        if self.progress.rollbacks >= MAX_ROLLBACKS:
            raise RunDiedError(
                f"training diverged: {text}",
                hint=f"lower tune.learning_rate (it is {self.tune.learning_rate:g}), or look at these records",
            )

    def _return_to_newest(self) -> None:
        """Back to the newest checkpoint that verifies, with half the learning rate from there on."""
        found = self.ranks.agree(checkpoints.newest(self._checkpoints(), plan_digest=self.work.digest))
        if found.path is None or found.progress is None:
            raise RunDiedError("training diverged, and no checkpoint verifies to go back to")
        self._go_back(found.path, found.progress)

    def _return_to_best(self) -> None:
        """Back to the checkpoint that the development split likes best, with half the learning rate.

        Without gates nothing says which is best: then to the newest.
        """
        if not self.progress.gates:
            self._return_to_newest()
            return
        path = self._checkpoints() / self._best().checkpoint
        self._go_back(path, checkpoints.verified(path, plan_digest=self.work.digest))

    def _go_back(self, path: Path, then: Progress) -> None:
        now = self.progress
        self._load(path)
        self.progress = replace(
            then, rollbacks=now.rollbacks + 1, lr_scale=now.lr_scale / 2, orders=now.orders
        )
        self.is_saved = False
        text = f"back to step {then.step}, learning rate x {self.progress.lr_scale:g}"
        self.on_event("note", {"level": "warning", "text": text})
