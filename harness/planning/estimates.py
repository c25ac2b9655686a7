"""What a planned run will take: memory by arithmetic on shapes, time from runs of this machine; else unknown."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from harness.errors import DataError
from harness.files import read_json
from harness.jobs.store import list_runs
from harness.specs.situation import EMBEDDED, Plan
from harness.specs.tune import Tune
from harness.train.estimate import Load, Shape, memory

BF16_BYTES = 2
_EMBEDDED_CONFIG: Mapping[str, Any] = {
    "num_hidden_layers": 30, "hidden_size": 576, "num_attention_heads": 9, "num_key_value_heads": 3,
    "intermediate_size": 1536, "vocab_size": 49152, "tie_word_embeddings": True,
}  # fmt: skip
"""SmolLM2-135M-Instruct's config.json."""
MB = 2**20


class Estimates(NamedTuple):
    """None is unknown."""

    parameters: int | None
    f16_mb: float | None
    """Of the 16-bit file."""
    q8_0_mb: float | None
    """34 bytes for every 32 weights; the smaller types depend on the tensors' shapes."""
    training_mb: float | None
    """At most: with the longest prompts, a 16-bit base and nothing computed again; training measures by itself."""
    seconds: float | None
    """Of training, at the pace of the newest run of this base and method on this machine."""
    measured_by: str | None
    """That run."""
    cost: float | None


def estimate(plan: Plan, home: Path, *, n_train: int | None, per_hour: float | None = None) -> Estimates:
    """What training and the files of the plan will take."""
    recipe = plan.recipe
    tune = Tune.model_validate(recipe["tune"])
    config = _config(recipe["base"])
    pace = _pace(home, recipe["base"], tune)
    seconds = None if pace is None or n_train is None else pace[1] * n_train * tune.epochs
    cost = None if seconds is None or per_hour is None else round(seconds / 3600 * per_hour, 4)
    run = pace[0] if pace and seconds is not None else None
    if config is None:
        return Estimates(None, None, None, None, seconds, run, cost)
    shape = shape_of_config(config, tune)
    rows = tune.micro_batch or tune.batch
    load = Load(rows, tune.max_tokens, rows * tune.max_tokens, rows * tune.max_tokens)
    needed = memory(
        shape, tune, load, optimizer="adamw", dtype_bytes=BF16_BYTES, is_nf4_packed=False, is_lean=False,
        recomputes=False,
    )  # fmt: skip
    f16_mb, q8_0_mb = (shape.parameters * size / MB for size in (BF16_BYTES, 34 / 32))
    return Estimates(
        shape.parameters, round(f16_mb, 1), round(q8_0_mb, 1), round(needed.total_mb, 1), seconds, run, cost
    )


def base_mb(base: str) -> float | None:
    """The base's weights in 16 bits; None where its shape is not on this machine."""
    config = _config(base)
    return None if config is None else shape_of_config(config, Tune()).parameters * BF16_BYTES / MB


def _config(base: str) -> Mapping[str, Any] | None:
    if base == EMBEDDED:
        return _EMBEDDED_CONFIG
    try:
        found = json.loads((Path(base) / "config.json").read_text("utf-8"))
    except (OSError, ValueError):
        return None
    needed = ("num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size", "vocab_size")
    is_decoder = isinstance(found, dict) and all(isinstance(found.get(key), int) for key in needed)
    return found if is_decoder else None


def shape_of_config(config: Mapping[str, Any], tune: Tune) -> Shape:
    """The shape of a decoder of the Llama family, and how many numbers the method trains."""
    layers, hidden, inner = config["num_hidden_layers"], config["hidden_size"], config["intermediate_size"]
    heads = config["num_attention_heads"]
    key_heads = config.get("num_key_value_heads") or heads
    head_size = config.get("head_dim") or hidden // heads
    queries, keys = heads * head_size, key_heads * head_size
    sides = {  # (in, out) of each linear layer
        "q_proj": (hidden, queries), "k_proj": (hidden, keys), "v_proj": (hidden, keys), "o_proj": (queries, hidden),
        "gate_proj": (hidden, inner), "up_proj": (hidden, inner), "down_proj": (inner, hidden),
    }  # fmt: skip
    linear = layers * sum(a * b for a, b in sides.values())
    tables = 1 if config.get("tie_word_embeddings") else 2
    parameters = linear + tables * config["vocab_size"] * hidden + hidden * (2 * layers + 1)
    trained = layers * sum(_trained(tune, sides[name]) for name in tune.targets if name in sides)
    trainable = parameters if tune.method == "full" else trained
    return Shape(
        layers,
        hidden,
        heads,
        key_heads,
        head_size,
        inner,
        config["vocab_size"],
        parameters,
        linear,
        trainable,
    )


def _trained(tune: Tune, side: tuple[int, int]) -> int:
    return tune.rank * sum(side) if tune.is_lora else max(side)


def _pace(home: Path, base: str, tune: Tune) -> tuple[str, float] | None:
    """The newest finished training of this base and method here, and its seconds a record."""
    for run in list_runs(home):
        try:
            asked = read_json(run.folder / "manifest.json")["document"]["recipe"]
            trained = read_json(run.folder / "train.json")
            is_alike = asked["base"] == base and asked["tune"]["method"] == tune.method
            seen = trained["steps"] * asked["tune"]["batch"]
            if is_alike and seen > 0:
                return run.run, trained["seconds"] / seen
        except (DataError, KeyError, TypeError):
            continue
    return None
