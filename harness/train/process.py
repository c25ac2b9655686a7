"""A process that trains a plan: `python -m harness.train.process PLAN.json FOLDER`.

Its events go to stdout, one JSON line each; diagnostics to stderr. It stops after the current step when the
file `FOLDER/stop` appears. Started by `accelerate launch` it is one of several, and the first of them tells.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from harness.errors import ExitCode, HarnessError
from harness.files import read_json, write_json
from harness.train.plan import read_plan
from harness.train.ranks import join
from harness.train.selection import Scores
from harness.train.sft import train

STOP = "stop"
POLL_S = 0.05


def main(arguments: list[str] | None = None) -> int:
    """Trains; the exit code of the error where there is one, which is also the last event."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("plan", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--stop-after", type=int, metavar="STEP")
    parser.add_argument("--wait-at", type=int, metavar="STEP", help="stand still there, to be killed")
    options = parser.parse_args(arguments)
    folder: Path = options.folder
    parent, ranks = os.getppid(), join()  # a process whose parent is gone has nobody to train for
    out = _keep_stdout()
    tell = _teller(out, options.wait_at, parent) if ranks.is_first else lambda *_: None
    steps: list[int] = []

    def on_event(name: str, data: dict[str, Any]) -> None:
        if name == "train.step":
            steps.append(data["step"])
        tell(name, data)

    def should_stop() -> bool:
        last: int | None = options.stop_after
        is_far = last is not None and bool(steps) and steps[-1] >= last
        return is_far or (folder / STOP).exists() or os.getppid() != parent

    plan = read_plan(options.plan)
    scorer = ask_parent(folder, tell) if plan.tune.gates else None
    try:
        train(plan, folder, on_event=on_event, should_stop=should_stop, scorer=scorer, ranks=ranks)
    except HarnessError as error:
        tell("error", {"error": error.message, "hint": error.hint, "exit_code": int(error.exit_code)})
        return int(error.exit_code)
    return ExitCode.DONE


def _keep_stdout() -> TextIO:
    """stdout for events alone: what libraries print there goes to stderr."""
    kept = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return kept


def _teller(out: TextIO, wait_at: int | None, parent: int) -> Callable[[str, dict[str, Any]], None]:
    def tell(name: str, data: dict[str, Any]) -> None:
        print(json.dumps({"event": name, **data}), file=out, flush=True)
        if name == "train.step" and data["step"] == wait_at:
            while os.getppid() == parent:
                time.sleep(POLL_S)

    return tell


def ask_parent(folder: Path, tell: Callable[[str, dict[str, Any]], None]) -> Callable[[Path, str], Scores]:
    """A scorer that asks the process that started this one, which has the suites."""

    def score(checkpoint: Path, name: str) -> Scores:
        answer = reply_path(folder, name)
        answer.unlink(missing_ok=True)
        tell("ask.scores", {"checkpoint": str(checkpoint), "name": name})
        while not answer.exists():
            time.sleep(POLL_S)
        return Scores(**read_json(answer))

    return score


def reply_path(folder: Path, name: str) -> Path:
    """Where the answer to `ask.scores` is expected."""
    return folder / "gates" / f"{name}.reply.json"


def reply(folder: Path, name: str, scores: Scores) -> None:
    """Answers `ask.scores`."""
    write_json(reply_path(folder, name), scores._asdict())


if __name__ == "__main__":
    sys.exit(main())
