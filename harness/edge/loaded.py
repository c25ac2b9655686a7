"""A GGUF and its adapters, loaded on the device: their bytes checked first, and a first step proved to work."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.edge.bounded import bounded
from harness.edge.network import Adapter, Network
from harness.edge.stored import Key
from harness.edge.stream import Pieces
from harness.errors import ModelError
from harness.files import check_digest
from harness.models.gguf import gguf_chat
from harness.models.gguf_api import MICRO_BATCH_TOK, Cache, Feed, Weights, library
from harness.models.gguf_constraint import Ends
from harness.models.gguf_scoring import MAX_SEQUENCES

CONTEXT_TOK = 4096
"""Tokens of one request where nothing else is said and the network was made for more."""
CELLS_A_SLOT = 1024
CELL_STEP = 256
Q8_BLOCK = 32
WARM_UP_TOK = 64
"""Enough of a decode for the kernels that crash on some builds."""
TEMPLATE_S = 2.0
TEMPLATE_BYTES = 512 * 2**20


@dataclass(frozen=True, slots=True)
class Settings:
    """What a process is told to load."""

    path: str
    sha256: str
    threads: int
    slots: int
    context_tok: int | None
    cells: int | None
    kv: str
    """`f16` or `q8_0`."""
    is_plain: bool
    """Without the extra buffers, whose kernels crash on some builds of llama.cpp."""
    memory_bytes: int | None
    prefix_folder: str | None
    adapters: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Name → path and sha256."""


class Loaded:
    """Weights, tokenizer, cache and adapters of one process."""

    def __init__(self, settings: Settings) -> None:
        """Loads them all.

        Raises:
            IntegrityError: a file has other bytes than were promised.
            ModelError: llama.cpp can't use it.
        """
        began = time.monotonic()
        path = Path(settings.path)
        check_digest(path, settings.sha256)
        hashed = time.monotonic()
        self.settings = settings
        self.weights = Weights(path, use_extra_buffers=not settings.is_plain)
        _check_kind(self.weights, path)
        with bounded("the file's chat template", seconds=TEMPLATE_S, extra_bytes=TEMPLATE_BYTES):
            self.chat = gguf_chat(self.weights, path)
        self.ends = Ends(self.weights, self.chat)
        self.pieces = Pieces(self.weights)
        self.context_tok = min(self.weights.context_tok, settings.context_tok or CONTEXT_TOK)
        self.network = self._open_network()
        self.adapters: dict[str, Adapter] = {}
        self.digests: dict[str, str] = {}
        for name, (file, sha256) in settings.adapters.items():
            self.set_adapter(name, file, sha256)
        self._warm_up()
        self.facts: dict[str, Any] = {
            "sha256_ms": (hashed - began) * 1e3, "load_ms": (time.monotonic() - hashed) * 1e3,
            "cells": self.network.cache.cells, "library": library_version(),
            "cache_mb": self.network.cache.cells * self.weights.cache_values * _kv_bytes(settings.kv) / 1e6,
        }  # fmt: skip

    def set_adapter(self, name: str, file: str, sha256: str) -> None:
        """Loads a LoRA adapter under the name, in place of one that has it.

        Raises:
            IntegrityError: it has other bytes than were promised.
            ModelError: llama.cpp can't use it with these weights.
        """
        path = Path(file)
        check_digest(path, sha256)
        loaded = Adapter(self.weights, path)
        before = self.adapters.pop(name, None)
        self.network.use(None)
        if before is not None:
            before.close()
        self.adapters[name], self.digests[name] = loaded, sha256

    def prefix_key(self, adapter: str, ids: tuple[int, ...]) -> Key:
        """All that the state of these tokens depends on."""
        digest = self.digests.get(adapter, "")
        return Key(self.settings.sha256, digest, self.settings.kv, library_version(), ids)

    def _open_network(self) -> Network:
        wanted = self.settings.cells or self.settings.slots * CELLS_A_SLOT
        cells = -(-max(wanted, self.context_tok) // CELL_STEP) * CELL_STEP
        is_8_bit = self.settings.kv == "q8_0"
        if is_8_bit and (odd := [size for size in self.weights.head_sizes if size % Q8_BLOCK]):
            raise ModelError(
                f"{self.settings.path}: a q8_0 cache needs heads of a multiple of {Q8_BLOCK}, found {odd[0]}",
                hint="kv f16 has no such condition",
            )
        cache = Cache(cells, MAX_SEQUENCES, is_8_bit=is_8_bit)
        return Network(self.weights, cache, batch_tok=MICRO_BATCH_TOK, threads=self.settings.threads)

    def _warm_up(self) -> None:
        size = min(WARM_UP_TOK, self.context_tok)
        vocab = self.weights.vocab_size
        try:
            self.network.decode([Feed(at % vocab, at, (0,), at == size - 1) for at in range(size)])
            self.network.decode([Feed(0, size, (0,), True)])
        except RuntimeError as error:
            raise ModelError(f"{self.settings.path}: {error}") from error
        self.network.clear()


def _check_kind(weights: Weights, path: Path) -> None:
    lib = library()
    for says, what in (
        (lib.llama_model_is_recurrent, "is recurrent"), (lib.llama_model_is_hybrid, "is partly recurrent"),
        (lib.llama_model_has_encoder, "has an encoder"), (lib.llama_model_is_diffusion, "writes by diffusion"),
    ):  # fmt: skip
        if says(weights.handle):
            raise ModelError(f"{path}: the network {what}: parts of its sequences can't be shared")


def _kv_bytes(kv: str) -> float:
    return 34 / 32 if kv == "q8_0" else 2.0


def library_version() -> str:
    """llama.cpp's own, with the bindings' and the machine's: states are only read where all three are the same."""
    import platform
    from importlib.metadata import version

    return f"llama-cpp-python {version('llama-cpp-python')}, {platform.machine()}, {sys.byteorder}"
