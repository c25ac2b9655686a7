"""What the terminal may do to jobs: start and stop worker processes, never work itself."""

from __future__ import annotations

import threading
from pathlib import Path
from queue import Empty, SimpleQueue

from harness.errors import HarnessError


class Jobs:
    """Starts and stops runs; sentences about it come back later."""

    def __init__(self) -> None:
        self._said: SimpleQueue[str] = SimpleQueue()

    def cancel(self, folder: Path, *, now: bool) -> None:
        """Asks the run's worker to stop after its batch, or kills it."""
        from harness.jobs import launch

        try:
            self._said.put(launch.cancel(folder, now=now))
        except (HarnessError, OSError) as error:
            self._said.put(_words(error))

    def resume(self, folder: Path) -> None:
        """Starts a worker on the run's folder, without waiting for it to answer.

        The thread is a daemon: a worker that is slow to answer must not keep the window open.
        """
        threading.Thread(target=self._resume, args=(folder,), daemon=True).start()

    def _resume(self, folder: Path) -> None:
        from harness.jobs import launch

        try:
            pid = launch.start(folder)
            self._said.put(f"{folder.name} goes on, pid {pid}")
        except (HarnessError, OSError) as error:
            self._said.put(_words(error))

    def heard(self) -> str | None:
        """The newest sentence since the last call."""
        said = None
        try:
            while True:
                said = self._said.get_nowait()
        except Empty:
            return said


def _words(error: Exception) -> str:
    hint = getattr(error, "hint", "")
    return f"{error}; {hint}" if hint else str(error)
