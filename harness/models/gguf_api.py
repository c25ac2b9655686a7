"""llama.cpp's low-level interface, as little of it as is used, with lifetimes that Python understands."""

from __future__ import annotations

import ctypes
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from harness.errors import ModelError

META_BYTES = 2**20
"""Longest metadata value that is read; chat templates are the longest."""


@lru_cache(maxsize=1)
def library() -> Any:
    """llama_cpp, silent. The callback object lives as long as the process: llama.cpp keeps its address."""
    import llama_cpp

    callback = llama_cpp.llama_log_callback(_ignore)
    llama_cpp.llama_log_set(callback, ctypes.c_void_p(0))
    library_callbacks.append(callback)
    llama_cpp.llama_backend_init()
    return llama_cpp


library_callbacks: list[Any] = []


def _ignore(_level: int, _text: bytes, _data: object) -> None:
    return None


class Vocab:
    """A GGUF's metadata and tokenizer, without its weights."""

    def __init__(self, path: Path) -> None:
        """Raises ModelError: llama.cpp refuses the file."""
        self._lib = library()
        params = self._lib.llama_model_default_params()
        params.vocab_only = True
        self._handle = load_handle(path, params)
        self._vocab = self._lib.llama_model_get_vocab(self._handle)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        if self._handle is not None:
            self._lib.llama_model_free(self._handle)
            self._handle = None

    def meta(self, key: str) -> str | None:
        """The metadata value as text, or None where the file has no such key."""
        return read_meta(self._handle, key)

    def encode(self, text: str) -> list[int]:
        """The text's ids: nothing added, special tokens in the text recognised."""
        return tokenize(self._vocab, text)


def load_handle(path: Path, params: Any) -> Any:
    """llama.cpp's model pointer.

    Raises:
        ModelError: the file is missing or llama.cpp refuses it.
    """
    if not path.is_file():
        raise ModelError(f"{path}: no such file")
    handle = library().llama_model_load_from_file(str(path).encode(), params)
    if not handle:
        raise ModelError(f"{path}: llama.cpp can't load it", hint="is it a whole GGUF file?")
    return handle


def read_meta(handle: Any, key: str) -> str | None:
    """A metadata value of a loaded model as text; None where there is none."""
    buffer = ctypes.create_string_buffer(META_BYTES)
    length = library().llama_model_meta_val_str(handle, key.encode(), buffer, META_BYTES)
    if length < 0:
        return None
    if length >= META_BYTES:
        raise ModelError(f"metadata {key}: {length:,} bytes, over the limit of {META_BYTES:,}")
    return buffer.value.decode("utf-8", "replace")


def tokenize(vocab: Any, text: str) -> list[int]:
    """The text's ids: nothing added, special tokens in the text recognised."""
    data = text.encode("utf-8", "replace")
    size = len(data) + 16
    for _ in range(2):
        ids = (ctypes.c_int32 * size)()
        count = library().llama_tokenize(vocab, data, len(data), ids, size, False, True)
        if count >= 0:
            return list(ids[:count])
        size = -count
    raise ModelError(f"llama.cpp can't tokenize a text of {len(data):,} bytes")
