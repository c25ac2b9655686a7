"""Free answers, written side by side: a finished one gives its slot to the next."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

from harness.models.answering import Generated, GenerateRow
from harness.models.chat import Chat
from harness.models.continuation import Continuation
from harness.models.feeding import Feeder, Segment
from harness.models.readout import Readout

REFILL_FRAC = 0.25
"""Share of the slots that is free before prompts are fed again: each feeding holds the others up."""
PASS_TOK = 2048
"""Padded prompt tokens that are fed at once."""


class Writer:
    """Continues prompts in the slots of one cache. What a row writes depends on no other row."""

    def __init__(self, feeder: Feeder, readout: Readout, chat: Chat, prefix_tok: int) -> None:
        self._feeder = feeder
        self._readout = readout
        self._chat = chat
        self._prefix_tok = prefix_tok
        self._active: list[int] = []
        """The row in each slot."""
        self._length: list[int] = []
        """Columns in use of each slot."""
        self._next: list[int] = []
        """The token that each slot is fed next."""

    def write(self, rows: Sequence[GenerateRow], cache: Any) -> list[Generated]:
        """The continuations, one a row; the cache holds the prefix in all its slots."""
        answers = [Continuation(row.request, self._chat) for row in rows]
        waiting = deque(at for at, answer in enumerate(answers) if not answer.is_done)
        slots = min(cache.slots, len(rows))
        while waiting or self._active:
            free = slots - len(self._active)
            if waiting and (not self._active or free >= max(1, slots * REFILL_FRAC)):
                self._open(rows, waiting, free, answers, cache)
            else:
                self._step(answers, cache)
            self._close_done(answers, cache)
        return [answer.result() for answer in answers]

    def _open(
        self,
        rows: Sequence[GenerateRow],
        waiting: deque[int],
        free: int,
        answers: list[Continuation],
        cache: Any,
    ) -> None:
        """Feeds as many waiting prompts as there are free slots, and takes their first tokens."""
        start, width = len(self._active), 0
        while waiting and len(self._active) - start < free:
            ids = rows[waiting[0]].ids
            width = max(width, len(ids) - self._prefix_tok)
            if len(self._active) > start and (len(self._active) - start + 1) * width > PASS_TOK:
                break
            self._active.append(waiting.popleft())
            self._length.append(len(ids))
        opened = self._active[start:]
        states = self._feeder.feed(cache, [self._prompt(rows[at].ids) for at in opened], start=start)
        self._next.extend(self._taken([answers[at] for at in opened], states))

    def _step(self, answers: list[Continuation], cache: Any) -> None:
        """One token more for each slot."""
        states = self._feeder.feed(
            cache, [_single(token, at) for token, at in zip(self._next, self._length, strict=True)]
        )
        self._length = [length + 1 for length in self._length]
        self._next = self._taken([answers[at] for at in self._active], states)

    def _close_done(self, answers: list[Continuation], cache: Any) -> None:
        """Takes finished rows out; the last slot moves into the gap."""
        for slot in reversed(range(len(self._active))):
            if answers[self._active[slot]].is_done:
                last = len(self._active) - 1
                if slot != last:
                    cache.move(last, slot)
                for kept in (self._active, self._length, self._next):
                    kept[slot] = kept[last]
                    kept.pop()

    def _taken(self, answers: list[Continuation], states: Any) -> list[int]:
        """The next token of each answer; states (answers, state)."""
        logits = self._readout.logits(states).cpu().numpy()  # (answers, vocab)
        return [answer.extend(line) for answer, line in zip(answers, logits, strict=True)]

    def _prompt(self, ids: list[int]) -> Segment:
        import numpy as np

        own = ids[self._prefix_tok :]
        sees = np.tri(len(own), len(ids), self._prefix_tok, dtype=np.bool_)
        return Segment(own, range(self._prefix_tok, len(ids)), self._prefix_tok, sees, [len(own) - 1])


def _single(token: int, at: int) -> Segment:
    import numpy as np

    return Segment([token], [at], at, np.ones((1, at + 1), np.bool_), [0])
