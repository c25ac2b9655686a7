"""Trees of choices through a cache that all sequences share: a prompt and all its branches in one decode.

Source: attention over a tree, as in Miao et al., SpecInfer (ASPLOS 2024), with llama.cpp's sequences as its paths.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from harness.models.answering import ChoiceRow
from harness.models.continuation import logprobs_of
from harness.models.gguf_api import Context, Feed
from harness.models.prefixes import Ids
from harness.models.trie import ROOT, Search, Trie

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAX_SEQUENCES = 256
"""llama.cpp's own limit."""
PREFIXES = 8
"""The first sequences hold what many prompts begin with; the others are for the prompts."""
PLACES = MAX_SEQUENCES - PREFIXES
OUTPUTS = 256
"""Rows of logits a decode: 50 MB for a vocabulary of 49k."""


class Prefixes:
    """A chain of beginnings, each the beginning of the next, in the first sequences of a context.

    Where sequences are apart, and a branch is a copy, only the longest has one.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._chain: list[Ids] = []
        self.places = 1 if context.cache.is_apart else PREFIXES
        """Sequences that belong to it."""

    @property
    def longest(self) -> Ids:
        """The one that is held last; empty where there is none."""
        return self._chain[-1] if self._chain else ()

    def hold(self, chain: Sequence[Ids]) -> None:
        """Makes this the chain, outermost first. What is added is computed step by step, however much was there
        before: the same chain is the same numbers."""
        while self._chain and self.longest not in chain:
            self._chain.pop()
            self._context.forget(len(self._chain))
        for ids in chain:
            if len(ids) > len(self.longest):
                self._add(ids)

    def _add(self, ids: Ids) -> None:
        begin = len(self.longest)
        if len(self._chain) < self.places:
            if self._chain:
                self._context.branch(len(self._chain) - 1, len(self._chain))
            self._chain.append(())
        place = (len(self._chain) - 1,)
        feeds = [Feed(ids[at], at, place, False) for at in range(begin, len(ids))]
        for _ in decoded(self._context, feeds):
            pass
        self._chain[-1] = ids

    def branch(self, sequences: Sequence[int], ids: Sequence[int]) -> int:
        """Lets the sequences begin with the longest one if the ids, and more of them, do; its tokens, or 0."""
        shared = len(self.longest)
        if not shared or len(ids) <= shared or tuple(ids[:shared]) != self.longest:
            return 0
        for sequence in sequences:
            self._context.branch(len(self._chain) - 1, sequence)
        return shared


class Scoring:
    """Rows whose trees are followed to all ends, as many a decode as there are sequences for their ends."""

    def __init__(self, context: Context, prefixes: Prefixes, rows: Sequence[ChoiceRow]) -> None:
        self._context = context
        self._prefixes = prefixes
        self._rows = rows
        self._searches = [Search(row.trie, exact=True) for row in rows]

    def run(self) -> list[Search]:
        """The finished searches, one a row; nothing but the prefixes stays in the cache.

        Raises:
            RuntimeError: llama.cpp can't decode; the context should be dropped.
        """
        feeds: list[Feed] = []
        places: list[tuple[int, int]] = []
        first = PREFIXES
        for at, row in enumerate(self._rows):
            ends = end_nodes(row.trie)
            if first + len(ends) > MAX_SEQUENCES:
                self._finish(feeds, places, first)
                feeds, places, first = [], [], PREFIXES
            sequences = range(first, first + len(ends))
            feeds.extend(self._prompt(row, sequences))
            feeds.extend(self._branches(row, ends, sequences))
            places.extend((at, node) for node in (ROOT, *self._searches[at].take_all()))
            first += len(ends)
        self._finish(feeds, places, first)
        return self._searches

    def _prompt(self, row: ChoiceRow, sequences: Sequence[int]) -> list[Feed]:
        shared = self._prefixes.branch(sequences, row.ids)
        on, last = tuple(sequences), len(row.ids) - 1
        return [Feed(row.ids[at], at, on, at == last) for at in range(shared, len(row.ids))]

    def _branches(self, row: ChoiceRow, ends: Sequence[int], sequences: Sequence[int]) -> list[Feed]:
        """The nodes in their order, each in the sequences of all ends below it."""
        trie = row.trie
        below: dict[int, list[int]] = {}
        for end, sequence in zip(ends, sequences, strict=True):
            for node in trie.path(end):
                below.setdefault(node, []).append(sequence)
        before = len(row.ids) - 1
        return [
            Feed(trie.tokens[node], before + trie.depths[node], tuple(below[node]), True)
            for node in sorted(below)
        ]

    def _finish(self, feeds: list[Feed], places: list[tuple[int, int]], end: int) -> None:
        for (row, node), logits in zip(places, decoded(self._context, feeds), strict=True):
            record(self._searches[row], node, logits)
        for sequence in range(PREFIXES, end):
            self._context.forget(sequence)


def end_nodes(trie: Trie) -> list[int]:
    """The scored nodes below which none is scored: a sequence each. The root where no other node is scored."""
    scored = trie.scored
    above = {trie.parents[node] for node in scored}
    return [node for node in scored if node not in above] or [ROOT]


def record(search: Search, node: int, logits: NDArray[np.float32]) -> None:
    """Tells the search what came out after the node; logits (vocab,)."""
    if not search.is_broken and search.trie.wanted[node]:
        search.record(node, logprobs_of(logits, search.trie.wanted[node]))


def decoded(context: Context, feeds: Sequence[Feed]) -> Iterator[NDArray[np.float32]]:
    """The logits of the scored feeds, (vocab,) each, and only until the next is asked for."""
    start = 0
    while start < len(feeds):
        end = start + _fitting(feeds, start, context.batch_tok)
        yield from context.decode(feeds[start:end])
        start = end


def _fitting(feeds: Sequence[Feed], start: int, batch_tok: int) -> int:
    scored = 0
    for count, feed in enumerate(feeds[start : start + batch_tok]):
        scored += feed.is_scored
        if scored > OUTPUTS:
            return count
    return min(batch_tok, len(feeds) - start)
