"""A Transformers checkpoint → one F16 GGUF file, streamed tensor by tensor."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from harness.errors import ModelError
from harness.export import architectures as arch
from harness.export import vocabulary as vocab
from harness.export.weights import TensorPlace, part_beside, read_float32, read_places, replace_synced

if TYPE_CHECKING:
    import numpy as np
    from gguf import GGUFWriter
    from numpy.typing import NDArray

METADATA_PREFIX = "dragongate."
_F16_MAX = 65504.0
_PIECE = 2**20
"""Numbers that are checked at once."""
_OUTPUT = "lm_head.weight"
_NOT_WEIGHTS = (".rotary_emb.inv_freq",)

Layout = Callable[["NDArray[np.float32]"], "NDArray[np.float32]"]


class ConvertReport(NamedTuple):
    """What was written."""

    path: Path
    bytes: int
    architecture: str
    """As llama.cpp knows it."""
    pre: str
    """llama.cpp's name for what the tokenizer does before it merges."""
    tensors: int
    seconds: float


class _Planned(NamedTuple):
    """One tensor of the file that is being written."""

    name: str
    shape: tuple[int, ...]
    is_half: bool
    read: Callable[[], NDArray[np.float32]]


def convert(
    checkpoint: Path,
    out: Path,
    *,
    metadata: Mapping[str, str],
    pre: str | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> ConvertReport:
    """Writes `out`: matrices in F16, vectors in F32, tokenizer, chat template, and `metadata` as `dragongate.*`.

    The same checkpoint and metadata give the same bytes. `pre` overrides the name of the pre-tokenizer;
    `on_progress` gets (tensors written, tensors in all). A crash leaves what was there before.

    Raises:
        ModelError: a family, tokenizer or option that llama.cpp does not compute the same way, tensors that
            are missing or left over, or a weight that F16 can't hold.
        DataError: a document of the checkpoint is missing or broken.
    """
    started = time.monotonic()
    config = arch.read_config(checkpoint)
    family, shape = arch.architecture_of(checkpoint, config), arch.shape_of(checkpoint, config)
    words = vocab.read_vocabulary(checkpoint, size=shape.vocabulary, pre=pre, normalizers=family.normalizers)
    plan = list(_plan(checkpoint, family, shape, arch.rope_of(config)))
    part = part_beside(out)
    try:
        writer = _writer(part, family.name)
        _describe(writer, metadata)
        arch.write_shape(writer, shape)
        arch.write_rope_scaling(writer, arch.rope_of(config))
        vocab.write_vocabulary(writer, words)
        _write_tensors(writer, plan, on_progress)
        replace_synced(part, out)
    finally:
        part.unlink(missing_ok=True)
    seconds = time.monotonic() - started
    return ConvertReport(out, out.stat().st_size, family.name, words.pre, len(plan), seconds)


def _writer(part: Path, name: str) -> GGUFWriter:
    import gguf

    return gguf.GGUFWriter(part, name)


def _describe(writer: GGUFWriter, metadata: Mapping[str, str]) -> None:
    import gguf

    writer.add_type("model")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    for key, value in sorted(metadata.items()):
        writer.add_string(METADATA_PREFIX + key.removeprefix(METADATA_PREFIX), value)


def _plan(
    checkpoint: Path, family: arch.Architecture, shape: arch.Shape, rope: Mapping[str, object]
) -> Iterator[_Planned]:
    """The tensors of the file, in the order in which they are written."""
    places = {
        name: place for name, place in read_places(checkpoint).items() if not name.endswith(_NOT_WEIGHTS)
    }
    if shape.is_tied:
        places.pop(_OUTPUT, None)
    _check_complete(checkpoint, places, family, shape)
    names = gguf_names(checkpoint, family, shape, list(places))
    factors = arch.rope_factors(rope, shape.head_dim)
    if factors is not None:
        yield _Planned("rope_freqs.weight", factors.shape, False, lambda: factors)
    for name, place in places.items():
        layout = arch.layout(family, shape, name)
        is_half = len(place.shape) > 1
        yield _Planned(names[name], place.shape, is_half, partial(_read, place, layout))


def _read(place: TensorPlace, layout: Layout | None) -> NDArray[np.float32]:
    weight = read_float32(place)
    return layout(weight) if layout else weight


def _check_complete(
    checkpoint: Path, places: Mapping[str, TensorPlace], family: arch.Architecture, shape: arch.Shape
) -> None:
    blocks = [
        f"model.layers.{index}.{part}"
        for index in range(shape.blocks)
        for part in (*arch.BLOCK_TENSORS, *family.block_tensors)
    ]
    wanted = {
        "model.embed_tokens.weight",
        "model.norm.weight",
        *blocks,
        *([] if shape.is_tied else [_OUTPUT]),
    }
    missing = sorted(wanted - places.keys())
    if missing:
        raise ModelError(f"{checkpoint}: {len(missing)} tensors are missing, first {missing[0]}")
    rows = places["model.embed_tokens.weight"].shape[0]
    if rows != shape.vocabulary:
        raise ModelError(
            f"{checkpoint}: the embedding has {rows:,} rows, config.json says vocab_size = {shape.vocabulary:,}"
        )


def gguf_names(
    checkpoint: Path, family: arch.Architecture, shape: arch.Shape, names: list[str]
) -> dict[str, str]:
    """Each tensor's name in the file, by its name in the checkpoint.

    Raises:
        ModelError: some have no place in GGUF.
    """
    import gguf

    kinds = {name: kind for kind, name in gguf.MODEL_ARCH_NAMES.items()}
    table = gguf.get_tensor_name_map(kinds[family.name], shape.blocks)
    found = {name: table.get_name(name, try_suffixes=(".weight", ".bias")) for name in names}
    unknown = [name for name, gguf_name in found.items() if gguf_name is None]
    if unknown:
        raise ModelError(f"{checkpoint}: {len(unknown)} tensors have no place in GGUF, first {unknown[0]}")
    return {name: str(gguf_name) for name, gguf_name in found.items()}


def _write_tensors(
    writer: GGUFWriter, plan: list[_Planned], on_progress: Callable[[int, int], None] | None
) -> None:
    import numpy as np

    for tensor in plan:
        dtype = np.dtype(np.float16 if tensor.is_half else np.float32)
        size = int(np.prod(tensor.shape, dtype=np.int64)) * dtype.itemsize
        writer.add_tensor_info(tensor.name, tensor.shape, dtype, size)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for done, tensor in enumerate(plan, start=1):
        writer.write_tensor_data(_stored(tensor))
        if on_progress:
            on_progress(done, len(plan))
    writer.flush()
    writer.close()


def _stored(tensor: _Planned) -> NDArray[np.float16] | NDArray[np.float32]:
    """The tensor as it is written, checked piece by piece: beside it in float32 there is only its half."""
    import numpy as np

    values = np.ascontiguousarray(tensor.read())
    stored = np.empty(values.shape, np.float16) if tensor.is_half else values
    flat, target = values.reshape(-1), stored.reshape(-1)
    for start in range(0, flat.size, _PIECE):
        piece = flat[start : start + _PIECE]
        if not np.isfinite(piece).all():
            raise ModelError(f"tensor {tensor.name} holds NaN or infinity: the model is broken")
        if not tensor.is_half:
            continue
        largest = float(np.abs(piece).max())
        if largest > _F16_MAX:
            raise ModelError(f"tensor {tensor.name} holds {largest:g}, more than F16's {_F16_MAX:g}")
        target[start : start + _PIECE] = piece
    return stored
