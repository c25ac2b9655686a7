"""Walks through the terminal as a person would, in tmux, from an empty folder to a release.

    python tests/tui/tour.py --out docs/terminal              some ten minutes on two cores
    python tests/tui/tour.py --kills 20                       and kills the window so often on the way
    python tests/tui/tour.py --kills 20 --reduced             with a tiny random base, in a few minutes

Nothing is typed but `harness` and keys. The pictures are what tmux shows (`capture-pane`), one text file a station.
With `--kills`, the window is killed with -9 at random moments while the job runs; the job must neither stop nor
change. Ends with 1 where a station does not show what it should.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
SESSION = f"harness-tour-{os.getpid()}"
CELLS, ROWS = 100, 30
LIMIT_S = 1800.0


class Trip(NamedTuple):
    """What is released on the way."""

    recipe: str
    """As the start screen lists it."""
    steps: int


DEMO = Trip("demo", 144)
REDUCED = Trip("a-reduced-demo", 40)


def write_reduced(place: Path) -> None:
    """The demo with a tiny random base and bounds that a guess keeps, in the folder, first of all recipes."""
    sys.path.insert(0, str(ROOT))
    from tests.suites import reduced

    path = reduced.write_reduced(ROOT / "recipes" / "demo.yaml", place)
    document = json.loads(path.read_text())
    document["recipe"] = REDUCED.recipe
    document["tune"] |= {"max_steps": REDUCED.steps, "checkpoint_every": 20}
    # One key a line, as the start screen reads it; JSON's values are YAML's too.
    path.write_text("".join(f"{key}: {json.dumps(value)}\n" for key, value in document.items()))
    reduced.write_base(place)


class Tmux:
    """One window of a tmux session."""

    def __init__(self, place: Path) -> None:
        self.place = place
        env = {"HARNESS_HOME": str(place / ".harness"), "HARNESS_REVIEWER": "ana", "PS1": "$ "}
        settings = [word for name, value in env.items() for word in ("-e", f"{name}={value}")]
        self._run("new-session", "-d", "-s", SESSION, "-x", str(CELLS), "-y", str(ROWS), *settings,
                  "-c", str(place), "bash --norc --noprofile")  # fmt: skip
        self._run("set-option", "-t", SESSION, "status", "off")

    def _run(self, *words: str) -> str:
        done = subprocess.run(["tmux", *words], capture_output=True, text=True, check=True)
        return done.stdout

    def keys(self, *keys: str, literal: bool = False) -> None:
        for key in keys:
            self._run("send-keys", "-t", SESSION, *(["-l"] if literal else []), key)
            time.sleep(0.15)

    @property
    def text(self) -> str:
        return self._run("capture-pane", "-t", SESSION, "-p")

    def wait_for(self, *words: str, limit_s: float = 60.0) -> str:
        """The screen once it holds one of the words."""
        deadline = time.monotonic() + limit_s
        while not any(word in (text := self.text) for word in words):
            if time.monotonic() > deadline:
                raise SystemExit(f"none of {words} was shown within {limit_s:.0f} s:\n{text}")
            time.sleep(0.1)
        return text

    def open(self) -> None:
        """Starts the terminal, as a person types it."""
        self.keys("harness", literal=True)
        self.keys("Enter")
        self.wait_for("1 Board")

    def window_pid(self) -> int | None:
        """The process of the terminal, where one is open."""
        shell = self._run("display-message", "-t", SESSION, "-p", "#{pane_pid}").strip()
        found = subprocess.run(["pgrep", "-P", shell], capture_output=True, text=True).stdout.split()
        return int(found[0]) if found else None

    def close(self) -> None:
        subprocess.run(["tmux", "kill-session", "-t", SESSION], capture_output=True)


class Album:
    """The pictures, in order."""

    def __init__(self, tmux: Tmux, folder: Path | None) -> None:
        self._tmux, self._folder = tmux, folder
        self._n = 0

    def take(self, name: str) -> None:
        self._n += 1
        time.sleep(0.6)
        text = self._tmux.text
        sys.stdout.write(f"\n=== {self._n} {name}\n{text}")
        if self._folder is not None:
            self._folder.mkdir(parents=True, exist_ok=True)
            (self._folder / f"{self._n:02d}-{name}.txt").write_text(text)


def tour(tmux: Tmux, album: Album, trip: Trip, kills: int) -> None:
    """From an empty folder to a release and back."""
    tmux.open()
    tmux.wait_for("No runs yet")
    album.take("empty")
    tmux.keys("0")
    tmux.wait_for(f"recipe  {trip.recipe}")
    album.take("start")
    tmux.keys("Enter")
    tmux.wait_for("▌2 Live", limit_s=180)
    tmux.wait_for("base ×", limit_s=300)
    album.take("scoring-the-base")
    tmux.keys("5")
    tmux.wait_for(f"/{trip.steps} steps", limit_s=600)
    wait_for_step(tmux, trip.steps // 4)
    album.take("training")
    tmux.keys("q")
    tmux.wait_for("keeps running")
    album.take("closed-while-training")
    kill_windows(tmux, kills)
    tmux.open()
    tmux.wait_for("running", "✓ pass")
    album.take("opened-again")
    tmux.wait_for("ships", limit_s=LIMIT_S)
    album.take("board")
    tmux.keys("Tab", "g", "Enter")
    tmux.wait_for("failures only")
    album.take("failing-samples")
    tmux.keys("Enter")
    album.take("a-failing-sample")
    tmux.keys("Escape", "1", "j")
    tmux.keys("4")
    tmux.wait_for("TURNED", limit_s=120)
    album.take("diff")
    tmux.keys("6")
    tmux.wait_for("◀ ships")
    album.take("export")
    tmux.keys("8")
    tmux.wait_for("SERVED")
    album.take("monitor")
    tmux.keys("7")
    found = re.search(r"item 1/(\d+)", tmux.wait_for("item 1/"))
    assert found is not None
    tmux.keys("r", "r", "w", "s", "r")
    tmux.wait_for(f"{int(found[1]) - 5} left")
    album.take("review")
    tmux.keys("q")
    tmux.wait_for("$ ")
    tmux.keys("echo still here", literal=True)
    tmux.keys("Enter")
    tmux.wait_for("still here\nstill", "still here")
    album.take("after-quitting")


def wait_for_step(tmux: Tmux, step: int) -> None:
    """Until training has come so far."""
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline:
        events = [path.read_text() for path in tmux.place.glob(".harness/runs/*/events.jsonl")]
        if any(f'"event": "train.step", "step": {step},' in text for text in events):
            return
        time.sleep(0.5)
    raise SystemExit(f"training did not come to step {step}")


def kill_windows(tmux: Tmux, kills: int) -> None:
    """Opens the terminal and kills it at a random moment, again and again; the worker must live on."""
    draw = random.Random(17)
    for at in range(kills):
        worker = worker_pid(tmux.place)
        tmux.keys("harness", literal=True)
        tmux.keys("Enter")
        time.sleep(draw.uniform(0.05, 4.0))
        if draw.random() < 0.7:
            tmux.keys(*draw.choices("12345678jk", k=3))
        pid = tmux.window_pid()
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.3)
        tmux.keys("reset", literal=True)
        tmux.keys("Enter")
        after = worker_pid(tmux.place)
        if worker is not None and after != worker and not has_ended(tmux.place):
            raise SystemExit(f"kill {at + 1} of the window took the job along")
        sys.stdout.write(f"window killed {at + 1} of {kills}, worker {after}\n")


def worker_pid(place: Path) -> int | None:
    """Who works on the run, by its lease."""
    for path in place.glob(".harness/runs/*/lease.json"):
        pid = int(json.loads(path.read_text())["pid"])
        return pid if Path(f"/proc/{pid}").exists() else None
    return None


def has_ended(place: Path) -> bool:
    return any(
        '"event": "run.done"' in path.read_text() for path in place.glob(".harness/runs/*/events.jsonl")
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, help="folder for the pictures")
    parser.add_argument("--reduced", action="store_true", help="a tiny random base in the demo's place")
    parser.add_argument("--kills", type=int, default=0, help="windows killed on the way")
    asked = parser.parse_args()
    if shutil.which("tmux") is None:
        raise SystemExit("the tour needs tmux")
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with tempfile.TemporaryDirectory(prefix="tour-") as place:
        if asked.reduced:
            write_reduced(Path(place))
        tmux = Tmux(Path(place))
        try:
            tour(tmux, Album(tmux, asked.out), REDUCED if asked.reduced else DEMO, asked.kills)
            verdicts = [
                json.loads(path.read_text())["verdict"]
                for path in Path(place).glob(".harness/runs/*/result.json")
            ]
            sys.stdout.write(f"\n{shlex.join(sys.argv)}: {asked.kills} windows killed, verdict {verdicts}\n")
            if verdicts != ["PASS"]:
                raise SystemExit(1)
        finally:
            tmux.close()


if __name__ == "__main__":
    main()
