"""Commands that answer with a document, in processes of their own: what they load, the terminal must not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

LIMIT_S = 300.0


class Sides(NamedTuple):
    """What is compared with what: A is the baseline, B the candidate."""

    run_a: str
    stage_a: str
    run_b: str
    stage_b: str

    @property
    def words(self) -> list[str]:
        """The command that compares them."""
        return ["compare", self.run_a, self.run_b, "--stage", self.stage_a, "--stage-b", self.stage_b]


class Answer(NamedTuple):
    """What became of a question."""

    document: dict[str, Any] | None
    error: str = ""


class Comparisons:
    """Runs `harness compare … --json` beside the screen, once for each state of the two sample files."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._answers: dict[object, Answer] = {}
        self._asked: set[object] = set()

    def find(self, sides: Sides) -> Answer | None:
        """The answer; None while it is being worked out."""
        key = (sides, self._stamp(sides.run_a, sides.stage_a), self._stamp(sides.run_b, sides.stage_b))
        if key not in self._asked:
            self._asked.add(key)
            threading.Thread(target=self._compute, args=(key, sides), daemon=True).start()
        return self._answers.get(key)

    def _stamp(self, run: str, stage: str) -> tuple[int, ...]:
        paths = sorted((self._home / "runs" / run / "stages" / stage).glob("*/samples.jsonl"))
        return tuple(path.stat().st_size for path in paths)

    def _compute(self, key: object, sides: Sides) -> None:
        self._answers[key] = self.run(sides)

    def run(self, sides: Sides) -> Answer:
        """The comparison, worked out before this returns."""
        return ask(self._home, sides.words)


class Plans:
    """Runs `harness plan … --json` beside the screen, once for each set of choices."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._answers: dict[tuple[str, ...], Answer] = {}
        self._asked: set[tuple[str, ...]] = set()

    def find(self, words: Sequence[str]) -> Answer | None:
        """The answer; None while it is being worked out."""
        key = tuple(words)
        if key not in self._asked:
            self._asked.add(key)
            threading.Thread(target=self._plan, args=(key,), daemon=True).start()
        return self._answers.get(key)

    def _plan(self, words: tuple[str, ...]) -> None:
        self._answers[words] = ask(self._home, words)


def ask(home: Path, words: Sequence[str]) -> Answer:
    """The document that a command prints, waited for."""
    command = [sys.executable, "-P", "-m", "harness", *words, "--json"]
    env = {**os.environ, "HARNESS_HOME": str(home)}
    try:
        done = subprocess.run(
            command, env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=LIMIT_S
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Answer(None, f"{words[0]}: {error}")
    try:
        found = json.loads(done.stdout)
        return Answer(None, str(found["error"])) if "error" in found else Answer(found)
    except (ValueError, TypeError):
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        return Answer(None, lines[0] if lines else f"harness {words[0]} said nothing")
