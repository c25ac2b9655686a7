"""Who works on a run: a lock that the kernel drops when its holder dies, however it dies."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from harness.errors import HarnessError
from harness.files import write_json

HEARTBEAT_S = 5.0
STALE_S = 60.0


class Holder(NamedTuple):
    """The process that holds a run."""

    pid: int
    start_ticks: int
    """Field 22 of /proc/PID/stat: tells a process from a later one with its number."""
    boot_id: str
    host: str


class LeaseHeldError(HarnessError):
    """Another process works on this run."""


@contextmanager
def hold(folder: Path) -> Iterator[Holder]:
    """Holds the run for this process until the block ends.

    Raises:
        LeaseHeldError: another process holds it.
    """
    handle = os.open(folder / "lease.lock", os.O_RDWR | os.O_CREAT, 0o644)
    stop = threading.Event()
    try:
        _lock(handle, folder)
        me = _myself()
        write_json(folder / "lease.json", me._asdict())
        threading.Thread(target=_beat, args=(folder / "lease.json", stop), daemon=True).start()
        yield me
    finally:
        stop.set()
        os.close(handle)


def holder(folder: Path) -> Holder | None:
    """The process that works on the run now, or None."""
    with suppress(OSError, ValueError, TypeError):
        found = Holder(**json.loads((folder / "lease.json").read_text()))
        if found.host != socket.gethostname():
            # The lock is not visible from another machine: only the heartbeat is.
            fresh = time.time() - (folder / "lease.json").stat().st_mtime < STALE_S
            return found if fresh else None
        return found if _is_locked(folder / "lease.lock") else None
    return None


def is_same_process(found: Holder) -> bool:
    """Whether the holder's pid still means the process that took the lease."""
    return found.boot_id == _boot_id() and found.start_ticks == _start_ticks(found.pid)


def _lock(handle: int, folder: Path) -> None:
    # A reader that looks whether the run lives holds a shared lock for an instant.
    for _ in range(50):
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            time.sleep(0.02)
    raise LeaseHeldError(
        f"{folder.name}: another process works on this run", hint=f"harness attach {folder.name}"
    )


def _is_locked(path: Path) -> bool:
    handle = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def _beat(path: Path, stop: threading.Event) -> None:
    while not stop.wait(HEARTBEAT_S):
        with suppress(OSError):
            os.utime(path)


def _myself() -> Holder:
    return Holder(os.getpid(), _start_ticks(os.getpid()), _boot_id(), socket.gethostname())


def _start_ticks(pid: int) -> int:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    # The command's name may hold spaces and parentheses: fields are counted after the last one.
    return int(stat.rpartition(")")[2].split()[19])


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
