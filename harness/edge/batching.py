"""Requests through one network, step by step: whoever comes joins the next step, whoever ends leaves its place."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from harness.edge.base import Ask, Finish, Trouble
from harness.edge.labelling import Labelling, Wave
from harness.edge.network import Adapter, Network, NoRoomError
from harness.edge.prefix import WORTH_BRINGING_TOK, Kept, Shelf, common_tok
from harness.edge.writing import NotFiniteError, Writing
from harness.models.gguf_api import Feed
from harness.models.gguf_scoring import MAX_SEQUENCES
from harness.models.trie import ROOT

if TYPE_CHECKING:
    from numpy.typing import NDArray

STEP_TOK = 512
"""Tokens of a step, and rows of the network's buffers: more of them go through no faster."""
BUSY_PROMPT_TOK = 64
"""Prompt tokens of a step while somebody's answer is being written: what the others wait is this many."""
ALONE_PROMPT_TOK = 256
"""And while nobody's is: a request that comes meanwhile waits for no more than this."""
LONG_TOK = 128
"""A prompt with so much to feed goes faster by more than it takes to put aside what others left in the cache."""
WORTH_WAITING_TOK = 32
"""A request waits for one before it that is computing this much of what it needs itself."""


@dataclass(slots=True, eq=False)
class Running:
    """One request in work."""

    number: int
    ask: Ask
    ids: list[int]
    """The prompt's, and those of an answer that another process began."""
    prompt_tok: int
    is_truncated: bool
    work: Writing | Labelling
    deadline: float | None
    """On the monotonic clock, in seconds."""
    sequence: int = -1
    fed: int = 0
    """Tokens of prompt and answer whose state is in the sequence."""
    cached_tok: int = 0
    told: int = 0
    """Tokens of the answer that were told."""
    wave: Wave | None = None
    leaves: list[int] = field(default_factory=list)

    @property
    def left_tok(self) -> int:
        """Tokens of the prompt that are still to be fed."""
        return max(0, len(self.ids) - self.fed)

    @property
    def room_tok(self) -> int:
        """Cells that it may come to take."""
        if isinstance(self.work, Labelling):
            return len(self.ids) + self.work.room_tok
        return self.prompt_tok + self.ask.max_new_tokens


class Told(NamedTuple):
    """What a step found for one request: text, its end, or its trouble."""

    run: Running
    text: str = ""
    finish: Finish | None = None
    trouble: Trouble | None = None
    why: str = ""


