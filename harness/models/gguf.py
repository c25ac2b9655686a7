"""A GGUF file as a Model, through llama.cpp's low-level interface."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import IntegrityError, ModelError
from harness.models.answering import AnsweringModel, ChoiceRow, Generated, GenerateRow
from harness.models.chat import Chat, find_end_text
from harness.models.continuation import Continuation
from harness.models.gguf_api import Context, Feed, Weights
from harness.models.identity import gguf_identity
from harness.models.trie import ROOT, Search, Trie

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BUDGET_TOK = 512
"""Prompt tokens of a batch: the cost of attention grows with all that lies in the cache."""
MAX_ITEMS = 16
MAX_SEQUENCES = 256
"""llama.cpp's own limit."""
OUTPUTS = 256
"""Rows of logits a decode: 50 MB for a vocabulary of 49k."""
BATCH_TOK = 2048
PREFIX = 0
"""The sequence that holds what all prompts begin with."""


class GgufModel(AnsweringModel):
    """Answers with llama.cpp in this process: run it in a worker, native code can take a process down."""

    def __init__(
        self,
        path: Path,
        *,
        threads: int | None = None,
        sha256: str | None = None,
        exact: bool = False,
        budget_tok: int = BUDGET_TOK,
        max_items: int = MAX_ITEMS,
    ) -> None:
        """Loads the file. `exact` follows every choice to its end, however unlikely.

        Raises:
            ModelError: llama.cpp can't use the file, or it has no chat template.
            IntegrityError: its sha256 is not the one that was promised.
        """
        from harness.models.network import usable_threads

        identity = gguf_identity(path)
        if sha256 is not None and identity.weights != sha256:
            raise IntegrityError(f"{path}: sha256 is {identity.weights[:16]}…, wanted {sha256[:16]}…")
        super().__init__(identity, budget_tok=budget_tok, max_items=max_items)
        self._weights = _load(path)
        self.chat = gguf_chat(self._weights, path)
        self.context_tok = self._weights.context_tok
        self._threads = threads or usable_threads()
        self._exact = exact
        self._prefix: list[int] = []
        self._context: Context | None = None

    def close(self) -> None:
        """Gives the memory back."""
        self._drop_context()
        self._weights.close()
        self._fitted.cache_clear()

    def _drop_context(self) -> None:
        if self._context is not None:
            self._context.close()
            self._context = None

    def _set_prefix(self, ids: list[int]) -> None:
        if ids != self._prefix:
            self._prefix = ids
            self._drop_context()

    def _room(self, cells: int) -> Context:
        """A context with the prefix in it and room for this many more tokens."""
        wanted = -(-(len(self._prefix) + cells) // 256) * 256
        if self._context is not None and self._context.cells >= wanted:
            return self._context
        self._drop_context()
        context = Context(
            self._weights, cells=wanted, sequences=MAX_SEQUENCES, batch_tok=BATCH_TOK, threads=self._threads
        )
        feeds = [Feed(token, at, PREFIX, False) for at, token in enumerate(self._prefix)]
        for start in range(0, len(feeds), BATCH_TOK):
            context.decode(feeds[start : start + BATCH_TOK])
        self._context = context
        return context

    def _score_rows(self, rows: Sequence[ChoiceRow]) -> list[Search]:
        cells = sum(len(row.ids) + len(row.trie.tokens) for row in rows)
        job = Job(self._room(cells), self._prefix, [row.ids for row in rows])
        searches = [Search(row.trie, exact=self._exact) for row in rows]
        try:
            for search, logits in zip(searches, job.start(), strict=True):
                search.record(ROOT, logprobs_of(logits, search.trie.wanted[ROOT]))
            while any(nodes := [search.take() for search in searches]):
                job.follow(searches, nodes)
        except RuntimeError:
            self._drop_context()
            raise
        job.end()
        return searches

    def _generate_rows(self, rows: Sequence[GenerateRow]) -> list[Generated]:
        cells = sum(len(row.ids) + row.request.max_new_tokens for row in rows)
        job = Job(self._room(cells), self._prefix, [row.ids for row in rows])
        answers = [Continuation(row.request, self.chat) for row in rows]
        try:
            logits = dict(enumerate(job.start()))
            while logits:
                tokens = {row: answers[row].extend(line) for row, line in logits.items()}
                logits = job.extend({row: token for row, token in tokens.items() if not answers[row].is_done})
        except RuntimeError:
            self._drop_context()
            raise
        job.end()
        return [answer.result() for answer in answers]


class Job:
    """One batch of prompts in the cache, a sequence each, and the branches after them."""

    def __init__(self, context: Context, prefix: list[int], rows: list[list[int]]) -> None:
        self._context = context
        self._prefix = prefix
        self._rows = rows
        self._lengths = [len(ids) for ids in rows]
        self._free = list(range(MAX_SEQUENCES - 1, PREFIX, -1))
        self._prompt = [self._free.pop() for _ in rows]
        self._branch: list[dict[int, int]] = [{ROOT: sequence} for sequence in self._prompt]
        """For each row, the sequence that ends at a node."""
        self._followed: list[set[int]] = [set() for _ in rows]
        """For each row, the first nodes of the chains that were evaluated."""

    def start(self) -> list[NDArray[np.float32]]:
        """Feeds the prompts; the logits after each."""
        shared = len(self._prefix)
        feeds: list[Feed] = []
        for ids, sequence in zip(self._rows, self._prompt, strict=True):
            begin = shared if len(ids) > shared and ids[:shared] == self._prefix else 0
            if begin:
                self._context.branch(PREFIX, sequence)
            last = len(ids) - 1
            feeds.extend(Feed(ids[at], at, sequence, at == last) for at in range(begin, len(ids)))
        return self._decoded(feeds)

    def extend(self, tokens: dict[int, int]) -> dict[int, NDArray[np.float32]]:
        """Appends one token to each of these rows; the logits after it, by row."""
        feeds = [Feed(token, self._lengths[row], self._prompt[row], True) for row, token in tokens.items()]
        for row in tokens:
            self._lengths[row] += 1
        return dict(zip(tokens, self._decoded(feeds), strict=True))

    def follow(self, searches: list[Search], nodes: list[list[int]]) -> None:
        """Evaluates the nodes and tells the searches; as many chains at once as there are sequences."""
        waiting = [(row, chain) for row, ones in enumerate(nodes) for chain in _chains(searches[row], ones)]
        while waiting:
            ready = [at for at, (row, chain) in enumerate(waiting) if self._is_reached(searches, row, chain)]
            ready.sort(key=lambda at: -searches[waiting[at][0]].trie.depths[waiting[at][1][0]])
            room = (
                len(self._free) // 2
            )  # the rest is for the forks below: deepest first, each ends and gives back
            now = ready[: _fitting([len(waiting[at][1]) for at in ready], room)]
            self._follow(searches, [waiting[at] for at in now])
            taken = set(now)
            waiting = [one for at, one in enumerate(waiting) if at not in taken]

    def _is_reached(self, searches: list[Search], row: int, chain: list[int]) -> bool:
        return searches[row].trie.parents[chain[0]] in self._branch[row]

    def _follow(self, searches: list[Search], chains: list[tuple[int, list[int]]]) -> None:
        feeds: list[Feed] = []
        places: list[tuple[int, int]] = []
        for row, chain in chains:
            trie = searches[row].trie
            if not self._free:
                raise RuntimeError("the choices fork more often than llama.cpp has sequences")
            sequence = self._free.pop()
            self._context.branch(self._branch[row][trie.parents[chain[0]]], sequence)
            self._branch[row][chain[-1]] = sequence
            for node in chain:
                place = self._lengths[row] + trie.depths[node] - 1
                feeds.append(Feed(trie.tokens[node], place, sequence, True))
                places.append((row, node))
        for (row, node), logits in zip(places, self._decoded(feeds), strict=True):
            if not searches[row].is_broken:
                searches[row].record(node, logprobs_of(logits, searches[row].trie.wanted[node]))
        for row, chain in chains:
            self._followed[row].add(chain[0])
            for node in (chain[-1], searches[row].trie.parents[chain[0]]):
                self._release_ended(row, node, searches[row].trie)

    def _release_ended(self, row: int, node: int, trie: Trie) -> None:
        is_ended = self._followed[row].issuperset(trie.children[node])
        if is_ended and node != ROOT and node in self._branch[row]:
            self._release(self._branch[row].pop(node))

    def end(self) -> None:
        """Forgets the prompts and all branches; the shared prefix stays."""
        for branches in self._branch:
            for sequence in branches.values():
                self._release(sequence)

    def _release(self, sequence: int) -> None:
        self._context.forget(sequence)
        self._free.append(sequence)

    def _decoded(self, feeds: list[Feed]) -> list[NDArray[np.float32]]:
        found: list[NDArray[np.float32]] = []
        for start in range(0, len(feeds), self._context.batch_tok):
            found.extend(self._context.decode(feeds[start : start + self._context.batch_tok]))
        return found


def _chains(search: Search, nodes: list[int]) -> list[list[int]]:
    """The nodes as runs without a fork: a sequence each."""
    ending: dict[int, list[int]] = {}
    for node in nodes:
        above = search.trie.parents[node]
        is_fork = len(search.trie.children[above]) > 1
        chain = [] if is_fork or above not in ending else ending.pop(above)
        ending[node] = [*chain, node]
    return sorted(ending.values())


def _fitting(lengths: Sequence[int], sequences: int) -> int:
    """How many of the first chains go into one decode; at least one."""
    outputs = 0
    for count, length in enumerate(lengths):
        outputs += length
        if count and (count >= sequences or outputs > OUTPUTS):
            return count
    return len(lengths)


def logprobs_of(logits: NDArray[np.float32], ids: Sequence[int]) -> list[float]:
    """log P of the ids under the logits (vocab,); the sum is in float64."""
    import numpy as np

    top = float(logits.max())
    total = top + float(np.log(np.exp(logits - np.float32(top)).sum(dtype=np.float64)))
    return [float(logits[token]) - total for token in ids]


def _load(path: Path) -> Weights:
    from harness.models.gguf_probe import needs_plain_buffers

    with Weights(path, vocab_only=True) as head:
        is_quantized = head.is_quantized
    is_plain = needs_plain_buffers(path.resolve(), is_quantized=is_quantized)
    return Weights(path, use_extra_buffers=not is_plain)


def gguf_chat(weights: Weights, path: Path) -> Chat:
    """The chat of a GGUF: its own template and its own tokenizer.

    Raises:
        ModelError: it has no chat template, or no token that ends a turn.
    """
    source = weights.meta("tokenizer.chat_template")
    if not source:
        raise ModelError(f"{path}: no chat template in its metadata")
    tokens = weights.special_tokens()
    end_text = find_end_text(source, tokens, weights.control_pieces())
    ids = weights.encode(end_text)
    if len(ids) != 1:
        raise ModelError(f"{path}: the end of turn {end_text!r} is {len(ids)} tokens, wanted one")
    return Chat(
        template=source,
        tokens=tokens,
        encode=weights.encode,
        decode=weights.decode,
        end_text=end_text,
        end_id=ids[0],
        end_ids=(ids[0], *sorted(weights.turn_end_ids() - {ids[0]})),
        pad_id=ids[0],
    )
