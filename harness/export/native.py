"""Native code in a process of its own: a crash of llama.cpp is an error here, never the end of the caller.

The child is `python -m harness.export.native`. It reads one JSON request a line from stdin and answers each
with any number of progress lines and one reply line, which may be followed by raw bytes.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from harness.errors import ModelError

_LOG_TAIL_BYTES = 4000


class Reply(NamedTuple):
    """What the child said to one request."""

    fields: dict[str, Any]
    payload: bytes


class NativeCrash(ModelError):  # noqa: N818 - an outcome that callers handle, as StopIteration is
    """The child died of a signal, as llama.cpp makes it do on a broken file or an unlucky build."""


class Native:
    """A child process that holds native code. Use it in a `with` block."""

    def __init__(self, *, threads: int = 2) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed in `close`
        environment = {**os.environ, "PYTHONPATH": _import_path(), "OMP_NUM_THREADS": str(threads)}
        # Spinning threads starve each other on a busy machine: measured 16 times slower with load 9 on 2 cores.
        environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        self._child = subprocess.Popen(
            [sys.executable, "-m", "harness.export.native"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=environment,
            # A Ctrl-C in the terminal is the caller's to handle.
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._child.pid

    def call(self, op: str, *, on_progress: Callable[[int, int], None] | None = None, **fields: Any) -> Reply:
        """The reply to one request; `on_progress` gets (done, total) while the child works.

        Raises:
            NativeCrash: the child died of a signal.
            ModelError: the request failed; the message is the child's.
        """
        self._send({"op": op, **fields})
        while True:
            reply = self._read_line(op)
            if "progress" in reply:
                if on_progress:
                    on_progress(*reply["progress"])
                continue
            if "error" in reply:
                raise ModelError(reply["error"], hint=reply.get("hint", ""))
            return Reply(reply, self._read_payload(op, reply.pop("payload_bytes", 0)))

    def _send(self, request: dict[str, Any]) -> None:
        assert self._child.stdin is not None
        try:
            self._child.stdin.write(json.dumps(request).encode() + b"\n")
            self._child.stdin.flush()
        except BrokenPipeError:
            raise self._death(str(request["op"])) from None

    def _read_line(self, op: str) -> dict[str, Any]:
        assert self._child.stdout is not None
        line = self._child.stdout.readline()
        if not line.endswith(b"\n"):
            raise self._death(op)
        reply: dict[str, Any] = json.loads(line)
        return reply

    def _read_payload(self, op: str, size: int) -> bytes:
        assert self._child.stdout is not None
        payload = self._child.stdout.read(size)
        if len(payload) != size:
            raise self._death(op)
        return payload

    def _death(self, op: str) -> ModelError:
        code = self._child.wait()
        said = self.log_tail()
        if code < 0:
            name = signal.Signals(-code).name
            return NativeCrash(f"native code died with {name} during {op}", hint=said)
        return ModelError(f"the process for native code ended with {code} during {op}", hint=said)

    def log_tail(self) -> str:
        """The last that the child wrote to stderr, made safe to show."""
        from harness.text import visible

        size = self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, size - _LOG_TAIL_BYTES))
        return visible(self._log.read().decode("utf-8", "replace").strip())

    def close(self) -> None:
        """Ends the child. Calling it twice is fine."""
        if self._child.poll() is None:
            self._child.kill()
        self._child.wait()
        for pipe in (self._child.stdin, self._child.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except BrokenPipeError:
                    continue
        self._log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _import_path() -> str:
    package = str(Path(__file__).resolve().parents[2])
    return os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH", "")]))


def main() -> int:
    """The child: answers requests until stdin ends."""
    _die_with_parent()
    # What native code prints must not fall between the replies.
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    from harness.export.kernels import Kernels

    def send(reply: dict[str, Any], payload: bytes | memoryview = b"") -> None:
        size = {"payload_bytes": len(payload)} if payload else {}
        out.write(json.dumps({**reply, **size}).encode() + b"\n")
        out.write(payload)
        out.flush()

    kernels = Kernels(lambda done, total: send({"progress": [done, total]}))
    for line in sys.stdin.buffer:
        request = json.loads(line)
        try:
            reply, payload = kernels.answer(request.pop("op"), request)
            send(reply, payload)
        except Exception as error:
            said = error.message if isinstance(error, ModelError) else f"{type(error).__name__}: {error}"
            send({"error": said, "hint": getattr(error, "hint", "")})
    return 0


def _die_with_parent() -> None:
    """A killed caller takes its child along; Linux only, elsewhere the end of stdin does it a little later."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