class Batching:
    """The requests in work, the sequences that they write to, and those that are kept."""

    def __init__(
        self,
        network: Network,
        adapters: Mapping[str, Adapter],
        *,
        slots: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """No request yet; `clock` is what deadlines are on."""
        self._network = network
        self._adapters = adapters
        self._slots = slots
        self._clock = clock
        self._free = list(range(MAX_SEQUENCES - 1, -1, -1))
        self._waiting: deque[Running] = deque()
        self._running: list[Running] = []
        self._turn: str | None = None
        self.shelf = Shelf(network.cache.cells)

    @property
    def is_busy(self) -> bool:
        """There is something to compute."""
        return bool(self._waiting or self._running)

    def add(self, run: Running) -> None:
        """Takes a request; it joins the next step that has room."""
        self._waiting.append(run)

    def withdraw(self, number: int) -> Iterable[Told]:
        """Ends the request; nothing where it is not there."""
        run = next((one for one in (*self._running, *self._waiting) if one.number == number), None)
        return [] if run is None else [self._end(run, "cancelled")]

    def numbers(self) -> set[int]:
        """The requests that are here."""
        return {run.number for run in (*self._running, *self._waiting)}

    def step(self) -> list[Told]:
        """One pass through the network, and what came out of it."""
        told = [self._end(run, "budget") for run in [*self._running, *self._waiting] if self._is_over(run)]
        self._admit()
        group = self._group()
        if not group:
            return told
        feeds, owners = self._feeds(group)
        return told + (self._decoded(feeds, owners) if feeds else [])

    def keep(
        self, ids: list[int], adapter: str, name: str, state: Callable[[int], bool] | None = None
    ) -> int:
        """Pins a sequence with these ids under the name; how many of them were at hand.

        `state` may bring the sequence's state back, and says whether it did; else it is computed.
        """
        sequence = self._take_sequence()
        shared = len(ids) if state is not None and state(sequence) else 0
        if not shared:
            shared = self._begin([*ids, -1], adapter, sequence)
            self._network.use(self._adapters.get(adapter))
            for start in range(shared, len(ids), STEP_TOK):
                end = min(len(ids), start + STEP_TOK)
                self._decode([Feed(ids[at], at, (sequence,), False) for at in range(start, end)])
        self._shelve(Kept(sequence, tuple(ids), adapter, name))
        return shared

    def forget(self, adapter: str) -> None:
        """Lets go of all that was computed with the adapter."""
        for kept in self.shelf.drop(adapter):
            self._let_go(kept)

    def uses(self, adapter: str) -> bool:
        """A request here goes through the adapter."""
        return any(run.ask.adapter == adapter for run in (*self._running, *self._waiting))

    def _is_over(self, run: Running) -> bool:
        return run.deadline is not None and self._clock() >= run.deadline

    def _admit(self) -> None:
        """Gives places to those that wait, in their order; none overtakes one that waits for room."""
        held: list[Running] = []
        while self._waiting and len(self._running) < self._slots:
            run = self._waiting.popleft()
            taken = sum(one.room_tok for one in self._running)
            if self._running and taken + run.room_tok > self._network.cache.cells:
                held.append(run)
                break
            if self._is_ahead(run):
                held.append(run)
                continue
            self._start(run)
        self._waiting.extendleft(reversed(held))

    def _is_ahead(self, run: Running) -> bool:
        """A request in work is about to compute what this one begins with."""
        at_hand = max(self.shelf.best(run.ids, run.ask.adapter, is_here=one)[1] for one in (True, False))
        return any(
            common_tok(one.ids, run.ids) - max(at_hand, one.fed) >= WORTH_WAITING_TOK
            for one in self._running
            if one.left_tok and one.ask.adapter == run.ask.adapter
        )

    def _start(self, run: Running) -> None:
        run.sequence = self._take_sequence()
        run.fed = self._begin(run.ids, run.ask.adapter, run.sequence)
        run.cached_tok = min(run.fed, run.prompt_tok)
        self._running.append(run)
        if run.left_tok >= LONG_TOK:
            self._clear_for(run)

    def _begin(self, ids: Sequence[int], adapter: str, sequence: int) -> int:
        """Gives an empty sequence the longest beginning that was computed already; its tokens."""
        shared = self._at_hand(ids, adapter)[1]
        aside, longer = self.shelf.best(ids, adapter, is_here=False)
        is_worth_it = longer >= shared + WORTH_BRINGING_TOK
        if aside is not None and is_worth_it and self._bring(aside, sequence, longer):
            return longer
        source, shared = self._at_hand(ids, adapter)  # room may have been made meanwhile
        if source is not None:
            self._network.share(source, sequence, shared)
        return shared

    def _at_hand(self, ids: Sequence[int], adapter: str) -> tuple[int | None, int]:
        """The sequence in the cache, kept or in work, that begins most like the ids, and how many of them."""
        kept, shared = self.shelf.best(ids, adapter)
        source = None if kept is None else kept.sequence
        for one in self._running:
            here = min(common_tok(one.ids, ids[:-1]), one.fed)
            if one.ask.adapter == adapter and here > shared:
                source, shared = one.sequence, here
        return source, shared

    def _group(self) -> list[Running]:
        """Those of the adapter whose turn it is: a pass goes through one adapter."""
        names = sorted({run.ask.adapter for run in self._running})
        if not names:
            return []
        later = [name for name in names if self._turn is not None and name > self._turn]
        self._turn = later[0] if later else names[0]
        self._network.use(self._adapters.get(self._turn))
        return [run for run in self._running if run.ask.adapter == self._turn]

    def _feeds(self, group: list[Running]) -> tuple[list[Feed], list[tuple[Running, int]]]:
        """A step's tokens, and for each that is scored whose it is and, of a tree, which node."""
        feeds: list[Feed] = []
        owners: list[tuple[Running, int]] = []
        writing = [run for run in group if not run.left_tok and isinstance(run.work, Writing)]
        for run in writing:
            assert isinstance(run.work, Writing)
            feeds.append(Feed(run.work.ids[-1], run.fed, (run.sequence,), True))
            owners.append((run, ROOT))
        budget = BUSY_PROMPT_TOK if writing else ALONE_PROMPT_TOK
        shares = fair_shares([run for run in group if run.left_tok], budget)
        for at, (run, tokens) in enumerate(shares):
            room = STEP_TOK - len(feeds) - sum(share for _, share in shares[at:])
            self._feed_prompt(run, tokens, room, feeds, owners)
        for run in group:
            if not run.left_tok and isinstance(run.work, Labelling) and run.wave is None:
                self._feed_wave(run, run.work, feeds, owners)
        return feeds, owners

    def _feed_prompt(
        self, run: Running, tokens: int, room: int, feeds: list[Feed], owners: list[tuple[Running, int]]
    ) -> None:
        """A part of the prompt; with its last part as much of a tree as there is room for beside it."""
        end = run.fed + tokens
        is_last = end == len(run.ids)
        if is_last and isinstance(run.work, Labelling):
            self._branch(run, run.work, room)
        on = (run.sequence, *run.leaves)
        feeds.extend(Feed(run.ids[at], at, on, is_last and at == end - 1) for at in range(run.fed, end))
        if is_last:
            owners.append((run, ROOT))
        if run.wave is not None and isinstance(run.work, Labelling):
            self._feed_nodes(run, run.work, feeds, owners)

    def _feed_wave(
        self, run: Running, work: Labelling, feeds: list[Feed], owners: list[tuple[Running, int]]
    ) -> None:
        self._branch(run, work, STEP_TOK - len(feeds))
        self._feed_nodes(run, work, feeds, owners)

    def _branch(self, run: Running, work: Labelling, room: int) -> None:
        wave = work.wave(max(0, len(self._free) - self._slots), room)
        run.wave = wave if wave.ends else None
        run.leaves = [self._free.pop() for _ in wave.ends]
        for leaf in run.leaves:
            self._network.share(run.sequence, leaf, run.fed)

    def _feed_nodes(
        self, run: Running, work: Labelling, feeds: list[Feed], owners: list[tuple[Running, int]]
    ) -> None:
        if run.wave is not None:
            feeds.extend(work.feeds(run.wave, run.leaves, len(run.ids)))
            owners.extend((run, node) for node in run.wave.nodes)

    def _decoded(self, feeds: list[Feed], owners: list[tuple[Running, int]]) -> list[Told]:
        rows = self._decode(feeds)
        fed = Counter(feed.sequences[0] for feed in feeds)
        for run in self._running:
            run.fed += fed[run.sequence]
        told: list[Told] = []
        ended: set[int] = set()
        for (run, node), logits in zip(owners, rows, strict=True):
            if run.number not in ended:
                found = self._advanced(run, node, logits)
                told.extend(found)
                ended.update(one.run.number for one in found if one.finish or one.trouble)
        for run in self._running:
            self._drop_leaves(run)
        return told + [self._end(run, "stop") for run in list(self._running) if _is_labelled(run)]

    def _decode(self, feeds: list[Feed]) -> NDArray[Any]:
        while True:
            try:
                return self._network.decode(feeds)
            except NoRoomError:
                if not self._make_room():
                    raise

    def _advanced(self, run: Running, node: int, logits: NDArray[Any]) -> list[Told]:
        try:
            if isinstance(run.work, Labelling):
                run.work.take(node, logits)
                return []
            text = run.work.extend(logits)
        except NotFiniteError as error:
            return [self._fail(run, "crashed", str(error))]
        except RuntimeError as error:  # the grammar's: the request asked for what can't be
            return [self._fail(run, "bad_request", str(error))]
        if run.work.finish is not None:
            self._leave(run, is_kept=True)
        return [Told(run, text, run.work.finish)]

    def _end(self, run: Running, finish: Finish) -> Told:
        text = run.work.stop(finish) if isinstance(run.work, Writing) else ""
        self._leave(run, is_kept=True)
        return Told(run, text, finish)

    def _fail(self, run: Running, trouble: Trouble, why: str) -> Told:
        self._leave(run, is_kept=False)
        return Told(run, trouble=trouble, why=why)

    def _leave(self, run: Running, *, is_kept: bool) -> None:
        if isinstance(run.work, Writing):
            run.work.close()
        if run in self._waiting:
            self._waiting.remove(run)
            return
        self._running.remove(run)
        self._drop_leaves(run)
        written = run.work.ids if isinstance(run.work, Writing) else []
        fed = (run.ids[: run.prompt_tok] + written)[: run.fed]
        if not is_kept or not fed:
            self._release(run.sequence)
            return
        self._shelve(Kept(run.sequence, tuple(fed), run.ask.adapter))

    def _drop_leaves(self, run: Running) -> None:
        for leaf in run.leaves:
            self._release(leaf)
        run.leaves, run.wave = [], None

    def _shelve(self, kept: Kept) -> None:
        for gone in self.shelf.put(kept):
            self._let_go(gone)
        while (oldest := self.shelf.over()) is not None:
            self._put_aside(oldest)

    def _clear_for(self, run: Running) -> None:
        """Leaves nothing kept in the cache that each token of the prompt would look past."""
        own = tuple(run.ids)
        for kept in list(self.shelf):
            common = common_tok(kept.ids, own) if kept.adapter == run.ask.adapter else 0
            if kept.is_here and len(kept.ids) - common >= WORTH_BRINGING_TOK:
                self._put_aside(kept)

    def _put_aside(self, kept: Kept) -> None:
        """Takes a kept state out of the cache; its bytes are kept where that is worth it and there is memory."""
        state = None
        if self.shelf.is_worth_keeping(kept):
            with suppress(MemoryError):
                state = self._network.state(kept.sequence)
        self._release(kept.sequence)
        if state is None:
            self.shelf.remove(kept)
        else:
            self.shelf.put_aside(kept, state)

    def _bring(self, kept: Kept, sequence: int, tokens: int) -> bool:
        """Whether the first tokens of a state that is aside are in the empty sequence now."""
        assert kept.state is not None
        while not self._network.restore(sequence, kept.state):
            if not self._make_room():
                return False
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
            self._release(kept.sequence)

    def _take_sequence(self) -> int:
        if not self._free and not self._make_room():
            raise RuntimeError("more requests are in work than llama.cpp has sequences")
        return self._free.pop()

    def _release(self, sequence: int) -> None:
        self._network.forget(sequence)
        self._free.append(sequence)


def _is_labelled(run: Running) -> bool:
    return isinstance(run.work, Labelling) and not run.left_tok and run.work.is_done


def fair_shares(runs: list[Running], budget_tok: int) -> list[tuple[Running, int]]:
    """How many tokens of its prompt each may feed: equal shares, and what one does not need goes to the others."""
    shares: list[tuple[Running, int]] = []
    left = budget_tok
    ordered = sorted(runs, key=lambda run: run.left_tok)
    for at, run in enumerate(ordered):
        share = min(run.left_tok, left // (len(ordered) - at))
        if share:
            shares.append((run, share))
            left -= share
    return shares
