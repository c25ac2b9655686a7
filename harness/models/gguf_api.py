"""llama.cpp's low-level interface, as little of it as is used, with lifetimes that Python understands."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from harness.errors import ModelError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

F32, F16, Q8_0 = 0, 1, 8
"""ggml's numbers of these types, for the cache."""
MICRO_BATCH_TOK = 512
"""Tokens that go through the network at once."""
META_BYTES = 2**20
"""Longest metadata value that is read; chat templates are the longest."""
UNQUANTIZED_FILE_TYPES = frozenset({"0", "1", "32"})
"""`general.file_type` of F32, F16 and BF16 files."""

_kept_alive: list[Any] = []
"""llama.cpp keeps the addresses of callbacks: one that Python collects is a crash."""


@lru_cache(maxsize=1)
def library() -> Any:
    """llama_cpp, silent: what it logs goes nowhere, what it refuses is raised as an error."""
    import llama_cpp

    callback = llama_cpp.llama_log_callback(_ignore)
    _kept_alive.append(callback)
    llama_cpp.llama_log_set(callback, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    return llama_cpp


def widen(path: Path, out: Path, *, threads: int) -> None:
    """Writes the file's weights in float32.

    Raises:
        ModelError: llama.cpp refuses the file.
    """
    lib = library()
    params = lib.llama_model_quantize_default_params()
    params.ftype, params.nthread, params.allow_requantize = F32, threads, True
    if lib.llama_model_quantize(str(path).encode(), str(out).encode(), ctypes.byref(params)) != 0:
        raise ModelError(f"{path}: llama.cpp can't write its weights in float32")


def _ignore(_level: int, _text: bytes, _data: object) -> None:
    return None


class Weights:
    """A loaded GGUF: metadata and tokenizer, and the weights unless it was opened for its vocabulary only."""

    def __init__(self, path: Path, *, vocab_only: bool = False, use_extra_buffers: bool = True) -> None:
        """Loads the file. Without the extra buffers llama.cpp does not repack quantized weights.

        Raises:
            ModelError: the file is missing, or llama.cpp refuses it.
        """
        if not path.is_file():
            raise ModelError(f"{path}: no such file")
        self._lib = library()
        params = self._lib.llama_model_default_params()
        params.vocab_only = vocab_only
        params.use_extra_bufts = use_extra_buffers
        self.handle = self._lib.llama_model_load_from_file(str(path).encode(), params)
        if not self.handle:
            raise ModelError(f"{path}: llama.cpp can't load it", hint="is it a whole GGUF file?")
        self._vocab = self._lib.llama_model_get_vocab(self.handle)
        self.vocab_size = int(self._lib.llama_vocab_n_tokens(self._vocab))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Frees the weights. Contexts over them must be closed first."""
        if self.handle:
            self._lib.llama_model_free(self.handle)
            self.handle = None

    @property
    def context_tok(self) -> int:
        """Longest sequence that the network was made for."""
        return int(self._lib.llama_model_n_ctx_train(self.handle))

    @property
    def is_quantized(self) -> bool:
        """Its matrices are in fewer than 16 bits."""
        return self.meta("general.file_type") not in UNQUANTIZED_FILE_TYPES

    @property
    def cache_values(self) -> int:
        """Numbers that the cache holds for one token: keys and values of all layers."""
        layers, heads = (
            self._lib.llama_model_n_layer(self.handle),
            self._lib.llama_model_n_head_kv(self.handle),
        )
        return int(layers * heads * sum(self.head_sizes))

    @property
    def head_sizes(self) -> tuple[int, int]:
        """Numbers of one head's key, and of its value."""
        kind, heads = self.meta("general.architecture") or "", self._lib.llama_model_n_head(self.handle)
        width = self._lib.llama_model_n_embd(self.handle) // max(heads, 1)
        key, value = (int(self.meta(f"{kind}.attention.{part}_length") or width) for part in ("key", "value"))
        return key, value

    def meta(self, key: str) -> str | None:
        """The metadata value as text, or None where the file has no such key.

        Raises:
            ModelError: it is over the limit.
        """
        buffer = ctypes.create_string_buffer(META_BYTES)
        length = self._lib.llama_model_meta_val_str(self.handle, key.encode(), buffer, META_BYTES)
        if length < 0:
            return None
        if length >= META_BYTES:
            raise ModelError(f"metadata {key}: {length:,} bytes, over the limit of {META_BYTES:,}")
        return buffer.value.decode("utf-8", "replace")

    def encode(self, text: str) -> list[int]:
        """The text's ids: nothing added, special tokens in the text recognised."""
        data = text.encode("utf-8", "replace")
        size = len(data) + 16
        for _ in range(2):
            ids = (ctypes.c_int32 * size)()
            count = self._lib.llama_tokenize(self._vocab, data, len(data), ids, size, False, True)
            if count >= 0:
                return list(ids[:count])
            size = -count
        raise ModelError(f"llama.cpp can't tokenize a text of {len(data):,} bytes")

    def decode(self, ids: Sequence[int]) -> str:
        """The ids' text, special tokens left out; bytes that are no UTF-8 become U+FFFD."""
        tokens = (ctypes.c_int32 * max(len(ids), 1))(*ids)
        size = 32 * len(ids) + 32
        for _ in range(2):
            buffer = ctypes.create_string_buffer(size)
            count = self._lib.llama_detokenize(self._vocab, tokens, len(ids), buffer, size, False, False)
            if count >= 0:
                return buffer.raw[:count].decode("utf-8", "replace")
            size = -count
        raise ModelError(f"llama.cpp can't write {len(ids):,} tokens as text")

    @property
    def begins_with_bos(self) -> bool:
        """The file asks for its BOS token before a text."""
        return bool(self._lib.llama_vocab_get_add_bos(self._vocab))

    def special_ids(self) -> dict[str, int]:
        """The ids of `bos_token`, `eos_token` and the like, those that the file has."""
        kinds = {"bos_token": "bos", "eos_token": "eos", "pad_token": "pad"}
        ids = {
            name: int(getattr(self._lib, f"llama_vocab_{kind}")(self._vocab)) for name, kind in kinds.items()
        }
        return {name: token for name, token in ids.items() if 0 <= token < self.vocab_size}

    def special_tokens(self) -> dict[str, str]:
        """Their texts."""
        return {name: self.piece(token) for name, token in self.special_ids().items()}

    def turn_end_ids(self) -> set[int]:
        """The ids that the file itself says end a text or a turn."""
        found = {self._lib.llama_vocab_eos(self._vocab), self._lib.llama_vocab_eot(self._vocab)}
        return {int(token) for token in found if 0 <= token < self.vocab_size}

    def control_pieces(self) -> list[str]:
        """The texts of all special tokens."""
        is_control = self._lib.llama_vocab_is_control
        return [self.piece(token) for token in range(self.vocab_size) if is_control(self._vocab, token)]

    def ends_text(self, token: int) -> bool:
        """llama.cpp takes the token for an end: of a text, a turn, a message."""
        return bool(self._lib.llama_vocab_is_eog(self._vocab, token))

    def is_control(self, token: int) -> bool:
        """It is no text: decoded, it leaves nothing."""
        return bool(self._lib.llama_vocab_is_control(self._vocab, token))

    def grammar_sampler(self, grammar: str) -> Any:
        """llama.cpp's sampler for a GBNF grammar whose first rule is `root`; to be freed by the caller.

        Raises:
            ModelError: llama.cpp refuses the grammar.
        """
        handle = self._lib.llama_sampler_init_grammar(self._vocab, grammar.encode(), b"root")
        if not handle:
            raise ModelError("llama.cpp refuses the grammar")
        return handle

    def piece_bytes(self, token: int) -> bytes:
        """What the token writes, often part of a character; nothing for a special token."""
        size = 64
        for _ in range(2):
            buffer = ctypes.create_string_buffer(size)
            count = self._lib.llama_token_to_piece(self._vocab, token, buffer, size, 0, False)
            if count >= 0:
                return buffer.raw[:count]
            size = -count
        raise ModelError(f"llama.cpp can't write token {token} as text")

    def piece(self, token: int) -> str:
        """The token as it stands in the vocabulary."""
        return str(self._lib.llama_vocab_get_text(self._vocab, token).decode("utf-8", "replace"))


class Feed(NamedTuple):
    """One token to decode."""

    token: int
    position: int
    sequences: tuple[int, ...]
    """All that it is a part of: it is computed once."""
    is_scored: bool
    """Its logits are wanted."""


class Cache(NamedTuple):
    """What a context keeps of the tokens it has seen."""

    cells: int
    """Tokens that fit; of each sequence where they are apart, of all together where they are not."""
    sequences: int
    is_apart: bool = False
    """Each sequence has cells of its own: attention does not look past the others', but a branch is a copy.
    Otherwise a branch is a mark on the cells it shares."""
    is_float32: bool = False
    """Keys and values in float32, and attention without llama.cpp's fused kernel, which rounds them to 16
    bits: nothing but the order of sums is between this and the textbook."""
    is_8_bit: bool = False
    """Keys and values in q8_0, 53 % of the bytes of F16: a cache for devices, which needs the fused kernel."""


class Context:
    """A key-value cache over weights, shared by all sequences, and the decoding of batches into it."""

    def __init__(self, weights: Weights, cache: Cache, *, batch_tok: int, threads: int) -> None:
        """Allocates the cache.

        Raises:
            ModelError: llama.cpp can't allocate it.
        """
        self._lib = library()
        self._vocab_size = weights.vocab_size
        params = self._lib.llama_context_default_params()
        params.n_ctx = cache.cells * (cache.sequences if cache.is_apart else 1)
        params.n_seq_max = cache.sequences
        params.n_batch, params.n_ubatch = batch_tok, min(batch_tok, MICRO_BATCH_TOK)
        params.n_threads = params.n_threads_batch = threads
        params.kv_unified = not cache.is_apart
        if cache.is_float32:
            params.type_k = params.type_v = F32
            params.flash_attn_type = self._lib.LLAMA_FLASH_ATTN_TYPE_DISABLED
        elif cache.is_8_bit:
            params.type_k = params.type_v = Q8_0
            params.flash_attn_type = self._lib.LLAMA_FLASH_ATTN_TYPE_ENABLED
        self._handle = self._lib.llama_init_from_model(weights.handle, params)
        if not self._handle:
            raise ModelError(f"llama.cpp can't allocate a cache of {params.n_ctx:,} tokens")
        self._memory = self._lib.llama_get_memory(self._handle)
        self._one = _One(self._lib)
        self._rows: tuple[int, int, NDArray[np.float32]] | None = None
        """Where logits were found last, how many rows of them, and their view."""
        self.cache = cache
        self.batch_tok = batch_tok

    def close(self) -> None:
        """Frees the cache."""
        if self._handle:
            self._lib.llama_free(self._handle)
            self._handle = None

    def clear(self) -> None:
        """Forgets all sequences."""
        self._lib.llama_memory_clear(self._memory, False)

    def branch(self, source: int, target: int) -> None:
        """Makes `target` a sequence that begins with all of `source`."""
        self._lib.llama_memory_seq_cp(self._memory, source, target, -1, -1)

    def forget(self, sequence: int) -> None:
        """Drops the sequence; cells that no other sequence holds become free."""
        self._lib.llama_memory_seq_rm(self._memory, sequence, -1, -1)

    def decode(self, feeds: Sequence[Feed]) -> NDArray[np.float32]:
        """The logits of the scored tokens in their order; (scored, vocab), and only until the next decode.

        Raises:
            RuntimeError: llama.cpp can't decode the batch; the cache should be cleared.
        """
        batch, _arrays = self._batch(feeds)
        status = self._lib.llama_decode(self._handle, batch)
        if status != 0:
            raise RuntimeError(f"llama.cpp could not decode {len(feeds):,} tokens (status {status})")
        return self._logits(sum(feed.is_scored for feed in feeds))

    def _batch(self, feeds: Sequence[Feed]) -> tuple[Any, list[Any]]:
        import numpy as np

        if len(feeds) == 1 and len(feeds[0].sequences) == 1:
            return self._one.filled(feeds[0]), []
        count = len(feeds)
        columns = np.array([(feed.token, feed.position, feed.is_scored) for feed in feeds], dtype=np.int32)
        token, position = (np.ascontiguousarray(columns[:, at]) for at in range(2))
        scored = columns[:, 2].astype(np.int8)
        lengths = np.array([len(feed.sequences) for feed in feeds], dtype=np.int32)
        members = np.array([one for feed in feeds for one in feed.sequences], dtype=np.int32)
        starts = (lengths.cumsum() - lengths).astype(np.uintp)
        pointers = members.ctypes.data + 4 * starts
        batch = self._lib.llama_batch()
        batch.n_tokens = count
        batch.token = token.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
        batch.pos = position.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
        batch.n_seq_id = lengths.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
        batch.seq_id = pointers.ctypes.data_as(ctypes.POINTER(ctypes.POINTER(ctypes.c_int32)))
        batch.logits = scored.ctypes.data_as(ctypes.POINTER(ctypes.c_int8))
        return batch, [token, position, scored, lengths, members, pointers]

    def _logits(self, rows: int) -> NDArray[np.float32]:
        import numpy as np

        if not rows:
            return np.empty((0, self._vocab_size), dtype=np.float32)
        first = self._lib.llama_get_logits(self._handle)  # waits, and puts the rows into the batch's order
        if not first:
            raise RuntimeError(f"llama.cpp gave no logits for {rows} tokens of the batch")
        address = ctypes.addressof(first.contents)
        if self._rows is None or self._rows[:2] != (address, rows):
            values = ctypes.c_float * (rows * self._vocab_size)
            view = np.ctypeslib.as_array(values.from_address(address))
            self._rows = address, rows, view.reshape(rows, self._vocab_size)
        return self._rows[2]


class _One:
    """A batch of one token in one sequence, filled in place: the arrays of a new one take longer than a small layer."""

    def __init__(self, lib: Any) -> None:
        self._token, self._position, self._length, self._member = ((ctypes.c_int32 * 1)() for _ in range(4))
        self._scored = (ctypes.c_int8 * 1)()
        pointer = ctypes.POINTER(ctypes.c_int32)
        self._members = (pointer * 1)(ctypes.cast(self._member, pointer))
        self._length[0] = 1
        self._batch = lib.llama_batch()
        self._batch.n_tokens = 1
        self._batch.token, self._batch.pos = self._token, self._position
        self._batch.n_seq_id, self._batch.seq_id = self._length, self._members
        self._batch.logits = self._scored

    def filled(self, feed: Feed) -> Any:
        """The batch with this token."""
        self._token[0], self._position[0] = feed.token, feed.position
        self._member[0], self._scored[0] = feed.sequences[0], feed.is_scored
        return self._batch
