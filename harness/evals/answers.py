"""Raw answers on disk: what a model was asked is never asked again, whatever happens to its scores."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

from harness.errors import CancelledError, RunDiedError
from harness.files import digest_json
from harness.models.base import Answer, ChoiceRequest, GenerateRequest, Model, Requests

SYNC_S = 0.5
"""Answers are written batch by batch, which outlives a kill, and synced this often, which outlives a power cut."""
WAIT_S = 0.05
"""Answers that came before a wait of this long were not computed together with what comes after it."""
ShouldStop = Callable[[], bool]

_DEFAULTS = {field.name: getattr(Answer(""), field.name) for field in fields(Answer)}
_TUPLES = ("choice_logprobs", "choice_tok", "token_logprobs")
_encode = json.JSONEncoder(separators=(",", ":")).encode
"""Takes NaN: these are the model's own words, and what they are worth is judged later."""


class Header(NamedTuple):
    """What answers and samples stand on. Those of another header are never used."""

    identity: str
    """Digest of the model."""
    requests: str
    """Digest of prompts, choices and settings, in their order."""
    scoring: str = ""
    """Digest of scorers and golds; empty for raw answers, which know neither."""


def requests_digest(requests: Requests) -> str:
    """The digest of all that the model is told, request by request in their order."""
    return digest_json([_told(request) for request in requests])


def _told(request: ChoiceRequest | GenerateRequest) -> list[Any]:
    prompt = request.prompt
    asked = [request.id, prompt.messages, prompt.max_tokens, prompt.over_length, prompt.text]
    if isinstance(request, ChoiceRequest):
        return [*asked, request.choices, request.is_open]
    how = [request.max_new_tokens, request.stop, request.temperature, request.seed, request.grammar]
    return [*asked, *how]


class AnswerLog:
    """Append-only, in groups; a group counts when its closing line is whole.

    A group is what a model answered together. Half of it on disk would leave the other half to be computed in
    other company, which can move a score in its last digits; so only a wait within it divides a group.
    """

    def __init__(self, path: Path, header: Header, *, clock: Callable[[], float] = time.monotonic) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.answers, whole_bytes = _read(path, header)
        """By request, in the order in which they came."""
        self.synced = len(self.answers)
        """How many of them, from the first, are on disk whatever happens now."""
        self._clock = clock
        self._synced_at = self._took_at = clock()
        self._group: list[Answer] = []
        self._timer: threading.Timer | None = None
        self._lock = threading.Lock()
        self._handle = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
        os.ftruncate(self._handle, whole_bytes)
        os.lseek(self._handle, 0, os.SEEK_END)
        if not whole_bytes:
            self._write([_encode({"header": header._asdict()})])

    def take(self, answer: Answer) -> None:
        """Adds to the group; on disk within about `SYNC_S`, whether or not another answer comes."""
        with self._lock:
            self._group.append(answer)
            self.answers[answer.id] = answer
            self._took_at = self._clock()
            if self._timer is None:
                self._start_timer()

    def end_group(self) -> None:
        """Writes the group, which from now outlives a kill; syncs if the last time was `SYNC_S` ago."""
        with self._lock:
            self._write_group()
            if self._clock() - self._synced_at >= SYNC_S:
                self._sync()

    def drop_group(self) -> None:
        """Forgets the answers since the last group: their batch turned out to be no good."""
        with self._lock:
            for answer in self._group:
                del self.answers[answer.id]
            self._group = []

    def sync(self) -> None:
        """All answers are on disk when this returns."""
        with self._lock:
            self._write_group()
            self._sync()

    def close(self) -> None:
        """Syncs and closes."""
        self.sync()
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
            os.close(self._handle)
            self._handle = -1

    def _start_timer(self) -> None:
        self._timer = threading.Timer(SYNC_S, self._on_time)
        self._timer.daemon = True
        self._timer.start()

    def _on_time(self) -> None:
        with self._lock:
            self._timer = None
            if self._handle < 0:
                return
            if self._clock() - self._took_at >= WAIT_S:
                self._write_group()
            self._sync()
            if self._group:
                self._start_timer()

    def _write_group(self) -> None:
        if self._group:
            self._write([*map(_line, self._group), _encode({"n": len(self._group)})])
            self._group = []

    def _sync(self) -> None:
        written = len(self.answers) - len(self._group)
        if written > self.synced or not self.synced:
            os.fsync(self._handle)
        self.synced = written
        self._synced_at = self._clock()

    def _write(self, lines: Sequence[str]) -> None:
        view = memoryview(("\n".join(lines) + "\n").encode())
        while view:
            view = view[os.write(self._handle, view) :]


