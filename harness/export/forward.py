"""A stage that answers: its next-token logits and its speed, computed in a child process of its own."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, Self

from harness.export.native import Native, NativeCrash

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


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


class Runner:
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
    with Runner(Source(path), threads, prompt_tok + decode_tok) as runner:
        runner.logits([1, 2, 3], 2)  # finds out which kernels work, and warms them up
        found = runner.speed(prompt_tok, decode_tok)
    return Speed(found["prompt_tok_s"], found["decode_ms"])
