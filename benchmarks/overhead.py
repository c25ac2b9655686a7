"""What the harness itself costs: 10,000 samples through a model that takes no time, beside inspect_ai's mock model.

    python benchmarks/overhead.py                 both, five times in turn; writes benchmarks/results/overhead.json
    python benchmarks/overhead.py --json          the same, and the document on stdout
    python benchmarks/overhead.py --n 1000 --peer-n 300 --runs 1 --no-write

Both read the same records from a JSON Lines file, ask a model that always says the same, compare its answer with the
target, and leave samples and results on disk. Timed is all of that, from the file of records to the results on disk,
inside a fresh process each and after the imports, which stand beside it, by the clock and by processor time (the
second hardly feels what else a busy machine does). Ours is what `harness eval` does, its
journal included: the records are read twice, once to name the run and once to do it.

inspect_ai lives in an environment of its own, below $HARNESS_PEERS (~/.cache/dragongate/peers unless set), which is
made if it is not there. It is asked for `generate()` and `match()` with its display off, its mock model is told the
token usage (else it fetches a tokenizer and counts), its realtime log is off, and more requests are in flight
than it takes by itself: --connections 0 leaves it its own number. As it is slow, it gets --peer-n records, and
what is compared is seconds a sample; --peer-n 10000 gives it as many as ours.

The exit code is 1 where ours falls below the targets: 5,000 samples a second, and 10 times inspect_ai's.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from harness.files import write_json

N, PEER_N, RUNS = 10_000, 2_000, 5
TARGET_PER_S, TARGET_RATIO = 5_000.0, 10.0
PEER, PIN = "inspect", "inspect-ai==0.3.285"
PEERS = Path(os.environ.get("HARNESS_PEERS", "~/.cache/dragongate/peers")).expanduser()
RESULT = Path(__file__).parent / "results" / "overhead.json"
REPLY = "It is empty"
"""What both models say; half of the records want it."""

SUITE = """\
suite: overhead
domain: shared
task: generate
records: {eval: eval.jsonl}
prompt: {user: "{{ input }}"}
scorers: [normalised]
"""

OURS = """
import sys, time
began_imports = time.perf_counter()
import json
from pathlib import Path
import jinja2.sandbox
from harness.jobs.evaluate import run_eval
from harness.jobs.journal import Journal
from harness.jobs.orders import order_eval
import harness.models.load, harness.models.scripted

folder, home = Path(sys.argv[1]), Path(sys.argv[2])
began, cpu_began = time.perf_counter(), time.process_time()
run = order_eval(
    home, folder / "suite.yaml", model=f"scripted:{folder}/model.jsonl", data_root=None, split="eval",
    command=["harness"],
)
journal = Journal(run / "events.jsonl")
run_eval(run, journal)
journal.close()
seconds, cpu_s = time.perf_counter() - began, time.process_time() - cpu_began
card = json.loads((run / "stages/model/overhead/scorecard.json").read_text())
right = next(reading["hits"] for reading in card["readings"] if reading["metric"] == "accuracy")
imports_s = began - began_imports
print(json.dumps({"seconds": seconds, "cpu_s": cpu_s, "imports_s": imports_s, "n": card["n"], "right": right}))
"""

THEIRS = """
import sys, time
began_imports = time.perf_counter()
import json
from inspect_ai import Task, eval
from inspect_ai.dataset import json_dataset
from inspect_ai.model import ModelOutput, ModelUsage, get_model
from inspect_ai.scorer import match
from inspect_ai.solver import generate

folder, logs, connections, reply = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]

def said(*_):
    output = ModelOutput.from_content("mockllm", reply)
    output.usage = ModelUsage(input_tokens=1, output_tokens=1, total_tokens=2)
    return output

began, cpu_began = time.perf_counter(), time.process_time()
task = Task(dataset=json_dataset(f"{folder}/peer.jsonl"), solver=generate(), scorer=match("exact"))
more = {"max_connections": connections, "max_samples": connections} if connections else {}
model = get_model("mockllm/model", custom_outputs=said)
(log,) = eval(task, model=model, display="none", log_dir=logs, log_level="error", log_realtime=False, **more)
seconds, cpu_s = time.perf_counter() - began, time.process_time() - cpu_began
accuracy = log.results.scores[0].metrics["accuracy"].value
n = log.results.completed_samples
imports_s = began - began_imports
print(json.dumps({"seconds": seconds, "cpu_s": cpu_s, "imports_s": imports_s, "n": n, "right": round(accuracy * n)}))
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=N)
    parser.add_argument("--peer-n", type=int, default=PEER_N)
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--connections", type=int, default=100, help="inspect_ai's; 0 for its own default")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--no-write", action="store_true")
    options = parser.parse_args()
    python = peer_python()
    with tempfile.TemporaryDirectory() as scratch:
        write_records(Path(scratch), options.n, options.peer_n)
        pairs = [
            measure(Path(scratch), python, number, options.connections) for number in range(options.runs)
        ]
    document = report(pairs, options.connections, python)
    if not options.no_write:
        write_json(RESULT, document)
    print(json.dumps(document, indent=1) if options.json else words(document))
    return 0 if document["meets_targets"] else 1


