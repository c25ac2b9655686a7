"""How quick the terminal is: first paint, a hundred thousand samples, keys while a job writes.

    python benchmarks/terminal.py                     about a minute
    python benchmarks/terminal.py --repeats 9 --json

Everything is measured from outside, through a pseudo-terminal, as a person would see it: from the key, or the
start of the process, to the bytes on the terminal. The first paint is compared with that of a bare Textual app,
turn by turn in one run; both run from compiled files, as installed packages do. Results go to
benchmarks/results/terminal.json.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import pty
import re
import select
import shutil
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import termios
import time
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[1]
RECORDED = ROOT / "tests" / "golden" / "runs" / "demo"
RESULTS = Path(__file__).parent / "results" / "terminal.json"
BARE = """
from textual.app import App
from textual.widgets import Static
class Bare(App):
    def compose(self):
        yield Static("RUNS")
Bare().run()
"""
WRITER = """
import sys, time
from pathlib import Path
from harness.jobs import lease
from harness.jobs.journal import Journal
folder = Path(sys.argv[1])
with lease.hold(folder):
    journal = Journal(folder / "events.jsonl")
    journal.write("run.start", run=folder.name, job="release", title="busy", pid=1, steps=["train"], resumed=True)
    journal.write("step.start", step="train", title="train", index=1, of=1)
    step, began = 0, time.perf_counter()
    while True:
        step += 1
        journal.write("train.step", step=step, of=10**9, loss=1.0, lr=1e-3, grad_norm=1.0, tok_s=1.0, eta_s=9.0)
        ahead = began + step / float(sys.argv[2]) - time.perf_counter()
        if ahead > 0.002:
            time.sleep(ahead)
"""


class Window:
    """A process on a pseudo-terminal."""

    def __init__(self, command: list[str], env: dict[str, str], *, cells: int = 100, rows: int = 30) -> None:
        self.began = time.perf_counter()
        self.pid, self.handle = pty.fork()
        if self.pid == 0:
            os.chdir(ROOT)
            os.execve(command[0], command, env)
        fcntl.ioctl(self.handle, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cells, 0, 0))
        self.seen = b""

    def until(self, pattern: bytes, limit_s: float = 30.0) -> float:
        """Seconds from now until something that matches came."""
        began, start = time.perf_counter(), len(self.seen)
        while not re.search(pattern, self.seen[start:]):
            if time.perf_counter() - began > limit_s:
                raise TimeoutError(f"{pattern!r} was not shown within {limit_s} s")
            self._read(0.5)
        return time.perf_counter() - began

    def quiet(self, for_s: float = 0.4) -> None:
        """Returns when nothing came for a while."""
        while self._read(for_s):
            pass

    def key_to_paint_s(self, key: bytes) -> float:
        """Seconds from the key to the next bytes."""
        while self._read(0.0):
            pass
        began = time.perf_counter()
        os.write(self.handle, key)
        self._read(5.0)
        return time.perf_counter() - began

    def _read(self, wait_s: float) -> bool:
        ready, _, _ = select.select([self.handle], [], [], wait_s)
        if not ready:
            return False
        try:
            self.seen += os.read(self.handle, 65_536)
        except OSError:
            return False
        return True

    @property
    def memory_mb(self) -> float:
        return psutil.Process(self.pid).memory_info().rss / 1e6

    def close(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.handle)


def environment(home: Path) -> dict[str, str]:
    """A colour terminal's; compiled files are kept beside the home, whatever this machine's settings say."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {
        **kept, "HARNESS_HOME": str(home), "TERM": "xterm-256color", "COLORTERM": "truecolor",
        "PYTHONPYCACHEPREFIX": str(home / "compiled"),
    }  # fmt: skip


def harness(home: Path) -> Window:
    return Window([sys.executable, "-P", "-m", "harness", "board"], environment(home))


