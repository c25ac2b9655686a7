"""One answer out of labels: every label's log-probability from a tree of their tokens after the prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from harness.edge.writing import NotFiniteError
from harness.models.answering import SMALL_TRIE
from harness.models.chat import Chat
from harness.models.gguf_api import Feed
from harness.models.gguf_scoring import record
from harness.models.trie import ROOT, Search, Trie, build_trie

if TYPE_CHECKING:
    from numpy.typing import NDArray

WAVE_NODES = 256
"""Nodes of a tree that are scored at once: each is a row of logits."""


class Wave(NamedTuple):
    """Nodes of a tree that go through the network together, each end of them in a sequence of its own."""

    nodes: tuple[int, ...]
    """Every node after its parent."""
    ends: tuple[int, ...]


@lru_cache(maxsize=64)
def label_tree(chat_encode: Any, end_id: int, labels: tuple[str, ...]) -> Trie:
    """The labels' tokens as a tree; a small one is followed to all its ends, as when it was evaluated."""
    tree = build_trie([chat_encode(label) for label in labels], end_id)
    return tree if len(tree.tokens) > SMALL_TRIE else replace(tree, is_exact=True)


class Labelling:
    """The labels of one request on their way."""

    def __init__(self, labels: Sequence[str], chat: Chat) -> None:
        self.labels = tuple(labels)
        self.trie = label_tree(chat.encode, chat.end_id, self.labels)
        self._search = Search(self.trie)
        self._recorded: set[int] = set()
        self._nodes: list[int] = self._search.take_all() if self.trie.is_exact else []
        self._is_begun = False

    @property
    def room_tok(self) -> int:
        """Cells that the tree may take beside the prompt."""
        return min(len(self.trie.tokens), WAVE_NODES)

    def wave(self, free_sequences: int, free_tok: int) -> Wave:
        """The next nodes for so many sequences and tokens; empty where there are none, or too little room for one."""
        if not self._nodes and self._is_begun:
            self._nodes = self._search.take()
        below = set(self._nodes)
        inner = {self.trie.parents[node] for node in self._nodes}
        taken: dict[int, None] = {}
        ends: list[int] = []
        for end in (node for node in self._nodes if node not in inner):
            more = [node for node in self.trie.path(end) if node not in taken]
            if len(ends) == free_sequences or len(taken) + len(more) > min(free_tok, WAVE_NODES):
                break
            taken.update(dict.fromkeys(more))
            ends.append(end)
        done = {node for node in taken if node in below}
        self._nodes = [node for node in self._nodes if node not in done]
        return Wave(tuple(sorted(taken)), tuple(ends))

    def feeds(self, wave: Wave, sequences: Sequence[int], prompt_tok: int) -> list[Feed]:
        """The wave's nodes, each in the sequences of all ends below it."""
        below: dict[int, list[int]] = {}
        for end, sequence in zip(wave.ends, sequences, strict=True):
            for node in self.trie.path(end):
                below.setdefault(node, []).append(sequence)
        before = prompt_tok - 1
        return [
            Feed(self.trie.tokens[node], before + self.trie.depths[node], tuple(below[node]), True)
            for node in wave.nodes
        ]

    def take(self, node: int, logits: NDArray[Any]) -> None:
        """Takes what came out after the node; logits (vocab,). The root comes first.

        Raises:
            NotFiniteError: a logit is no number.
        """
        self._is_begun = True
        if node not in self._recorded:
            self._recorded.add(node)
            record(self._search, node, logits)
        if self._search.is_broken:
            raise NotFiniteError("the model's logits are not finite")

    @property
    def is_done(self) -> bool:
        """Every label has its log-probability."""
        if not self._nodes and self._is_begun:
            self._nodes = self._search.take()
        return ROOT in self._recorded and not self._nodes

    def logprobs(self) -> dict[str, float]:
        """Natural log of P(label + end of turn | prompt), by label in their order."""
        return dict(zip(self.labels, self._search.logprobs(), strict=True))
