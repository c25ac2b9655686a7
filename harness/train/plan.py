"""What to train, what came of it, and what makes two training runs the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.files import digest_json, read_json, write_json
from harness.models.base import Message, Prompt
from harness.specs.recipe import Tune
from harness.train.batches import Example
from harness.train.distill import teacher_identity

OnEvent = Callable[[str, dict[str, Any]], None]
UNDECISIVE = ("checkpoint_every", "processes", "cost")
"""Settings of `tune` under which the adapter comes out the same up to rounding."""


@dataclass(frozen=True, slots=True)
class TrainPlan:
    """What to train, on what, and how."""

    base: Path
    """A folder with a Transformers checkpoint."""
    examples: Sequence[Example]
    held_out: Sequence[Example]
    """Never trained on; their loss is measured at each checkpoint. May be empty."""
    tune: Tune
    threads: int | None = None
    """Of torch: sums are cut by it, so the same bits need the same number. None leaves what is set."""


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
    chosen_step: int
    """The step whose adapter left: the last one, unless gates liked an earlier one better."""
    expected: dict[str, Any]
    """Memory by account, seconds, energy and cost, before the first step."""
    actual: dict[str, Any]
    """The same, as it came."""
    orders: Sequence[str] = ()
    """What a person asked for while it trained: with any, the recipe alone does not give this adapter."""


def plan_digest(plan: TrainPlan, base_identity: str) -> str:
    """What makes two training runs the same: base, settings and every example."""
    tune = {key: value for key, value in plan.tune.model_dump(mode="json").items() if key not in UNDECISIVE}
    examples = [[asdict(example) for example in part] for part in (plan.examples, plan.held_out)]
    teacher = {"teacher": teacher_identity(plan.tune.distill.teacher)} if plan.tune.distill else {}
    return digest_json({"base": base_identity, "tune": tune, "examples": examples, **teacher})


def write_plan(plan: TrainPlan, path: Path) -> None:
    """The plan as a JSON file, for another process."""
    parts = {name: [asdict(example) for example in getattr(plan, name)] for name in ("examples", "held_out")}
    tune = plan.tune.model_dump(mode="json")
    write_json(path, {"base": str(plan.base), "tune": tune, "threads": plan.threads, **parts})


def read_plan(path: Path) -> TrainPlan:
    """The plan that `write_plan` wrote."""
    found = read_json(path)
    examples, held_out = ([_example(one) for one in found[name]] for name in ("examples", "held_out"))
    return TrainPlan(Path(found["base"]), examples, held_out, Tune(**found["tune"]), found["threads"])


def _example(found: dict[str, Any]) -> Example:
    prompt = found["prompt"]
    messages = tuple(Message(*message) for message in prompt["messages"])
    return Example(**{**found, "prompt": Prompt(**{**prompt, "messages": messages})})
