"""How long `harness gate` takes to judge a finished run of 10,000 samples again, start-up included.

    python benchmarks/gate_speed.py            seconds
    python benchmarks/gate_speed.py --items 50000

A run folder is made up in a temporary home: one stage of 10,000 items in 2,500 units with three slice keys and ten
labels, its baseline stage beside it, and rules on all items, per style, per label and against the baseline. The whole
command is timed in a process of its own, several times, by the clock and of the CPU, beside `python -c pass`; what it
imports is read from `-X importtime`. The verdict on disk is the one that the rules give, so nothing is stale.

Writes benchmarks/results/gate_speed.json. The exit code is 1 where the command takes a second or more, or where it
loads torch, transformers, scipy or numpy.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from harness.evals.gate import Evidence, judge
from harness.evals.lock import DECIDING_ROOMS, code_digest
from harness.evals.results import Sample
from harness.evals.samples import Header, read_samples, write_samples
from harness.files import digest_json, write_json
from harness.specs.gate import Gate

LIMIT_S = 1.0
REPEATS = 7
HEAVY = ("torch", "transformers", "scipy", "numpy", "sklearn", "textual", "jinja2", "pydantic", "ruamel")
FORBIDDEN = ("torch", "transformers", "scipy", "numpy", "sklearn", "textual")
LABELS = tuple(f"type {k}" for k in range(10))
GATES = (
    Gate(metric="accuracy", at_least=0.85), Gate(metric="accuracy", per="style", at_least=0.8),
    Gate(metric="accuracy", per="length", at_least=0.8), Gate(metric="recall", per="label", at_least=0.8),
    Gate(metric="accuracy", versus="base", better_than=0.2), Gate(metric="truncated_rate", at_most=0.02),
)  # fmt: skip
RESULTS = Path(__file__).parent / "results" / "gate_speed.json"


def main() -> int:
    """Times the command, prints the figures and writes them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", type=int, default=10_000)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gate-speed-") as name:
        home = Path(name)
        make_run(home, options.items)
        command = [sys.executable, "-m", "harness", "gate", "speed"]
        gate = [timed(command, home) for _ in range(REPEATS)]
        bare = [timed([sys.executable, "-c", "pass"], home) for _ in range(REPEATS)]
        loaded = imports(home)
        walls = [took.wall_s for took in gate]
        report = {
            "items": options.items, "repeats": REPEATS, "gate_s": median(walls), "least_s": min(walls),
            "most_s": max(walls), "gate_cpu_s": median(took.cpu_s for took in gate),
            "bare_python_s": median(took.wall_s for took in bare), "limit_s": LIMIT_S,
            "loads": [one for one in HEAVY if one in loaded], "modules": len(loaded),
            "processor": platform.processor() or platform.machine(), "cores": os.cpu_count(),
            "python": platform.python_version(),
        }  # fmt: skip
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=1) + "\n")
    print(
        f"harness gate on {options.items:,} samples: {report['gate_s']:.2f} s ({report['least_s']:.2f} to "
        f"{report['most_s']:.2f}), {report['gate_cpu_s']:.2f} s of the CPU; python -c pass "
        f"{report['bare_python_s']:.3f} s; of the heavy libraries it loads {', '.join(report['loads']) or 'none'}"
    )
    return int(report["gate_s"] >= LIMIT_S or any(one in loaded for one in FORBIDDEN))


class Took(NamedTuple):
    """What a process took, by the clock and of the CPU."""

    wall_s: float
    cpu_s: float


def timed(command: list[str], home: Path) -> Took:
    """From the process's start to its end; the command must let the run pass."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, env=environment(home), check=False)
    wall_s, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return Took(wall_s, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def imports(home: Path) -> set[str]:
    """The top-level packages and modules that the command loads."""
    command = [sys.executable, "-X", "importtime", "-m", "harness", "gate", "speed"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(home), check=True)
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}


def environment(home: Path) -> dict[str, str]:
    return {**os.environ, "HARNESS_HOME": str(home)}


def make_run(home: Path, items: int) -> None:
    """A run folder with two stages and the second one's verdict."""
    folder = home / "runs" / "speed"
    lock: dict[str, Any] = {"format": 1, "code": code_digest(DECIDING_ROOMS)}
    lock["digest"] = digest_json(lock)
    recipe = {
        "recipe": "speed",
        "gates": [gate.model_dump(mode="json") for gate in GATES],
        "export": {"quants": []},
    }
    document = {"recipe": recipe, "suites": {"s": {"suite": "s", "max_error_frac": 0.02}}}
    write_json(folder / "manifest.json", {
        "format": 1, "run": "speed", "job": "release", "title": "speed", "created": "2026-01-01T00:00:00+00:00",
        "command": [], "document": document, "lock": lock["digest"], "options": {}, "harness": "0",
    })  # fmt: skip
    write_json(folder / "lock.json", lock)
    for stage, rate in (("base", 0.2), ("adapter", 0.92)):
        path = folder / "stages" / stage / "s" / "samples.jsonl"
        path.parent.mkdir(parents=True)
        write_samples(path, Header("m", "q"), make_samples(items, rate))
    before, after = (
        read_samples(folder / "stages" / stage / "s" / "samples.jsonl") for stage in ("base", "adapter")
    )
    verdict = judge(
        "adapter", "m", lock["digest"], GATES, {"s": Evidence(after, 0.02, earlier={"base": before})}, "s"
    )
    write_json(folder / "stages" / "adapter" / "verdict.json", verdict.to_json())


def make_samples(items: int, rate: float) -> list[Sample]:
    """Made-up answers, ten labels, four items a unit, seeded."""
    draw = random.Random(17)
    return [_sample(number, draw, rate) for number in range(items)]


def _sample(number: int, draw: random.Random, rate: float) -> Sample:
    gold, other = LABELS[number % 10], LABELS[(number + 3) % 10]
    is_right = draw.random() < rate
    answer = gold if is_right else other
    probs = dict.fromkeys(LABELS, 0.02) | {answer: 0.82}
    slices: dict[str, str | list[str]] = {
        "style": ("plain", "terse", "traditional")[number % 3], "length": ("short", "long")[number % 2],
        "edge": "hard" if number % 7 == 0 else "easy",
    }  # fmt: skip
    return Sample(
        f"item-{number:05}", (gold,), answer, float(is_right), slices, f"unit-{number // 4:05}", confidence=0.82,
        label_probs=probs, prompt_digest="d" * 64, prompt_tok=120, output_tok=3,
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
