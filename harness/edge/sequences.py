"""The sequences of a cache: who has which, what is kept for later, and what leaves where room is needed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from harness.edge.network import Adapter, Network, NoRoomError
from harness.edge.prefix import WORTH_BRINGING_TOK, Kept, Shelf, common_tok
from harness.edge.running import Running
from harness.models.gguf_api import Feed
from harness.models.gguf_scoring import MAX_SEQUENCES

if TYPE_CHECKING:
    from numpy.typing import NDArray

STEP_TOK = 512
"""Tokens of a step, and rows of the network's buffers: more of them go through no faster."""
SPREAD_TOK = 256
"""Cells that may lie empty among those that are taken. llama.cpp looks at every cell up to the last one that is taken,
in steps of 256: 500 empty ones make each token of an answer 1.3 times slower with SmolLM2, and 6 ms move 430."""


class Sequences:
    """Free ones, and those on the shelf; the others belong to whoever took them."""

    def __init__(self, network: Network, adapters: Mapping[str, Adapter]) -> None:
        """All are free."""
        self._network, self._adapters = network, adapters
        self.free = list(range(MAX_SEQUENCES - 1, -1, -1))
        self.shelf = Shelf(network.cache.cells)
        self._reach = 0
        """Tokens that went into the cache since it was last empty: its last taken cell lies no further."""

    def use(self, adapter: str) -> None:
        """What is decoded from now on goes through the adapter of this name."""
        self._network.use(self._adapters.get(adapter))

    def keep(
        self, ids: list[int], adapter: str, name: str, state: Callable[[int], bool] | None = None
    ) -> int:
        """Pins a sequence with these ids under the name; how many of them were at hand.

        `state` may bring the sequence's state back, and says whether it did; else it is computed.
        """
        sequence = self.take()
        shared = len(ids) if state is not None and state(sequence) else 0
        self._reach += shared
        if not shared:
            shared = self.begin([*ids, -1], adapter, sequence)
            self.use(adapter)
            for start in range(shared, len(ids), STEP_TOK):
                end = min(len(ids), start + STEP_TOK)
                self.decode([Feed(ids[at], at, (sequence,), False) for at in range(start, end)])
        self.shelve(Kept(sequence, tuple(ids), adapter, name))
        return shared

    def forget(self, adapter: str) -> None:
        """Lets go of all that was computed with the adapter."""
        for kept in self.shelf.drop(adapter):
            self._let_go(kept)

    def begin(
        self, ids: Sequence[int], adapter: str, sequence: int, running: Sequence[Running] = (), *,
        is_long: bool = False,
    ) -> int:  # fmt: skip
        """Gives an empty sequence the longest beginning that was computed already; its tokens.

        What is brought back for a long answer has the cache to itself, where nobody else is in work.
        """
        shared = self._at_hand(ids, adapter, running)[1]
        aside, longer = self.shelf.best(ids, adapter, is_here=False)
        is_worth_it = longer >= shared + WORTH_BRINGING_TOK
        if aside is not None and is_worth_it:
            if is_long and not running:
                self._put_all_aside()
            if self._bring(aside, sequence, longer):
                return longer
        source, shared = self._at_hand(ids, adapter, running)  # room may have been made meanwhile
        if source is not None:
            self._network.share(source, sequence, shared)
        return shared

    def decode(self, feeds: list[Feed]) -> NDArray[Any]:
        """As `Network.decode`; kept states leave the cache where it is full."""
        while True:
            try:
                rows = self._network.decode(feeds)
                self._reach += len(feeds)
                return rows
            except NoRoomError:
                if not self._make_room():
                    raise

    def shelve(self, kept: Kept) -> None:
        """Keeps the state of a sequence that nobody writes to any more."""
        for gone in self.shelf.put(kept):
            self._let_go(gone)
        while (oldest := self.shelf.over()) is not None:
            self._put_aside(oldest)

    def clear_for(self, run: Running) -> None:
        """Leaves nothing kept in the cache that each token of the prompt and the answer would look past."""
        own = tuple(run.ids)
        for kept in list(self.shelf):
            common = common_tok(kept.ids, own) if kept.adapter == run.ask.adapter else 0
            if kept.is_here and len(kept.ids) - common >= WORTH_BRINGING_TOK:
                self._put_aside(kept)

    def gather(self, run: Running) -> None:
        """Moves the state of the only request in work to the first cells, where empty ones may lie before it."""
        if self._reach - run.fed < SPREAD_TOK:
            return
        try:
            state = self._network.state(run.sequence) if run.fed else None
        except MemoryError:
            return
        self._put_all_aside()
        self._network.clear()
        self._reach = 0
        if state is not None and self._network.restore(run.sequence, state):
            self._reach = run.fed
        else:
            run.fed = 0

    def copy_kept(self) -> None:
        """Copies what may have to leave the cache, while nobody waits: then it leaves at once."""
        for kept in self.shelf:
            if kept.is_here and self.shelf.is_worth_keeping(kept):
                self._copy(kept)

    def take(self) -> int:
        """An empty sequence."""
        if not self.free and not self._make_room():
            raise RuntimeError("more requests are in work than llama.cpp has sequences")
        return self.free.pop()

    def release(self, sequence: int) -> None:
        """Empties the sequence and takes it back."""
        self._network.forget(sequence)
        self.free.append(sequence)
        if len(self.free) == MAX_SEQUENCES:
            self._reach = 0

    def _at_hand(
        self, ids: Sequence[int], adapter: str, running: Iterable[Running]
    ) -> tuple[int | None, int]:
        """The sequence in the cache, kept or in work, that begins most like the ids, and how many of them."""
        kept, shared = self.shelf.best(ids, adapter)
        source = None if kept is None else kept.sequence
        for one in running:
            here = min(common_tok(one.ids, ids[:-1]), one.fed)
            if one.ask.adapter == adapter and here > shared:
                source, shared = one.sequence, here
        return source, shared

    def _put_aside(self, kept: Kept) -> None:
        """Takes a kept state out of the cache; its bytes are kept where that is worth it and there is memory."""
        is_worth_it = self.shelf.is_worth_keeping(kept)
        if is_worth_it:
            self._copy(kept)
        self.release(kept.sequence)
        if kept.state is None or not is_worth_it:
            self.shelf.remove(kept)
        else:
            self.shelf.put_aside(kept, kept.state)

    def _copy(self, kept: Kept) -> None:
        if kept.state is None:
            with suppress(MemoryError):
                kept.state = self._network.state(kept.sequence)

    def _put_all_aside(self) -> None:
        for kept in [kept for kept in self.shelf if kept.is_here]:
            self._put_aside(kept)

    def _bring(self, kept: Kept, sequence: int, tokens: int) -> bool:
        """Whether the first tokens of a state that is aside are in the empty sequence now."""
        assert kept.state is not None
        while not self._network.restore(sequence, kept.state):
            if not self._make_room():
                return False
        self._reach += len(kept.ids)
        self._network.cut(sequence, tokens)
        return True

    def _make_room(self) -> bool:
        """Whether a kept state left the cache."""
        oldest = self.shelf.oldest()
        if oldest is not None:
            self._put_aside(oldest)
        return oldest is not None

    def _let_go(self, kept: Kept) -> None:
        if kept.is_here:
            self.release(kept.sequence)
