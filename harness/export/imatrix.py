"""The importance matrix: how strongly each input column of each matrix is used on the domain's own text.

A quantizer that rounds a row minimises the squared error of the weights. What a user sees is the error of the row's
product with its input, and that weighs each column by the mean square of what comes in there. The file is llama.cpp's
own: a GGUF with `general.type` = `imatrix`, and for each matrix `<name>.in_sum2` (the sum of squares a column) and
`<name>.counts` (tokens summed over), which `llama-quantize --imatrix` reads too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import ModelError
from harness.export.native import Native, NativeCrash
from harness.export.weights import part_beside, replace_synced

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAX_TOK = 8192
"""Tokens that are summed over, at most."""
CHUNK_TOK = 512
"""Tokens that llama.cpp takes at once; its files count in such chunks."""
SUMS, COUNTS = ".in_sum2", ".counts"


@dataclass(frozen=True, slots=True)
class Imatrix:
    """Sums of squares of what comes into each matrix."""

    sums: Mapping[str, NDArray[np.float32]]
    """GGUF name of the matrix (`blk.0.attn_q.weight`) → sum of squares a column; shape (columns,)."""
    tokens: int
    """Summed over."""
    method: str
    """`llama.cpp` (its own activations, on the GGUF) or `torch` (hooks on the checkpoint)."""

    def means(self) -> dict[str, NDArray[np.float32]]:
        """Mean square a column, as `llama_model_quantize` wants it."""
        import numpy as np

        return {name: (sums / self.tokens).astype(np.float32) for name, sums in self.sums.items()}


def collect_imatrix(
    gguf: Path,
    texts: Sequence[Sequence[int]],
    *,
    checkpoint: Path | None = None,
    threads: int = 2,
    max_tok: int = MAX_TOK,
    on_progress: Callable[[int, int], None] | None = None,
) -> Imatrix:
    """The matrix over token ids, taken in their order until `max_tok`; each text is a conversation by itself.

    llama.cpp's evaluation callback shows the activations. Its tensor struct is private, so each matrix's name and
    shape is checked against the file's; where that fails, or the process dies of it, hooks on `checkpoint` see the
    same inputs in torch. `on_progress` gets (tokens done, tokens in all).

    Raises:
        ModelError: no text, or the file can't be evaluated and no checkpoint was given.
    """
    some = within(texts, max_tok)
    if not some:
        raise ModelError("no text for an importance matrix: every conversation is over its budget")
    with Native(threads=threads) as native:
        try:
            return _asked(native, "imatrix", gguf, some, threads, on_progress)
        except ModelError as error:
            if checkpoint is None or not (isinstance(error, NativeCrash) or error.hint == ABI_HINT):
                raise
    return collect_with_torch(checkpoint, some, threads=threads, on_progress=on_progress)


ABI_HINT = "this build of llama.cpp lays its tensors out differently; pass the checkpoint, for torch's hooks"


def collect_with_torch(
    checkpoint: Path,
    texts: Sequence[Sequence[int]],
    *,
    threads: int = 2,
    on_progress: Callable[[int, int], None] | None = None,
) -> Imatrix:
    """The matrix by forward hooks on the checkpoint's linear layers, in float32.

    Raises:
        ModelError: the checkpoint can't be loaded, or is of a family that GGUF can't be written for.
    """
    with Native(threads=threads) as native:
        return _asked(native, "imatrix_torch", checkpoint, texts, threads, on_progress)


def within(texts: Sequence[Sequence[int]], max_tok: int) -> list[list[int]]:
    """The first texts, together at most `max_tok` tokens; the last one may be cut short."""
    found: list[list[int]] = []
    room = max_tok
    for text in texts:
        if room <= 0:
            break
        if text:
            found.append(list(text[:room]))
            room -= len(found[-1])
    return found


def _asked(
    native: Native,
    op: str,
    path: Path,
    texts: Sequence[Sequence[int]],
    threads: int,
    on_progress: Callable[[int, int], None] | None,
) -> Imatrix:
    import numpy as np

    reply = native.call(
        op, path=str(path.resolve()), texts=[list(text) for text in texts], threads=threads,
        on_progress=on_progress,
    )  # fmt: skip
    flat = np.frombuffer(reply.payload, "<f8")
    names, lengths = reply.fields["names"], reply.fields["lengths"]
    parts = np.split(flat, np.cumsum(lengths)[:-1])
    sums = {name: part.astype(np.float32) for name, part in zip(names, parts, strict=True)}
    return Imatrix(sums, int(reply.fields["tokens"]), str(reply.fields["method"]))


def write_imatrix(matrix: Imatrix, out: Path, *, dataset: str) -> Path:
    """Writes `out`, whole or not at all; `dataset` says what text it was. The same matrix gives the same bytes."""
    import gguf
    import numpy as np

    part = part_beside(out)
    try:
        writer = gguf.GGUFWriter(part, "imatrix")
        writer.add_type("imatrix")
        writer.add_array("imatrix.datasets", [dataset])
        writer.add_uint32("imatrix.chunk_count", max(1, matrix.tokens // CHUNK_TOK))
        writer.add_uint32("imatrix.chunk_size", CHUNK_TOK)
        writer.add_string("dragongate.method", matrix.method)
        for name, sums in sorted(matrix.sums.items()):
            writer.add_tensor(
                name + SUMS, sums.reshape(1, -1)
            )  # llama.cpp's order: columns first, one matrix
            writer.add_tensor(name + COUNTS, np.array([[matrix.tokens]], np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        replace_synced(part, out)
    finally:
        part.unlink(missing_ok=True)
    return out


def read_imatrix(path: Path) -> Imatrix:
    """The matrix in a file that this machine wrote; for others' files, in a child process.

    Raises:
        ModelError: it is no importance matrix, or one that is not whole.
    """
    import gguf
    import numpy as np

    try:
        reader = gguf.GGUFReader(path)
    except (OSError, ValueError, IndexError, KeyError) as error:
        raise ModelError(f"{path}: no readable GGUF: {error}") from error
    kind = reader.fields.get("general.type")
    if kind is None or kind.contents() != "imatrix":
        raise ModelError(f"{path}: general.type is not imatrix")
    found = {tensor.name: np.array(tensor.data, np.float32).ravel() for tensor in reader.tensors}
    names = [name.removesuffix(SUMS) for name in found if name.endswith(SUMS)]
    counts = {float(found[name + COUNTS][0]) for name in names if name + COUNTS in found}
    if not names or len(counts) != 1 or len(found) != 2 * len(names):
        raise ModelError(f"{path}: wanted one {SUMS} and one {COUNTS} a matrix, with one count for all")
    method = reader.fields.get("dragongate.method")
    return Imatrix(
        {name: found[name + SUMS] for name in names},
        int(counts.pop()),
        str(method.contents()) if method else "",
    )
