"""Inside the child: llama.cpp's quantizer, with importances and chosen types, and what its log says it did."""

from __future__ import annotations

import ctypes
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import ModelError

_FALLBACK = re.compile(r"(\d+) of (\d+) tensor\(s\) required fallback")
_NEEDS = re.compile(r"quantization will require an imatrix")
_LINE = re.compile(r"^\[\s*(\d+)/\s*(\d+)\]\s+(\S+)\s+- \[([\s\d,]+)\], type =\s*(\S+?),(.*)$")
_TO = re.compile(r"->\s+[\d.]+ MiB \((\S+?)\)")
_STRING = 3
"""`LLAMA_KV_OVERRIDE_TYPE_STR`."""

Report = Callable[[int, int], None]
_kept_alive: list[Any] = []
"""llama.cpp calls the last callback from then on, whatever it does: one that Python collects is a crash."""


@dataclass
class _Log:
    """What llama.cpp says while it works, line by line."""

    report: Report
    fallback: int = 0
    tensors: int = 0
    needs_imatrix: bool = False
    table: list[tuple[str, int, str, str]] = field(default_factory=list)
    """Name, elements, type before and after; the latter only where the log says it, as a dry run's does."""

    _begun: str = ""
    """The line so far: llama.cpp writes one in pieces."""

    def __call__(self, _level: int, text: bytes, _user: Any) -> None:
        said = text.decode("utf-8", "replace")
        sys.stderr.write(said)
        *lines, self._begun = (self._begun + said).split("\n")
        for line in lines:
            self._read(line)

    def _read(self, line: str) -> None:
        if found := _LINE.match(line):
            self.tensors = int(found[2])
            self.report(int(found[1]), int(found[2]))
            elements = 1
            for length in found[4].split(","):
                elements *= int(length)
            after = _TO.search(found[6])
            self.table.append(
                (found[3], elements, found[5].lower(), (after[1] if after else found[5]).lower())
            )
        if fallback := _FALLBACK.search(line):
            self.fallback, self.tensors = int(fallback[1]), int(fallback[2])
        self.needs_imatrix = self.needs_imatrix or bool(_NEEDS.search(line))


def run_quantizer(
    report: Report,
    *,
    source: str,
    out: str,
    ftype: int,
    threads: int,
    imatrix: str | None = None,
    imatrix_sha256: str = "",
    overrides: Sequence[tuple[str, str]] = (),
    is_dry: bool = False,
) -> dict[str, Any]:
    """Quantizes `source` to `out`, or only says what that would do.

    `overrides` are (regular expression of tensor names, type); the first that matches counts.

    Raises:
        ModelError: llama.cpp refuses; a matrix that does not belong to the file; a type that is not known.
    """
    from llama_cpp import llama_cpp as low

    log = _Log(report)
    callback = low.llama_log_callback(log)
    _kept_alive.append(callback)
    low.llama_log_set(callback, ctypes.c_void_p(0))
    parameters = low.llama_model_quantize_default_params()
    parameters.ftype, parameters.nthread, parameters.dry_run = ftype, threads, is_dry
    kept = [_set_overrides(low, parameters, overrides)]
    if imatrix:
        kept += [_set_imatrix(low, parameters, Path(imatrix)), _set_lineage(low, parameters, imatrix_sha256)]
    code = low.llama_model_quantize(source.encode(), out.encode(), ctypes.byref(parameters))
    sys.stderr.flush()
    del kept  # llama.cpp has read them
    if code != 0:
        raise ModelError(f"{source}: llama.cpp refused to quantize it (code {code})")
    return {
        "tensors": log.tensors,
        "fallback": log.fallback,
        "needs_imatrix": log.needs_imatrix,
        "table": log.table,
    }


def _set_imatrix(low: Any, parameters: Any, path: Path) -> Any:
    """The mean squares a column, as an array that ends with a row without a name; to be kept alive."""
    import numpy as np

    from harness.export.imatrix import read_imatrix

    means = read_imatrix(path).means()
    rows = (low.llama_model_imatrix_data * (len(means) + 1))()
    arrays = [np.ascontiguousarray(values, np.float32) for values in means.values()]
    for row, name, values in zip(rows, means, arrays, strict=False):
        row.name, row.size = name.encode(), values.size
        row.data = values.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
    parameters.imatrix = rows
    return rows, arrays


def _set_overrides(low: Any, parameters: Any, overrides: Sequence[tuple[str, str]]) -> Any:
    if not overrides:
        return None
    numbers = type_numbers()
    rows = (low.llama_model_tensor_override * (len(overrides) + 1))()
    for row, (pattern, name) in zip(rows, overrides, strict=False):
        if name not in numbers:
            raise ModelError(f"type {name!r} is not known; wanted one of {', '.join(sorted(numbers))}")
        row.pattern, row.type = pattern.encode(), numbers[name]
    parameters.tt_overrides = rows
    return rows


def _set_lineage(low: Any, parameters: Any, sha256: str) -> Any:
    """The matrix's digest in the file's own metadata, so that the file says what it was rounded with."""
    rows = (low.llama_model_kv_override * 2)()
    rows[0].tag, rows[0].key = _STRING, b"dragongate.imatrix_sha256"
    rows[0].value.val_str = sha256.encode()
    parameters.kv_overrides = rows
    return rows


def type_numbers() -> dict[str, int]:
    """ggml's number of each type of a tensor, by its name in lower case."""
    import gguf

    return {kind.name.lower(): int(kind) for kind in gguf.GGMLQuantizationType}


def type_bytes(name: str, elements: int) -> int:
    """Bytes of so many elements in a type, which come in whole blocks."""
    import gguf

    block, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType(type_numbers()[name])]
    return elements // int(block) * int(size)
