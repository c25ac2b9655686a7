"""How far a stage is from its parent: the same token ids, and how much the next-token distributions moved."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, Protocol, Self

from harness.errors import ModelError
from harness.export.native import Native, NativeCrash
from harness.models.base import Prompt
from harness.models.prompts import common_prefix

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DEFAULT_MAX_TOK = 2048


class Item(Protocol):
    """A conversation to compare on; training examples are such items."""

    @property
    def id(self) -> str: ...
    @property
    def prompt(self) -> Prompt: ...
    @property
    def answer(self) -> str: ...


class Source(NamedTuple):
    """A stage: a GGUF file or a checkpoint folder, with an adapter of its own kind; a checkpoint's base may be NF4."""

    path: Path
    adapter: Path | None = None
    nf4: bool = False
    cache: str = "f16"
    """Type of a GGUF's keys and values."""

    @property
    def is_gguf(self) -> bool:
        return self.path.suffix == ".gguf"


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


@dataclass(frozen=True, slots=True)
class Parity:
    """Whether parent and child turn the same conversations into the same ids."""

    n: int
    differ: tuple[str, ...]
    """Ids of the conversations whose token ids differ."""
    is_template_same: bool
    is_end_same: bool
    """The token that ends a turn."""

    @property
    def holds(self) -> bool:
        """All is the same, on at least one conversation."""
        return self.n > 0 and not self.differ and self.is_template_same and self.is_end_same


@dataclass(frozen=True, slots=True)
class Fidelity:
    """Both measures of one step of the chain."""

    divergence: Divergence
    parity: Parity
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """One flat document; `token_parity` says whether parity holds."""
        numbers = asdict(self.divergence) | {"parity": asdict(self.parity), "seconds": round(self.seconds, 3)}
        return numbers | {"token_parity": self.parity.holds}


def compare(
    parent: Source | Path,
    child: Source | Path,
    items: Sequence[Item],
    *,
    threads: int = 2,
    max_tok: int = DEFAULT_MAX_TOK,
) -> Fidelity:
    """Token parity on all items, and the divergence on the first ones, up to `max_tok` positions.

    All native code runs in child processes.

    Raises:
        ModelError: a stage can't be loaded, no item fits its budget, or the stages differ in vocabulary.
    """
    started = time.monotonic()
    parent, child = _source(parent), _source(child)
    before, now = read_conversations(parent, items), read_conversations(child, items)
    texts = [ids for ids in before.ids if ids is not None]
    return Fidelity(
        divergence(parent, child, texts, threads=threads, max_tok=max_tok),
        compare_ids(before, now, items),
        time.monotonic() - started,
    )


def compare_with(
    reference: Reference, child: Path, items: Sequence[Item], *, threads: int = 2, cache: str = "f16"
) -> Fidelity:
    """As `compare`, with a parent whose answers lie on disk already; `cache` is the type of keys and values.

    Raises:
        ModelError: the child can't be loaded, or differs from the parent in vocabulary.
    """
    started = time.monotonic()
    now = read_conversations(Source(child), items)
    return Fidelity(
        reference.divergence(Source(child, cache=cache), threads=threads),
        compare_ids(reference.conversations, now, items),
        time.monotonic() - started,
    )


def _source(stage: Source | Path) -> Source:
    return stage if isinstance(stage, Source) else Source(stage)


class Conversations(NamedTuple):
    """Items as one stage reads them."""

    ids: list[list[int] | None]
    """Of prompt, answer and end of turn; None where the prompt is over its budget."""
    template: str
    end_id: int


def read_conversations(stage: Source, items: Sequence[Item]) -> Conversations:
    """The items' ids by the stage's own template and tokenizer.

    Raises:
        ModelError: the stage has no readable tokenizer or template.
    """
    if stage.is_gguf:
        return _gguf_conversations(stage.path, items)
    from harness.export.kernels import conversation_ids
    from harness.models.chat import load_chat

    chat = load_chat(stage.path, needs_template=any(item.prompt.text is None for item in items))
    ids = [
        conversation_ids(item.prompt, item.answer, chat.render, chat.encode, chat.text_ids, chat.end_id)
        for item in items
    ]
    return Conversations(ids, chat.template, chat.end_id)


