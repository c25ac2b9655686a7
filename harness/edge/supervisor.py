"""The thread that owns an engine's process: starts it, hears it, ends one that hangs, and starts it again."""

from __future__ import annotations

import selectors
import threading
import time
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from harness.edge.base import Ask, Tell
from harness.edge.inbox import Inbox
from harness.edge.loaded import Settings
from harness.edge.orders import Orders, Reply
from harness.edge.pending import Job
from harness.edge.process import Process
from harness.edge.roster import Note, Roster
from harness.edge.wire import ask_to_json
from harness.errors import DataError, IntegrityError, ModelError
from harness.text import visible

MAX_RESTARTS = 3
"""Deaths in a row, without an answer between them, after which the engine gives up."""

State = Literal["loading", "ready", "restarting", "failed", "closed"]


class Patience(NamedTuple):
    """How long a process may take, in seconds."""

    start_s: float
    silence_s: float
    """One that has work and says nothing for so long hangs, and is ended."""


class Supervisor:
    """One process after another. What is public may be called from any thread."""

    def __init__(self, settings: Settings, roster: Roster, patience: Patience, note: Note) -> None:
        """The thread begins with `start`."""
        self.settings, self.roster = settings, roster
        self.pins: dict[str, tuple[Ask, ...]] = {}
        self.facts: dict[str, Any] = {}
        self.state: State = "loading"
        self.restarts = 0
        self._patience, self._note = patience, note
        self._inbox, self._orders = Inbox(), Orders(note)
        self._process: Process | None = None
        self._heard = self._started = 0.0
        self._closing: float | None = None
        self._deaths_in_row = self._numbers = 0
        self._began: Future[None] = Future()
        self._thread = threading.Thread(
            target=self._run, name=f"edge {Path(settings.path).name}", daemon=True
        )

    @property
    def pid(self) -> int | None:
        """Of the process, where there is one."""
        process = self._process
        return None if process is None else process.pid

    def start(self) -> None:
        """Returns when the process is ready.

        Raises:
            IntegrityError, ModelError: it never will be.
        """
        self._thread.start()
        self._began.result()

    def submit(self, ask: Ask, tell: Tell) -> bool:
        """Whether the request will be told its end."""
        accepted = time.monotonic()
        return self._inbox.post(lambda: self._accept(ask, tell, accepted))

    def withdraw(self, ask_id: str) -> None:
        """Ends the request soon."""
        self._inbox.post(lambda: self._withdraw(ask_id))

    def order(self, frame: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        """What the process answers.

        Raises:
            ModelError: it refuses, is not there, or takes too long.
        """
        reply: Reply = Future()
        if not self._inbox.post(lambda: self._send_order(frame, reply)):
            raise ModelError("the engine is closed")
        try:
            return reply.result(timeout_s)
        except TimeoutError:
            raise ModelError(f"the engine did not {frame['op']} within {timeout_s:g} s") from None

    def close(self, drain_s: float) -> None:
        """Lets what runs end for so long, then returns when all is over."""
        self._inbox.post(lambda: self._close(time.monotonic() + drain_s))
        if threading.current_thread() is not self._thread:
            self._thread.join()

    # From here on: the thread.

    def _run(self) -> None:
        try:
            self._start_process()
            while not self._is_over():
                self._wait()
                self._watch()
                self._feed()
        finally:
            self._finish()

    def _is_over(self) -> bool:
        if self._closing is None:
            return False
        return time.monotonic() >= self._closing or self.roster.is_empty

    def _start_process(self) -> None:
        self._process = Process(self.settings)
        self._heard = self._started = time.monotonic()

    def _wait(self) -> None:
        """Until something happens, or it is time to look at the clock."""
        with selectors.PollSelector() as selector:
            selector.register(self._inbox.wake, selectors.EVENT_READ)
            process = self._process
            if process is not None:
                selector.register(process.stdout, selectors.EVENT_READ)
                if process.has_output:
                    selector.register(process.stdin, selectors.EVENT_WRITE)
            ready = {key.fd for key, _ in selector.select(self._timeout_s())}
        if self._inbox.wake in ready:
            for call in self._inbox.take():
                call()
        if process is not None and process.stdin in ready:
            process.write()
        if process is not None and process.stdout in ready:
            self._hear(process)

    def _timeout_s(self) -> float:
        if self._closing is not None:
            return 0.05
        if self._is_starting:
            return min(0.5, max(0.0, self._started + self._patience.start_s - time.monotonic()))
        return 0.5

    @property
    def _is_starting(self) -> bool:
        return self.state in ("loading", "restarting")

    def _hear(self, process: Process) -> None:
        self._heard = time.monotonic()
        try:
            for frame in process.read():
                self._on_frame(frame)
        except EOFError:
            self._on_death("")
        except (DataError, KeyError, TypeError, ValueError) as error:
            process.kill()
            self._on_death(f"it said what makes no sense: {type(error).__name__}: {error}")

    def _watch(self) -> None:
        """Ends a process that hangs, and requests whose time ran out while they waited."""
        now, patience = time.monotonic(), self._patience
        if self._process is not None:
            has_work = self.roster.running or self._orders
            if self._is_starting and now - self._started > patience.start_s:
                self._process.kill()
                self._on_death(f"it was not ready within {patience.start_s:g} s")
            elif not self._is_starting and has_work and now - self._heard > patience.silence_s:
                self._process.kill()
                self._on_death(f"it said nothing for {patience.silence_s:g} s")
        self.roster.expire()

    def _feed(self) -> None:
        """Gives the process what it has room for."""
        if self._process is None or self.state != "ready":
            return
        was_idle = not self.roster.running
        for job in self.roster.due():
            if was_idle:
                self._heard, was_idle = time.monotonic(), False
            self._process.send({
                "op": "ask", "number": job.number, "ask": ask_to_json(job.ask), "budget_ms": job.left_ms(),
                "ids": job.ids, "logprobs": job.logprobs,
            })  # fmt: skip

    def _accept(self, ask: Ask, tell: Tell, accepted: float) -> None:
        job = Job(self._next(), ask, tell, accepted)
        if self._closing is not None:
            self.roster.fail(job, "closed", "the engine is closing")
        elif self.state == "failed":
            self.roster.fail(job, "crashed", "the engine has failed and starts no more")
        else:
            self.roster.accept(job)

    def _withdraw(self, ask_id: str) -> None:
        for job in self.roster.withdraw(ask_id):
            if self._process is not None:
                job.is_withdrawn = True
                self._process.send({"op": "withdraw", "number": job.number})

    def _send_order(self, frame: dict[str, Any], reply: Reply) -> None:
        number = self._next()
        if self._process is None or self.state != "ready":
            reply.set_exception(ModelError(f"the engine is {self.state}"))
            return
        self._orders.add(number, reply)
        self._heard = time.monotonic()  # it was idle, and had nothing to say
        self._process.send({**frame, "order": number})

    def _close(self, until: float) -> None:
        self._closing = until if self._closing is None else min(until, self._closing)

    def _finish(self) -> None:
        """The end of the thread: nobody is left without a word."""
        self._end_process()
        calls, self._closing = self._inbox.shut(), 0.0
        self.state = "closed"
        for call in calls:
            call()
        self.roster.fail_all("closed", "the engine was closed before the answer was whole")
        self._orders.fail("the engine is closed")
        if not self._began.done():
            self._began.set_exception(ModelError("the engine was closed while it started"))
        self._inbox.close()

    def _on_frame(self, frame: dict[str, Any]) -> None:
        said = frame["said"]
        if said == "beat":
            return
        if said in ("ready", "unusable"):
            getattr(self, f"_on_{said}")(frame)
        elif said in ("pinned", "adapter", "refused"):
            self._orders.answer(frame)
        else:
            self._on_request(said, frame)

    def _on_request(self, said: Any, frame: dict[str, Any]) -> None:
        served = self.roster.served
        unheard = self.roster.hear(said, frame)
        if self.roster.served > served:
            self._deaths_in_row = 0
        if unheard is not None:
            self._withdraw(unheard.id)

    def _on_ready(self, frame: dict[str, Any]) -> None:
        self.facts = {name: value for name, value in frame.items() if name != "said"}
        self.facts["start_ms"] = (time.monotonic() - self._started) * 1e3
        self.state = "ready"
        assert self._process is not None
        for name, asks in self.pins.items():
            pin = {"op": "pin", "name": name, "asks": [ask_to_json(ask) for ask in asks], "order": 0}
            self._process.send(pin)
        if not self._began.done():
            self._began.set_result(None)

    def _on_unusable(self, frame: dict[str, Any]) -> None:
        kind = IntegrityError if frame["kind"] == "IntegrityError" else ModelError
        self._give_up(kind(visible(str(frame["text"])), hint=visible(str(frame["hint"]))))

    def _on_death(self, why: str) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        how = process.end()
        said = why or how
        was_ready, self._heard = self.state == "ready", time.monotonic()
        self._orders.fail(f"the engine's process {said}")
        self.roster.requeue(said)
        if not was_ready and not self.settings.is_plain and how.startswith("died of SIG") and not why:
            # Some builds crash in the kernels for repacked weights; without them they are slower, and work.
            self._note(f"llama.cpp {said} in its first step: it starts again without repacked weights")
            self.settings = replace(self.settings, is_plain=True)
            self._start_process()
        else:
            self._start_again(said)

    def _start_again(self, said: str) -> None:
        self._deaths_in_row += 1
        if self.state == "loading":
            self._give_up(ModelError(f"{self.settings.path}: the engine's process {said}"))
        elif self._deaths_in_row > MAX_RESTARTS:
            times = f"died {self._deaths_in_row} times in a row"
            self._give_up(ModelError(f"the engine's process {times}; it {said}"))
        else:
            self._note(f"the engine's process {said}; it starts again")
            self.restarts += 1
            self.state = "restarting"
            self._start_process()

    def _give_up(self, error: ModelError | IntegrityError) -> None:
        self.state = "failed"
        self._end_process()
        self.roster.fail_all("crashed", error.message)
        self._orders.fail(error.message)
        if self._began.done():
            self._note(error.message)
        else:
            self._began.set_exception(error)

    def _end_process(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.end()

    def _next(self) -> int:
        self._numbers += 1
        return self._numbers
