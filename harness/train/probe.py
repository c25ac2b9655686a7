"""Measures a training run: one step before it, that changes nothing, and what it took, after it."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from harness.errors import RefusedError
from harness.files import read_json, write_json
from harness.train.batches import batches_of, micro_batches
from harness.train.estimate import (
    MB,
    Estimate,
    Load,
    Memory,
    Probe,
    Shape,
    energy_j,
    estimate,
    memory,
    over_budget,
    price,
    shape_of,
    spelled,
)
from harness.train.loss import accumulate
from harness.train.optimizers import optimizer_kind
from harness.train.selection import undisturbed
from harness.train.telemetry import EnergyMeter, peak_memory_mb, reset_peak_memory, resident_mb

if TYPE_CHECKING:
    from harness.train.loop import Loop

ESTIMATE = "estimate.json"
SPARE_FRAC = 0.1
"""Of the free memory, that the estimate leaves alone: allocators round up."""


class Budget(NamedTuple):
    """What was estimated, and the meters that run since."""

    expected: dict[str, Any]
    energy: EnergyMeter
    resident_mb: float
    """Of the process before its first step."""


def open_budget(loop: Loop) -> Budget:
    """Estimates the run, or reads what was estimated when it began; prepares the model to fit.

    Raises:
        RefusedError: the estimate is above what the recipe allows.
    """
    path = loop.work.folder / ESTIMATE
    if loop.ranks.agree(path.exists()):
        expected = read_json(path)
    else:
        found = _measured(loop)
        if problems := over_budget(found, loop.tune.cost):
            raise RefusedError(
                f"training would take {'; '.join(problems)}", hint="raise the limit, or train fewer tokens"
            )
        expected = loop.ranks.agree(found.to_json())
        if loop.ranks.is_first:
            write_json(path, expected)
        loop.on_event("train.estimate", expected)
        loop.on_event("note", {"level": "info", "text": found.summary()})
    if expected["recomputes"]:
        recompute(loop)
    reset_peak_memory()
    return Budget(expected, EnergyMeter(), resident_mb())


def recompute(loop: Loop) -> None:
    """From now on each layer's activations are computed again in the backward."""
    model: Any = loop.adapted.model
    settings = {"use_reentrant": False}
    if hasattr(model, "activation_checkpointing_enable"):
        model.activation_checkpointing_enable(settings)
    else:  # the name in earlier releases of transformers
        model.gradient_checkpointing_enable(settings)
    model.train()


def _measured(loop: Loop) -> Estimate:
    rows, tune = loop.work.rows, loop.tune
    needed = {again: _memory(loop, recomputes=again) for again in (False, True)}
    available = _available_mb(loop)
    is_tight = available is not None and needed[False].total_mb > available
    recomputes = tune.recompute == "always" or (tune.recompute == "auto" and is_tight)
    epochs = loop.total / math.ceil(len(rows) / tune.batch)
    tokens = round(epochs * sum(len(row.ids) for row in rows))
    return estimate(
        tokens, _probe(loop), needed[recomputes], tune.cost, available_mb=available, recomputes=recomputes
    )


def _memory(loop: Loop, *, recomputes: bool) -> Memory:
    adapted, tune = loop.adapted, loop.tune
    device = adapted.device.type
    return memory(
        _shape(loop), tune, _heaviest(loop),
        optimizer=optimizer_kind(tune, device), dtype_bytes=adapted.dtype.itemsize,
        is_nf4_packed=tune.is_nf4 and device == "cuda", is_lean=adapted.is_packed, recomputes=recomputes,
    )  # fmt: skip


def _shape(loop: Loop) -> Shape:
    import torch

    model: Any = loop.adapted.model
    trainable = sum(parameter.numel() for parameter in loop.adapted.parameters.values())
    head = model.get_output_embeddings()
    bases = [
        module
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and module is not head and ".lora_" not in name
    ]
    frozen = sum(_numel(parameter) for parameter in model.parameters() if not parameter.requires_grad)
    linear = sum(_numel(module.weight) for module in bases)
    return shape_of(model.config, parameters=frozen, linear=linear, trainable=trainable)


def _numel(parameter: Any) -> int:
    """Weights, also of a 4-bit tensor, whose bytes hold two."""
    state = getattr(parameter, "quant_state", None)
    return math.prod(state.shape) if state is not None else int(parameter.numel())


