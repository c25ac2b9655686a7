"""The six domains' own recipes, each from its records to a verdict: minutes, stages, what ships and why not.

    python benchmarks/release_recipes.py                        some 25 minutes on 2 quiet cores
    python benchmarks/release_recipes.py --only support --only legal

Each recipe is a run of the harness in HARNESS_HOME, without a network: one that has ended is read, one that was cut off
goes on, and its minutes are those of its own clock. Writes release_recipes.json and .md in benchmarks/results.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from legal_cuad import RESULTS, machine

from harness.jobs import launch
from harness.jobs.orders import order_release
from harness.jobs.store import RunState, home_folder, run_state

ROOT = Path(__file__).resolve().parents[1]
RECIPES = ("healthcare", "finance", "legal", "support", "ecommerce", "science")
CHECK_S = 1.0
LIMIT_MIN = 15.0


def main() -> None:
    """Runs what has no verdict yet, prints the table and writes it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=RECIPES, action="append", help="may be given again")
    options = parser.parse_args()
    rows = [released(name) for name in RECIPES if not options.only or name in options.only]
    path = RESULTS / "release_recipes.json"
    known = {row["recipe"]: row for row in json.loads(path.read_text())["rows"]} if path.exists() else {}
    known |= {row["recipe"]: row for row in rows}
    document = {
        "date": datetime.now(UTC).date().isoformat(), "machine": machine(), "load_1m": os.getloadavg()[0],
        "rows": [known[name] for name in RECIPES if name in known],
    }  # fmt: skip
    path.write_text(json.dumps(document, indent=1) + "\n")
    path.with_suffix(".md").write_text(table(document))
    print(table(document))


def released(name: str) -> dict[str, Any]:
    """What the recipe's run came to."""
    home = home_folder()
    folder = order_release(
        home, ROOT / "recipes" / f"{name}.yaml", data_root=None, until="release", out=home / "releases",
        command=["python", "benchmarks/release_recipes.py", "--only", name],
    )  # fmt: skip
    if run_state(folder) is not RunState.DONE:
        print(f"{name}: {folder.name}", file=sys.stderr, flush=True)
        launch.start(folder)
        while not launch.has_ended(folder):
            time.sleep(CHECK_S)
    if run_state(folder) is not RunState.DONE:
        raise SystemExit(f"{name}: {run_state(folder)}: {launch.log_end(folder, lines=3)}")
    result = json.loads((folder / "result.json").read_text())
    return {
        "recipe": name, "run": folder.name, "minutes": result["seconds"] / 60.0, "verdict": result["verdict"],
        "picked": result["picked"], "stages": [stage_row(stage) for stage in result["stages"]],
    }  # fmt: skip


def stage_row(stage: dict[str, Any]) -> dict[str, Any]:
    """The stage's accuracy, and the first rule that keeps it from passing."""
    blocking = [rule for rule in stage["rules"] if rule["verdict"] not in ("PASS", "SKIPPED")]
    worst = min(blocking, key=lambda rule: rule["verdict"] != "FAIL", default=None)
    top = next(
        (rule for rule in stage["rules"] if rule["metric"] == "accuracy" and rule["slice"] == "all"), None
    )
    score = {name: top[name] for name in ("score", "low", "high")} if top and top["score"] is not None else {}
    why = "" if worst is None else f"{worst['rule']} ({worst['slice']}): {worst['reason']}"
    return {"stage": stage["stage"], "suite": stage["suite"], "n": stage["n"], "verdict": stage["verdict"],
            "n_blocking": len(blocking), "why": why, **score}  # fmt: skip


def table(document: dict[str, Any]) -> str:
    """Markdown: a line a recipe, then a line a gated suite and stage."""
    lines = [
        "# The domains' recipes, from records to a verdict", "",
        f"{document['date']}, {document['machine']}, load {document['load_1m']:.1f} at the end. Each is to end within "
        f"{LIMIT_MIN:.0f} minutes. Records are those in `suites/`, invented for the project.", "",
        "| recipe | minutes | verdict | ships |", "|---|---:|---|---|",
        *(f"| {row['recipe']} | {row['minutes']:.1f} | {row['verdict']} | {row['picked'] or '–'} |"
          for row in document["rows"]),
        "", "| recipe | suite | stage | n | accuracy, gate's bounds | verdict | decided by |",
        "|---|---|---|---:|---|---|---|",
    ]  # fmt: skip
    for row in document["rows"]:
        for stage in row["stages"]:
            if "score" in stage:
                bounds = f"{stage['score']:.3f} [{stage['low']:.3f}, {stage['high']:.3f}]"
                more = f" (+{stage['n_blocking'] - 1} more)" if stage["n_blocking"] > 1 else ""
                lines.append(f"| {row['recipe']} | {stage['suite']} | {stage['stage']} | {stage['n']} | {bounds} |"
                             f" {stage['verdict']} | {stage['why'] or 'every rule passes'}{more} |")  # fmt: skip
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
