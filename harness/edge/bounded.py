"""Limits on what foreign bytes may cost a process: on time and memory of a piece of Python, on memory of it all."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from harness.errors import ModelError


class TookTooLong(BaseException):
    """Raised from the alarm. No `except Exception` of a template's code can catch it."""


@contextmanager
def bounded(what: str, *, seconds: float, extra_bytes: int) -> Iterator[None]:
    """Runs the block in the main thread with so much time and so much memory more than the process has now.

    Where the system has no alarm or no limits, the caller's own watch on the process must do.

    Raises:
        ModelError: it took more.
    """
    try:
        with _alarm(seconds), _memory(extra_bytes):
            yield
    except TookTooLong:
        raise ModelError(f"{what} took over {seconds:g} s") from None
    except MemoryError:
        raise ModelError(f"{what} took over {extra_bytes // 2**20:,} MB") from None


@contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(_number: int, _frame: FrameType | None) -> None:
        raise TookTooLong

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def _memory(extra_bytes: int) -> Iterator[None]:
    used = address_space_bytes()
    if used is None:
        yield
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    wanted = used + extra_bytes
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_AS, (wanted, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def address_space_bytes(statm: Path = Path("/proc/self/statm")) -> int | None:
    """What this process has mapped; None where the system does not say."""
    try:
        return int(statm.read_text(encoding="ascii").split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None


def limit_memory(limit_bytes: int) -> None:
    """Lets this process allocate no more than that, for good; files that are mapped do not count. Linux only."""
    if sys.platform == "linux":
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        if hard == resource.RLIM_INFINITY or limit_bytes <= hard:
            resource.setrlimit(resource.RLIMIT_DATA, (limit_bytes, limit_bytes))


def resident_mb(pid: int, field: str = "VmRSS") -> float | None:
    """Megabytes of a process in memory, or with `VmHWM` their peak; None where the system does not say."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines()
        found = next(line for line in lines if line.startswith(f"{field}:"))
        return int(found.split()[1]) * 1024 / 1e6
    except (OSError, StopIteration, ValueError, IndexError):
        return None
