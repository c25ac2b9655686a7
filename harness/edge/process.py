"""The engine's child process as its parent sees it: started, written to and read from without ever waiting for it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.edge.wire import Frames, pack

if TYPE_CHECKING:
    from harness.edge.loaded import Settings

READ_BYTES = 2**18
LOG_TAIL_BYTES = 2000
SPINS = "2000"
"""Turns of libgomp's waiting loop before a thread sleeps. Threads that sleep at once are woken some hundred times a
step, which takes longer than most operations; threads that spin long starve each other on a busy machine."""
_SECRET_WORDS = ("KEY", "TOKEN", "SECRET", "PASSWORD", "PASSPHRASE", "CREDENTIAL")


class Process:
    """A running child. All but `pid` is for the one thread that owns it."""

    def __init__(self, settings: Settings) -> None:
        """Starts it; the settings are its first frame."""
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed in `close`
        self._child = subprocess.Popen(
            [sys.executable, "-P", "-m", "harness.edge.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=environment(settings.threads),
            start_new_session=True,  # a Ctrl-C in the terminal is the parent's to handle
        )
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self.stdin, self.stdout = self._child.stdin.fileno(), self._child.stdout.fileno()
        for pipe in (self.stdin, self.stdout):
            os.set_blocking(pipe, False)
        self._out = bytearray()
        self._frames = Frames()
        self.send(asdict(settings))

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._child.pid

    @property
    def has_output(self) -> bool:
        """Bytes wait to be written to it."""
        return bool(self._out)

    def send(self, frame: Mapping[str, Any]) -> None:
        """Writes a frame as far as the pipe takes it; `write` does the rest."""
        self._out += pack(frame)
        self.write()

    def write(self) -> None:
        """Writes what waits, as far as the pipe takes it."""
        while self._out:
            try:
                written = os.write(self.stdin, self._out[:READ_BYTES])
            except BlockingIOError:
                return
            except OSError:  # it has died: `read` says so
                self._out.clear()
                return
            del self._out[:written]

    def read(self) -> Iterator[dict[str, Any]]:
        """The frames that have arrived.

        Raises:
            EOFError: it has ended.
            DataError: what it says are no frames.
        """
        try:
            data = os.read(self.stdout, READ_BYTES)
        except BlockingIOError:
            return
        if not data:
            raise EOFError
        yield from self._frames.feed(data)

    def end(self) -> str:
        """Kills it if it still runs; how it ended, in words."""
        is_alive = self._child.poll() is None
        if is_alive:
            try:
                self._child.wait(timeout=0.2)  # its pipe closes a moment before it ends
            except subprocess.TimeoutExpired:
                self._child.kill()
        code = self._child.wait()
        said = self._log_tail()
        how = f"died of {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
        for pipe in (self._child.stdin, self._child.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:
                    continue
        self._log.close()
        return f"{how}: {said}" if said else how

    def kill(self) -> None:
        """Ends it at once; `read` then finds its end."""
        self._child.kill()

    def _log_tail(self) -> str:
        from harness.text import visible

        size = self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, size - LOG_TAIL_BYTES))
        lines = self._log.read().decode("utf-8", "replace").strip().splitlines()
        return visible(lines[-1], keep_newlines=False) if lines else ""


def environment(threads: int) -> dict[str, str]:
    """The parent's, without what looks like a secret: native code reads a foreign file there. How threads wait for each
    other is what the parent says, else they spin for a moment and then sleep."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not any(word in name.upper() for word in _SECRET_WORDS)
    }
    package = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH", "")]))
    waits = {} if "OMP_WAIT_POLICY" in kept else {"GOMP_SPINCOUNT": SPINS}
    return {**waits, **kept, "PYTHONPATH": path, "OMP_NUM_THREADS": str(threads)}
