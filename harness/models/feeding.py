"""Rows that are fed together: which token goes where, and what it may see."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from harness.models.readout import Places, Readout
from harness.models.trie import ROOT, Trie

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Segment(NamedTuple):
    """What one row is fed in one call."""

    ids: Sequence[int]
    positions: Sequence[int]
    """Where each token stands in its text."""
    column: int
    """Where the first one's keys go; the others follow."""
    sees: NDArray[np.bool_]
    """(tokens, columns): which of the row's columns each token may look at, itself included."""
    scored: Sequence[int]
    """The tokens whose states are asked for."""


class Feeder:
    """A network whose rows live in the slots of one cache."""

    def __init__(self, readout: Readout, *, device: str, dtype: str, groups: int) -> None:
        self._readout = readout
        self._device = device
        self._dtype = dtype
        self._groups = groups

    def feed(self, cache: Any, segments: Sequence[Segment], *, start: int = 0) -> Any:
        """Appends a segment to each slot from `start` on; the scored states, (places, state), row by row."""
        import numpy as np
        import torch

        width = max(len(one.ids) for one in segments)
        span = max(one.column + len(one.ids) for one in segments)
        ids = np.zeros((len(segments), width), np.int64)
        positions, columns = np.zeros_like(ids), np.full_like(ids, -1)
        sees = np.zeros((len(segments), width, span), np.bool_)
        for row, one in enumerate(segments):
            own = len(one.ids)
            ids[row, :own], positions[row, :own] = one.ids, one.positions
            columns[row, :own] = np.arange(one.column, one.column + own)
            sees[row, :own, : one.sees.shape[1]] = one.sees
            sees[row, own:, 0] = True  # padding must look at something, or its softmax is not a number
        cache.aim(start, torch.from_numpy(columns).to(self._device), span)
        rows = [row for row, one in enumerate(segments) for _ in one.scored]
        return self._readout.states(
            Places(rows, [at for one in segments for at in one.scored]),
            input_ids=torch.from_numpy(ids).to(self._device),
            position_ids=torch.from_numpy(positions).to(self._device),
            attention_mask=self._mask(torch.from_numpy(sees)),
            past_key_values=cache,
            use_cache=True,
        )

    def _mask(self, sees: Any) -> Any:
        import torch

        if self._groups == 1:
            return sees[:, None].to(self._device)
        from harness.models.attention import grouped_mask

        return grouped_mask(sees, self._groups, getattr(torch, self._dtype))


class TreeRow:
    """One prompt in a slot, and the nodes of its choices after it."""

    def __init__(self, ids: Sequence[int], trie: Trie, prefix_tok: int) -> None:
        import numpy as np

        self._ids = ids
        self._trie = trie
        self._prefix_tok = prefix_tok
        self._used = len(ids)
        """Columns that hold the prompt and the nodes so far."""
        self._column = np.full(len(trie.tokens), -1)

    def opening(self, nodes: list[int]) -> Segment:
        """The prompt beyond its prefix, with these nodes right after it; scores its end and each node."""
        import numpy as np

        own = len(self._ids) - self._prefix_tok
        later = self.branches(nodes)
        sees = np.zeros((own + len(nodes), self._used), np.bool_)
        sees[:own, : len(self._ids)] = np.tri(own, len(self._ids), self._prefix_tok, dtype=np.bool_)
        if nodes:
            sees[own:] = later.sees
        return Segment(
            ids=[*self._ids[self._prefix_tok :], *later.ids],
            positions=[*range(self._prefix_tok, len(self._ids)), *later.positions],
            column=self._prefix_tok,
            sees=sees,
            scored=range(own - 1, own + len(nodes)),
        )

    def branches(self, nodes: list[int]) -> Segment:
        """These nodes, each after its parent; every one sees the prompt and its own path, and is scored."""
        import numpy as np

        column, trie = self._used, self._trie
        self._column[nodes] = np.arange(column, column + len(nodes))
        self._used += len(nodes)
        sees = np.zeros((len(nodes), self._used), np.bool_)
        sees[:, : len(self._ids)] = True
        place = {node: at for at, node in enumerate(nodes)}
        for at, node in enumerate(nodes):
            above = trie.parents[node]
            if above in place:
                sees[at] = sees[place[above]]
            elif above != ROOT:
                sees[at, self._column[trie.path(above)]] = True
            sees[at, column + at] = True
        return Segment(
            ids=[trie.tokens[node] for node in nodes],
            positions=[len(self._ids) + trie.depths[node] - 1 for node in nodes],
            column=column,
            sees=sees,
            scored=range(len(nodes)),
        )
