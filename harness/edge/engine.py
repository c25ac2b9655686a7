"""A GGUF that answers from a process of its own: it may crash and start again, and no request is lost in silence."""

from __future__ import annotations

import contextlib
import os
import selectors
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from harness.edge.base import Ask, Done, Event, Failed, Health, Piece, Tell, Trouble
from harness.edge.bounded import resident_mb
from harness.edge.loaded import Settings
from harness.edge.pending import Job
from harness.edge.process import Process
from harness.edge.wire import ask_to_json
from harness.errors import DataError, IntegrityError, ModelError
from harness.text import visible

START_S = 120.0
PATIENCE_S = 60.0
"""A process that has work and says nothing for so long hangs, and is ended."""
MAX_WAITING = 256
MAX_SLOTS = 64
"""llama.cpp has 256 sequences, and kept ones and the ends of label trees take theirs."""
MAX_RESTARTS = 3
"""Deaths in a row, without an answer between them, after which the engine gives up."""
ATTEMPTS = 2
"""Times that a request is asked; native code that died under it twice will do so again."""
MEMORY_FRAC = 0.8
"""Of the machine's memory, which the process may allocate where nothing else is said."""

State = Literal["loading", "ready", "restarting", "failed", "closed"]
Note = Callable[[str], None]


class Pinned(NamedTuple):
    """What became of a prefix that is to be kept at hand."""

    name: str
    tokens: int
    source: str
    """`disk`, `memory` or `computed`."""
    ms: float
    note: str
    """What is wrong with its file; empty where nothing is."""


