"""Requests through one network, step by step: whoever comes joins the next step, whoever ends leaves its place."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from harness.edge.base import Finish, Trouble
from harness.edge.labelling import Labelling
from harness.edge.network import Adapter, Network
from harness.edge.prefix import Kept, common_tok
from harness.edge.running import Running, Told, fair_shares
from harness.edge.sequences import STEP_TOK, Sequences
from harness.edge.writing import NotFiniteError, Writing
from harness.models.gguf_api import Feed
from harness.models.trie import ROOT

if TYPE_CHECKING:
    from numpy.typing import NDArray

BUSY_PROMPT_TOK = 64
"""Prompt tokens of a step while somebody's answer is being written: what the others wait is this many."""
ALONE_PROMPT_TOK = 256
"""And while nobody's is: a request that comes meanwhile waits for no more than this."""
LONG_TOK = 128
"""A prompt with so much to feed goes faster by more than it takes to put aside what others left in the cache."""
LONG_ANSWER_TOK = 16
"""And so does an answer of so many tokens: each goes through the network alone, and looks past all that is there."""
WORTH_WAITING_TOK = 32
"""A request waits for one before it that is computing this much of what it needs itself."""


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
        self._slots = slots
        self._clock = clock
        self._waiting: deque[Running] = deque()
        self._running: list[Running] = []
        self._turn: str | None = None
        self.sequences = Sequences(network, adapters)

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
        at_hand = max(
            self.sequences.shelf.best(run.ids, run.ask.adapter, is_here=one)[1] for one in (True, False)
        )
        return any(
            common_tok(one.ids, run.ids) - max(at_hand, one.fed) >= WORTH_WAITING_TOK
            for one in self._running
            if one.left_tok and one.ask.adapter == run.ask.adapter
        )

    def _start(self, run: Running) -> None:
        is_long = isinstance(run.work, Writing) and run.ask.max_new_tokens >= LONG_ANSWER_TOK
        run.sequence = self.sequences.take()
        run.fed = self.sequences.begin(run.ids, run.ask.adapter, run.sequence, self._running, is_long=is_long)
        if is_long or run.left_tok >= LONG_TOK:
            self.sequences.clear_for(run)
            if not self._running:
                self.sequences.gather(run)
        run.cached_tok = min(run.fed, run.prompt_tok)
        self._running.append(run)

    def _group(self) -> list[Running]:
        """Those of the adapter whose turn it is: a pass goes through one adapter."""
        names = sorted({run.ask.adapter for run in self._running})
        if not names:
            return []
        later = [name for name in names if self._turn is not None and name > self._turn]
        self._turn = later[0] if later else names[0]
        self.sequences.use(self._turn)
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
        wave = work.wave(max(0, len(self.sequences.free) - self._slots), room)
        run.wave = wave if wave.ends else None
        run.leaves = [self.sequences.free.pop() for _ in wave.ends]
        for leaf in run.leaves:
            self._network.share(run.sequence, leaf, run.fed)

    def _feed_nodes(
        self, run: Running, work: Labelling, feeds: list[Feed], owners: list[tuple[Running, int]]
    ) -> None:
        if run.wave is not None:
            feeds.extend(work.feeds(run.wave, run.leaves, len(run.ids)))
            owners.extend((run, node) for node in run.wave.nodes)

    def _decoded(self, feeds: list[Feed], owners: list[tuple[Running, int]]) -> list[Told]:
        rows = self.sequences.decode(feeds)
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
            self.sequences.release(run.sequence)
            return
        self.sequences.shelve(Kept(run.sequence, tuple(fed), run.ask.adapter))

    def _drop_leaves(self, run: Running) -> None:
        for leaf in run.leaves:
            self.sequences.release(leaf)
        run.leaves, run.wave = [], None


def _is_labelled(run: Running) -> bool:
    return isinstance(run.work, Labelling) and not run.left_tok and run.work.is_done
