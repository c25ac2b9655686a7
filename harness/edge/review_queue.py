"""What the device did not answer, kept for people: a run folder that `harness review` and the terminal open.

The questions are kept in clear text, because nobody can judge what they can't read; the files are readable by their
owner alone.
"""

from __future__ import annotations

import json
import os
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from harness.edge.served import Release
from harness.evals.answers import Header
from harness.evals.results import Sample
from harness.files import sha256_text
from harness.jobs.journal import Journal
from harness.jobs.launch import prepare

ASKED = "asked.jsonl"
CHATS = "free-chat"
"""Stands for the suite of what belongs to none."""
MAX_ITEMS = 10_000
"""Of one release: more than people will read is a sign that the model is wrong here, not that the queue is short."""


@dataclass(frozen=True, slots=True)
class Held:
    """A question whose answer was held back."""

    id: str
    suite: str
    question: str
    answer: str | None
    """What the device would have said."""
    why: str
    confidence: float | None = None
    label_probs: dict[str, float] | None = None
    slices: dict[str, str | list[str]] = field(default_factory=dict)


class ReviewQueue:
    """The queue of one release; begins to exist with its first item."""

    def __init__(self, home: Path, release: Release) -> None:
        self.run = f"served-{release.recipe}-{release.digest[:8]}"
        self._home, self._release = home, release
        self._folder: Path | None = None
        self._lock = threading.Lock()
        self._numbers: dict[str, int] = {}

    def add(self, held: Held) -> bool:
        """Keeps the item; False where the queue is full or the disk does not take it, which stops no answer."""
        with self._lock, suppress(OSError):
            if self._folder is None:
                self._folder = self._made()
            number = self._number(held.suite)
            if number >= MAX_ITEMS:
                return False
            self._numbers[held.suite] = number + 1
            asked = {"suite": held.suite, "id": held.id, "input": held.question, "why": held.why}
            _append(self._folder / ASKED, json.dumps(asked) + "\n")
            lines = [json.dumps(_sample(held).to_json()), json.dumps({"batch": number, "n": 1})]
            _append(self._samples(held.suite), "\n".join(lines) + "\n")
            return True
        return False

    def _made(self) -> Path:
        release = self._release
        folder = prepare(
            self._home, self.run, job="serve", title=f"held back by {release.recipe}",
            command=["harness", "serve", str(release.folder)], document={}, lock="",
            options={"asked": str(self._home / "runs" / self.run / ASKED), "release": release.digest},
        )  # fmt: skip
        if not (folder / "events.jsonl").exists():
            journal = Journal(folder / "events.jsonl")
            journal.write("run.done", verdict=None, exit_code=0, release=None, seconds=0.0)
            journal.close()
        return folder

    def _samples(self, suite: str) -> Path:
        assert self._folder is not None
        return self._folder / "stages" / self._release.stage / suite / "samples.jsonl"

    def _number(self, suite: str) -> int:
        """Items that the suite has; its file begins with a header, as that of every stage."""
        if suite not in self._numbers:
            path = self._samples(suite)
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                header = Header(self._release.sha256, sha256_text(self.run), "")
                _append(path, json.dumps({"header": header._asdict()}) + "\n")
            self._numbers[suite] = sum('"batch"' in line for line in path.read_text().splitlines())
        return self._numbers[suite]


def _sample(held: Held) -> Sample:
    """Without a gold nothing is scored: what the answer is worth, a person will say."""
    return Sample(
        id=held.id, gold=(), answer=held.answer, score=0.0, slices=held.slices, unit=held.id,
        confidence=held.confidence, label_probs=held.label_probs, output=held.answer,
    )  # fmt: skip


def _append(path: Path, text: str) -> None:
    """Appends all of it or nothing."""
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        size, data = os.fstat(handle).st_size, text.encode()
        if os.write(handle, data) != len(data):
            os.ftruncate(handle, size)
            raise OSError("no room for the item")
    finally:
        os.close(handle)
