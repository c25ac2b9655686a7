"""Walks through the terminal as a person would, in tmux, from an empty folder to a release.

    python tests/tui/tour.py --out docs/terminal              some ten minutes on two cores
    python tests/tui/tour.py --kills 20                       and kills the window so often on the way
    python tests/tui/tour.py --place ~/first-release          in this folder, whose name the pictures then show
    python tests/tui/tour.py --kills 20 --reduced             with a tiny random base, in a few minutes

Nothing is typed but `harness` and keys. The pictures are what tmux shows (`capture-pane`), one text file a station.
With `--kills`, the window is killed with -9 at random moments while the job runs; the job must neither stop, nor
begin again, nor end with another verdict. Ends with 1 where a station does not show what it should; what ran is then
stopped, and the folder kept to look at.
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
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
SESSION = f"harness-tour-{os.getpid()}"
CELLS, ROWS = 100, 30
NARROW = 80, 24
SCREEN_S = 120.0
"""How long a screen may take to show what a key asked for: other work may hold every core."""
JOB_S = 5400.0
"""The same for what the job does."""


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
        self._run("new-session", "-d", "-s", SESSION, "-x", str(CELLS), "-y", str(ROWS),
                  "-c", str(place), "bash --norc --noprofile")  # fmt: skip
        self._run("set-option", "-t", SESSION, "status", "off")
        self.type("unset HARNESS_HOME HARNESS_DATA NO_COLOR; export HARNESS_REVIEWER=ana PS1='$ '; clear")

    def _run(self, *words: str) -> str:
        done = subprocess.run(["tmux", *words], capture_output=True, text=True, check=True)
        return done.stdout

    def keys(self, *keys: str, literal: bool = False) -> None:
        for key in keys:
            self._run("send-keys", "-t", SESSION, *(["-l"] if literal else []), key)
            time.sleep(0.15)

    def type(self, words: str) -> None:
        """Types a line of the shell."""
        self.keys(words, literal=True)
        self.keys("Enter")

    @property
    def text(self) -> str:
        return self._run("capture-pane", "-t", SESSION, "-p")

    def resize(self, cells: int, rows: int) -> None:
        self._run("resize-window", "-t", SESSION, "-x", str(cells), "-y", str(rows))

    @property
    def modes(self) -> dict[str, str]:
        """What a program asked of the terminal and has to give back, by tmux's names."""
        names = ["alternate_on", "cursor_flag", "mouse_any_flag", "keypad_flag"]
        found = self._run("display-message", "-t", SESSION, "-p", " ".join(f"#{{{name}}}" for name in names))
        return dict(zip(names, found.split(), strict=True))

    def wait_for(self, *words: str, limit_s: float = SCREEN_S) -> str:
        """The screen once it holds one of the words."""
        deadline = time.monotonic() + limit_s
        while not any(word in (text := self.text) for word in words):
            if time.monotonic() > deadline:
                raise SystemExit(f"none of {words} was shown within {limit_s:.0f} s:\n{text}")
            time.sleep(0.1)
        return text

    def at_rest(self) -> str:
        """The screen once it has stopped changing, or has not stopped for three seconds: a running job goes on."""
        seen = [""]
        for _ in range(6):
            time.sleep(0.5)
            seen.append(self.text)
            if seen[-1] == seen[-2]:
                break
        return seen[-1]

    def open(self) -> None:
        """Starts the terminal, as a person types it."""
        self.type("harness")
        self.wait_for("1 Board")

    def window_pid(self) -> int | None:
        """The process of the terminal, where one is open."""
        shell = self._run("display-message", "-t", SESSION, "-p", "#{pane_pid}").strip()
        found = subprocess.run(["pgrep", "-P", shell], capture_output=True, text=True).stdout.split()
        return int(found[0]) if found else None

    def close(self) -> None:
        subprocess.run(["tmux", "kill-session", "-t", SESSION], capture_output=True)