def first_paint(home: Path, repeats: int) -> dict[str, Any]:
    """Medians over turns: seconds from the start of the process to its first whole screen."""
    ours: list[float] = []
    bare: list[float] = []
    for _ in range(repeats + 1):
        for found, make in (
            (ours, lambda: harness(home)),
            (bare, lambda: Window([sys.executable, "-c", BARE], environment(home))),
        ):
            window = make()
            window.until(b"RUNS")
            found.append(time.perf_counter() - window.began)
            window.close()
    # The first turn compiles what it imports.
    a, b = statistics.median(ours[1:]), statistics.median(bare[1:])
    return {
        "harness_s": round(a, 3),
        "bare_textual_s": round(b, 3),
        "ratio": round(a / b, 2),
        "repeats": repeats,
    }


def many_samples(home: Path, n: int) -> dict[str, Any]:
    """A run of n samples: opened, filtered, and what the process then holds."""
    run = home / "runs" / "many"
    shutil.copytree(RECORDED, run)
    path = run / "stages" / "q4_k_m" / "legal-clauses" / "samples.jsonl"
    lines = [line for line in path.read_text().splitlines() if '"id"' in line]
    with path.open("w") as file:
        file.write('{"header": {"identity": "x", "requests": "y"}}\n')
        for batch in range(n // 100):
            for at in range(100):
                sample = json.loads(lines[(batch * 100 + at) % len(lines)])
                sample["id"] = f"sample-{batch * 100 + at:06d}"
                file.write(json.dumps(sample) + "\n")
            file.write(json.dumps({"batch": batch, "n": 100}) + "\n")
    window = harness(home)
    window.until(b"RUNS")
    window.quiet()
    os.write(window.handle, b"3")
    opened_s = window.until(b"sample-0000")
    window.quiet(1.0)
    os.write(window.handle, b"/")
    window.quiet()
    os.write(window.handle, b"indemnity")
    window.quiet()
    os.write(window.handle, b"\r")
    filtered_s = window.until("indemnity”(?! · looking).{12}".encode())
    memory_mb = window.memory_mb
    window.close()
    shutil.rmtree(run)
    return {
        "samples": n, "opened_s": round(opened_s, 3), "filtered_s": round(filtered_s, 3),
        "memory_mb": round(memory_mb),
    }  # fmt: skip


def keys_under_load(home: Path, events_s: int, keys: int) -> dict[str, Any]:
    """The slowest and the median key while a job writes."""
    run = home / "runs" / "busy"
    run.mkdir(parents=True)
    (run / "manifest.json").write_text((RECORDED / "manifest.json").read_text())
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(run), str(events_s)])
    window = harness(home)
    try:
        window.until(b"RUNS")
        window.quiet(0.05)
        found = []
        for at in range(keys):
            found.append(window.key_to_paint_s(b"21"[at % 2 : at % 2 + 1]))
            time.sleep(0.03)
        written = sum(1 for _ in (run / "events.jsonl").open())
    finally:
        window.close()
        writer.kill()
        writer.wait()
    return {
        "events_s_asked": events_s, "events_written": written, "keys": keys,
        "median_ms": round(statistics.median(found) * 1e3, 1), "worst_ms": round(max(found) * 1e3, 1),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--samples", type=int, default=100_000)
    parser.add_argument("--events", type=int, default=4000, help="events a second")
    parser.add_argument("--keys", type=int, default=200)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        home = Path(place)
        shutil.copytree(RECORDED, home / "runs" / "demo")
        found = {
            "date": time.strftime("%Y-%m-%d"), "cores": os.cpu_count(),
            "first_paint": first_paint(home, asked.repeats),
            "many_samples": many_samples(home, asked.samples),
            "keys_under_load": keys_under_load(home, asked.events, asked.keys),
        }  # fmt: skip
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    if asked.json:
        print(json.dumps(found, indent=1))
        return
    paint, many, keys = found["first_paint"], found["many_samples"], found["keys_under_load"]
    print(
        f"first paint {paint['harness_s']} s, a bare Textual app {paint['bare_textual_s']} s: {paint['ratio']} x"
    )
    print(
        f"{many['samples']:,} samples opened in {many['opened_s']} s, filtered in {many['filtered_s']} s, ",
        end="",
    )
    print(f"{many['memory_mb']} MB")
    print(f"{keys['events_written']:,} events, {keys['events_s_asked']:,} a second: ", end="")
    print(f"a key takes {keys['median_ms']} ms, the worst {keys['worst_ms']} ms")


if __name__ == "__main__":
    main()
