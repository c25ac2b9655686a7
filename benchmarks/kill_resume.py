"""Kills a release at random moments and shows that it always ends the same way.

    python benchmarks/kill_resume.py [--runs 4] [--kills 5] [--recipe recipes/demo.yaml]

One run is left alone. Then each further run, in a home of its own, is killed with SIGKILL (the worker and the
command that watches it) at moments drawn at random from the first one's timeline, as so many seconds into such a
step, and started again by the same command each time. The end must be the same: verdict, picked file, every rule's
numbers. And no sample that was finished before a kill may be computed again.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.evals.samples import read_samples
from harness.jobs import lease
from harness.jobs.journal import read_events

RESULTS = Path(__file__).parent / "results" / "kill_resume.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", default="recipes/demo.yaml")
    parser.add_argument("--runs", type=int, default=4)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=17)
    parser.add_argument("--keep", type=Path, help="home of the undisturbed run, kept afterwards")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as scratch:
        home = options.keep or Path(scratch) / "calm"
        calm = undisturbed(options.recipe, home)
        steps = timeline(home)
        seconds = sum(steps.values())
        print(f"undisturbed: {calm['verdict']}, picked {calm['picked']}, {seconds:.0f} s", flush=True)
        rows = [
            disturbed(
                options.recipe,
                Path(scratch) / f"run{number}",
                calm,
                moments(rng, options.kills, steps),
                list(steps),
            )
            for number in range(options.runs)
        ]
    report = {"recipe": options.recipe, "undisturbed_s": round(seconds, 1), "verdict": calm["verdict"],
              "picked": calm["picked"], "runs": rows}  # fmt: skip
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(report, indent=1) + "\n")
    ok = all(row["same_end"] and not row["computed_twice"] for row in rows)
    print(
        f"{sum(len(row['killed_in']) for row in rows)} kills, {'all ended the same' if ok else 'SOME DIFFERED'}"
    )
    sys.exit(not ok)


def timeline(home: Path) -> dict[str, float]:
    """Seconds that each step took, in their order."""
    folder = next((home / "runs").iterdir())
    took: dict[str, float] = {}
    for event in read_events(folder / "events.jsonl"):
        if event.name == "step.done":
            took[event.data["step"]] = max(took.get(event.data["step"], 0.0), event.data["seconds"])
    return took


def moments(rng: random.Random, kills: int, steps: dict[str, float]) -> list[tuple[str, float]]:
    """When to kill, in the order of the chain: so many seconds after such a step began."""
    total = sum(steps.values())
    found = []
    for at in sorted(rng.uniform(0.0, total) for _ in range(kills)):
        for name, seconds in steps.items():
            if at < seconds:
                found.append((name, at))
                break
            at -= seconds
    return found


def undisturbed(recipe: str, home: Path) -> dict[str, Any]:
    done = subprocess.run(command(recipe, home), env=environment(home), capture_output=True, check=False)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def disturbed(
    recipe: str, home: Path, calm: dict[str, Any], when: list[tuple[str, float]], order: list[str]
) -> dict[str, Any]:
    killed_in, twice = [], 0
    for name, seconds in when:
        step, before = live_and_die(recipe, home, name, seconds, order)
        if step is None:
            break
        killed_in.append(step)
        twice += recomputed(home, before)
        print(f"  killed in {step}", flush=True)
    done = subprocess.run(command(recipe, home), env=environment(home), capture_output=True, check=False)
    document = json.loads(done.stdout)
    twice += doubled(home)
    same = comparable(document) == comparable(calm)
    print(f"  ended: {document['verdict']}, picked {document['picked']}, same end: {same}", flush=True)
    shutil.rmtree(home, ignore_errors=True)
    return {"killed_in": killed_in, "same_end": same, "computed_twice": twice,
            "verdict": document["verdict"], "picked": document["picked"]}  # fmt: skip


def live_and_die(
    recipe: str, home: Path, name: str, seconds: float, order: list[str]
) -> tuple[str | None, dict[str, int]]:
    """The step that was under way at the kill (None: the run had ended), and finished samples by stage."""
    watcher = subprocess.Popen(command(recipe, home), env=environment(home), stdout=-3, stderr=-3)
    while watcher.poll() is None and not is_time(home, name, seconds, order):
        time.sleep(0.2)
    if watcher.poll() is not None:
        return None, {}
    folder = next((home / "runs").iterdir())
    if found := lease.holder(folder):
        os.killpg(found.pid, signal.SIGKILL)
    watcher.kill()
    watcher.wait()
    return current_step(folder), finished(folder)


def is_time(home: Path, name: str, seconds: float, order: list[str]) -> bool:
    """Whether the process at work is that far into the step, or beyond the step."""
    folder = next((home / "runs").glob("*"), None)
    if folder is None or lease.holder(folder) is None:
        return False
    now: tuple[str, float] | None = None
    for event in read_events(folder / "events.jsonl"):
        if event.name == "run.start":
            now = None
        elif event.name == "step.start":
            now = event.data["step"], event.time
    if now is None:
        return False
    return order.index(now[0]) > order.index(name) or (now[0] == name and time.time() - now[1] >= seconds)


def current_step(folder: Path | None) -> str:
    steps = (
        [e.data["step"] for e in read_events(folder / "events.jsonl") if e.name == "step.start"]
        if folder
        else []
    )
    return steps[-1] if steps else "start"


def finished(folder: Path | None) -> dict[str, int]:
    logs = (folder / "stages").rglob("samples.jsonl") if folder else ()
    return {str(path.relative_to(folder)): len(read_samples(path)) for path in logs}  # type: ignore[arg-type]


def recomputed(home: Path, before: dict[str, int]) -> int:
    """Samples that were finished before the kill and are no longer there."""
    now = finished(next(iter((home / "runs").glob("*")), None))
    return sum(max(0, count - now.get(name, 0)) for name, count in before.items())


def doubled(home: Path) -> int:
    """Samples that stand twice in a log, and progress in the journal that went backwards within a stage."""
    folder = next(iter((home / "runs").glob("*")))
    twice = 0
    for path in (folder / "stages").rglob("samples.jsonl"):
        ids = [sample.id for sample in read_samples(path)]
        twice += len(ids) - len(set(ids))
    return twice + sum(1 for _ in steps_back(folder))


def steps_back(folder: Path) -> Iterator[str]:
    done: dict[str, int] = {}
    for event in read_events(folder / "events.jsonl"):
        if event.name == "eval.batch":
            key = f"{event.data['stage']}/{event.data['suite']}"
            if event.data["done"] < done.get(key, 0):
                yield key
            done[key] = event.data["done"]


def comparable(document: dict[str, Any]) -> Any:
    """All but the times and places."""
    return {key: value for key, value in document.items() if key not in ("seconds", "release")}


def command(recipe: str, home: Path) -> list[str]:
    return [sys.executable, "-m", "harness", "release", recipe, "--json", "--out", str(home / "releases")]


def environment(home: Path) -> dict[str, str]:
    return {**os.environ, "HARNESS_HOME": str(home)}


if __name__ == "__main__":
    main()