class EdgeEngine:
    """Meets `harness.edge.base.Engine`. One thread owns the process and tells everything."""

    def __init__(
        self,
        path: Path,
        sha256: str,
        *,
        threads: int = 2,
        slots: int = 8,
        context_tok: int | None = None,
        cells: int | None = None,
        kv: Literal["f16", "q8_0"] = "f16",
        prefix_folder: Path | None = None,
        adapters: Mapping[str, tuple[Path, str]] | None = None,
        memory_mb: int | None = None,
        max_waiting: int = MAX_WAITING,
        start_s: float = START_S,
        patience_s: float = PATIENCE_S,
        on_note: Note | None = None,
    ) -> None:
        """Starts the process and returns when a first step through the network has worked.

        `slots` requests are computed side by side. `context_tok` is what one request may take, by default the
        model's own, 4096 at most; `cells` what all may hold together, 1024 a slot by default. `adapters` are
        LoRA GGUFs by name, with their sha256. `on_note` hears, in the engine's thread, what a person should know.

        Raises:
            IntegrityError: a file is not the one that was promised.
            ModelError: llama.cpp can't use it, or it takes too long or too much memory.
        """
        if not 1 <= slots <= MAX_SLOTS:
            raise ModelError(f"slots is {slots}, wanted 1 to {MAX_SLOTS}")
        wanted = {name: (str(file.resolve()), digest) for name, (file, digest) in (adapters or {}).items()}
        self._settings = Settings(
            path=str(path.resolve()), sha256=sha256, threads=threads, slots=slots, context_tok=context_tok,
            cells=cells, kv=kv, is_plain=False, memory_bytes=_memory_bytes(memory_mb),
            prefix_folder=None if prefix_folder is None else str(prefix_folder.resolve()), adapters=wanted,
        )  # fmt: skip
        self._max_waiting = max_waiting
        self._start_s, self._patience_s = start_s, patience_s
        self._note: Note = on_note or (lambda _text: None)
        self._lock = threading.Lock()
        self._inbox: deque[Callable[[], None]] = deque()
        self._wake_read, self._wake_write = os.pipe()
        for pipe in (self._wake_read, self._wake_write):
            os.set_blocking(pipe, False)
        self._waiting: deque[Job] = deque()
        self._running: dict[int, Job] = {}
        self._orders: dict[int, Future[dict[str, Any]]] = {}
        self._pins: dict[str, tuple[Ask, ...]] = {}
        self._suspect: int | None = None
        self._numbers = 0
        self._process: Process | None = None
        self._heard = self._started = 0.0
        self._closing: float | None = None
        self._state: State = "loading"
        self._restarts = self._deaths_in_row = self._served = 0
        self._facts: dict[str, Any] = {}
        self._began: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, name=f"edge {path.name}", daemon=True)
        self._thread.start()
        try:
            self._began.result()
        except BaseException:
            self.close()
            raise

    # What may be called from any thread.

    @property
    def digest(self) -> str:
        """sha256 hex of the file that answers."""
        return self._settings.sha256

    @property
    def context_tok(self) -> int:
        """Tokens that one request may take, prompt and answer together."""
        return int(self._facts["context_tok"])

    @property
    def adapters(self) -> Mapping[str, str]:
        """Loaded LoRA adapters: name to sha256 hex of the file."""
        return {name: digest for name, (_, digest) in self._settings.adapters.items()}

    @property
    def facts(self) -> Mapping[str, Any]:
        """What the process said of its start: `load_ms`, `sha256_ms`, `cells`, `cache_mb`, `library`."""
        return dict(self._facts)

    @property
    def pid(self) -> int | None:
        """Of the process, where there is one."""
        process = self._process
        return None if process is None else process.pid

    def submit(self, ask: Ask, tell: Tell) -> None:
        """Takes the request and returns at once; all that happens to it is told.

        Once the engine is closed there is no thread of its own, and the caller's tells so.
        """
        accepted = time.monotonic()
        if not self._post(lambda: self._accept(ask, tell, accepted)):
            tell(Failed("closed", "the engine is closed"))

    def withdraw(self, ask_id: str) -> None:
        """Ends the request soon, with `finish` `cancelled`. An id that is not there is no error."""
        self._post(lambda: self._withdraw(ask_id))

    def health(self) -> Health:
        """Never blocks."""
        pid = self.pid
        memory = None if pid is None else resident_mb(pid)
        running, waiting = len(self._running), len(self._waiting)
        return Health(self._state, running, waiting, self._restarts, memory, self._served)

    def pin(self, name: str, asks: Sequence[Ask], *, timeout_s: float = PATIENCE_S) -> Pinned:
        """Keeps what the requests begin with at hand under the name, also after a restart, and on disk where there is
        a `prefix_folder`. Two requests that differ where prompts will differ say where the prefix ends; of a
        single one, all but its last token is the prefix.

        Raises:
            ModelError: they do not begin alike, or it is too long.
        """
        if not asks:
            raise ModelError(f"prefix {name!r}: no request to take it from")
        frame = {"op": "pin", "name": name, "asks": [ask_to_json(ask) for ask in asks]}
        found = self._order(frame, timeout_s)
        self._pins[name] = tuple(asks)
        return Pinned(name, found["tokens"], found["source"], found["ms"], found["note"])

    def load_adapter(self, name: str, path: Path, sha256: str, *, timeout_s: float = PATIENCE_S) -> float:
        """Puts a LoRA GGUF in place under the name while others answer; milliseconds that the process took.

        Raises:
            ModelError: it can't be used, has other bytes, or one of that name answers a request now.
        """
        if not name:
            raise ModelError("an adapter needs a name: the empty one is for the release's own weights")
        frame = {"op": "adapter", "name": name, "path": str(path.resolve()), "sha256": sha256}
        found = self._order(frame, timeout_s)
        loaded = {**self._settings.adapters, name: (str(path.resolve()), sha256)}
        self._settings = replace(self._settings, adapters=loaded)
        return float(found["ms"])

    def close(self, drain_s: float = 0.0) -> None:
        """Lets what runs end for so long, fails the rest as `closed`, and ends the process. Twice is fine."""
        self._post(lambda: self._close(time.monotonic() + drain_s))
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _post(self, call: Callable[[], None]) -> bool:
        with self._lock:
            if self._state == "closed":
                return False
            self._inbox.append(call)
            with contextlib.suppress(BlockingIOError):  # the pipe is full of wake-ups already
                os.write(self._wake_write, b"\0")
            return True

    def _order(self, frame: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        future: Future[dict[str, Any]] = Future()

        def send() -> None:
            number = self._next()
            if self._process is None or self._state != "ready":
                future.set_exception(ModelError(f"the engine is {self._state}"))
                return
            self._orders[number] = future
            self._heard = time.monotonic()  # it was idle, and had nothing to say
            self._process.send({**frame, "order": number})

        if not self._post(send):
            raise ModelError("the engine is closed")
        try:
            return future.result(timeout_s)
        except TimeoutError:
            raise ModelError(f"the engine did not {frame['op']} within {timeout_s:g} s") from None

    # From here on: the engine's own thread.

    def _run(self) -> None:
        try:
            self._start()
            while not self._is_over():
                self._wait()
                self._watch()
                self._feed()
        finally:
            self._finish()

    def _is_over(self) -> bool:
        if self._closing is None:
            return False
        return time.monotonic() >= self._closing or not (self._running or self._waiting)

    def _start(self) -> None:
        self._process = Process(self._settings)
        self._heard = self._started = time.monotonic()

    def _wait(self) -> None:
        """Until something happens, or it is time to look at the clock."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._wake_read, selectors.EVENT_READ)
            process = self._process
            if process is not None:
                selector.register(process.stdout, selectors.EVENT_READ)
                if process.has_output:
                    selector.register(process.stdin, selectors.EVENT_WRITE)
            ready = {key.fd for key, _ in selector.select(self._timeout_s())}
        if self._wake_read in ready:
            self._take_inbox()
        if process is not None and process.stdin in ready:
            process.write()
        if process is not None and process.stdout in ready:
            self._hear(process)

    def _timeout_s(self) -> float:
        if self._closing is not None:
            return 0.05
        if self._state in ("loading", "restarting"):
            return min(0.5, max(0.0, self._started + self._start_s - time.monotonic()))
        return 0.5

    def _take_inbox(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_read, 4096)
        while True:
            with self._lock:
                if not self._inbox:
                    return
                call = self._inbox.popleft()
            call()

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
        now = time.monotonic()
        if self._process is not None:
            is_starting = self._state in ("loading", "restarting")
            if is_starting and now - self._started > self._start_s:
                self._process.kill()
                self._on_death(f"it was not ready within {self._start_s:g} s")
            elif not is_starting and (self._running or self._orders) and now - self._heard > self._patience_s:
                self._process.kill()
                self._on_death(f"it said nothing for {self._patience_s:g} s")
        for job in [job for job in self._waiting if (left := job.left_ms()) is not None and left <= 0]:
            self._waiting.remove(job)
            if job.told:
                self._end(job, job.done("budget"))
            else:
                why = f"its {job.ask.budget_ms:g} ms ran out behind {len(self._running)} others"
                self._fail(job, "overloaded", why)

    def _feed(self) -> None:
        """Gives the process what it has room for; a request that it died under, and only that."""
        if self._process is None or self._state != "ready":
            return
        while self._waiting and len(self._running) < self._settings.slots:
            is_alone = self._waiting[0].deaths > 0
            if self._running and (is_alone or any(job.deaths for job in self._running.values())):
                return
            job = self._waiting.popleft()
            job.attempts += 1
            if not self._running:
                self._heard = time.monotonic()
            self._running[job.number] = job
            self._process.send({
                "op": "ask", "number": job.number, "ask": ask_to_json(job.ask), "budget_ms": job.left_ms(),
                "ids": job.ids, "logprobs": job.logprobs,
            })  # fmt: skip

    def _accept(self, ask: Ask, tell: Tell, accepted: float) -> None:
        job = Job(self._next(), ask, tell, accepted)
        if self._closing is not None:
            self._fail(job, "closed", "the engine is closing")
        elif self._state == "failed":
            self._fail(job, "crashed", "the engine has failed and starts no more")
        elif len(self._waiting) >= self._max_waiting:
            self._fail(job, "overloaded", f"{len(self._waiting):,} requests wait already")
        elif any(one.ask.id == ask.id for one in (*self._running.values(), *self._waiting)):
            self._fail(job, "bad_request", f"a request {ask.id!r} is being answered")
        else:
            self._waiting.append(job)

    def _withdraw(self, ask_id: str) -> None:
        for job in [job for job in self._waiting if job.ask.id == ask_id]:
            self._waiting.remove(job)
            self._end(job, job.done("cancelled"))
        for job in self._running.values():
            if job.ask.id == ask_id and self._process is not None:
                job.is_withdrawn = True
                self._process.send({"op": "withdraw", "number": job.number})

    def _close(self, until: float) -> None:
        self._closing = until if self._closing is None else min(until, self._closing)

    def _finish(self) -> None:
        """The end of the thread: nobody is left without a word."""
        if self._process is not None:
            self._process.kill()
            self._process.end()
            self._process = None
        with self._lock:
            self._state = "closed"
            calls = list(self._inbox)
            self._inbox.clear()
        self._closing = 0.0
        for call in calls:
            call()
        for job in [*self._running.values(), *self._waiting]:
            self._fail(job, "closed", "the engine was closed before the answer was whole")
        self._running.clear()
        self._waiting.clear()
        self._fail_orders("the engine is closed")
        if not self._began.done():
            self._began.set_exception(ModelError("the engine was closed while it started"))
        for pipe in (self._wake_read, self._wake_write):
            os.close(pipe)

    def _on_frame(self, frame: dict[str, Any]) -> None:
        said = frame["said"]
        if said == "beat":
            return
        if said in ("ready", "unusable"):
            getattr(self, f"_on_{said}")(frame)
        elif said in ("pinned", "adapter", "refused"):
            self._on_order(frame)
        elif (job := self._running.get(frame["number"])) is not None:
            self._on_job(said, job, frame)

    def _on_ready(self, frame: dict[str, Any]) -> None:
        self._facts = {name: value for name, value in frame.items() if name != "said"}
        self._facts["start_ms"] = (time.monotonic() - self._started) * 1e3
        self._state = "ready"
        assert self._process is not None
        for name, asks in self._pins.items():
            pin = {"op": "pin", "name": name, "asks": [ask_to_json(ask) for ask in asks], "order": 0}
            self._process.send(pin)
        if not self._began.done():
            self._began.set_result(None)

    def _on_unusable(self, frame: dict[str, Any]) -> None:
        kind = IntegrityError if frame["kind"] == "IntegrityError" else ModelError
        self._give_up(kind(visible(str(frame["text"])), hint=visible(str(frame["hint"]))))

    def _on_order(self, frame: dict[str, Any]) -> None:
        future = self._orders.pop(frame["order"], None)
        if frame["said"] == "refused":
            error = ModelError(visible(str(frame["text"])))
            if future is None:
                self._note(error.message)
            else:
                future.set_exception(error)
            return
        if frame.get("note"):
            self._note(visible(str(frame["note"])))
        if future is not None:
            future.set_result(frame)

    def _on_job(self, said: str, job: Job, frame: dict[str, Any]) -> None:
        if said == "preparing":
            self._suspect = job.number
        elif said == "prepared":
            self._suspect = None
            job.prompt_tok, job.is_truncated = int(frame["prompt_tok"]), bool(frame["is_truncated"])
        elif said == "failed":
            self._suspect = None
            self._leave(job)
            self._fail(job, frame["trouble"], visible(str(frame["text"])))
        else:
            self._on_words(said, job, frame)

    def _on_words(self, said: str, job: Job, frame: dict[str, Any]) -> None:
        job.take(frame)
        if (text := frame.get("text")) and not self._tell(job, Piece(text)) and said != "done":
            self._withdraw(job.ask.id)
        if said == "done":
            self._leave(job)
            self._served += 1
            self._deaths_in_row = 0
            self._end(job, job.done(frame["finish"], frame.get("labels")))

    def _on_death(self, why: str) -> None:
        """The process is gone: what it had is asked again, once, unless it is clear that another request was why."""
        process, self._process = self._process, None
        if process is None:
            return
        how = process.end()
        said = why or how
        was_ready, self._heard = self._state == "ready", time.monotonic()
        suspect, self._suspect = self._suspect, None
        self._fail_orders(f"the engine's process {said}")
        for job in sorted(self._running.values(), key=lambda job: -job.number):
            job.deaths += suspect is None or job.number == suspect
            if job.is_withdrawn:
                self._end(job, job.done("cancelled"))
            elif job.deaths >= ATTEMPTS:
                self._fail(job, "crashed", f"native code died twice under it; the last time it {said}")
            else:
                self._waiting.appendleft(job)
        self._running.clear()
        if not was_ready and not self._settings.is_plain and how.startswith("died of SIG") and not why:
            # Some builds crash in the kernels for repacked weights; without them they are slower, and work.
            self._note(f"llama.cpp {said} in its first step: it starts again without repacked weights")
            self._settings = replace(self._settings, is_plain=True)
            self._start()
            return
        self._deaths_in_row += 1
        if not was_ready and self._state == "loading":
            self._give_up(ModelError(f"{self._settings.path}: the engine's process {said}"))
        elif self._deaths_in_row > MAX_RESTARTS:
            self._give_up(
                ModelError(f"the engine's process died {self._deaths_in_row} times in a row; it {said}")
            )
        else:
            self._note(f"the engine's process {said}; it starts again")
            self._restarts += 1
            self._state = "restarting"
            self._start()

    def _give_up(self, error: ModelError | IntegrityError) -> None:
        self._state = "failed"
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.end()
        for job in [*self._running.values(), *self._waiting]:
            self._fail(job, "crashed", error.message)
        self._running.clear()
        self._waiting.clear()
        self._fail_orders(error.message)
        if self._began.done():
            self._note(error.message)
        else:
            self._began.set_exception(error)

    def _fail_orders(self, why: str) -> None:
        for future in self._orders.values():
            future.set_exception(ModelError(why))
        self._orders.clear()

    def _leave(self, job: Job) -> None:
        del self._running[job.number]

    def _fail(self, job: Job, trouble: Trouble, text: str) -> None:
        self._tell(job, Failed(trouble, text))

    def _end(self, job: Job, done: Done) -> None:
        self._tell(job, done)

    def _tell(self, job: Job, event: Event) -> bool:
        """Whether the listener took it: one that fails must not take the engine along."""
        try:
            job.tell(event)
        except Exception as error:
            self._note(f"whoever asked {job.ask.id!r} could not be told: {type(error).__name__}: {error}")
            return False
        return True

    def _next(self) -> int:
        self._numbers += 1
        return self._numbers


def _memory_bytes(memory_mb: int | None) -> int | None:
    if memory_mb is not None:
        return memory_mb * 10**6
    try:
        return int(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * MEMORY_FRAC)
    except (ValueError, OSError, AttributeError):
        return None
