"""What a training run will take, before it starts: memory by account, time, energy and money.

All of it is arithmetic on shapes and on one measured step; `harness.train.probe` measures.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

from harness.specs.training import Cost
from harness.specs.tune import Tune
from harness.train.objectives import LOGIT_ROWS

MB = 2**20
NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)
"""A weight in NF4 with double quantization: 4 bits, 8 bits for every 64 weights, 32 bits for every 256 of those
(QLoRA, Dettmers et al., 2023, section 3)."""
ADAM_BYTES = {"adamw": 8.0, "adamw_8bit": 2.0, "paged_adamw_8bit": 2.0}
"""Two moments a trained number."""
J_PER_KWH = 3.6e6


class Shape(NamedTuple):
    """A decoder of the Llama family, in numbers."""

    layers: int
    hidden: int
    heads: int
    key_heads: int
    head_size: int
    intermediate: int
    vocabulary: int
    parameters: int
    """All weights of the base, tied ones once."""
    linear: int
    """Those of them that quantization touches: of all linear layers but the output head."""
    trainable: int


def shape_of(config: Any, *, parameters: int, linear: int, trainable: int) -> Shape:
    """The shape that a Transformers config describes."""
    heads = int(config.num_attention_heads)
    head_size = getattr(config, "head_dim", None) or config.hidden_size // heads
    return Shape(
        int(config.num_hidden_layers), int(config.hidden_size), heads, int(config.num_key_value_heads),
        int(head_size), int(config.intermediate_size), int(config.vocab_size), parameters, linear, trainable,
    )  # fmt: skip


class Load(NamedTuple):
    """What one forward and backward pass carries."""

    rows: int
    longest_tok: int
    tokens: int
    """Of the heaviest micro-batch, padding included."""
    supervised_tok: int


@dataclass(frozen=True, slots=True)
class Memory:
    """Megabytes (2**20 bytes) by what they are for."""

    weights_mb: float
    adapters_mb: float
    gradients_mb: float
    optimizer_mb: float
    activations_mb: float
    logits_mb: float

    @property
    def total_mb(self) -> float:
        return float(sum(getattr(self, field.name) for field in fields(self)))

    def to_json(self) -> dict[str, float]:
        by_account = {field.name: round(getattr(self, field.name), 2) for field in fields(self)}
        return {**by_account, "total_mb": round(self.total_mb, 2)}


def memory(
    shape: Shape,
    tune: Tune,
    load: Load,
    *,
    optimizer: str,
    dtype_bytes: int,
    is_nf4_packed: bool,
    is_lean: bool,
    recomputes: bool,
) -> Memory:
    """What the run needs at its peak.

    `is_nf4_packed` says that linear weights stay in 4 bits; `is_lean` that attention and norms are those of
    `harness.train.packed` and `lean`, which keep less for the backward but the attention weights.
    """
    wide = shape.parameters - shape.linear
    linear_bytes = NF4_BYTES if is_nf4_packed else dtype_bytes
    trained = shape.trainable / MB
    return Memory(
        weights_mb=(wide * dtype_bytes + shape.linear * linear_bytes) / MB,
        adapters_mb=4 * trained,
        gradients_mb=4 * trained,
        optimizer_mb=ADAM_BYTES[optimizer] * trained,
        activations_mb=_activations(shape, tune, load, dtype_bytes, is_lean, recomputes) / MB,
        logits_mb=_logits(shape, load, dtype_bytes) / MB,
    )


def _activations(
    shape: Shape, tune: Tune, load: Load, dtype_bytes: int, is_lean: bool, recomputes: bool
) -> float:
    """Bytes that the forward keeps for the backward; with recomputing, one layer's and every layer's input."""
    layer = load.tokens * _layer_token_bytes(shape, tune, dtype_bytes, is_lean)
    if is_lean:  # attention weights are kept, each query head's row over its keys
        layer += load.rows * shape.heads * load.longest_tok**2 * dtype_bytes
    inputs = load.tokens * shape.hidden * dtype_bytes * shape.layers
    return layer + inputs if recomputes else layer * shape.layers


def _layer_token_bytes(shape: Shape, tune: Tune, dtype_bytes: int, is_lean: bool) -> float:
    """Of one token in one layer: what each operation's backward needs."""
    queries, keys = shape.heads * shape.head_size, shape.key_heads * shape.head_size
    norms = 2 * shape.hidden * (1 if is_lean else 1 + 4 / dtype_bytes)  # Transformers' own keeps float32 too
    inputs = 2 * shape.hidden + queries + shape.intermediate  # of q/k/v, gate/up, o, down
    attention = 2 * (queries + 2 * keys)  # before and after the rotation
    gate = (2 if is_lean else 3) * shape.intermediate
    adapters = tune.rank * len(tune.targets) if tune.is_lora else 0
    casts = 0 if is_lean or not tune.is_lora else (4 / dtype_bytes) * inputs  # PEFT's float32 copies
    return (norms + inputs + attention + gate + adapters + casts) * dtype_bytes


