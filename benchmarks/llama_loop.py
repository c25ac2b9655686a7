"""llama.cpp's own speed: a plain loop of `llama_decode`, the least that any engine over the library must do.

    python benchmarks/llama_loop.py MODEL --prompt 512 --shared 400 --tail 30 --new 64 --threads 2

For each line of stdin one JSON line of tokens a second:

- `prompt`: one prompt, in batches of 512;
- `decode`: tokens one by one after it;
- `one`, `eight`: what is written after a beginning that is computed already, each sequence after a tail of its own:
  one sequence at a time, and eight in each step. Tails and writing are both within the time.

Nothing is sampled but the argmax, as llama-bench measures; `--prompt` and so on are lengths in tokens.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import sys
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import llama_cpp as lib
import numpy as np

BATCH_TOK = 512
SIDE_BY_SIDE = 8
ALONE = 2
"""Sequences that are written one after another; their speed is the same for each."""


class Lengths(NamedTuple):
    """Tokens of each part."""

    prompt: int
    shared: int
    tail: int
    new: int


class Row(NamedTuple):
    """One token of a batch."""

    token: int
    position: int
    sequence: int
    is_scored: bool


class Loop:
    """A context over the file, and its decoding."""

    def __init__(self, path: str, threads: int, lengths: Lengths) -> None:
        self._silent = lib.llama_log_callback(lambda _level, _text, _data: None)
        lib.llama_log_set(self._silent, ctypes.c_void_p(0))
        lib.llama_backend_init()
        model = lib.llama_model_load_from_file(path.encode(), lib.llama_model_default_params())
        each = lengths.tail + lengths.new
        params = lib.llama_context_default_params()
        params.n_ctx = max(lengths.prompt + lengths.new, lengths.shared + SIDE_BY_SIDE * each) + 256
        params.n_batch = params.n_ubatch = BATCH_TOK
        params.n_threads = params.n_threads_batch = threads
        params.n_seq_max, params.kv_unified = SIDE_BY_SIDE + 1, True
        self._context = lib.llama_init_from_model(model, params)
        self._memory = lib.llama_get_memory(self._context)
        self.vocab = lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(model))
        self._batch = lib.llama_batch_init(BATCH_TOK, 0, 1)

    def clear(self) -> None:
        lib.llama_memory_clear(self._memory, True)

    def branch(self, target: int, tokens: int) -> None:
        """Makes `target` begin with the first tokens of sequence 0."""
        lib.llama_memory_seq_rm(self._memory, target, -1, -1)
        lib.llama_memory_seq_cp(self._memory, 0, target, 0, tokens)

    def decode(self, rows: Sequence[Row]) -> list[int]:
        """The likeliest token after each that is scored."""
        batch = self._batch
        batch.n_tokens = len(rows)
        for at, row in enumerate(rows):
            batch.token[at], batch.pos[at] = row.token, row.position
            batch.n_seq_id[at], batch.seq_id[at][0] = 1, row.sequence
            batch.logits[at] = row.is_scored
        if lib.llama_decode(self._context, batch) != 0:
            raise RuntimeError("llama_decode failed")
        return [int(row.argmax()) for row in self._logits(sum(row.is_scored for row in rows))]

    def _logits(self, rows: int) -> Any:
        if not rows:
            return []
        first = lib.llama_get_logits(self._context)
        values = (ctypes.c_float * (rows * self.vocab)).from_address(ctypes.addressof(first.contents))
        return np.ctypeslib.as_array(values).reshape(rows, self.vocab)

    def prompt(self, sequences: Sequence[int], start: int, tokens: int) -> list[int]:
        """Feeds each sequence so many tokens of its own; the likeliest one after each."""
        rows = [
            Row((at * 7919 + one * 104729) % self.vocab, start + at, one, at == tokens - 1)
            for one in sequences
            for at in range(tokens)
        ]
        found: list[int] = []
        for begin in range(0, len(rows), BATCH_TOK):
            found += self.decode(rows[begin : begin + BATCH_TOK])
        return found

    def write(self, sequences: Sequence[int], tokens: Sequence[int], start: int, new: int) -> None:
        """Goes on with each sequence, all of them in each step."""
        for step in range(new):
            rows = [Row(token, start + step, one, True) for token, one in zip(tokens, sequences, strict=True)]
            tokens = self.decode(rows)


def measure(loop: Loop, lengths: Lengths) -> dict[str, float]:
    """Tokens a second of each part."""
    loop.clear()
    began = time.perf_counter()
    last = loop.prompt([0], 0, lengths.prompt)
    prompted = time.perf_counter()
    loop.write([0], last, lengths.prompt, lengths.new)
    written = time.perf_counter()
    loop.clear()
    loop.prompt([0], 0, lengths.shared)
    one_s = sum(shared_s(loop, [at], lengths) for at in range(1, ALONE + 1))
    eight_s = shared_s(loop, range(1, SIDE_BY_SIDE + 1), lengths)
    return {
        "prompt": lengths.prompt / (prompted - began), "decode": lengths.new / (written - prompted),
        "one": ALONE * lengths.new / one_s, "eight": SIDE_BY_SIDE * lengths.new / eight_s,
    }  # fmt: skip


def shared_s(loop: Loop, sequences: Sequence[int], lengths: Lengths) -> float:
    """Seconds for a tail and an answer of each, after the beginning that they share."""
    began = time.perf_counter()
    for one in sequences:
        loop.branch(one, lengths.shared)
    last = loop.prompt(sequences, lengths.shared, lengths.tail)
    loop.write(sequences, last, lengths.shared + lengths.tail, lengths.new - 1)
    return time.perf_counter() - began


def main() -> None:
    """Measures once for each line of stdin."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    for name, default in zip(Lengths._fields, (512, 400, 30, 64), strict=True):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    lengths = Lengths(options.prompt, options.shared, options.tail, options.new)
    loop = Loop(options.model, options.threads, lengths)
    for _ in sys.stdin:
        print(json.dumps(measure(loop, lengths)), flush=True)


if __name__ == "__main__":
    main()
