"""A LoRA adapter → GGUF, to be laid over its base's GGUF by llama.cpp without a merge.

llama.cpp multiplies B @ A by one number, `adapter.lora.alpha` over the tensor's rank. PEFT has more ways to scale
(rank-stabilised LoRA, a rank or an alpha of their own for some layers), so each tensor's own scale is folded into
its B, and `alpha` is the adapter's common rank. Rows of B follow the rows of the weight: in the llama family those
of q and k move, as they do in the base's file.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from harness.errors import ModelError
from harness.export import architectures as arch
from harness.export.changes import ADAPTER_CONFIG, LowRank, check_base, is_whole, read_changes
from harness.export.gguf import METADATA_PREFIX, gguf_names
from harness.export.weights import part_beside, read_float32, read_places, replace_synced
from harness.files import read_json

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class LoraReport(NamedTuple):
    """What was written."""

    path: Path
    bytes: int
    architecture: str
    """Of the base, as llama.cpp knows it; it refuses the adapter on any other."""
    tensors: int
    """Weights of the base that the adapter changes."""


def write_lora_gguf(adapter: Path, base: Path, target: Path) -> LoraReport:
    """Writes `target`: A and B in float32, for the GGUF that `harness.export.gguf.convert` makes of `base`.

    What llama.cpp computes with it is the adapter on the 16-bit base, as `merge(onto="16bit")` writes it. The same
    adapter gives the same bytes. A crash leaves what was there before.

    Raises:
        ModelError: no LoRA (DoRA, IA3 and whole checkpoints must be merged), an adapter that does not fit the
            base, a layer that has no tensor of its own in GGUF, or a family that GGUF can't be written for.
        IntegrityError: the adapter names another base.
    """
    changes = _low_rank(adapter, base)
    check_base(adapter, base)
    config = arch.read_config(base)
    family, shape = arch.architecture_of(base, config), arch.shape_of(base, config)
    if shape.is_tied and "lm_head.weight" in changes:
        raise ModelError(
            f"{adapter}: changes lm_head, which is the embedding in this base", hint="merge the adapter"
        )
    names = gguf_names(base, family, shape, list(changes))
    common_rank = int(read_json(adapter / ADAPTER_CONFIG)["r"])
    part = part_beside(target)
    try:
        _write(
            part,
            family,
            shape,
            {names[name]: (name, change) for name, change in changes.items()},
            common_rank,
        )
        replace_synced(part, target)
    finally:
        part.unlink(missing_ok=True)
    return LoraReport(target, target.stat().st_size, family.name, len(changes))


def _low_rank(adapter: Path, base: Path) -> dict[str, LowRank]:
    if is_whole(adapter):
        raise ModelError(
            f"{adapter}: all weights were trained, there is no adapter", hint="convert it as a model"
        )
    found: dict[str, LowRank] = {}
    for name, change in read_changes(adapter, read_places(base)).items():
        if not isinstance(change, LowRank):
            raise ModelError(
                f"{adapter}: {name} has IA3 factors; GGUF holds LoRA alone", hint="merge the adapter"
            )
        if change.lengths is not None:
            raise ModelError(
                f"{adapter}: {name} was trained with DoRA, whose row lengths llama.cpp does not know",
                hint="merge the adapter",
            )
        found[name] = change
    return found


def _write(
    part: Path,
    family: arch.Architecture,
    shape: arch.Shape,
    changes: dict[str, tuple[str, LowRank]],
    common_rank: int,
) -> None:
    import gguf

    writer = gguf.GGUFWriter(part, family.name)
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", float(common_rank))
    writer.add_string(METADATA_PREFIX + "scales", "folded into B")
    for gguf_name, (name, change) in sorted(changes.items()):
        a, b = factors(change, common_rank)
        if layout := arch.layout(family, shape, name):
            b = layout(b)
        writer.add_tensor(f"{gguf_name}.lora_a", a)
        writer.add_tensor(f"{gguf_name}.lora_b", b)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def factors(change: LowRank, common_rank: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """A, shape (rank, in), and B, shape (out, rank), so that llama.cpp's `common_rank / rank` gives PEFT's scale."""
    import numpy as np

    a, b = read_float32(change.a), read_float32(change.b)
    rank = change.a.shape[0]
    return np.ascontiguousarray(a), np.ascontiguousarray(b * np.float32(change.scale * rank / common_rank))
