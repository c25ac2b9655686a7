"""A run's append-only journal: one JSON object a line; a torn last line is the end of the file."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple


class Event(NamedTuple):
    """One thing that happened."""

    seq: int
    time: float
    """Seconds since the epoch."""
    name: str
    """One of the names in `docs/architecture.md`, such as `step.start` or `run.done`."""
    data: dict[str, Any]


class Journal:
    """Appends events; each is in the kernel's hands when `write` returns, and on disk after `sync`."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._seq = _mend(path)
        self._handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def write(self, name: str, /, *, sync: bool = False, **data: Any) -> None:
        """Appends one event; `sync` makes it survive a power cut (a kill needs no sync)."""
        self._seq += 1
        line = {"seq": self._seq, "time": round(time.time(), 3), "event": name, **data}
        self._append((json.dumps(line, allow_nan=False) + "\n").encode())
        if sync:
            os.fsync(self._handle)

    def _append(self, line: bytes) -> None:
        """Appends the whole line or nothing: half of one would spoil the next as well."""
        size = os.fstat(self._handle).st_size
        view = memoryview(line)
        try:
            while view:
                view = view[os.write(self._handle, view) :]
        except OSError:
            os.ftruncate(self._handle, size)
            raise

    def close(self) -> None:
        os.fsync(self._handle)
        os.close(self._handle)


class Tail:
    """Reads what was added to a journal since the last look; never re-reads, never blocks."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def drain(self, limit: int = 5000) -> list[Event]:
        """At most `limit` whole lines that came since the last call; empty while there is no file."""
        events: list[Event] = []
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                while len(events) < limit:
                    line = file.readline()
                    if not line.endswith(b"\n"):
                        break
                    self._offset += len(line)
                    if event := parse_event(line):
                        events.append(event)
        except FileNotFoundError:
            return []
        return events


def read_events(path: Path) -> Iterator[Event]:
    """All whole events of a journal, oldest first; none where there is no file."""
    tail = Tail(path)
    while events := tail.drain():
        yield from events


def parse_event(line: bytes) -> Event | None:
    """The event of one line; None where it is none."""
    try:
        data = json.loads(line)
        return Event(int(data.pop("seq")), float(data.pop("time")), str(data.pop("event")), data)
    except (ValueError, KeyError, AttributeError, TypeError):
        return None


def _mend(path: Path) -> int:
    """Cuts a torn last line off, so that the next event starts a line of its own; the last number used."""
    if not path.exists():
        return 0
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole != len(data):
        os.truncate(path, whole)
    last = 0
    for line in data[:whole].splitlines()[-50:]:
        if event := parse_event(line):
            last = event.seq
    return last
