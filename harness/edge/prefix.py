"""What was computed before and may be the beginning of what comes: sequences that are kept, by their token ids."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count

KEPT = 48
"""Sequences that are kept beside those that are pinned."""
KEPT_FRAC = 0.5
"""Share of the cache's cells that kept sequences may hold, counted as if they shared none."""


@dataclass(slots=True)
class Kept:
    """A sequence in the cache that nobody writes to."""

    sequence: int
    ids: tuple[int, ...]
    adapter: str
    name: str = ""
    """Of a pinned one: it stays until its name is given to another."""
    used: int = field(default=0)


class Shelf:
    """The kept sequences: the longest common beginning wins, the least recently used goes first."""

    def __init__(self, cells: int) -> None:
        self._kept: list[Kept] = []
        self._clock = count(1)
        self._cells = cells

    def __iter__(self) -> Iterator[Kept]:
        return iter(self._kept)

    def best(self, ids: Sequence[int], adapter: str) -> tuple[Kept | None, int]:
        """The kept sequence that shares most with the ids, and how many of them; the last id is never shared,
        because its logits are wanted."""
        own = tuple(ids[:-1])
        found: Kept | None = None
        most = 0
        for kept in self._kept:
            if kept.adapter == adapter and (here := common_tok(kept.ids, own)) > most:
                found, most = kept, here
        if found is not None:
            found.used = next(self._clock)
        return found, most

    def put(self, kept: Kept) -> list[Kept]:
        """Keeps a sequence; those that must go for it, which may be itself."""
        gone: list[Kept] = []
        for other in list(self._kept):
            if other.adapter != kept.adapter:
                continue
            shared = common_tok(other.ids, kept.ids)
            if shared == len(kept.ids) and not kept.name:
                other.used = next(self._clock)
                return [*gone, kept]
            if (shared == len(other.ids) and not other.name) or (kept.name and other.name == kept.name):
                self._kept.remove(other)
                gone.append(other)
        kept.used = next(self._clock)
        self._kept.append(kept)
        return [*gone, *self._overflow()]

    def pop_oldest(self) -> Kept | None:
        """The least recently used one that is not pinned, which leaves the shelf."""
        loose = [kept for kept in self._kept if not kept.name]
        if not loose:
            return None
        oldest = min(loose, key=lambda kept: kept.used)
        self._kept.remove(oldest)
        return oldest

    def drop(self, adapter: str) -> list[Kept]:
        """All that was computed with the adapter, which leave the shelf."""
        gone = [kept for kept in self._kept if kept.adapter == adapter]
        self._kept = [kept for kept in self._kept if kept.adapter != adapter]
        return gone

    @property
    def pinned_tok(self) -> int:
        """Cells that stay taken."""
        return sum(len(kept.ids) for kept in self._kept if kept.name)

    def _overflow(self) -> list[Kept]:
        gone: list[Kept] = []
        while True:
            loose = [kept for kept in self._kept if not kept.name]
            tokens = sum(len(kept.ids) for kept in loose)
            if len(loose) <= KEPT and (tokens <= self._cells * KEPT_FRAC or len(loose) < 2):
                return gone
            oldest = self.pop_oldest()
            assert oldest is not None
            gone.append(oldest)


def common_tok(one: Sequence[int], other: Sequence[int]) -> int:
    """How many ids both begin with."""
    low, high = 0, min(len(one), len(other))
    if one[:high] == other[:high]:
        return high
    while high - low > 1:  # slices compare in C: log2(n) of them are faster than a loop over ids
        middle = (low + high) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle
    return low
