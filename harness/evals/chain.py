"""Append-only files in which a changed, removed or inserted line is noticed.

Each line holds the digest of the line before it, so a change anywhere breaks the chain behind it; a head file
beside it holds the number of lines and the last digest, so that lines missing at the end are noticed too. Several
processes may write: each holds a lock that the kernel drops when it dies. It is evidence against mistakes and quiet
edits, not against somebody who rewrites both files consistently.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness.errors import IntegrityError
from harness.files import canonical_json, parse_json, read_json, sha256_text, write_json

START = "0" * 64
"""What the first line names as the line before it."""
Entry = Mapping[str, Any]


class Chain:
    """One append-only file with its head."""

    def __init__(self, path: Path, *, keys: Sequence[str], hint: str) -> None:
        """`keys` are what every entry has; `hint` says what to do where the chain is broken."""
        self._path = path
        self._head = path.with_suffix(".head.json")
        self._keys = {"n", "before", *keys}
        self._hint = hint

    def entries(self) -> list[dict[str, Any]]:
        """All entries, oldest first; none where there is no file. Writes nothing.

        Raises:
            IntegrityError: a line was changed, removed or put in.
        """
        if not self._path.exists() and not self._head.exists():
            return []
        with self._locked():
            return self._read()

    def append_unless(
        self, entry: Entry, is_known: Callable[[Sequence[Entry]], bool]
    ) -> list[dict[str, Any]]:
        """All entries after `entry` was put on disk, which it is not where `is_known` says so of those there are.

        Raises:
            IntegrityError: as `entries`.
        """
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._locked():
            entries = self._read()
            if not is_known(entries):
                self._cut_torn_line()
                entries.append({"n": len(entries) + 1, "before": _digest(entries), **entry})
                self._write(entries[-1])
            self._write_head(entries)
            return entries

    def _write(self, entry: Entry) -> None:
        with self._path.open("ab") as file:
            file.write((canonical_json(entry) + "\n").encode())
            file.flush()
            os.fsync(file.fileno())

    def _read(self) -> list[dict[str, Any]]:
        data = self._path.read_bytes() if self._path.exists() else b""
        # What stands behind the last line feed was torn by a crash: nobody got to see it finished.
        lines = data.split(b"\n")[:-1]
        entries = [self._parse(line, number) for number, line in enumerate(lines, 1)]
        for number, entry in enumerate(entries):
            if entry["n"] != number + 1 or entry["before"] != _digest(entries[:number]):
                raise self._broken(f"line {number + 1} does not follow the line before it")
        self._check_head(entries)
        return entries

    def _parse(self, line: bytes, number: int) -> dict[str, Any]:
        value = parse_json(line, name=f"{self._path} line {number}")
        if not isinstance(value, dict) or not self._keys <= value.keys():
            raise self._broken(f"line {number} is no entry")
        return value

    def _check_head(self, entries: Sequence[Entry]) -> None:
        """A process that was killed between the line and the head has left one line more than the head knows."""
        head: Entry = read_json(self._head) if self._head.exists() else {"n": 0, "last": START}
        known: int = head["n"]
        if not known <= len(entries) <= known + 1 or _digest(entries[:known]) != head["last"]:
            raise self._broken(f"{known} lines were written down, {len(entries)} are there")

    def _write_head(self, entries: Sequence[Entry]) -> None:
        write_json(self._head, {"n": len(entries), "last": _digest(entries)})

    def _cut_torn_line(self) -> None:
        data = self._path.read_bytes() if self._path.exists() else b""
        if data and not data.endswith(b"\n"):
            os.truncate(self._path, data.rfind(b"\n") + 1)

    def _broken(self, what: str) -> IntegrityError:
        return IntegrityError(f"TAMPERED: {self._path}: {what}", hint=self._hint)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        handle = os.open(self._path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)


def _digest(entries: Sequence[Entry]) -> str:
    """What the next line names as the line before it."""
    return sha256_text(canonical_json(entries[-1])) if entries else START
