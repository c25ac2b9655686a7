"""Steps of a job, told to the journal."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness.jobs.journal import Journal


class Progress:
    """Writes what a job does; knows how long its current step has taken."""

    def __init__(self, journal: Journal, folder: Path, steps: Sequence[tuple[str, str]]) -> None:
        self._journal = journal
        self._cancel = folder / "cancel"
        self._steps = dict(steps)
        self._names = list(self._steps)
        self._step = ""
        self._began = 0.0
        self._first: tuple[float, int] | None = None
        """When the step first told how far it was, and how far."""

    def should_stop(self) -> bool:
        """Whether somebody asked for an end after this batch."""
        return self._cancel.exists()

    def event(self, name: str, data: dict[str, Any] | None = None, /, **more: Any) -> None:
        """Writes one event; a scored batch also moves the current step's progress."""
        values = {**(data or {}), **more}
        self._journal.write(name, **values)
        if name == "eval.batch":
            self.move(values["done"], values["total"], "samples", f"{values['correct']} right")

    def note(self, text: str, level: str = "info") -> None:
        self._journal.write("note", level=level, text=text)

    def move(self, done: int, total: int, unit: str, note: str = "") -> None:
        """Tells how far the current step is; the rate counts only what this process did."""
        if self._first is None:
            self._first = (time.monotonic(), done)
        elapsed, fresh = time.monotonic() - self._first[0], done - self._first[1]
        rate = fresh / elapsed if fresh > 0 and elapsed > 0 else None
        self._journal.write(
            "step.progress", step=self._step, done=done, total=total, unit=unit, rate=rate,
            eta_s=(total - done) / rate if rate else None, note=note,
        )  # fmt: skip

    @contextmanager
    def step(self, name: str) -> Iterator[dict[str, bool]]:
        """One step; set `reused` in what it yields when all of it was there already."""
        self._step, self._began, self._first = name, time.monotonic(), None
        index = self._names.index(name) + 1
        self._journal.write(
            "step.start", step=name, title=self._steps[name], index=index, of=len(self._names)
        )
        outcome = {"reused": False}
        yield outcome
        seconds = round(time.monotonic() - self._began, 3)
        self._journal.write("step.done", step=name, seconds=seconds, reused=outcome["reused"])
