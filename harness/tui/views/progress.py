"""What a journal says of a run so far: one pass over its events, each applied once."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.jobs.journal import Event
from harness.tui.views.cells import Line
from harness.tui.views.curve import Curve
from harness.tui.views.numbers import count, number

KEPT_EVENTS = 500


@dataclass(slots=True)
class Step:
    """One step of the job."""

    name: str
    title: str = ""
    state: str = "waiting"
    """`waiting`, `active`, `done` or `stopped`."""
    started_s: float | None = None
    seconds: float | None = None
    is_reused: bool = False
    done: float | None = None
    total: float | None = None
    unit: str = ""
    rate: float | None = None
    eta_s: float | None = None
    note: str = ""


@dataclass(slots=True)
class Evaluation:
    """Running totals of one suite at one stage."""

    stage: str
    suite: str
    done: int | None = None
    total: int | None = None
    correct: int | None = None
    errors: int | None = None
    slices: dict[str, tuple[int, float]] = field(default_factory=dict)
    """Items and hits by slice."""
    is_complete: bool = False


@dataclass(slots=True)
class Training:
    """The curves and the last reading."""

    of: int | None = None
    losses: Curve = field(default_factory=Curve)
    held_out: list[tuple[float, float]] = field(default_factory=list)
    checkpoints: list[int] = field(default_factory=list)
    gates: list[dict[str, Any]] = field(default_factory=list)
    """What `train.gate` said of each scored checkpoint, the oldest first."""
    expected: dict[str, Any] = field(default_factory=dict)
    """`train.estimate`: memory by account, tokens, time."""
    actual: dict[str, Any] = field(default_factory=dict)
    """`train.actual`: the same, measured."""
    is_paused: bool = False
    last: dict[str, Any] = field(default_factory=dict)
    picture: tuple[tuple[int, int], float, list[Line]] | None = None
    """The last plot, its size and when it was drawn: long curves are drawn once a second."""

    def step(self, data: Mapping[str, Any]) -> None:
        """Takes one reading; a resumed run starts again at its checkpoint, and what came after it goes."""
        at, loss = number(data.get("step")), number(data.get("loss"))
        if at is None:
            return
        if self.losses.last_x is not None and at <= self.losses.last_x:
            self._cut_back(at)
        self.of = count(data.get("of")) or self.of
        self.last, self.is_paused = dict(data), False
        if loss is not None:
            self.losses.append(at, loss)

    def _cut_back(self, at: float) -> None:
        self.losses.cut_back(at)
        self.held_out = [point for point in self.held_out if point[0] < at]
        self.checkpoints = [step for step in self.checkpoints if step < at]
        self.gates = [gate for gate in self.gates if (number(gate.get("step")) or 0.0) < at]


@dataclass(slots=True)
class Progress:
    """A run as its journal tells it."""

    pid: int | None = None
    started_s: float | None = None
    is_resumed: bool = False
    steps: dict[str, Step] = field(default_factory=dict)
    evaluations: dict[tuple[str, str], Evaluation] = field(default_factory=dict)
    last_evaluation: tuple[str, str] | None = None
    training: Training = field(default_factory=Training)
    is_training: bool = False
    """Whether the newest reading came from training, not from an evaluation."""
    fidelity: dict[str, dict[str, Any]] = field(default_factory=dict)
    artifacts: dict[str, dict[str, Any]] = field(default_factory=dict)
    verdicts: dict[str, str] = field(default_factory=dict)
    ended: Event | None = None
    events: deque[Event] = field(default_factory=lambda: deque(maxlen=KEPT_EVENTS))
    """What is worth a line to a person: progress readings are not."""
    n_events: int = 0
    last_time_s: float | None = None

    def apply(self, event: Event) -> None:
        """Takes one event; an unknown one, or one with fields of another kind, changes nothing else."""
        self.n_events += 1
        self.last_time_s = event.time
        handler = _HANDLERS.get(event.name)
        if handler is not None:
            handler(self, event)
        if event.name not in _QUIET:
            self.events.append(event)

    @property
    def active(self) -> Step | None:
        """The step that is being worked on."""
        return next((step for step in reversed(self.steps.values()) if step.state == "active"), None)

    @property
    def n_done(self) -> int:
        return sum(step.state == "done" for step in self.steps.values())

    @property
    def evaluation(self) -> Evaluation | None:
        """The evaluation that reported last."""
        return self.evaluations.get(self.last_evaluation) if self.last_evaluation else None


def fold(events: Any) -> Progress:
    """The progress after all events."""
    progress = Progress()
    for event in events:
        progress.apply(event)
    return progress


def _run_start(run: Progress, event: Event) -> None:
    run.pid = count(event.data.get("pid"))
    run.started_s = event.time
    run.is_resumed = bool(event.data.get("resumed"))
    run.ended = None
    names = event.data.get("steps")
    run.steps = {str(name): Step(str(name)) for name in names} if isinstance(names, list) else {}


def _step(run: Progress, event: Event) -> Step:
    name = str(event.data.get("step", "?"))
    return run.steps.setdefault(name, Step(name))


def _step_start(run: Progress, event: Event) -> None:
    step = _step(run, event)
    step.title = str(event.data.get("title") or "")
    step.state, step.started_s, step.seconds = "active", event.time, None


def _step_progress(run: Progress, event: Event) -> None:
    step, data = _step(run, event), event.data
    if step.state == "waiting":
        step.state, step.started_s = "active", event.time
    step.done, step.total = number(data.get("done")), number(data.get("total"))
    step.rate, step.eta_s = number(data.get("rate")), number(data.get("eta_s"))
    step.unit, step.note = str(data.get("unit") or ""), str(data.get("note") or "")


def _step_done(run: Progress, event: Event) -> None:
    step = _step(run, event)
    step.state, step.seconds = "done", number(event.data.get("seconds"))
    step.is_reused = bool(event.data.get("reused"))


def _train_step(run: Progress, event: Event) -> None:
    run.training.step(event.data)
    run.is_training = True


def _held_out(run: Progress, event: Event) -> None:
    at, loss = number(event.data.get("step")), number(event.data.get("loss"))
    if at is not None and loss is not None:
        run.training.held_out.append((at, loss))


def _checkpoint(run: Progress, event: Event) -> None:
    at = count(event.data.get("step"))
    if at is not None:
        run.training.checkpoints.append(at)


def _gate(run: Progress, event: Event) -> None:
    """A checkpoint that is scored again after going back takes the place of the one before."""
    at, gates = number(event.data.get("step")), run.training.gates
    run.training.gates = [gate for gate in gates if number(gate.get("step")) != at] + [event.data]


def _order(run: Progress, event: Event) -> None:
    run.training.is_paused = event.data.get("order") == "pause"


def _estimate(run: Progress, event: Event) -> None:
    run.training.expected = event.data


def _actual(run: Progress, event: Event) -> None:
    found = event.data.get("actual")
    run.training.actual = found if isinstance(found, dict) else {}


def _evaluation(run: Progress, event: Event) -> Evaluation:
    key = (str(event.data.get("stage", "?")), str(event.data.get("suite", "?")))
    run.last_evaluation = key
    run.is_training = False
    return run.evaluations.setdefault(key, Evaluation(*key))


def _eval_batch(run: Progress, event: Event) -> None:
    found, data = _evaluation(run, event), event.data
    found.done, found.total = count(data.get("done")), count(data.get("total"))
    found.correct, found.errors = count(data.get("correct")), count(data.get("errors"))
    slices = data.get("slices")
    for name, value in slices.items() if isinstance(slices, dict) else ():
        if isinstance(value, list) and len(value) == 2:
            n, hits = count(value[0]), number(value[1])
            if n is not None and hits is not None:
                found.slices[str(name)] = (n, hits)


def _scorecard(run: Progress, event: Event) -> None:
    _evaluation(run, event).is_complete = True


def _verdict(run: Progress, event: Event) -> None:
    run.verdicts[str(event.data.get("stage", "?"))] = str(event.data.get("verdict"))


def _fidelity(run: Progress, event: Event) -> None:
    run.fidelity[str(event.data.get("stage", "?"))] = event.data


def _artifact(run: Progress, event: Event) -> None:
    run.artifacts[str(event.data.get("name", "?"))] = event.data


def _ended(run: Progress, event: Event) -> None:
    run.ended, run.training.is_paused = event, False
    for step in run.steps.values():
        if step.state == "active":
            step.state = "stopped"


_QUIET = frozenset({"step.progress", "train.step", "train.estimate", "train.actual", "eval.batch"})
_HANDLERS = {
    "run.start": _run_start,
    "step.start": _step_start,
    "step.progress": _step_progress,
    "step.done": _step_done,
    "train.step": _train_step,
    "train.held_out": _held_out,
    "train.checkpoint": _checkpoint,
    "train.gate": _gate,
    "train.order": _order,
    "train.estimate": _estimate,
    "train.actual": _actual,
    "eval.batch": _eval_batch,
    "scorecard": _scorecard,
    "verdict": _verdict,
    "fidelity": _fidelity,
    "artifact": _artifact,
    "run.done": _ended,
    "run.failed": _ended,
    "run.cancelled": _ended,
}