def _logits(shape: Shape, load: Load, dtype_bytes: int) -> float:
    """Logits exist for supervised rows, a chunk at a time: as computed, in float32, and their gradients."""
    rows = min(load.supervised_tok, LOGIT_ROWS)
    return float(rows * shape.vocabulary * 2 * (dtype_bytes + 4))


class Probe(NamedTuple):
    """One measured step, that changed nothing."""

    seconds: float
    tokens: int
    joules: float | None


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a whole run will take; None is unknown."""

    memory: Memory
    available_mb: float | None
    recomputes: bool
    tokens: int
    """Prompt and answer tokens over all epochs."""
    seconds: float
    energy_wh: float | None
    cost: float | None
    currency: str

    @property
    def fits(self) -> bool | None:
        return None if self.available_mb is None else self.memory.total_mb <= self.available_mb

    def to_json(self) -> dict[str, Any]:
        plain = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "memory"}
        return {**self.memory.to_json(), **plain, "fits": self.fits}

    def summary(self) -> str:
        """One line for the journal."""
        return f"training needs {spelled(self.to_json())}{', computing activations again' if self.recomputes else ''}"


def spelled(found: Mapping[str, Any]) -> str:
    """Memory, time, energy and money in words; what is unknown is left out."""
    parts = [f"{found['total_mb']:,.0f} MB"] if found.get("total_mb") is not None else []
    parts.append(f"{found['seconds']:,.0f} s")
    if found.get("energy_wh") is not None:
        parts.append(f"{found['energy_wh']:,.2f} Wh")
    if found.get("cost") is not None:
        parts.append(f"{found['cost']:,.2f} {found.get('currency', '')}".rstrip())
    return ", ".join(parts)


def estimate(
    tokens: int,
    probe: Probe,
    memory_needed: Memory,
    cost: Cost,
    *,
    available_mb: float | None,
    recomputes: bool,
) -> Estimate:
    """The probe's speed over all tokens."""
    scale = tokens / probe.tokens
    seconds = probe.seconds * scale
    joules = energy_j(seconds, None if probe.joules is None else probe.joules * scale, cost)
    return Estimate(
        memory_needed, available_mb, recomputes, tokens, round(seconds, 2), _wh(joules),
        price(seconds, joules, cost), cost.currency,
    )  # fmt: skip


def energy_j(seconds: float, measured_j: float | None, cost: Cost) -> float | None:
    """What the counters said, else what the recipe says that the machine draws."""
    if measured_j is not None:
        return measured_j
    return None if cost.watts is None else cost.watts * seconds


def price(seconds: float, joules: float | None, cost: Cost) -> float | None:
    """Hours and kilowatt hours by their prices; None where the recipe names none, or energy is unknown."""
    if cost.per_hour is None and cost.per_kwh is None:
        return None
    if cost.per_kwh is not None and joules is None:
        return None
    by_hour = (cost.per_hour or 0.0) * seconds / 3600
    return round(by_hour + (cost.per_kwh or 0.0) * (joules or 0.0) / J_PER_KWH, 6)


def over_budget(found: Estimate, cost: Cost) -> list[str]:
    """What the estimate is above of, in words; empty where it fits the budget."""
    problems = []
    if cost.max_hours is not None and found.seconds > cost.max_hours * 3600:
        problems.append(f"{found.seconds / 3600:.2f} hours, and tune.cost.max_hours is {cost.max_hours:g}")
    if cost.max_cost is not None and found.cost is not None and found.cost > cost.max_cost:
        problems.append(f"{found.cost:.2f} {found.currency}, and tune.cost.max_cost is {cost.max_cost:g}")
    return problems


def _wh(joules: float | None) -> float | None:
    return None if joules is None else round(joules / 3600, 4)
