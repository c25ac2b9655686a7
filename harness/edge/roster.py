"""The requests of an engine: who waits, who is in the process, and that each is told its end exactly once."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Literal

from harness.edge.base import Ask, Event, Failed, Piece, Trouble
from harness.edge.pending import Job
from harness.text import visible

ATTEMPTS = 2
"""Times that a request is asked; native code that died under it twice will do so again."""

Note = Callable[[str], None]
Said = Literal["preparing", "prepared", "failed", "piece", "done"]


class Roster:
    """All of it is for the engine's own thread, but for the counts."""

    def __init__(self, *, slots: int, max_waiting: int, note: Note) -> None:
        """Nobody asked anything."""
        self._slots, self._max_waiting, self._note = slots, max_waiting, note
        self.waiting: deque[Job] = deque()
        self.running: dict[int, Job] = {}
        self.served = 0
        self._suspect: int | None = None
        """The request whose prompt the process is rendering: if it dies, that is why."""

    @property
    def is_empty(self) -> bool:
        """Nobody waits for anything."""
        return not (self.running or self.waiting)

    def accept(self, job: Job) -> None:
        """Takes a request, or says why not."""
        if len(self.waiting) >= self._max_waiting:
            self.fail(job, "overloaded", f"{len(self.waiting):,} requests wait already")
        elif any(one.ask.id == job.ask.id for one in (*self.running.values(), *self.waiting)):
            self.fail(job, "bad_request", f"a request {job.ask.id!r} is being answered")
        else:
            self.waiting.append(job)

    def withdraw(self, ask_id: str) -> list[Job]:
        """Ends the request where it waits; those in the process that must be ended there."""
        for job in [job for job in self.waiting if job.ask.id == ask_id]:
            self.waiting.remove(job)
            self._tell(job, job.done("cancelled"))
        return [job for job in self.running.values() if job.ask.id == ask_id]

    def due(self) -> Iterator[Job]:
        """Those that the process has room for; a request that it died under, and only that."""
        while self.waiting and len(self.running) < self._slots:
            is_alone = self.waiting[0].deaths > 0
            if self.running and (is_alone or any(job.deaths for job in self.running.values())):
                return
            job = self.waiting.popleft()
            job.attempts += 1
            self.running[job.number] = job
            yield job

    def expire(self) -> None:
        """Ends those whose time ran out while they waited."""
        for job in [job for job in self.waiting if (left := job.left_ms()) is not None and left <= 0]:
            self.waiting.remove(job)
            if job.told:
                self._tell(job, job.done("budget"))
            else:
                why = f"its {job.ask.budget_ms:g} ms ran out behind {len(self.running)} others"
                self.fail(job, "overloaded", why)

    def hear(self, said: Said, frame: dict[str, Any]) -> Ask | None:
        """What the process says of a request; the request where nobody listens to it any more."""
        job = self.running.get(frame["number"])
        if job is None:
            return None
        if said == "preparing":
            self._suspect = job.number
        elif said == "prepared":
            self._suspect = None
            job.prompt_tok, job.is_truncated = int(frame["prompt_tok"]), bool(frame["is_truncated"])
        elif said == "failed":
            self._suspect = None
            del self.running[job.number]
            self.fail(job, frame["trouble"], visible(str(frame["text"])))
        else:
            return self._hear_words(said, job, frame)
        return None

    def requeue(self, how: str) -> None:
        """The process is gone: what it had is asked again, once, unless it is clear that another request was why."""
        suspect, self._suspect = self._suspect, None
        for job in sorted(self.running.values(), key=lambda job: -job.number):
            job.deaths += suspect is None or job.number == suspect
            if job.is_withdrawn:
                self._tell(job, job.done("cancelled"))
            elif job.deaths >= ATTEMPTS:
                self.fail(job, "crashed", f"native code died twice under it; the last time it {how}")
            else:
                self.waiting.appendleft(job)
        self.running.clear()

    def fail_all(self, trouble: Trouble, text: str) -> None:
        """Nobody will answer any of them."""
        for job in [*self.running.values(), *self.waiting]:
            self.fail(job, trouble, text)
        self.running.clear()
        self.waiting.clear()

    def fail(self, job: Job, trouble: Trouble, text: str) -> None:
        """Tells a request that there is no answer."""
        self._tell(job, Failed(trouble, text))

    def _hear_words(self, said: Said, job: Job, frame: dict[str, Any]) -> Ask | None:
        job.take(frame)
        text = frame.get("text")
        is_unheard = bool(text) and not self._tell(job, Piece(str(text)))
        if said == "done":
            del self.running[job.number]
            self.served += 1
            self._tell(job, job.done(frame["finish"], frame.get("labels")))
            return None
        return job.ask if is_unheard else None

    def _tell(self, job: Job, event: Event) -> bool:
        """Whether the listener took it: one that fails must not take the engine along."""
        try:
            job.tell(event)
        except Exception as error:
            self._note(f"whoever asked {job.ask.id!r} could not be told: {type(error).__name__}: {error}")
            return False
        return True
