"""Base + adapter → one checkpoint, tensor by tensor, never quantized again."""

from __future__ import annotations

import math
import re
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from harness.errors import ModelError
from harness.export.architectures import read_config
from harness.export.weights import (
    WEIGHTS,
    Planned,
    TensorPlace,
    read_float32,
    read_header,
    read_places,
    read_raw,
    write_safetensors,
)
from harness.files import folder_written_whole, read_json, write_json
from harness.models.identity import TOKENIZER_FILES

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
COPIED_FILES = ("generation_config.json", "chat_template.jinja", *TOKENIZER_FILES)

_PART = re.compile(r"^base_model\.model\.(?P<module>.+)\.lora_(?P<part>[AB])(\.default)?\.weight$")
_F16_MAX = 65504.0
_UNSUPPORTED = {
    "use_dora": "DoRA scales whole columns: merge it with PEFT first",
    "modules_to_save": "whole trained modules",
    "fan_in_fan_out": "transposed layers",
    "lora_bias": "a bias in B",
    "layer_replication": "repeated layers",
    "trainable_token_indices": "trained token rows",
}


class MergeReport(NamedTuple):
    """What was written."""

    path: Path
    onto: str
    merged: int
    """Tensors that an adapter changed."""
    rounded: int
    """Tensors that hold NF4 values, changed by an adapter or not; 0 onto 16 bits."""
    storage_error_frac: float
    """Root mean square of what storing in F16 took from the changed tensors, as a share of their own."""
    bytes: int
    seconds: float


class _Factors(NamedTuple):
    """One adapter: the layer's weight changes by `scale · B @ A`."""

    a: TensorPlace
    """(rank, in)"""
    b: TensorPlace
    """(out, rank)"""
    scale: float


@dataclass(slots=True)
class _Loss:
    """Sums for `storage_error_frac`."""

    error: float = 0.0
    signal: float = 0.0


