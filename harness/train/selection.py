"""Gates inside training: checkpoints scored by the suite's own engine, and which of them leaves.

What is read here are point values on development records. They steer: which checkpoint leaves, when to stop, when
to go back. They prove nothing; the evaluation records, which are sealed until training has ended, do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from harness.errors import HarnessError, RefusedError
from harness.files import read_json, write_json
from harness.specs.training import TrainGates
from harness.train.checkpoints import Gate, Progress, name_of
from harness.train.plan import OnEvent
from harness.train.ranks import Ranks

MAX_RETURNS = 3
"""Times that training goes back to its best checkpoint; after that it stops there."""


class Scores(NamedTuple):
    """What a checkpoint reached on development records. Unknown is None."""

    n: int
    """Records that were scored, over all suites of the domain."""
    score: float | None
    """The metric, its mean over the suites of the domain."""
    kept: float | None
    """The metric on the suite that must not be forgotten."""


Scorer = Callable[[Path, str], Scores]
"""The folder with a checkpoint's adapter, and its name → what it reaches."""


class Action(StrEnum):
    """What follows from a gate."""

    GO_ON = "continue"
    STOP = "stop"
    ROLL_BACK = "roll_back"


def best_of(gates: Sequence[Gate]) -> Gate | None:
    """The gate with the highest score; of equal ones the first. None where none has a score or all are vetoed."""
    sound = [gate for gate in gates if gate.score is not None and not gate.is_vetoed]
    return max(sound, key=lambda gate: gate.score or 0.0, default=None)


def best_trained(gates: Sequence[Gate]) -> Gate | None:
    """As `best_of`, the untrained adapter left out."""
    return best_of([gate for gate in gates if gate.step > 0])


def leaving(gates: Sequence[Gate]) -> Gate:
    """The trained checkpoint that leaves.

    Raises:
        RefusedError: none has a score, or each forgets more than it may.
    """
    best = best_trained(gates)
    if best is None:
        why = "; ".join(f"step {gate.step}: {gate.failed}" for gate in gates if gate.step > 0)
        raise RefusedError(
            f"no checkpoint may leave training: {why or 'none was scored'}",
            hint="raise tune.gates.max_drop, or train with fewer steps or a lower learning rate",
        )
    return best


def failure(gates: TrainGates, before: Sequence[Gate], step: int, found: Scores) -> tuple[str, bool]:
    """Why the gate fails, empty where it does not; and whether its checkpoint may not leave."""
    if found.score is None:
        return f"no {gates.metric} on the development records", True
    start = before[0].kept if before else found.kept
    if gates.forgetting is not None:
        if found.kept is None or start is None:
            return f"no {gates.metric} on {gates.forgetting}", True
        if start - found.kept > gates.max_drop:
            return f"{gates.forgetting} fell from {start:.3f} to {found.kept:.3f}", True
    best = best_of(before)
    if step == 0 or best is None or best.score is None or found.score > best.score + gates.min_gain:
        return "", False
    return f"{gates.metric} {found.score:.3f} after {best.score:.3f} at step {best.step}", False


def action(gates: TrainGates, passed: Sequence[Gate], *, is_last: bool, returns: int) -> Action:
    """What follows from the gates so far, the newest last."""
    streak = 0
    for gate in reversed(passed):
        if not gate.failed:
            break
        streak += 1
    if streak < gates.patience or is_last or gates.on_fail == "continue":
        return Action.GO_ON
    if gates.on_fail == "roll_back" and returns < MAX_RETURNS:
        return Action.ROLL_BACK
    return Action.STOP


class Selection:
    """Scores checkpoints when they are due; what was scored once is read from `gates/`."""

    def __init__(self, gates: TrainGates, folder: Path, scorer: Scorer | None) -> None:
        self._gates, self._folder, self._scorer = gates, folder / "gates", scorer

    def is_due(self, step: int, total: int) -> bool:
        """Whether the checkpoint of the step is scored: the untrained one, each `every` steps, and the last."""
        return step % self._gates.every == 0 or step == total

    def is_wanted(self, progress: Progress, total: int) -> bool:
        """Whether a gate is due that has not been judged."""
        is_judged = any(gate.step == progress.step for gate in progress.gates)
        return self.is_due(progress.step, total) and not is_judged

    def judge(
        self, progress: Progress, checkpoints: Path, total: int, ranks: Ranks, on_event: OnEvent
    ) -> tuple[Progress, Action]:
        """The progress with one gate more, and what follows from it."""
        name, step = name_of(progress), progress.step
        found = ranks.agree(self._scores(checkpoints / name, name) if ranks.is_first else None)
        assert found is not None  # the first rank's, in all of them
        failed, is_vetoed = failure(self._gates, progress.gates, step, found)
        gate = Gate(step, name, found.n, found.score, found.kept, failed, is_vetoed)
        passed = (*progress.gates, gate)
        next_action = action(self._gates, passed, is_last=step == total, returns=progress.rollbacks)
        on_event(
            "train.gate", {**asdict(gate), "is_best": best_of(passed) is gate, "action": next_action.value}
        )
        return replace(progress, gates=passed), next_action

    def _scores(self, checkpoint: Path, name: str) -> Scores:
        from harness.models.identity import adapter_digest

        identity = adapter_digest(checkpoint)
        path = self._folder / f"{identity}.json"  # the same adapter stands at a step again after going back
        if path.exists():
            return Scores(**read_json(path)["scores"])
        if self._scorer is None:
            raise HarnessError("tune.gates asks for scores, and nothing was given that scores")
        with undisturbed():
            scores = self._scorer(checkpoint, name)
        write_json(path, {"checkpoint": name, "scores": scores._asdict()})
        return scores


@contextmanager
def undisturbed() -> Iterator[None]:
    """Training goes on after the block with the random numbers and the threads that it had before."""
    import torch

    threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        try:
            yield
        finally:
            torch.set_num_threads(threads)