def _gguf_conversations(path: Path, items: Sequence[Item]) -> Conversations:
    with Native(threads=1) as native:
        opened = native.call("open_words", path=str(path.resolve())).fields
        ids = [
            native.call(
                "conversation",
                messages=[tuple(message) for message in item.prompt.messages],
                answer=item.answer,
                max_tokens=item.prompt.max_tokens,
                over_length=item.prompt.over_length,
                text=item.prompt.text,
            ).fields["ids"]
            for item in items
        ]
    return Conversations(ids, opened["template"], opened["end_id"])


def compare_ids(parent: Conversations, child: Conversations, items: Sequence[Item]) -> Parity:
    """Where the two read the items differently."""
    rows = zip(items, parent.ids, child.ids, strict=True)
    differ = tuple(item.id for item, before, now in rows if before != now)
    return Parity(len(items), differ, parent.template == child.template, parent.end_id == child.end_id)


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
    with _Runner(parent, threads, _longest(spans)) as before, _Runner(child, threads, _longest(spans)) as now:
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
        with _Runner(parent, threads, _longest(self.spans)) as runner, path.open("wb") as file:
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
        with _Runner(child, threads, _longest(self.spans)) as runner, self._path.open("rb") as file:
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


class _Runner:
    """One stage in a child process of its own."""

    def __init__(self, source: Source, threads: int, context_tok: int) -> None:
        self._source, self._threads, self._context_tok = source, threads, context_tok
        self.peak_mb = 0.0
        self._is_repacked = True
        self._native = self._open()

    def _open(self) -> Native:
        native = Native(threads=self._threads)
        path = str(self._source.path.resolve())
        adapter = str(self._source.adapter.resolve()) if self._source.adapter else None
        try:
            if self._source.is_gguf:
                native.call(
                    "open_gguf", path=path, threads=self._threads, context_tok=self._context_tok,
                    is_repacked=self._is_repacked, cache=self._source.cache, adapter=adapter,
                )  # fmt: skip
            else:
                native.call(
                    "open_checkpoint", path=path, adapter=adapter, nf4=self._source.nf4, threads=self._threads
                )
        except BaseException:
            native.close()
            raise
        return native

    def logits(self, ids: list[int], first: int) -> NDArray[np.float32]:
        """Logits from position `first` on; shape (len(ids) - first, vocabulary)."""
        import numpy as np

        try:
            reply = self._native.call("logits", ids=ids, first=first)
        except NativeCrash:
            # Some builds of llama.cpp die in their repacked kernels; the plain ones compute the same.
            if not self._source.is_gguf or not self._is_repacked:
                raise
            self._is_repacked = False
            self._native.close()
            self._native = self._open()
            reply = self._native.call("logits", ids=ids, first=first)
        self.peak_mb = float(reply.fields["peak_mb"])
        return np.frombuffer(reply.payload, dtype="<f4").reshape(reply.fields["shape"])

    def speed(self, prompt_tok: int, decode_tok: int) -> dict[str, float]:
        """What the child says of its own clock."""
        return dict(self._native.call("speed", prompt_tok=prompt_tok, decode_tok=decode_tok).fields)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._native.close()


class Speed(NamedTuple):
    """How fast a file runs here, alone in a process; the best of a few tries, so that other work counts less."""

    prompt_tok_s: float
    decode_ms: float
    """A token, written one after another after a prompt."""


def measure_speed(path: Path, *, threads: int = 2, prompt_tok: int = 128, decode_tok: int = 16) -> Speed:
    """The speed of a GGUF on ids that mean nothing: no kernel's time depends on them.

    Raises:
        ModelError: it can't be loaded.
    """
    with _Runner(Source(path), threads, prompt_tok + decode_tok) as runner:
        runner.logits([1, 2, 3], 2)  # finds out which kernels work, and warms them up
        found = runner.speed(prompt_tok, decode_tok)
    return Speed(found["prompt_tok_s"], found["decode_ms"])