def write_records(folder: Path, n: int, peer_n: int) -> None:
    rows = [
        {"id": f"q{k}", "input": f"What is kept in drawer {k}?", "target": REPLY if k % 2 else f"Item {k}"}
        for k in range(max(n, peer_n))
    ]
    lines = [json.dumps(row) + "\n" for row in rows]
    (folder / "eval.jsonl").write_text("".join(lines[:n]))
    (folder / "peer.jsonl").write_text("".join(lines[:peer_n]))
    (folder / "model.jsonl").write_text(json.dumps({"id": "*", "text": REPLY}) + "\n")
    (folder / "suite.yaml").write_text(SUITE)


def measure(folder: Path, python: Path, number: int, connections: int) -> dict[str, Any]:
    """Both, one after the other; who begins changes from pair to pair."""
    calls = {
        "ours": [sys.executable, "-c", OURS, folder, folder / f"home-{number}"],
        "theirs": [python, "-c", THEIRS, folder, folder / f"logs-{number}", connections, REPLY],
    }
    order = list(calls) if number % 2 else list(calls)[::-1]
    found = {name: called([str(part) for part in calls[name]]) for name in order}
    if any(one["right"] != one["n"] // 2 for one in found.values()):
        raise SystemExit(f"half of the answers are right, and that was not found: {found}")
    return found


def called(command: list[str]) -> dict[str, Any]:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{command[0]} ended with {done.returncode}\n{done.stderr[-4000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def peer_python() -> Path:
    """The interpreter of inspect_ai's environment, made and pinned if it is not there."""
    folder = PEERS / PEER
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    if peer_version(python) != PIN.split("==")[1]:
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", PIN], check=True)
    return python


def peer_version(python: Path) -> str:
    script = "from importlib.metadata import version; print(version('inspect-ai'))"
    return subprocess.run([str(python), "-c", script], capture_output=True, text=True).stdout.strip()


def report(pairs: list[dict[str, Any]], connections: int, python: Path) -> dict[str, Any]:
    def pace(name: str, clock: str) -> list[float]:
        return [pair[name]["n"] / pair[name][clock] for pair in pairs]

    def ratio(clock: str) -> float:
        return median(a / b for a, b in zip(pace("ours", clock), pace("theirs", clock), strict=True))

    ours = median(pace("ours", "seconds"))
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"), "runs": len(pairs),
        "ours": [pair["ours"] for pair in pairs], "theirs": [pair["theirs"] for pair in pairs],
        "ours_per_s": ours, "theirs_per_s": median(pace("theirs", "seconds")),
        "ratio_median_of_pairs": ratio("seconds"),
        "ours_per_cpu_s": median(pace("ours", "cpu_s")), "theirs_per_cpu_s": median(pace("theirs", "cpu_s")),
        "cpu_ratio_median_of_pairs": ratio("cpu_s"),
        "ours_imports_s": median(pair["ours"]["imports_s"] for pair in pairs),
        "theirs_imports_s": median(pair["theirs"]["imports_s"] for pair in pairs),
        "targets": {"per_s": TARGET_PER_S, "ratio": TARGET_RATIO},
        "meets_targets": ours >= TARGET_PER_S and ratio("seconds") >= TARGET_RATIO,
        "peer_connections": connections or "its own default",
        "versions": {"dragongate": version("dragongate"), "inspect-ai": peer_version(python)},
        "machine": {
            "cpus": os.cpu_count(), "arch": platform.machine(), "python": platform.python_version(),
            "load_1_min": os.getloadavg()[0],
        },
    }  # fmt: skip


def words(document: dict[str, Any]) -> str:
    n, peer_n = document["ours"][0]["n"], document["theirs"][0]["n"]
    return (
        f"medians of {document['runs']} pairs\n"
        f"  harness     {n:6,} samples  {document['ours_per_s']:9,.0f} a second"
        f"  {document['ours_per_cpu_s']:9,.0f} a second of processor\n"
        f"  inspect_ai  {peer_n:6,} samples  {document['theirs_per_s']:9,.0f} a second"
        f"  {document['theirs_per_cpu_s']:9,.0f} a second of processor\n"
        f"  ratio {document['ratio_median_of_pairs']:.1f}, "
        f"of processor time {document['cpu_ratio_median_of_pairs']:.1f}; "
        f"targets {TARGET_PER_S:,.0f}/s and {TARGET_RATIO:g}: {'met' if document['meets_targets'] else 'MISSED'}"
    )


if __name__ == "__main__":
    sys.exit(main())