class Album:
    """The pictures, in order: each screen at two sizes."""

    def __init__(self, tmux: Tmux, folder: Path | None) -> None:
        self._tmux, self._folder = tmux, folder
        self._n = 0

    def take(self, name: str, *, is_screen: bool = True) -> None:
        """Keeps what is shown; a screen of the terminal also in a narrow window, which is then widened again."""
        self._n += 1
        sys.stdout.write(f"\n=== {self._n} {name}\n{self._keep(f'{self._n:02d}-{name}')}")
        sys.stdout.flush()
        if is_screen:
            self._tmux.resize(*NARROW)
            self._keep(f"{self._n:02d}-{name}-{NARROW[0]}x{NARROW[1]}")
            self._tmux.resize(CELLS, ROWS)
            self._tmux.at_rest()

    def _keep(self, name: str) -> str:
        text = self._tmux.at_rest()
        if self._folder is not None:
            self._folder.mkdir(parents=True, exist_ok=True)
            lines = [line.rstrip() for line in text.rstrip().splitlines()]
            (self._folder / f"{name}.txt").write_text("\n".join(lines) + "\n")
        return text


def tour(tmux: Tmux, album: Album, trip: Trip, kills: int) -> None:
    """From an empty folder to a release and back."""
    before = tmux.modes
    start_the_release(tmux, album, trip)
    leave_while_it_trains(tmux, album, trip, kills, before)
    tmux.open()
    tmux.wait_for("running", "✓ pass")
    album.take("opened-again")
    tmux.wait_for("ships", limit_s=JOB_S)
    album.take("board")
    look_at_samples(tmux, album)
    pick_a_quant(tmux, album)
    review_five(tmux, album)
    tmux.keys("q")
    leave(tmux, before)
    album.take("after-quitting", is_screen=False)


def start_the_release(tmux: Tmux, album: Album, trip: Trip) -> None:
    """From the empty board through the list of recipes to the first numbers."""
    tmux.open()
    tmux.wait_for("No runs yet")
    album.take("empty")
    tmux.keys("0")
    tmux.wait_for(f"recipe  {trip.recipe}")
    album.take("start")
    tmux.keys("Enter")
    tmux.wait_for("▌2 Live", limit_s=JOB_S)
    tmux.wait_for("base ×", limit_s=JOB_S)
    album.take("scoring-the-base")


def leave_while_it_trains(tmux: Tmux, album: Album, trip: Trip, kills: int, modes: dict[str, str]) -> None:
    """Watches the training, closes the window in the middle of it, and then kills more windows."""
    tmux.keys("5")
    tmux.wait_for(f"/{trip.steps} steps", limit_s=JOB_S)
    wait_for_step(tmux, trip.steps // 4)
    album.take("training")
    tmux.keys("q")
    tmux.wait_for("keeps running")
    leave(tmux, modes)
    album.take("closed-while-training", is_screen=False)
    kill_windows(tmux, kills)


def look_at_samples(tmux: Tmux, album: Album) -> None:
    """A failing sample of the base, and what training turned."""
    tmux.keys("Tab", "g", "Enter")
    tmux.wait_for("failures only")
    album.take("failing-samples")
    tmux.keys("Enter")
    tmux.wait_for(" GOLD ")
    album.take("a-failing-sample")
    tmux.keys("Escape", "1", "j")
    tmux.keys("4")
    tmux.wait_for("TURNED", limit_s=JOB_S)
    album.take("diff")


def pick_a_quant(tmux: Tmux, album: Album) -> None:
    """The files, the one that ships, and what another one gets wrong."""
    tmux.keys("6")
    tmux.wait_for("◀ ships")
    album.take("export")
    tmux.keys("Enter")
    tmux.wait_for("▌3 Samples")
    tmux.keys("8")
    tmux.wait_for("SERVED")
    album.take("monitor")


def review_five(tmux: Tmux, album: Album) -> None:
    """Judges five answers by keyboard."""
    tmux.keys("7")
    found = re.search(r"item 1/(\d+)", tmux.wait_for("item 1/"))
    assert found is not None
    album.take("review")
    for at, key in enumerate("rrwvr", start=1):
        tmux.keys(key)
        tmux.wait_for(f"{int(found[1]) - at} left")
    album.take("five-reviewed")


def leave(tmux: Tmux, before: dict[str, str]) -> None:
    """After the window was closed: the terminal is as it was, and does what is typed.

    Raises:
        SystemExit: it is not.
    """
    tmux.wait_for("$ ")
    tmux.type("echo still $((40 + 2)); stty -a | grep -o ' echo\\b'")
    tmux.wait_for("still 42")
    tmux.wait_for("\n echo\n")
    if (after := tmux.modes) != before:
        raise SystemExit(f"the terminal was left as {after}; it was {before}")


def wait_for_step(tmux: Tmux, step: int) -> None:
    """Until training has come so far."""
    deadline = time.monotonic() + JOB_S
    while time.monotonic() < deadline:
        if any(one.get("step") == step for one in events(tmux.place, "train.step")):
            return
        time.sleep(0.5)
    raise SystemExit(f"training did not come to step {step}")


def kill_windows(tmux: Tmux, kills: int) -> None:
    """Opens the terminal and kills it at a random moment, again and again; the worker must live on."""
    draw = random.Random(17)
    for at in range(kills):
        worker = worker_pid(tmux.place)
        tmux.type("harness")
        time.sleep(draw.uniform(0.05, 4.0))
        if draw.random() < 0.7:
            tmux.keys(*draw.choices("12345678jk", k=3))
        pid = tmux.window_pid()
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.3)
        tmux.type("reset")
        after = worker_pid(tmux.place)
        if worker is not None and after != worker and not events(tmux.place, "run.done"):
            raise SystemExit(f"kill {at + 1} of the window took the job along")
        sys.stdout.write(f"window {pid} killed, {at + 1} of {kills}; the worker is {after}\n")
        sys.stdout.flush()
    tmux.type("clear")


