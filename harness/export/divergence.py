"""How much the next-token distributions move from one stage to the next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, Self

from harness.errors import ModelError
from harness.export.forward import Runner, Source
from harness.export.parity import Item, read_conversations
from harness.models.prompts import common_prefix

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DEFAULT_MAX_TOK = 2048


@dataclass(frozen=True, slots=True)
class Divergence:
    """KL(parent ‖ child) of next-token distributions, in nats a token."""

    n_texts: int
    n_tok: int
    """Positions compared. Where texts begin alike, the shared beginning counts once."""
    mean_kl: float
    p99_kl: float
    max_kl: float
    top1: float
    """Share of positions where both find the same token most probable."""
    parent_peak_mb: float
    child_peak_mb: float
    """Most memory that the process held: weights, cache, buffers and Python."""


def divergence(
    parent: Source,
    child: Source,
    texts: Sequence[Sequence[int]],
    *,
    threads: int = 2,
    max_tok: int = DEFAULT_MAX_TOK,
) -> Divergence:
    """How far the child's next-token distributions are from the parent's, on token ids.

    Texts are taken in their order until `max_tok` positions are compared.

    Raises:
        ModelError: no text, a stage that can't be loaded or died, different vocabularies.
    """
    spans = _spans(texts, max_tok)
    found: list[_Positions] = []
    with Runner(parent, threads, _longest(spans)) as before, Runner(child, threads, _longest(spans)) as now:
        for ids, first in spans:
            found.append(_positions(before.logits(ids, first), now.logits(ids, first)))
        peaks = before.peak_mb, now.peak_mb
    return _summed(found, peaks)


def _longest(spans: Sequence[tuple[list[int], int]]) -> int:
    longest = max((len(ids) for ids, _ in spans), default=0)
    if not longest:
        raise ModelError("no text to compare on: every conversation is over its budget, or there is none")
    return longest


def _summed(found: Sequence[_Positions], peaks: tuple[float, float]) -> Divergence:
    import numpy as np

    kl = np.concatenate([part.kl for part in found])
    same = np.concatenate([part.is_top_same for part in found])
    return Divergence(
        n_texts=len(found), n_tok=len(kl), mean_kl=float(kl.mean()), p99_kl=float(np.quantile(kl, 0.99)),
        max_kl=float(kl.max()), top1=float(same.mean()), parent_peak_mb=peaks[0], child_peak_mb=peaks[1],
    )  # fmt: skip


class Reference:
    """A parent's logits on disk, so that many children are compared with one run of it.

    float32, shape (positions, vocabulary): 300 MB for 1,536 positions of 49,152 tokens. Use it in a `with` block,
    which removes the file at its end.
    """

    def __init__(
        self,
        parent: Source,
        items: Sequence[Item],
        path: Path,
        *,
        threads: int = 2,
        max_tok: int = DEFAULT_MAX_TOK,
    ) -> None:
        """Runs the parent over the items and writes `path`.

        Raises:
            ModelError: the parent can't be loaded, or no item fits its budget.
        """
        self.conversations = read_conversations(parent, items)
        self.spans = _spans([ids for ids in self.conversations.ids if ids is not None], max_tok)
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        with Runner(parent, threads, _longest(self.spans)) as runner, path.open("wb") as file:
            for ids, first in self.spans:
                logits = runner.logits(ids, first)
                self._vocabulary = logits.shape[1]
                logits.tofile(file)
            self._peak_mb = runner.peak_mb

    def divergence(self, child: Source, *, threads: int = 2) -> Divergence:
        """How far the child's next-token distributions are from the parent's.

        Raises:
            ModelError: the child can't be loaded, died, or differs in vocabulary.
        """
        found: list[_Positions] = []
        with Runner(child, threads, _longest(self.spans)) as runner, self._path.open("rb") as file:
            for ids, first in self.spans:
                found.append(_positions(self._next(file, len(ids) - first), runner.logits(ids, first)))
            peaks = self._peak_mb, runner.peak_mb
        return _summed(found, peaks)

    def _next(self, file: BinaryIO, rows: int) -> NDArray[np.float32]:
        import numpy as np

        return np.fromfile(file, np.float32, rows * self._vocabulary).reshape(rows, self._vocabulary)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._path.unlink(missing_ok=True)


def _spans(texts: Sequence[Sequence[int]], max_tok: int) -> list[tuple[list[int], int]]:
    """(ids, first position to compare) of each text; what it shares with the one before is left out."""
    spans: list[tuple[list[int], int]] = []
    room, before = max_tok, list[int]()
    for text in texts:
        ids = list(text)
        first = min(len(common_prefix([before, ids])) if before else 0, len(ids) - 1)
        ids = ids[: first + room]
        if room <= 0 or len(ids) <= first:
            break
        spans.append((ids, first))
        room, before = room - (len(ids) - first), ids
    return spans


class _Positions(NamedTuple):
    kl: NDArray[np.float64]
    is_top_same: NDArray[np.bool_]


def _positions(parent: NDArray[np.float32], child: NDArray[np.float32]) -> _Positions:
    """KL and top-1 agreement a position; both hold logits, shape (positions, vocabulary)."""
    import numpy as np

    if parent.shape != child.shape:
        raise ModelError(
            f"the stages differ in vocabulary: {parent.shape[1]:,} and {child.shape[1]:,} tokens"
        )
    is_top_same = parent.argmax(axis=1) == child.argmax(axis=1)
    log_p, log_q = _log_softmax(parent), _log_softmax(child)
    kl = np.einsum("tv,tv->t", np.exp(log_p), log_p - log_q, dtype=np.float64)
    return _Positions(np.maximum(kl, 0.0), is_top_same)


def _log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    import numpy as np

    shifted = logits - logits.max(axis=1, keepdims=True)
    total = np.exp(shifted).sum(axis=1, keepdims=True, dtype=np.float64)
    values: NDArray[np.float32] = shifted - np.log(total).astype(np.float32)
    return values
