"""What was computed before and may be the beginning of what comes: states that are kept, by their token ids.

A kept state is in the cache, as a sequence that nobody writes to, or aside, as bytes. In the cache it is shared at no
cost, but every step looks past each cell that is taken, whoever took it: with SmolLM2, 4,000 of them make a prompt 1.5
times slower. Aside it costs nothing until it is wanted, and is back in a millisecond.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count, pairwise

KEPT = 48
"""States that are kept beside those that are pinned."""
HERE_TOK = 512
"""Tokens of the kept states in the cache, common beginnings counted once: what every step looks past."""
ASIDE_FRAC = 0.25
"""Tokens of the states aside, as a share of the cache's cells: so much more memory. Pinned ones come on top."""
WORTH_ASIDE_TOK = 128
"""A state is put aside for at least this many tokens that no other has; fewer are computed again in a step or two."""
WORTH_BRINGING_TOK = 16
"""And brought back for at least this many more than the cache has."""
AWAY = -1


@dataclass(slots=True, eq=False)
class Kept:
    """The state of these tokens, which nobody changes."""

    sequence: int
    """In the cache; `AWAY` for one that is aside."""
    ids: tuple[int, ...]
    adapter: str
    name: str = ""
    """Of a pinned one: it stays until its name is given to another."""
    used: int = field(default=0)
    state: memoryview | None = field(default=None, repr=False)
    """As llama.cpp writes it, of one that is aside or may soon be."""

    @property
    def is_here(self) -> bool:
        """It is in the cache."""
        return self.sequence != AWAY


class Shelf:
    """The kept states: the longest common beginning wins, the least recently used goes first."""

    def __init__(self, cells: int) -> None:
        self._kept: list[Kept] = []
        self._clock = count(1)
        self._aside_tok = int(cells * ASIDE_FRAC)

    def __iter__(self) -> Iterator[Kept]:
        return iter(self._kept)

    def best(self, ids: Sequence[int], adapter: str, *, is_here: bool = True) -> tuple[Kept | None, int]:
        """The state in the cache, or else aside, that shares most with the ids, and how many of them; the last id is
        never shared, because its logits are wanted."""
        own = tuple(ids[:-1])
        found: Kept | None = None
        most = 0
        for kept in self._kept:
            is_of = kept.adapter == adapter and kept.is_here == is_here
            if is_of and (shared := common_tok(kept.ids, own)) > most:
                found, most = kept, shared
        if found is not None:
            found.used = next(self._clock)
        return found, most

    def put(self, kept: Kept) -> list[Kept]:
        """Keeps a state; those that it makes needless, which may be itself."""
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
        return [*gone, *self._too_many()]

    def over(self) -> Kept | None:
        """What should leave the cache, where kept states hold too much of it; never the one that was used last."""
        here = [kept for kept in self._kept if kept.is_here]
        is_full = len(here) > 1 and distinct_tok(here) > HERE_TOK
        return self.oldest() if is_full else None

    def oldest(self) -> Kept | None:
        """The state in the cache that was not used for longest."""
        return min((kept for kept in self._kept if kept.is_here), key=lambda kept: kept.used, default=None)

    def is_worth_keeping(self, kept: Kept) -> bool:
        """Whether it should be put aside when it leaves the cache."""
        return bool(kept.name) or (
            len(kept.ids) <= self._aside_tok and self._own_tok(kept) >= WORTH_ASIDE_TOK
        )

    def put_aside(self, kept: Kept, state: memoryview) -> None:
        """Its state is in these bytes from now on; what was used longest ago goes where they are too many."""
        kept.sequence, kept.state = AWAY, state
        while True:
            loose = [one for one in self._kept if not one.is_here and not one.name]
            if sum(len(one.ids) for one in loose) <= self._aside_tok:
                return
            self.remove(min(loose, key=lambda one: one.used))

    def remove(self, kept: Kept) -> None:
        """Keeps it no more."""
        self._kept.remove(kept)

    def drop(self, adapter: str) -> list[Kept]:
        """All that was computed with the adapter, which leave the shelf."""
        gone = [kept for kept in self._kept if kept.adapter == adapter]
        self._kept = [kept for kept in self._kept if kept.adapter != adapter]
        return gone

    @property
    def pinned_tok(self) -> int:
        """Tokens of the pinned states."""
        return sum(len(kept.ids) for kept in self._kept if kept.name)

    def _own_tok(self, kept: Kept) -> int:
        others = (one.ids for one in self._kept if one is not kept and one.adapter == kept.adapter)
        return len(kept.ids) - max((common_tok(ids, kept.ids) for ids in others), default=0)

    def _too_many(self) -> list[Kept]:
        loose = sorted((kept for kept in self._kept if not kept.name), key=lambda kept: kept.used)
        gone = loose[: max(0, len(loose) - KEPT)]
        for kept in gone:
            self.remove(kept)
        return gone


def distinct_tok(states: Iterable[Kept]) -> int:
    """Tokens of all of them, each common beginning counted once."""
    ordered = sorted((kept.adapter, kept.ids) for kept in states)
    common = (common_tok(one[1], other[1]) if one[0] == other[0] else 0 for one, other in pairwise(ordered))
    return sum(len(ids) for _, ids in ordered) - sum(common)


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
