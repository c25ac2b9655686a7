"""What watches over a training run: gates on development records, processes, what an hour costs."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from harness.specs.base import Document


class TrainGates(Document):
    """Gates inside training: checkpoints scored on development records by the suite's own engine.

    They steer which checkpoint leaves training, and prove nothing: the gates of the recipe do, on sealed records.
    """

    every: Annotated[int, Field(ge=1)] = 25
    """Optimizer steps between gates; the untrained adapter and the last step are scored too."""
    suites: tuple[str, ...] = ()
    """Names of the recipe's suites whose mean counts; empty means the first one."""
    metric: str = "accuracy"
    """A metric of the scorecard of which more is better."""
    min_gain: Annotated[float, Field(ge=-1.0, le=1.0)] = 0.0
    """A gate fails unless it is above the best one before it by more than this; below 0, a drop is let through."""
    patience: Annotated[int, Field(ge=1)] = 1
    """Gates that must fail in a row before `on_fail` acts."""
    on_fail: Literal["continue", "stop", "roll_back"] = "continue"
    """`roll_back` goes on from the best checkpoint with half the learning rate, three times at most."""
    forgetting: str | None = None
    """A suite of the recipe that training must not spoil: it vetoes a checkpoint that lost more than `max_drop`."""
    max_drop: Annotated[float, Field(ge=0.0, le=1.0)] = 0.05
    """Largest drop of the metric on `forgetting` from the untrained adapter's."""


class Cost(Document):
    """What a run may take, and what it costs; each is optional, and unknown stays unknown."""

    per_hour: Annotated[float, Field(ge=0)] | None = None
    """Price of an hour of this machine."""
    per_kwh: Annotated[float, Field(ge=0)] | None = None
    """Price of a kilowatt hour, where the machine is one's own."""
    watts: Annotated[float, Field(gt=0)] | None = None
    """What the machine draws while it trains, where no counter can be read."""
    currency: str = ""
    max_cost: Annotated[float, Field(gt=0)] | None = None
    """Training does not start where the estimate is above this."""
    max_hours: Annotated[float, Field(gt=0)] | None = None
    memory_mb: Annotated[int, Field(ge=64)] | None = None
    """Memory that training may take; None: what the machine has free."""
