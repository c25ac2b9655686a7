"""A release to serve, an engine that follows a script, and a server in this process."""

from __future__ import annotations

import asyncio
import atexit
import math
import shutil
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2

from harness.edge.app import make_app
from harness.edge.base import Ask, Done, Engine, Failed, Health, Piece, Tell
from harness.edge.escalation import ServerModel
from harness.edge.guards import Guard
from harness.edge.limits import Limits
from harness.edge.requests_log import RequestLog
from harness.edge.route import QueueOf, Router
from harness.edge.served import Release, open_release
from harness.edge.server import bind, make_server
from harness.edge.serving import Serving, key_digest
from harness.edge.switch import Switch
from harness.export.keys import Trust
from harness.export.release import ReleaseContents, write_release
from harness.export.verify import file_identity
from harness.files import canonical_json, digest_json, sha256_file
from harness.specs.suite import Suite
from tests.export.releases import make_contents

KEY = "a-key-of-more-than-sixteen-characters"
ADMIN = "an-admin-key-that-is-another-one"
LABELS = ("cap", "fee", "term")
NOBODY = Trust.of_nobody()


def suite_document(**changes: Any) -> dict[str, Any]:
    base = {
        "suite": "clauses", "domain": "legal", "task": "classify", "labels": list(LABELS), "slices": ["style"],
        "records": {"eval": "e.jsonl"},
        "prompt": {"system": "Which clause?", "user": "{{ input }}", "max_tokens": 64},
    }  # fmt: skip
    return {**base, **changes}