def merge(
    base: Path,
    adapter: Path,
    out: Path,
    *,
    onto: Literal["16bit", "nf4"],
    nf4_dtype: Literal["bfloat16", "float32"] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> MergeReport:
    """Writes the checkpoint `out` = base + adapter, computed in float32 and whole or absent.

    Onto `16bit` the base is as it is on disk. Onto `nf4` its linear layers first get the values that
    QLoRA trained against: NF4 with double quantization and back, in `nf4_dtype` (None: what training
    computes in on this machine). Changed tensors are stored in F16, which loses eight times less than
    BF16 and is what the GGUF will hold; the others keep the base's bytes.

    Raises:
        ModelError: an adapter that is no plain LoRA, or does not fit the base, or values beyond F16.
    """
    started = time.monotonic()
    places = read_places(base)
    factors = read_factors(adapter, places)
    rounded = _linear_weights(base, places) if onto == "nf4" else frozenset[str]()
    loss = _Loss()
    dtype = (nf4_dtype or training_dtype()) if rounded else "float32"
    planned = {
        name: _planned(place, factors.get(name), dtype if name in rounded else None, loss)
        for name, place in places.items()
    }
    with folder_written_whole(out) as part:
        for done, _ in enumerate(write_safetensors(part / WEIGHTS, planned), start=1):
            if on_progress:
                on_progress(done, len(planned))
        _copy_documents(base, part)
    error = math.sqrt(loss.error / loss.signal) if loss.signal else 0.0
    size = (out / WEIGHTS).stat().st_size
    return MergeReport(out, onto, len(factors), len(rounded), error, size, time.monotonic() - started)


def training_dtype() -> Literal["bfloat16", "float32"]:
    """The type that training computes in here: bfloat16 where the hardware multiplies it."""
    import torch

    cpu = torch.cpu
    has_bfloat16 = (
        torch.cuda.is_available() or cpu._is_avx512_bf16_supported() or cpu._is_amx_tile_supported()
    )
    return "bfloat16" if has_bfloat16 else "float32"


def read_factors(adapter: Path, places: Mapping[str, TensorPlace]) -> dict[str, _Factors]:
    """The adapter's factors by the name of the weight that they change.

    Raises:
        ModelError: no plain LoRA, a tensor without its partner, or one that does not fit the base.
    """
    config = read_json(adapter / ADAPTER_CONFIG)
    _refuse_unsupported(adapter, config)
    parts: dict[str, dict[str, TensorPlace]] = {}
    for place in read_header(adapter / ADAPTER_WEIGHTS):
        found = _PART.match(place.name)
        if found is None:
            raise ModelError(f"{adapter}: tensor {place.name} is no LoRA factor of a linear layer")
        parts.setdefault(found["module"], {})[found["part"]] = place
    if not parts:
        raise ModelError(f"{adapter}: holds no LoRA factors")
    return {
        f"{module}.weight": _fitting(adapter, config, module, pair, places)
        for module, pair in sorted(parts.items())
    }


def _refuse_unsupported(adapter: Path, config: Mapping[str, Any]) -> None:
    if config.get("peft_type") != "LORA":
        raise ModelError(f"{adapter / ADAPTER_CONFIG}: peft_type = {config.get('peft_type')}; wanted LORA")
    for key, what in _UNSUPPORTED.items():
        if config.get(key):
            raise ModelError(
                f"{adapter / ADAPTER_CONFIG}: {key} = {config[key]}; can't be merged here: {what}"
            )
    if config.get("bias", "none") != "none":
        raise ModelError(f"{adapter / ADAPTER_CONFIG}: bias = {config['bias']}; wanted none")


def _fitting(
    adapter: Path,
    config: Mapping[str, Any],
    module: str,
    pair: Mapping[str, TensorPlace],
    places: Mapping[str, TensorPlace],
) -> _Factors:
    name = f"{module}.weight"
    if pair.keys() != {"A", "B"}:
        raise ModelError(f"{adapter}: {module} has lora_{next(iter(pair))} without its partner")
    if name not in places:
        raise ModelError(f"{adapter}: {module} is no layer of the base")
    a, b = pair["A"], pair["B"]
    rank = int(_by_pattern(config.get("rank_pattern"), module, config["r"]))
    wanted = ((rank, places[name].shape[-1]), (places[name].shape[0], rank))
    if (a.shape, b.shape) != wanted:
        raise ModelError(
            f"{adapter}: {module} has A {a.shape} and B {b.shape}; "
            f"rank {rank} on this base wants {wanted[0]} and {wanted[1]}"
        )
    alpha = float(_by_pattern(config.get("alpha_pattern"), module, config["lora_alpha"]))
    return _Factors(a, b, alpha / (math.sqrt(rank) if config.get("use_rslora") else rank))


def _by_pattern(patterns: Mapping[str, Any] | None, module: str, default: Any) -> Any:
    """The value whose pattern ends the module's name, as PEFT matches them: the first that fits."""
    for pattern, value in (patterns or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return value
    return default


def _linear_weights(base: Path, places: Mapping[str, TensorPlace]) -> frozenset[str]:
    """The weights that QLoRA rounds: matrices of the blocks, never the embedding or the output layer."""
    blocks = int(read_config(base)["num_hidden_layers"])
    prefixes = tuple(f"model.layers.{index}." for index in range(blocks))
    return frozenset(
        name for name, place in places.items() if len(place.shape) == 2 and name.startswith(prefixes)
    )


def _planned(place: TensorPlace, factors: _Factors | None, nf4_dtype: str | None, loss: _Loss) -> Planned:
    if factors is None and nf4_dtype is None:
        return Planned(place.dtype, place.shape, partial(read_raw, place))
    return Planned("F16", place.shape, partial(_changed, place, factors, nf4_dtype, loss))


def _changed(place: TensorPlace, factors: _Factors | None, nf4_dtype: str | None, loss: _Loss) -> bytes:
    import numpy as np

    weight = read_float32(place)
    if nf4_dtype is not None:
        weight = _through_nf4(weight, nf4_dtype)
    if factors is not None:
        weight = weight + np.float32(factors.scale) * (read_float32(factors.b) @ read_float32(factors.a))
    if not np.isfinite(weight).all() or np.abs(weight).max(initial=0.0) > _F16_MAX:
        raise ModelError(f"{place.name}: the merged weight is not finite or beyond F16's {_F16_MAX:g}")
    stored = weight.astype("<f2")
    loss.error += float(np.square(stored.astype(np.float32) - weight, dtype=np.float64).sum())
    loss.signal += float(np.square(weight, dtype=np.float64).sum())
    return stored.tobytes()


def _through_nf4(weight: NDArray[np.float32], dtype: str) -> NDArray[np.float32]:
    import torch

    from harness.models.nf4 import round_to_nf4

    rounded = round_to_nf4(torch.from_numpy(weight).to(getattr(torch, dtype)))
    values: NDArray[np.float32] = rounded.float().numpy()
    return values


def _copy_documents(base: Path, part: Path) -> None:
    config = read_config(base)
    config.pop("torch_dtype", None)
    write_json(part / "config.json", {**config, "dtype": "float16"})
    for name in COPIED_FILES:
        if (base / name).is_file():
            shutil.copyfile(base / name, part / name)