def _heaviest(loop: Loop) -> Load:
    """The micro-batch that keeps most."""
    return max((_load(rows) for rows in _micro_batches(loop)), key=lambda load: (load.tokens, load))


def _micro_batches(loop: Loop) -> list[Sequence[Any]]:
    rows, tune = loop.work.rows, loop.tune
    order = batches_of(rows, batch=tune.batch, seed=tune.seed, epoch=0)
    return [
        some
        for batch in order
        for some in micro_batches(loop.ranks.share([rows[at] for at in batch]), loop.micro)
    ]


def _load(rows: Sequence[Any]) -> Load:
    longest = max(len(row.ids) for row in rows)
    return Load(len(rows), longest, longest * len(rows), sum(row.supervised_tok for row in rows))


def _probe(loop: Loop) -> Probe:
    """One forward and backward of a micro-batch of middle weight; the first one warms up."""
    some = sorted(_micro_batches(loop), key=lambda rows: sum(len(row.ids) for row in rows))
    rows = some[len(some) // 2]
    work = loop.work
    with undisturbed():
        for _ in range(2):
            meter, began = EnergyMeter(), time.perf_counter()
            accumulate(loop.adapted, work.objective, rows, micro=loop.micro, pad_id=work.pad_id)
            seconds = time.perf_counter() - began
    loop.optimizer.zero_grad(set_to_none=True)
    return Probe(seconds, sum(len(row.ids) for row in rows) * loop.ranks.world, meter.joules())


def _available_mb(loop: Loop) -> float | None:
    """Memory that the run may have, the base that is loaded already included."""
    import torch

    if loop.tune.cost.memory_mb is not None:
        return float(loop.tune.cost.memory_mb)
    if loop.adapted.device.type == "cuda":
        free, _ = torch.cuda.mem_get_info()
        return (free + torch.cuda.memory_reserved()) / MB * (1 - SPARE_FRAC)
    try:
        found = Path("/proc/meminfo").read_text()
    except OSError:
        return None
    free_kb = next(int(line.split()[1]) for line in found.splitlines() if line.startswith("MemAvailable"))
    weights = sum(p.numel() * p.element_size() for p in loop.adapted.model.parameters())
    return (free_kb / 1024 + weights / MB) * (1 - SPARE_FRAC)


def close_budget(loop: Loop, budget: Budget) -> dict[str, Any]:
    """What the run took, beside what was expected; told to the journal.

    Activations and logits are one number here: what the process held at its peak above what it held before its
    first step. Energy is that of this process's part of a run that was interrupted.
    """
    cost, now = loop.tune.cost, loop.progress
    measured = _tensors_mb(loop)
    beyond = max(0.0, peak_memory_mb() - budget.resident_mb - measured["optimizer_mb"])
    joules = energy_j(now.seconds, budget.energy.joules(), cost)
    actual = {
        **measured, "activations_and_logits_mb": round(beyond, 2),
        "total_mb": round(sum(measured.values()) + beyond, 2), "tokens": now.tokens, "seconds": round(now.seconds, 2),
        "energy_wh": None if joules is None else round(joules / 3600, 4), "cost": price(now.seconds, joules, cost),
        "currency": cost.currency,
    }  # fmt: skip
    loop.on_event("train.actual", {"expected": budget.expected, "actual": actual})
    text = f"training took {spelled(actual)}; expected {spelled(budget.expected)}"
    loop.on_event("note", {"level": "info", "text": text})
    return actual


def _tensors_mb(loop: Loop) -> dict[str, float]:
    parameters = list(loop.adapted.model.parameters())
    state = [
        value
        for of in loop.optimizer.state.values()
        for value in of.values()
        if hasattr(value, "element_size")
    ]
    trained = sum(p.numel() * p.element_size() for p in loop.adapted.parameters.values())
    accounts = {
        "weights_mb": sum(p.numel() * p.element_size() for p in parameters if not p.requires_grad),
        "adapters_mb": trained,
        "gradients_mb": trained,
        "optimizer_mb": sum(value.numel() * value.element_size() for value in state),
    }
    return {name: round(count / MB, 2) for name, count in accounts.items()}