def calibration(
    *, threshold: float | None = 0.6, found: bool = True, temperature: float | None = 2.0,
    lac: float | None = 0.7, confidence: str | None = None, per: Sequence[str] = (),
    groups: Mapping[str, Any] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """A `calibration.json`; `threshold` None answers everything."""
    pooled = {"threshold": lac, "n": 60, "is_pooled": False}
    return {
        "format": 1, "suite": "clauses", "n": 60, "units": 60, "items": "i" * 64, "temperature": temperature,
        "tests": {}, "reasons": {},
        "coverage": [{"target": 0.9, "per": list(per), "pooled": pooled, "groups": dict(groups or {})}],
        "abstention": [
            {"precision": 0.95, "confidence": confidence, "found": found, "threshold": threshold,
             "coverage": 0.7 if found else None, "p": 0.01 if found else None}
        ],
    }  # fmt: skip


def contents(
    folder: Path, *, sequence: int = 1_000, fitted: Mapping[str, Any] | None = None, size: int = 40,
    recipe: Mapping[str, Any] | None = None, examples: Sequence[Any] = (), gguf: str | None = None, **suite: Any,
) -> ReleaseContents:  # fmt: skip
    """A candidate that passed and carries one suite; `gguf` ships in place of one with a single tensor."""
    folder.mkdir(parents=True, exist_ok=True)
    found = make_contents(folder, sequence=sequence, size=size)
    if gguf is not None:
        found = shipping(found, Path(gguf))
    document = Suite.model_validate(suite_document(**suite))
    parts = {key: value for key, value in found.lock.items() if key != "digest"}
    parts["suites"] = {document.suite: {"document": digest_json(document.model_dump())}}
    lock = {**parts, "digest": digest_json(parts)}
    asked = {
        "suite": document.model_dump(mode="json"),
        "labels": list(document.labels),
        "examples": list(examples),
    }
    return replace(
        found, lock=lock, suites={document.suite: asked}, recipe={**found.recipe, **(recipe or {})},
        verdicts={stage: replace(verdict, lock=lock["digest"]) for stage, verdict in found.verdicts.items()},
        calibrations={document.suite: fitted} if fitted else {},
    )  # fmt: skip


def shipping(found: ReleaseContents, gguf: Path) -> ReleaseContents:
    """The candidate with another file, and with verdict and scorecard about that one."""
    sha = sha256_file(gguf)
    identity, stage = file_identity(sha), found.picked
    cards = {name: replace(card, identity=identity) for name, card in found.scorecards[stage].items()}
    verdicts = {**found.verdicts, stage: replace(found.verdicts[stage], identity=identity)}
    return replace(found, gguf=gguf, gguf_sha256=sha, verdicts=verdicts, scorecards={stage: cards})


def make_release(folder: Path, **changes: Any) -> Release:
    """A verified release."""
    written = write_release(folder / "release", contents(folder / "parts", **changes))
    return open_release(written.folder, NOBODY)


_made: dict[str, Release] = {}


def shared_release(**changes: Any) -> Release:
    """As `make_release`, made once for all tests of the process that want the same one. Read it, never write to it."""
    key = canonical_json(changes)
    if key not in _made:
        folder = Path(tempfile.mkdtemp(prefix="served-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        _made[key] = make_release(folder, **changes)
    return _made[key]


Say = Callable[[Ask], str]


def echo(ask: Ask) -> str:
    """The last thing that was said, as an answer that can be told from every other."""
    return f"echo {ask.messages[-1].content if ask.messages else ask.text}"


def likely(label: str, p: float) -> Callable[[Ask], dict[str, float]]:
    """Log-probabilities of a softmax that gives the label p, and the others the rest in equal parts."""

    def logprobs(ask: Ask) -> dict[str, float]:
        rest = (1.0 - p) / (len(ask.labels) - 1)
        # Times e^-3: the engine's log-probabilities don't sum to 1 over the labels.
        return {one: math.log(p if one == label else rest) - 3.0 for one in ask.labels}

    return logprobs


FEE = likely("fee", 0.9)


class ScriptedEngine:
    """Meets `Engine` with answers from a function; each request has a thread, as the real one tells from its own."""

    def __init__(
        self, say: Say = echo, *, logprobs: Callable[[Ask], Mapping[str, float]] = FEE,
        trouble: Callable[[Ask], Failed | None] = lambda ask: None, adapters: Mapping[str, str] | None = None,
        digest: str = "e" * 64,
    ) -> None:  # fmt: skip
        self.say, self.logprobs, self.trouble = say, logprobs, trouble
        self.digest, self.context_tok = digest, 256
        self.adapters: Mapping[str, str] = adapters or {}
        self.gate = threading.Event()
        """Requests wait here for their answer; open unless a test closes it."""
        self.gate.set()
        self.asked: list[Ask] = []
        self.withdrawn: list[str] = []
        self.is_closed = False
        self._lock = threading.Lock()
        self._running: dict[str, threading.Event] = {}
        self.seen = threading.Condition()

    def submit(self, ask: Ask, tell: Tell) -> None:
        if self.is_closed:
            tell(Failed("closed", "the engine is closed"))
            return
        with self._lock:
            self._running[ask.id] = threading.Event()
        with self.seen:
            self.asked.append(ask)
            self.seen.notify_all()
        threading.Thread(target=self._answer, args=(ask, tell), daemon=True).start()

    def await_asked(self, n: int) -> None:
        """Returns when so many requests have come."""
        with self.seen:
            assert self.seen.wait_for(lambda: len(self.asked) >= n, timeout=20)

    def withdraw(self, ask_id: str) -> None:
        self.withdrawn.append(ask_id)
        with self._lock:
            event = self._running.get(ask_id)
        if event is not None:
            event.set()

    def health(self) -> Health:
        with self._lock:
            running = len(self._running)
        state = "closed" if self.is_closed else "ready"
        return Health(state, running, 0, 0, 12.5, len(self.asked) - running)  # type: ignore[arg-type]

    def close(self, drain_s: float = 0.0) -> None:
        self.is_closed = True
        with self._lock:
            events = list(self._running.values())
        for event in events:
            event.set()

    def _answer(self, ask: Ask, tell: Tell) -> None:
        stop = self._running[ask.id]
        while not self.gate.wait(0.005) and not stop.is_set():
            pass
        try:
            if self.is_closed:
                tell(Failed("closed", "the engine was closed"))
            elif stop.is_set():
                tell(done("", finish="cancelled"))
            elif (failed := self.trouble(ask)) is not None:
                tell(failed)
            elif ask.labels:
                logprobs = dict(self.logprobs(ask))
                tell(done(max(logprobs, key=logprobs.__getitem__), label_logprobs=logprobs))
            else:
                self._write(ask, tell)
        finally:
            with self._lock:
                self._running.pop(ask.id, None)

    def _write(self, ask: Ask, tell: Tell) -> None:
        text = self.say(ask)
        words = text.split(" ")
        parts = [word if at == 0 else f" {word}" for at, word in enumerate(words)]
        for part in parts[: ask.max_new_tokens]:
            tell(Piece(part))
        said = "".join(parts[: ask.max_new_tokens])
        logprobs = tuple(-0.5 for _ in parts[: ask.max_new_tokens]) if ask.wants_logprobs else None
        texts = tuple(parts[: ask.max_new_tokens]) if ask.wants_logprobs else None
        finish = "stop" if said == text else "length"
        tell(done(said, finish=finish, token_logprobs=logprobs, token_texts=texts))


def done(text: str, *, finish: str = "stop", **fields: Any) -> Done:
    """What an engine says at the end."""
    return Done(
        text, finish, prompt_tok=7, cached_tok=3, output_tok=len(text.split()), first_ms=1.5, total_ms=2.5, **fields  # type: ignore[arg-type]
    )  # fmt: skip


@asynccontextmanager
async def client_of(
    release: Release, engine: Engine, home: Path, *, escalate: str | None = None, guards: Sequence[Guard] = (),
    limits: Limits | None = None, has_text: bool = False, has_queue: bool = True, key: str | None = KEY,
    open_engine: Callable[[Release], Engine] | None = None, **more: Any,
) -> AsyncIterator[tuple[httpx2.AsyncClient, Serving]]:  # fmt: skip
    """A client with the key, and the server's state; no socket is opened."""
    server = ServerModel(escalate, limit_s=2.0) if escalate else None
    router = Router(server=server, queues=QueueOf(home) if has_queue else None, guards=guards)
    switch = Switch(release, engine, open_engine or (lambda _: ScriptedEngine()))
    log = RequestLog(home / "serving" / release.recipe, has_text=has_text)
    serving = Serving(
        switch, router, log, key_digest(KEY), limits=limits or Limits(), admin_digest=key_digest(ADMIN),
        open_release=lambda folder: open_release(folder, NOBODY), **more,
    )  # fmt: skip
    transport = httpx2.ASGITransport(app=make_app(serving), raise_app_exceptions=False)
    headers = {"authorization": f"Bearer {key}"} if key else {}
    async with httpx2.AsyncClient(
        transport=transport, base_url="http://edge/v1", headers=headers, timeout=20
    ) as client:
        try:
            yield client, serving
        finally:
            await switch.close(5.0)
            await router.close()
            log.close()


@asynccontextmanager
async def listening(serving: Serving) -> AsyncIterator[str]:
    """The server's URL, behind a socket of this machine."""
    listener = bind("127.0.0.1", 0)
    web = make_server(make_app(serving), serving, drain_s=5.0)
    task = asyncio.create_task(web.serve(sockets=[listener]))
    while not web.started:
        await asyncio.sleep(0.001)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    finally:
        web.should_exit = True
        await task
