"""Choices that share beginnings, as a tree: what they share is computed once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

PRUNE_NATS = 12.0
"""A branch this far below the best finished choice is not followed: it weighs less than 6.2e-6 of it, where rounding
of a quantized file moves probabilities by 1e-3 and more. Of 38 labels a tuned model puts a third below that."""

LEAD_NATS = 12.0
"""Until some choice is finished, only branches this close to the leading one are followed, to their ends."""

ROOT = 0


@dataclass(frozen=True, slots=True)
class Trie:
    """Token sequences as a tree. Node 0 is the end of the prompt; every other node is one token."""

    tokens: tuple[int, ...]
    """(nodes,); the root's is -1."""
    parents: tuple[int, ...]
    """(nodes,); always smaller than the node itself; the root's is -1."""
    depths: tuple[int, ...]
    """(nodes,); tokens after the prompt."""
    children: tuple[tuple[int, ...], ...]
    wanted: tuple[tuple[int, ...], ...]
    """(nodes,) the ids whose log-probability is needed after each node: its children's tokens, then the
    end of turn where a choice ends there."""
    ends: tuple[int, ...]
    """(choices,) the node at which each choice ends."""
    is_exact: bool = False
    """Every choice is followed to its end, however unlikely."""

    @property
    def scored(self) -> list[int]:
        """The nodes after which something is wanted: all but the last tokens of texts that may go on."""
        return [node for node, wanted in enumerate(self.wanted) if wanted]

    def scored_tok(self) -> list[int]:
        """(choices,) the tokens that each choice's log-probability sums over, its end included if wanted."""
        return [self.depths[node] + (len(self.wanted[node]) > len(self.children[node])) for node in self.ends]

    def path(self, node: int) -> list[int]:
        """The nodes from the first token down to this one."""
        found: list[int] = []
        while node != ROOT:
            found.append(node)
            node = self.parents[node]
        return found[::-1]

    def subtree(self, node: int) -> list[int]:
        """The node and all below it."""
        found = [node]
        for above in found:  # grows while it is walked
            found.extend(self.children[above])
        return found


def build_trie(choices: Sequence[Sequence[int]], end_id: int | None, *, is_exact: bool = False) -> Trie:
    """The tree of the choices' ids, `end_id` not among them; equal choices end at the same node.

    With `end_id` None the choices are text that may go on, and nothing is asked after their last tokens;
    such a tree is always exact.
    """
    tokens, parents, depths = [-1], [-1], [0]
    children: list[list[int]] = [[]]
    known: dict[tuple[int, int], int] = {}
    ends: list[int] = []
    for ids in choices:
        node = ROOT
        for token in ids:
            step = (node, token)
            if step not in known:
                known[step] = len(tokens)
                children[node].append(len(tokens))
                children.append([])
                tokens.append(token)
                parents.append(node)
                depths.append(depths[node] + 1)
            node = known[step]
        ends.append(node)
    is_end = set(ends)
    wanted = [
        (*(tokens[child] for child in found), *((end_id,) if end_id is not None and node in is_end else ()))
        for node, found in enumerate(children)
    ]
    return Trie(
        tokens=tuple(tokens),
        parents=tuple(parents),
        depths=tuple(depths),
        children=tuple(tuple(found) for found in children),
        wanted=tuple(wanted),
        ends=tuple(ends),
        is_exact=is_exact or end_id is None,
    )


class Search:
    """The log-probabilities of one request's choices, from as few evaluated nodes as are needed.

    Ask `take` which nodes to evaluate, tell `record` what came out, until `take` is empty. The root is
    evaluated with the prompt and recorded first.
    """

    def __init__(self, trie: Trie, *, exact: bool = False) -> None:
        """An empty search; `exact`, or a tree that `is_exact`, leaves no choice out."""
        self.trie = trie
        self.is_broken = False
        """A log-probability was not a number: no score can be given."""
        self.is_exact = exact or trie.is_exact
        self._reached: dict[int, float] = {ROOT: 0.0}
        self._end: dict[int, float] = {}
        self._waiting: list[int] = []
        self._taken: set[int] = {ROOT}
        self._best: float | None = None

    def take_all(self) -> list[int]:
        """Every node but the root, to be evaluated together with the prompt and recorded after the root."""
        nodes = [node for node in self.trie.scored if node != ROOT]
        self._taken.update(nodes)
        return nodes

    def record(self, node: int, logprobs: Sequence[float]) -> None:
        """Takes log P(id | path to the node) for the ids of `trie.wanted[node]`, in their order.

        A node is recorded after its parent.
        """
        if not all(isfinite(value) for value in logprobs):
            self.is_broken = True
            return
        here = self._reached[node]
        children = self.trie.children[node]
        for child, value in zip(children, logprobs, strict=False):
            self._reached[child] = here + value
            if child not in self._taken and self.trie.wanted[child]:
                self._waiting.append(child)
        if len(logprobs) > len(children):
            self._end[node] = here + logprobs[-1]
            self._best = self._end[node] if self._best is None else max(self._best, self._end[node])

    def take(self) -> list[int]:
        """The nodes to evaluate next, every node after its parent; empty when all is known.

        Nodes after which nothing is wanted are not among them.
        """
        if self.is_broken or not self._waiting:
            return []
        least = self._least()
        heads = [node for node in self._waiting if self._reached[node] >= least]
        taken_heads = set(heads)
        is_decided = self._best is not None and not self.is_exact
        self._waiting = [] if is_decided else [node for node in self._waiting if node not in taken_heads]
        nodes = sorted(node for head in heads for node in self.trie.subtree(head) if self.trie.wanted[node])
        self._taken.update(nodes)
        return nodes

    def _least(self) -> float:
        if self.is_exact:
            return float("-inf")
        if self._best is not None:
            return self._best - PRUNE_NATS
        return max(self._reached[node] for node in self._waiting) - LEAD_NATS

    def logprobs(self) -> tuple[float, ...]:
        """log P(choice + end of turn | prompt), one a choice; without the end where the tree has none.

        For a choice that was not followed to its end: the log-probability of its beginning, which is an
        upper bound more than `PRUNE_NATS` below the best.
        """
        return tuple(self._logprob(node) for node in self.trie.ends)

    def _logprob(self, node: int) -> float:
        if node in self._end:
            return self._end[node]
        while node not in self._reached:
            node = self.trie.parents[node]
        return self._reached[node]
