"""A context of llama.cpp that keeps many sequences: parts of them shared, saved and brought back, with adapters."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import ModelError
from harness.models.gguf_api import Cache, Context, Feed, Weights

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

NO_ROOM = 1
"""llama_decode's word for a cache without free cells; nothing was changed."""


class NoRoomError(RuntimeError):
    """The cache has no cells for the batch: whoever keeps sequences must let some go."""


class Adapter:
    """A LoRA adapter over weights; it lives until the weights are freed."""

    def __init__(self, weights: Weights, path: Path) -> None:
        """Loads the file.

        Raises:
            ModelError: llama.cpp refuses it, or it is for other weights.
        """
        from harness.models.gguf_api import library

        self._lib = library()
        self.handle = self._lib.llama_adapter_lora_init(weights.handle, str(path).encode())
        if not self.handle:
            raise ModelError(
                f"{path}: llama.cpp can't use it as an adapter of this model",
                hint="is it a LoRA GGUF made for the same base?",
            )

    def close(self) -> None:
        """Frees it; no context may use it any more. Calling it twice is fine."""
        if self.handle:
            self._lib.llama_adapter_lora_free(self.handle)
            self.handle = None


class Network(Context):
    """A cache whose cells are shared by all sequences: a branch is a mark on them, not a copy."""

    def __init__(self, weights: Weights, cache: Cache, *, batch_tok: int, threads: int) -> None:
        super().__init__(weights, cache, batch_tok=batch_tok, threads=threads)
        self._adapter: Adapter | None = None

    def share(self, source: int, target: int, tokens: int) -> None:
        """Makes `target` a sequence that begins with the first tokens of `source`."""
        self._lib.llama_memory_seq_cp(self._memory, source, target, 0, tokens)

    def cut(self, sequence: int, tokens: int) -> None:
        """Leaves the sequence its first tokens."""
        self._lib.llama_memory_seq_rm(self._memory, sequence, tokens, -1)

    def use(self, adapter: Adapter | None) -> None:
        """What is decoded from now on goes through the adapter, or through the weights alone.

        Raises:
            RuntimeError: llama.cpp refuses.
        """
        if adapter is self._adapter:
            return
        handles = (self._lib.llama_adapter_lora_p_ctypes * 1)(adapter.handle if adapter else None)
        scales = (ctypes.c_float * 1)(1.0)
        if self._lib.llama_set_adapters_lora(self._handle, handles, int(adapter is not None), scales) != 0:
            raise RuntimeError("llama.cpp could not put the adapter in place")
        self._adapter = adapter

    def decode(self, feeds: Sequence[Feed]) -> NDArray[np.float32]:
        """As `Context.decode`.

        Raises:
            NoRoomError: the cache is full; nothing was changed.
            RuntimeError: llama.cpp can't decode the batch.
        """
        batch, _arrays = self._batch(feeds)
        status = self._lib.llama_decode(self._handle, batch)
        if status == NO_ROOM:
            raise NoRoomError(f"no cells for {len(feeds):,} tokens")
        if status != 0:
            raise RuntimeError(f"llama.cpp could not decode {len(feeds):,} tokens (status {status})")
        return self._logits(sum(feed.is_scored for feed in feeds))

    def state(self, sequence: int) -> memoryview:
        """The sequence's keys and values, as llama.cpp writes them.

        Raises:
            MemoryError: there is not enough for them.
        """
        import numpy as np

        size = self._lib.llama_state_seq_get_size(self._handle, sequence)
        data = np.empty(
            size, dtype=np.uint8
        )  # a buffer of ctypes would be zeroed first, which takes as long again
        written = self._lib.llama_state_seq_get_data(self._handle, _bytes_at(data), size, sequence)
        return data.data[:written]

    def restore(self, sequence: int, state: bytes | memoryview) -> bool:
        """Puts such bytes into an empty sequence; False where llama.cpp does not take them."""
        import numpy as np

        data = np.frombuffer(state, dtype=np.uint8)
        if self._lib.llama_state_seq_set_data(self._handle, _bytes_at(data), len(data), sequence) == 0:
            self.forget(sequence)
            return False
        return True


def _bytes_at(data: NDArray[np.uint8]) -> Any:
    return data.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
