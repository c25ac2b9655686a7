"""A GGUF in 16 bits → a smaller one, through llama.cpp's own quantizer in a process of its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from harness.errors import ModelError
from harness.export.native import Native
from harness.export.weights import part_beside, replace_synced

FILE_TYPES: Mapping[str, int] = {
    "q8_0": 7, "q6_k": 18, "q5_k_m": 17, "q5_0": 8, "q4_k_m": 15, "q4_0": 2, "q3_k_m": 12, "q2_k": 10,
}  # fmt: skip
"""Quant → llama.cpp's number for it (`llama_ftype`), largest files first."""


class QuantReport(NamedTuple):
    """What was written."""

    path: Path
    quant: str
    bytes: int
    tensor_count: int
    fallback_count: int
    """Tensors that got another type, because their rows are no multiple of the type's block of 256."""
    seconds: float

    @property
    def warning(self) -> str | None:
        """What a person must know before drawing conclusions from this file; None when there is nothing."""
        if not self.fallback_count:
            return None
        return (
            f"{self.quant}: {self.fallback_count} of {self.tensor_count} tensors fell back to another type "
            "(row length is no multiple of 256); sizes and scores say little about larger models"
        )


def quantize(
    source: Path,
    out: Path,
    quant: str,
    *,
    threads: int = 2,
    on_progress: Callable[[int, int], None] | None = None,
) -> QuantReport:
    """Writes `out`; a crash of the caller, or of llama.cpp, leaves what was there before.

    `on_progress` gets (tensors done, tensors in all).

    Raises:
        ModelError: no such quant, or llama.cpp refuses the source; `NativeCrash` when it died of it.
    """
    if quant not in FILE_TYPES:
        raise ModelError(f"quant {quant!r} is not known; wanted one of {', '.join(FILE_TYPES)}")
    if not source.is_file():
        raise ModelError(f"{source}: no such file to quantize")
    started = time.monotonic()
    part = part_beside(out)
    try:
        with Native(threads=threads) as native:
            reply = native.call(
                "quantize",
                source=str(source.resolve()),
                out=str(part.resolve()),
                ftype=FILE_TYPES[quant],
                threads=threads,
                on_progress=on_progress,
            )
        replace_synced(part, out)
    finally:
        part.unlink(missing_ok=True)
    found, size = reply.fields, out.stat().st_size
    return QuantReport(out, quant, size, found["tensors"], found["fallback"], time.monotonic() - started)
