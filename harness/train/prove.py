"""Proof that a killed training run goes on bit for bit: it is killed, resumed and compared.

Two runs of one plan, each in a process of its own: one that nothing disturbs, and one that is killed with SIGKILL
as it stands after an optimizer step and then started again. Both stop some steps later, and everything that the
next step depends on is compared as it stands on disk.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from harness.errors import DataError, RunDiedError
from harness.train import checkpoints
from harness.train.batches import Position, batches_from
from harness.train.checkpoints import OPTIMIZER, RANDOM, Progress
from harness.train.plan import TrainPlan, plan_digest, write_plan
from harness.train.schedule import learning_rate, total_steps

STEPS_AFTER = 2
"""Steps that are trained and compared after the one of the kill."""
MAX_NAMED = 5
ADAPTER_TENSORS = "adapter_model.safetensors"


class Check(NamedTuple):
    """One thing that the next step depends on."""

    what: str
    compared: int
    """Tensors, steps, numbers or ids."""
    differ: tuple[str, ...]
    """Names of what differs; at most a few."""

    @property
    def is_same(self) -> bool:
        return self.compared > 0 and not self.differ


@dataclass(frozen=True, slots=True)
class Proof:
    """What a kill and a resume came to."""

    killed_at: int
    """Optimizer steps done at the kill."""
    resumed_from: int
    """The step of the checkpoint that was found."""
    compared_at: int
    total: int
    epoch: int
    """Of the first batch after the kill, from 0."""
    batch: int
    """Its place in the epoch."""
    micro_batches: int
    """That one optimizer step accumulates."""
    checks: tuple[Check, ...]

    @property
    def is_same(self) -> bool:
        return all(check.is_same for check in self.checks)

    def to_json(self) -> dict[str, Any]:
        checks = [{**check._asdict(), "same": check.is_same} for check in self.checks]
        numbers = {name: getattr(self, name) for name in self.__slots__ if name != "checks"}
        return {"same": self.is_same, **numbers, "checks": checks}


class _State(NamedTuple):
    """A run as its newest checkpoint holds it."""

    path: Path
    progress: Progress
    losses: Mapping[int, tuple[float, float, float]]
    """(loss, gradient norm, learning rate) by step, as told."""


def prove_resume(
    plan: TrainPlan, step: int, folder: Path, *, note: Callable[[str], None] = lambda _: None
) -> Proof:
    """Kills a run of the plan after the step, resumes it, and compares it with one that was left alone.

    Raises:
        DataError: the run has no such step.
        RunDiedError: a process ended otherwise than it was meant to.
    """
    from harness.models.identity import checkpoint_identity
    from harness.train.sft import prepare

    tune = plan.tune.model_copy(update={"gates": None, "processes": 1})
    plan = replace(plan, tune=tune)
    identity = checkpoint_identity(plan.base).digest
    digest = plan_digest(plan, identity)
    work = prepare(plan, folder, identity, digest)
    total = total_steps(len(work.rows), tune)
    if not 1 <= step <= total:
        raise DataError(f"--prove-resume {step}: the recipe trains {total} steps", hint=f"1 to {total}")
    end = min(total, step + STEPS_AFTER)
    folder.mkdir(parents=True, exist_ok=True)
    write_plan(plan, folder / "plan.json")

    note(f"one run to step {end}, undisturbed")
    calm = _state(folder / "calm", _run(folder, "calm", end), digest)
    note(f"one run that is killed after step {step}")
    before = _killed(folder, step)
    note(f"the same run, resumed, to step {end}")
    events = _run(folder, "killed", end)
    resumed = _state(folder / "killed", events, digest, before)
    at = _position(work.rows, tune.batch, tune.seed, step)
    return Proof(
        step, min(_steps(events), default=total + 1) - 1, end, total, at.epoch, at.batch,
        -(-tune.batch // (tune.micro_batch or tune.batch)), tuple(_checks(calm, resumed, work.rows, plan, total)),
    )  # fmt: skip


def _checks(one: _State, other: _State, rows: Sequence[Any], plan: TrainPlan, total: int) -> Iterator[Check]:
    for what, file in (
        ("parameters", ADAPTER_TENSORS),
        ("optimizer state", OPTIMIZER),
        ("random generators", RANDOM),
    ):
        yield _tensors(what, one.path / file, other.path / file)
    yield _same("schedule", _rates(one, plan, total), _rates(other, plan, total))
    yield _same("data position", *(dict(state.progress.position._asdict()) for state in (one, other)))
    batches = [
        next(batches_from(rows, state.progress.position, batch=plan.tune.batch, seed=plan.tune.seed))
        for state in (one, other)
    ]
    yield _same("next batch", *({str(at): row for at, row in enumerate(batch.rows)} for batch in batches))
    yield _same("losses", *({str(k): v for k, v in state.losses.items()} for state in (one, other)))
    yield _same("counts", *(_counts(state.progress) for state in (one, other)))


def _tensors(what: str, one: Path, other: Path) -> Check:
    """Bytes, dtypes and shapes of all tensors of two files."""
    from safetensors.torch import load_file

    found = [
        {name: (str(t.dtype), tuple(t.shape), t.contiguous().numpy().tobytes()) for name, t in _plain(path, load_file)}
        for path in (one, other)
    ]  # fmt: skip
    return _same(what, *found)


def _plain(path: Path, load: Callable[[Path], Mapping[str, Any]]) -> Iterator[tuple[str, Any]]:
    """The tensors as ones that numpy can hold: bfloat16 as its bits."""
    import torch

    for name, tensor in load(path).items():
        yield name, tensor.view(torch.int16) if tensor.dtype is torch.bfloat16 else tensor


def _same(what: str, one: Mapping[str, Any], other: Mapping[str, Any]) -> Check:
    names = sorted(one.keys() | other.keys())
    differ = [name for name in names if name not in one or name not in other or one[name] != other[name]]
    return Check(what, len(names), tuple(differ[:MAX_NAMED]))


def _rates(state: _State, plan: TrainPlan, total: int) -> dict[str, float]:
    """The learning rate of every step that is left, and what it is scaled by."""
    now = state.progress
    rates = {
        str(step): learning_rate(step, total, plan.tune) * now.lr_scale for step in range(now.step, total)
    }
    return {"step": now.step, "scale": now.lr_scale, **rates}


def _counts(progress: Progress) -> dict[str, Any]:
    """All of the progress but the time that it took."""
    return {name: value for name, value in progress.to_json().items() if name != "seconds"}


def _position(rows: Sequence[Any], batch: int, seed: int, step: int) -> Position:
    return next(islice(batches_from(rows, Position(0, 0), batch=batch, seed=seed), step, None)).position


def _state(
    folder: Path, events: Sequence[Mapping[str, Any]], digest: str, before: Sequence[Mapping[str, Any]] = ()
) -> _State:
    found = checkpoints.newest(folder / "checkpoints", plan_digest=digest)
    if found.path is None or found.progress is None:
        raise RunDiedError(f"{folder}: no checkpoint verifies: {'; '.join(found.rejected)}")
    told = {
        event["step"]: (event["loss"], event["grad_norm"], event["lr"])
        for event in (*before, *events)
        if event["event"] == "train.step"
    }
    return _State(found.path, found.progress, told)


def _steps(events: Sequence[Mapping[str, Any]]) -> list[int]:
    return [event["step"] for event in events if event["event"] == "train.step"]


def _run(folder: Path, name: str, end: int) -> list[dict[str, Any]]:
    """Trains on to the step; what was told."""
    with _started(folder, name, "--stop-after", str(end)) as process:
        assert process.stdout is not None
        events = [json.loads(line) for line in process.stdout]
    if process.returncode not in (0, 130):  # done, or stopped where it was told to
        told = [event["error"] for event in events if event["event"] == "error"]
        said = (folder / f"{name}.log").read_text(errors="replace")[-2000:]
        raise RunDiedError(f"training ended with code {process.returncode}: {'; '.join(told) or said}")
    return events


def _killed(folder: Path, step: int) -> list[dict[str, Any]]:
    """Trains to the step and is killed there; what was told until then."""
    events = []
    with _started(folder, "killed", "--wait-at", str(step)) as process:
        assert process.stdout is not None
        for line in process.stdout:
            events.append(json.loads(line))
            if events[-1]["event"] == "train.step" and events[-1]["step"] == step:
                os.kill(process.pid, signal.SIGKILL)
                break
    if process.returncode != -signal.SIGKILL:
        raise RunDiedError(f"training ended with code {process.returncode} before it could be killed")
    return events


def _started(folder: Path, name: str, *options: str) -> subprocess.Popen[str]:
    command = [
        sys.executable, "-P", "-m", "harness.train.process",
        str(folder / "plan.json"), str(folder / name), *options,
    ]  # fmt: skip
    with (folder / f"{name}.log").open("a") as log:
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
