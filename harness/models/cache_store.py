"""Answers on disk: one SQLite file that several processes share and that may be lost at any time."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import ParamSpec, TypeVar

FORMAT = 1
"""In the file's name: another format is another file."""
LIMIT_BYTES = 2**30
KEEP_FRAC = 0.9
"""Of the limit, after the least recently used answers have gone."""
BUSY_S = 5.0
KEYS_AT_ONCE = 500
Note = Callable[[str], None]
P = ParamSpec("P")
T = TypeVar("T")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS answers (key BLOB PRIMARY KEY, answer BLOB NOT NULL, crc INTEGER NOT NULL, hour INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS by_hour ON answers (hour);
"""  # noqa: E501
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


class AnswerStore:
    """Bytes by key. Nothing that goes wrong with the file raises: it is said once, and less is kept.

    diskcache was not taken: it unpickles what it reads, and has a transaction for every key.
    """

    def __init__(
        self,
        folder: Path,
        *,
        limit_bytes: int = LIMIT_BYTES,
        note: Note,
        hour: Callable[[], int] | None = None,
    ) -> None:
        self.path = folder / f"answers-{FORMAT}.sqlite3"
        self._limit_bytes = limit_bytes
        self._note = note
        self._hour = hour or (lambda: int(time.time() // 3600))
        self._lock: int | None = None
        self._db: sqlite3.Connection | None = None
        self._is_second = False
        """A file was set aside already: one that is damaged again says that the disk is."""
        self._guarded(self._open)

    def get(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """What is known, by key; a row whose checksum is off is not known."""
        found: dict[bytes, bytes] = {}
        for start in range(0, len(keys), KEYS_AT_ONCE):
            found.update(self._guarded(self._get, keys[start : start + KEYS_AT_ONCE]) or {})
        return found

    def put(self, answers: Mapping[bytes, bytes]) -> None:
        """Keeps them, in one transaction; the least recently used go where the limit is passed."""
        if answers and self._db is not None:
            self._guarded(self._put, answers)

    def close(self) -> None:
        """Gives the file back. Calling it twice is fine."""
        if self._db is not None:
            with suppress(sqlite3.Error):
                self._db.close()
            self._db = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _open(self) -> None:
        folder = self.path.parent
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Held while the file is open: a damaged file is moved only when nobody else has it open, because
        # SQLite finds its write-ahead log by name and would take another file's log for its own.
        self._lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_SH)
        with _alone(folder / "opening"):  # of two that make the file at once, SQLite refuses one at once
            self._connect()

    def _connect(self) -> None:
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))  # SQLite gives its log the same mode
        self._db = sqlite3.connect(self.path, timeout=BUSY_S, isolation_level=None)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.executescript(_SCHEMA)

    def _get(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        if self._db is None:
            return {}
        marks = ",".join("?" * len(keys))
        rows = self._db.execute(
            f"SELECT key, answer, crc, hour FROM answers WHERE key IN ({marks})",  # noqa: S608 - question marks
            keys,
        ).fetchall()
        whole = [
            (key, answer, hour)
            for key, answer, crc, hour in rows
            if isinstance(answer, bytes) and _crc(key, answer) == crc
        ]
        with suppress(sqlite3.OperationalError):  # what was read is good, also where nothing can be written
            self._touch([key for key, _, hour in whole if hour < self._hour()])
        return {key: answer for key, answer, _ in whole}

    def _touch(self, keys: Sequence[bytes]) -> None:
        """Marks as used, to the hour: reading what was read just now writes nothing."""
        if keys:
            now = self._hour()
            self._write("UPDATE answers SET hour = ? WHERE key = ?", [(now, key) for key in keys])

    def _put(self, answers: Mapping[bytes, bytes]) -> None:
        now = self._hour()
        rows = [(key, answer, _crc(key, answer), now) for key, answer in answers.items()]
        self._write("INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?)", rows)

    def _write(self, statement: str, rows: Iterable[tuple[object, ...]]) -> None:
        assert self._db is not None
        self._db.execute("BEGIN IMMEDIATE")
        try:
            self._db.executemany(statement, rows)
            self._make_room()
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:  # a full disk has already rolled back
                self._db.execute("ROLLBACK")
            raise

    def _make_room(self) -> None:
        assert self._db is not None
        if self._used_bytes() <= self._limit_bytes:
            return
        while self._used_bytes() > self._limit_bytes * KEEP_FRAC:
            gone = self._db.execute(
                "DELETE FROM answers WHERE key IN (SELECT key FROM answers ORDER BY hour, rowid"
                " LIMIT (SELECT max(1, count(*) / 20) FROM answers))"
            )
            if gone.rowcount < 1:
                return

    def _used_bytes(self) -> int:
        assert self._db is not None
        pages, free, size = (
            int(self._db.execute(f"PRAGMA {name}").fetchone()[0])
            for name in ("page_count", "freelist_count", "page_size")
        )
        return (pages - free) * size

    def _guarded(self, step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
        try:
            return step(*args, **kwargs)
        except sqlite3.Error as error:
            code = (
                getattr(error, "sqlite_errorcode", 0) & 0xFF
            )  # the lowest byte is the kind, the rest its reason
            if code in _DAMAGED and not self._is_second:
                self._is_second = True
                self._guarded(self._set_aside)
            elif code not in _BUSY:  # another process writes for long: this time without
                self._give_up(str(error))
        except OSError as error:
            self._give_up(error.strerror or str(error))
        return None

    def _set_aside(self) -> None:
        """Moves the damaged file out of the way and begins another one."""
        self.close()
        self._lock = os.open(self.path.parent / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._give_up("damaged, and another process has it open")
            return
        if not _is_whole(self.path):  # else another process was here first
            for end in ("", "-wal", "-shm"):
                with suppress(FileNotFoundError):
                    Path(f"{self.path}{end}").replace(f"{self.path.with_suffix('.damaged')}{end}")
            self._note(f"{self.path}: damaged, set aside as {self.path.with_suffix('.damaged').name}")
        self.close()
        self._open()

    def _give_up(self, why: str) -> None:
        self.close()
        self._note(f"{self.path}: {why}; going on without kept answers")


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _is_whole(path: Path) -> bool:
    try:
        with closing(sqlite3.connect(path, timeout=BUSY_S)) as db:
            return bool(db.execute("PRAGMA quick_check(1)").fetchone() == ("ok",))
    except sqlite3.DatabaseError:
        return False


def _crc(key: bytes, answer: bytes) -> int:
    return zlib.crc32(answer, zlib.crc32(key))
