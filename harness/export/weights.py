"""Checkpoints on disk, tensor by tensor: safetensors read and written without loading a model."""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from harness.errors import ModelError
from harness.files import fsync_folder, parse_json, read_json

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ITEM_BYTES = {"F32": 4, "F16": 2, "BF16": 2, "F64": 8}
"""Floating-point types that a language model's weights come in."""

WEIGHTS = "model.safetensors"
WEIGHTS_INDEX = "model.safetensors.index.json"


class TensorPlace(NamedTuple):
    """Where one tensor's bytes are."""

    name: str
    dtype: str
    """As safetensors spells it: `F32`, `F16`, `BF16` …"""
    shape: tuple[int, ...]
    file: Path
    offset: int
    """Of the first byte in the file."""
    bytes: int


def read_places(checkpoint: Path) -> dict[str, TensorPlace]:
    """All tensors of a checkpoint folder by name, sorted, from one file or from shards.

    Raises:
        ModelError: no safetensors, a shard is missing or outside the folder, a header that lies.
    """
    places: dict[str, TensorPlace] = {}
    for file in _weight_files(checkpoint):
        for place in read_header(file):
            if place.name in places:
                raise ModelError(f"{file}: tensor {place.name} is in two shards")
            places[place.name] = place
    return dict(sorted(places.items()))


def _weight_files(checkpoint: Path) -> list[Path]:
    if (checkpoint / WEIGHTS).is_file():
        return [checkpoint / WEIGHTS]
    if not (checkpoint / WEIGHTS_INDEX).is_file():
        raise ModelError(
            f"{checkpoint}: no {WEIGHTS} and no {WEIGHTS_INDEX}",
            hint="pickled weights are never loaded: save the model as safetensors",
        )
    index = read_json(checkpoint / WEIGHTS_INDEX)
    names = sorted(set(index.get("weight_map", {}).values())) if isinstance(index, dict) else []
    for name in names:
        if Path(name).name != name or not (checkpoint / name).is_file():
            raise ModelError(f"{checkpoint / WEIGHTS_INDEX}: shard {name!r} is not a file of this folder")
    return [checkpoint / name for name in names]


def read_header(file: Path) -> list[TensorPlace]:
    """The tensors of one safetensors file, checked against the size of the file.

    Raises:
        ModelError: the file is cut short, or a tensor's place does not fit its type and shape.
    """
    size = file.stat().st_size
    with file.open("rb") as handle:
        start = handle.read(8)
        header_bytes = struct.unpack("<Q", start)[0] if len(start) == 8 else size
        if 8 + header_bytes > size:
            raise ModelError(f"{file}: cut short at {size:,} bytes, inside its header")
        header = parse_json(handle.read(header_bytes), name=str(file))
    header.pop("__metadata__", None)
    return [_place(file, name, entry, 8 + header_bytes, size) for name, entry in header.items()]


def _place(file: Path, name: str, entry: Any, data_start: int, file_bytes: int) -> TensorPlace:
    try:
        dtype, shape = str(entry["dtype"]), tuple(int(length) for length in entry["shape"])
        begin, end = (int(offset) for offset in entry["data_offsets"])
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{file}: tensor {name} has no readable dtype, shape and data_offsets") from error
    if begin < 0 or end < begin or data_start + end > file_bytes or any(length < 0 for length in shape):
        raise ModelError(f"{file}: tensor {name} ends outside the file: it is cut short or not safetensors")
    if dtype in ITEM_BYTES and end - begin != math.prod(shape) * ITEM_BYTES[dtype]:
        raise ModelError(f"{file}: tensor {name} has {end - begin:,} bytes, which is not {dtype} {shape}")
    return TensorPlace(name, dtype, shape, file, data_start + begin, end - begin)


def read_float32(place: TensorPlace) -> NDArray[np.float32]:
    """The tensor in float32, exact for F32, F16 and BF16; shape `place.shape`.

    Raises:
        ModelError: the tensor is not floating point.
    """
    import numpy as np

    if place.dtype not in ITEM_BYTES:
        raise ModelError(
            f"{place.file}: tensor {place.name} has type {place.dtype}; wanted one of {', '.join(ITEM_BYTES)}",
            hint="quantized checkpoints can't be exported: take the 16-bit weights",
        )
    raw = read_raw(place)
    if place.dtype == "BF16":
        widened = np.frombuffer(raw, "<u2").astype("<u4")
        widened <<= 16
        values = widened.view("<f4")
    else:
        values = np.frombuffer(raw, {"F32": "<f4", "F16": "<f2", "F64": "<f8"}[place.dtype])
    return np.ascontiguousarray(values, dtype=np.float32).reshape(place.shape)


def read_raw(place: TensorPlace) -> bytes:
    """The tensor's bytes as they are on disk.

    Raises:
        ModelError: the file was cut short since its header was read.
    """
    with place.file.open("rb") as handle:
        handle.seek(place.offset)
        raw = handle.read(place.bytes)
    if len(raw) != place.bytes:
        raise ModelError(f"{place.file}: cut short inside tensor {place.name}")
    return raw


class Planned(NamedTuple):
    """A tensor to be written: its bytes are asked for when their turn comes."""

    dtype: str
    shape: tuple[int, ...]
    read: Callable[[], bytes]


def write_safetensors(file: Path, tensors: Mapping[str, Planned]) -> Iterator[str]:
    """Writes one safetensors file and yields each name once its bytes are written; holds one tensor at a time.

    The file is not synced; the folder that holds it is written whole or not at all.

    Raises:
        ModelError: a tensor's bytes don't fit what was planned.
    """
    sizes = {name: math.prod(plan.shape) * ITEM_BYTES[plan.dtype] for name, plan in tensors.items()}
    with file.open("wb") as handle:
        handle.write(_header_bytes(tensors, sizes))
        for name, plan in tensors.items():
            data = plan.read()
            if len(data) != sizes[name]:
                raise ModelError(f"{file}: tensor {name} gave {len(data):,} bytes, wanted {sizes[name]:,}")
            handle.write(data)
            yield name


def _header_bytes(tensors: Mapping[str, Planned], sizes: Mapping[str, int]) -> bytes:
    from harness.files import canonical_json

    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, plan in tensors.items():
        begin, end = end, end + sizes[name]
        header[name] = {"dtype": plan.dtype, "shape": list(plan.shape), "data_offsets": [begin, end]}
    text = canonical_json(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def replace_synced(part: Path, target: Path) -> None:
    """Makes the finished temporary file `part` the file `target`, so that a power cut leaves one or none."""
    with part.open("rb") as handle:
        os.fsync(handle.fileno())
    part.chmod(0o644)
    part.replace(target)
    fsync_folder(target.parent)


def part_beside(target: Path) -> Path:
    """The name of a temporary file beside `target`; what earlier crashes left there is removed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    for left_over in target.parent.glob(f".{target.name}.*.part"):
        with suppress(OSError):
            left_over.unlink()
    return target.parent / f".{target.name}.{os.getpid()}.part"
