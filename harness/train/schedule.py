"""How many steps, and the learning rate of each."""

from __future__ import annotations

import math

from harness.specs.recipe import Tune
from harness.train.batches import steps_an_epoch


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
