"""A GGUF in 16 bits → a smaller one, through llama.cpp's own quantizer in a process of its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from harness.errors import ModelError
from harness.export.native import Native, Reply
from harness.export.weights import part_beside, replace_synced
from harness.files import sha256_file

FILE_TYPES: Mapping[str, int] = {
    "q8_0": 7, "q6_k": 18, "q5_k_m": 17, "q5_k_s": 16, "q5_0": 8, "q4_k_m": 15, "q4_k_s": 14, "q4_0": 2,
    "iq4_nl": 25, "iq4_xs": 30, "q3_k_l": 13, "q3_k_m": 12, "q3_k_s": 11, "iq3_m": 27, "iq3_s": 26, "iq3_xs": 22,
    "iq3_xxs": 23, "q2_k": 10, "q2_k_s": 21, "iq2_m": 29, "iq2_s": 28, "iq2_xs": 20, "iq2_xxs": 19,
}  # fmt: skip
"""Quant → llama.cpp's number for it (`llama_ftype`), largest files first."""

IGNORES_IMATRIX = frozenset({"q8_0"})
"""Quants that round the same with importances and without."""


class Override(NamedTuple):
    """Tensors that get a type of their own."""

    pattern: str
    """A regular expression that is searched in their names; the first override that matches counts."""
    type: str
    """ggml's name of the type, such as `q8_0`."""


class TensorPlan(NamedTuple):
    """What becomes of one tensor."""

    name: str
    elements: int
    before: str
    after: str
    """Types, as ggml spells them in lower case."""


class DryRun(NamedTuple):
    """What a quantization would write, known without writing it."""

    quant: str
    bytes: int
    """Of the file, to a few hundred bytes of metadata."""
    tensor_count: int
    fallback_count: int
    needs_imatrix: bool
    """llama.cpp refuses this quant of this model without an importance matrix."""
    table: tuple[TensorPlan, ...]


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


def dry_run(
    source: Path,
    quants: Sequence[str],
    *,
    imatrix: Path | None = None,
    overrides: Sequence[Override] = (),
    threads: int = 2,
) -> list[DryRun]:
    """What each quant of the file would be, in their order; nothing is written.

    With importances llama.cpp takes other types for some tensors, so sizes differ a little.

    Raises:
        ModelError: no such quant, or llama.cpp refuses the source.
    """
    _check(source, quants)
    with Native(threads=threads) as native:
        return [_dry(native, source, quant, overrides, threads, imatrix) for quant in quants]


def sizes_with(
    source: Path,
    quant: str,
    choices: Sequence[Sequence[Override]],
    *,
    imatrix: Path | None = None,
    threads: int = 2,
) -> list[int]:
    """Bytes of the quant under each choice of overrides, in their order; nothing is written.

    Raises:
        ModelError: no such quant or type, or llama.cpp refuses the source.
    """
    _check(source, [quant])
    with Native(threads=threads) as native:
        return [_dry(native, source, quant, chosen, threads, imatrix).bytes for chosen in choices]


def _dry(
    native: Native,
    source: Path,
    quant: str,
    overrides: Sequence[Override],
    threads: int,
    imatrix: Path | None = None,
) -> DryRun:
    from harness.export.quantizer import type_bytes

    reply = _ask(native, source, Path("unwritten"), quant, overrides, threads, imatrix, is_dry=True)
    table = tuple(TensorPlan(*row) for row in reply.fields["table"])
    size = source.stat().st_size
    size += sum(type_bytes(row.after, row.elements) - type_bytes(row.before, row.elements) for row in table)
    found = reply.fields
    return DryRun(quant, size, found["tensors"], found["fallback"], found["needs_imatrix"], table)


def quantize(
    source: Path,
    out: Path,
    quant: str,
    *,
    imatrix: Path | None = None,
    overrides: Sequence[Override] = (),
    threads: int = 2,
    on_progress: Callable[[int, int], None] | None = None,
) -> QuantReport:
    """Writes `out`; a crash of the caller, or of llama.cpp, leaves what was there before.

    `imatrix` is a file of `harness.export.imatrix`; its sha256 is then in the file as
    `dragongate.imatrix_sha256`. `on_progress` gets (tensors done, tensors in all).

    Raises:
        ModelError: no such quant, one that needs importances and got none, or llama.cpp refuses the source;
            `NativeCrash` when it died of it.
    """
    _check(source, [quant])
    started = time.monotonic()
    part = part_beside(out)
    try:
        with Native(threads=threads) as native:
            if imatrix is None and _dry(native, source, quant, overrides, threads).needs_imatrix:
                raise ModelError(
                    f"{quant} of {source.name} rounds to so few bits that it needs an importance matrix",
                    hint="set export.imatrix to true or auto, or leave the quant out",
                )
            reply = _ask(native, source, part, quant, overrides, threads, imatrix, on_progress)
        replace_synced(part, out)
    finally:
        part.unlink(missing_ok=True)
    found, size = reply.fields, out.stat().st_size
    return QuantReport(out, quant, size, found["tensors"], found["fallback"], time.monotonic() - started)


def _check(source: Path, quants: Sequence[str]) -> None:
    for quant in quants:
        if quant not in FILE_TYPES:
            raise ModelError(f"quant {quant!r} is not known; wanted one of {', '.join(FILE_TYPES)}")
    if not source.is_file():
        raise ModelError(f"{source}: no such file to quantize")


def _ask(
    native: Native,
    source: Path,
    out: Path,
    quant: str,
    overrides: Sequence[Override],
    threads: int,
    imatrix: Path | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    *,
    is_dry: bool = False,
) -> Reply:
    return native.call(
        "quantize",
        source=str(source.resolve()),
        out=str(out.resolve()),
        ftype=FILE_TYPES[quant],
        threads=threads,
        imatrix=str(imatrix.resolve()) if imatrix else None,
        imatrix_sha256=sha256_file(imatrix) if imatrix else "",
        overrides=[tuple(override) for override in overrides],
        is_dry=is_dry,
        on_progress=on_progress,
    )
