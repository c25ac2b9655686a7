"""Commands of the command line, started from the terminal: what a key does is what its twin would do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import NamedTuple

LIMIT_S = 180.0


class Said(NamedTuple):
    """What a command answered."""

    text: str
    run: str | None = None
    """The run that it started."""
    is_error: bool = False


class Commands:
    """Runs `harness …` in a process of its own; its answer comes back later."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._said: SimpleQueue[Said] = SimpleQueue()

    def start(self, words: Sequence[str]) -> None:
        """Runs the command without waiting. The thread is a daemon: it must not keep the window open."""
        threading.Thread(target=lambda: self._said.put(self.run(words)), daemon=True).start()

    def heard(self) -> Said | None:
        """The next answer, or None."""
        try:
            return self._said.get_nowait()
        except Empty:
            return None

    def run(self, words: Sequence[str]) -> Said:
        """The answer, waited for."""
        command = [sys.executable, "-P", "-m", "harness", *words]
        env = {**os.environ, "HARNESS_HOME": str(self._home)}
        try:
            done = subprocess.run(
                command, env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=LIMIT_S
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return Said(f"{words[0]}: {error}", is_error=True)
        return _answer(words, done)


def _answer(words: Sequence[str], done: subprocess.CompletedProcess[str]) -> Said:
    try:
        document = json.loads(done.stdout)
    except ValueError:
        document = None
    if isinstance(document, dict) and isinstance(document.get("run"), str):
        return Said(f"{document['run']} started", run=document["run"])
    lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
    if done.returncode == 0:
        return Said(lines[0] if lines else f"{words[0]} is done")
    return Said(" · ".join(lines[:3]) or f"{words[0]} ended with {done.returncode}", is_error=True)