def events(place: Path, name: str) -> list[dict[str, Any]]:
    """What the journals below the place say of this; a line that is still being written is left out."""
    texts = [path.read_text() for path in place.glob(".harness/runs/*/events.jsonl")]
    lines = [line for text in texts for line in text.splitlines(keepends=True) if line.endswith("\n")]
    found = [json.loads(line) for line in lines]
    return [one for one in found if one["event"] == name]


def worker_pid(place: Path) -> int | None:
    """Who works on the run, by its lease."""
    for path in place.glob(".harness/runs/*/lease.json"):
        pid = int(json.loads(path.read_text())["pid"])
        return pid if Path(f"/proc/{pid}").exists() else None
    return None


def report(place: Path, kills: int) -> bool:
    """Whether one worker began the run, went through it, and passed."""
    results = [json.loads(path.read_text()) for path in place.glob(".harness/runs/*/result.json")]
    verdicts = [one["verdict"] for one in results]
    begun = len(events(place, "run.start"))
    sys.stdout.write(
        f"\n{shlex.join(sys.argv)}: {kills} windows killed, the job began {begun} time(s), verdict {verdicts}\n"
    )
    return verdicts == ["PASS"] and begun == 1


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, help="folder for the pictures")
    parser.add_argument("--reduced", action="store_true", help="a tiny random base in the demo's place")
    parser.add_argument(
        "--place", type=Path, help="a folder to begin in, not there yet; a temporary one by default"
    )
    parser.add_argument("--kills", type=int, default=0, help="windows killed on the way")
    asked = parser.parse_args()
    if shutil.which("tmux") is None:
        raise SystemExit("the tour needs tmux")
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    place = asked.place.absolute() if asked.place else Path(tempfile.mkdtemp(prefix="tour-"))
    place.mkdir(parents=True, exist_ok=asked.place is None)
    if asked.reduced:
        write_reduced(place)
    tmux = Tmux(place)
    try:
        tour(tmux, Album(tmux, asked.out), REDUCED if asked.reduced else DEMO, asked.kills)
        is_good = report(place, asked.kills)
    finally:
        tmux.close()
        worker = worker_pid(place)
        if worker is not None:
            os.kill(worker, signal.SIGTERM)
    if not is_good:
        raise SystemExit(f"see {place}")
    if asked.place is None:
        shutil.rmtree(place)


if __name__ == "__main__":
    main()
