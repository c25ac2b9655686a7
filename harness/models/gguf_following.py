"""Large trees of choices: from the prompt only those branches are followed that can still matter."""

from __future__ import annotations

from collections.abc import Sequence

from harness.models.answering import ChoiceRow
from harness.models.gguf_api import Context, Feed
from harness.models.gguf_scoring import MAX_SEQUENCES, OUTPUTS, PREFIXES, Prefixes, decoded, record
from harness.models.trie import ROOT, Search, Trie


class Following:
    """One batch of prompts in the cache, a sequence each, and the branches after them."""

    def __init__(
        self, context: Context, prefixes: Prefixes, rows: Sequence[ChoiceRow], *, exact: bool
    ) -> None:
        self._context = context
        self._prefixes = prefixes
        self._rows = rows
        self._searches = [Search(row.trie, exact=exact) for row in rows]
        self._free = list(range(MAX_SEQUENCES - 1, PREFIXES - 1, -1))
        self._branch: list[dict[int, int]] = [{ROOT: self._free.pop()} for _ in rows]
        """For each row, the sequence that ends at a node."""
        self._followed: list[set[int]] = [set() for _ in rows]
        """For each row, the first nodes of the chains that were evaluated."""

    def run(self) -> list[Search]:
        """The finished searches, one a row; nothing but the prefixes stays in the cache.

        Raises:
            RuntimeError: llama.cpp can't decode; the context should be dropped.
        """
        self._start()
        while any(nodes := [search.take() for search in self._searches]):
            self._follow_all(nodes)
        for branches in self._branch:
            for sequence in branches.values():
                self._release(sequence)
        return self._searches

    def _start(self) -> None:
        feeds: list[Feed] = []
        for row, branches in zip(self._rows, self._branch, strict=True):
            on, last = (branches[ROOT],), len(row.ids) - 1
            begin = self._prefixes.branch(on, row.ids)
            feeds.extend(Feed(row.ids[at], at, on, at == last) for at in range(begin, len(row.ids)))
        for search, logits in zip(self._searches, decoded(self._context, feeds), strict=True):
            record(search, ROOT, logits)

    def _follow_all(self, nodes: list[list[int]]) -> None:
        """Evaluates the nodes; as many chains at once as there are sequences."""
        waiting = [(row, chain) for row, ones in enumerate(nodes) for chain in _chains(self._trie(row), ones)]
        while waiting:
            ready = [at for at, (row, chain) in enumerate(waiting) if self._is_reached(row, chain)]
            ready.sort(key=lambda at: -self._trie(waiting[at][0]).depths[waiting[at][1][0]])
            room = (
                len(self._free) // 2
            )  # the rest is for the forks below: deepest first, each ends and gives back
            now = ready[: _fitting([len(waiting[at][1]) for at in ready], room)]
            self._follow([waiting[at] for at in now])
            taken = set(now)
            waiting = [one for at, one in enumerate(waiting) if at not in taken]

    def _trie(self, row: int) -> Trie:
        return self._rows[row].trie

    def _is_reached(self, row: int, chain: list[int]) -> bool:
        return self._trie(row).parents[chain[0]] in self._branch[row]

    def _follow(self, chains: list[tuple[int, list[int]]]) -> None:
        feeds: list[Feed] = []
        places: list[tuple[int, int]] = []
        for row, chain in chains:
            trie = self._trie(row)
            if not self._free:
                raise RuntimeError("the choices fork more often than llama.cpp has sequences")
            sequence = self._free.pop()
            self._context.branch(self._branch[row][trie.parents[chain[0]]], sequence)
            self._branch[row][chain[-1]] = sequence
            before = len(self._rows[row].ids) - 1
            feeds.extend(
                Feed(trie.tokens[node], before + trie.depths[node], (sequence,), True) for node in chain
            )
            places.extend((row, node) for node in chain)
        for (row, node), logits in zip(places, decoded(self._context, feeds), strict=True):
            record(self._searches[row], node, logits)
        for row, chain in chains:
            self._followed[row].add(chain[0])
            for node in (chain[-1], self._trie(row).parents[chain[0]]):
                self._release_ended(row, node)

    def _release_ended(self, row: int, node: int) -> None:
        trie = self._trie(row)
        below = (child for child in trie.children[node] if trie.wanted[child])
        if node != ROOT and node in self._branch[row] and self._followed[row].issuperset(below):
            self._release(self._branch[row].pop(node))

    def _release(self, sequence: int) -> None:
        self._context.forget(sequence)
        self._free.append(sequence)


def _chains(trie: Trie, nodes: list[int]) -> list[list[int]]:
    """The nodes as runs without a fork: a sequence each."""
    ending: dict[int, list[int]] = {}
    for node in nodes:
        above = trie.parents[node]
        is_fork = len(trie.children[above]) > 1
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