def ask(
    model: Model, requests: Requests, log: AnswerLog, *, should_stop: ShouldStop, on_disk: Callable[[], None]
) -> dict[str, Answer]:
    """The answers by request: those of the log, and the model's to all others.

    `on_disk` is called when more answers have safely reached the disk: about every `SYNC_S`, and at the end.

    Raises:
        CancelledError: `should_stop` said so between two batches; what was answered is kept.
        RunDiedError: the model's replies are not those to its requests, one to one and in their order.
    """
    told = log.synced
    left = len(requests) - sum(request.id in log.answers for request in requests)
    for batch in model.plan(requests) if left else ():
        missing = [requests[index] for index in batch if requests[index].id not in log.answers]
        if missing and should_stop():
            log.sync()
            on_disk()
            raise CancelledError(f"stopped after {len(log.answers)} of {len(requests)} answers")
        try:
            for answer in _in_step(model, missing):
                log.take(answer)
        except RunDiedError:
            log.drop_group()
            raise
        log.end_group()
        if log.synced > told:
            told = log.synced
            on_disk()
    log.sync()
    on_disk()
    return log.answers


def _in_step(model: Model, requests: Sequence[Any]) -> Iterator[Answer]:
    """One answer a request and in their order, or none at all: nothing is put right by guessing."""
    if not requests:
        return
    is_choice = isinstance(requests[0], ChoiceRequest)
    answers = model.score_choices(requests) if is_choice else model.generate(requests)
    asked = iter(requests)
    for answer in answers:
        request = next(asked, None)
        if request is None or answer.id != request.id:
            wanted = "no more replies" if request is None else f"the reply to {request.id!r}"
            raise _out_of_step(model, f"{answer.id!r} came, wanted {wanted}")
        yield answer
    if (request := next(asked, None)) is not None:
        raise _out_of_step(model, f"no reply to {request.id!r}")


def _out_of_step(model: Model, what: str) -> RunDiedError:
    return RunDiedError(
        f"{model.identity.kind} model: replies do not match the requests one to one: {what}",
        hint="a defect of that model's code; the batches before this one are kept",
    )


def _line(answer: Answer) -> str:
    """The answer without what is at its default."""
    data = {name: value for name, plain in _DEFAULTS.items() if (value := getattr(answer, name)) != plain}
    return _encode(data)


def _read(path: Path, wanted: Header) -> tuple[dict[str, Answer], int]:
    """The whole groups' answers and how many bytes they take; none if the header is not the wanted one."""
    found: dict[str, Answer] = {}
    group: list[Answer] = []
    whole_bytes = offset = 0
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        return {}, 0
    for number, line in enumerate(lines):
        offset += len(line)
        data = parse_line(line)
        if data is None or (number == 0 and data.get("header") != wanted._asdict()):
            break
        if number == 0:
            whole_bytes = offset
        elif "n" in data:
            if data["n"] != len(group):
                break
            found.update((answer.id, answer) for answer in group)
            group, whole_bytes = [], offset
        else:
            group.append(_answer(data))
    return found, whole_bytes


def _answer(data: dict[str, Any]) -> Answer:
    lists = {name: tuple(data[name]) for name in _TUPLES if data.get(name) is not None}
    return Answer(**{**data, **lists})


def parse_line(line: bytes) -> dict[str, Any] | None:
    """The object of a whole line; None for half of one, or anything else."""
    if not line.endswith(b"\n"):
        return None
    try:
        data = json.loads(line)
    except ValueError:
        return None
    return data if isinstance(data, dict) else None
