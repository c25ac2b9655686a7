"""Base + adapter → one checkpoint, tensor by tensor, never quantized again."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from harness.errors import ModelError
from harness.export.architectures import read_config
from harness.export.changes import Change, check_base, is_whole, read_changes
from harness.export.weights import (
    WEIGHTS,
    Planned,
    TensorPlace,
    read_float32,
    read_places,
    read_raw,
    write_safetensors,
)
from harness.files import folder_written_whole, write_json
from harness.models.identity import TOKENIZER_FILES

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

COPIED_FILES = ("generation_config.json", "chat_template.jinja", *TOKENIZER_FILES)

_F16_MAX = 65504.0


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
    BF16 and is what the GGUF will hold; the others keep the base's bytes. There is no way to a merge that is
    quantized again: it loses what was trained.

    Raises:
        ModelError: an adapter that can't be merged or does not fit the base, a base that is quantized itself,
            or values beyond F16.
        IntegrityError: the adapter names another base.
    """
    started = time.monotonic()
    places = read_places(base)
    _refuse_quantized(base, adapter, onto)
    changes = read_changes(adapter, places)
    check_base(adapter, base)
    rounded = _linear_weights(base, places) if onto == "nf4" else frozenset[str]()
    loss = _Loss()
    dtype = (nf4_dtype or training_dtype()) if rounded else "float32"
    planned = {
        name: _planned(place, changes.get(name), dtype if name in rounded else None, loss)
        for name, place in places.items()
    }
    with folder_written_whole(out) as part:
        for done, _ in enumerate(write_safetensors(part / WEIGHTS, planned), start=1):
            if on_progress:
                on_progress(done, len(planned))
        _copy_documents(base, part)
    error = math.sqrt(loss.error / loss.signal) if loss.signal else 0.0
    size = (out / WEIGHTS).stat().st_size
    return MergeReport(out, onto, len(changes), len(rounded), error, size, time.monotonic() - started)


def training_dtype() -> Literal["bfloat16", "float32"]:
    """The type that training computes in here: bfloat16 where the hardware multiplies it."""
    import torch

    cpu = torch.cpu
    has_bfloat16 = (
        torch.cuda.is_available() or cpu._is_avx512_bf16_supported() or cpu._is_amx_tile_supported()
    )
    return "bfloat16" if has_bfloat16 else "float32"


def _linear_weights(base: Path, places: Mapping[str, TensorPlace]) -> frozenset[str]:
    """The weights that QLoRA rounds: matrices of the blocks, never the embedding or the output layer."""
    blocks = int(read_config(base)["num_hidden_layers"])
    prefixes = tuple(f"model.layers.{index}." for index in range(blocks))
    return frozenset(
        name for name, place in places.items() if len(place.shape) == 2 and name.startswith(prefixes)
    )


def _refuse_quantized(base: Path, adapter: Path, onto: str) -> None:
    if "quantization_config" in read_config(base):
        raise ModelError(
            f"{base}: the base is quantized: a merge onto it would round away what was trained",
            hint="merge onto the 16-bit checkpoint that it was made from",
        )
    if onto not in ("16bit", "nf4"):
        raise ValueError(f"onto = {onto!r}; wanted 16bit or nf4")
    if onto == "nf4" and is_whole(adapter):
        raise ModelError(
            f"{adapter}: all weights were trained, in 16 bits or more: there is no NF4 base under them"
        )


def _planned(place: TensorPlace, change: Change | None, nf4_dtype: str | None, loss: _Loss) -> Planned:
    if change is None and nf4_dtype is None:
        return Planned(place.dtype, place.shape, partial(read_raw, place))
    # Vectors, such as norms, stay in float32: they are small, and the GGUF holds them so.
    dtype = "F16" if len(place.shape) > 1 else "F32"
    return Planned(dtype, place.shape, partial(_changed, place, change, nf4_dtype, loss))


def _changed(place: TensorPlace, change: Change | None, nf4_dtype: str | None, loss: _Loss) -> bytes:
    import numpy as np

    weight = read_float32(place)
    rounding = None if nf4_dtype is None else partial(_through_nf4, dtype=nf4_dtype)
    if change is not None:
        weight = change.apply(weight, rounding)
    elif rounding is not None:
        weight = rounding(weight)
    if not np.isfinite(weight).all() or np.abs(weight).max(initial=0.0) > _F16_MAX:
        raise ModelError(f"{place.name}: the merged weight is not finite or beyond F16's {_F16_MAX:g}")
    stored = weight.astype("<f2" if weight.ndim > 1 else "<f4")
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
