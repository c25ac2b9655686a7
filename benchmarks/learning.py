"""What tuning teaches, on real data: three public sets, each beside a linear baseline on the same records.

    python benchmarks/learning.py --data ../shared/data
    python benchmarks/learning.py --data ../shared/data --only finance-fomc

Runs `harness train` on each recipe (or takes the run that is there, finished or not), trains TF-IDF with logistic
regression on the same training records, scores it on the same evaluation records, and writes
benchmarks/results/learning.json and .md: accuracy of base, adapter and baseline with Wilson's intervals, what the
adapter gains over the baseline on the same items, and the minutes that base, training and adapter took together. A
target is missed where the adapter's accuracy is under the baseline's, under the set's own mark, or took over 30
minutes; the exit code is then 1.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from legal_cuad import RESULTS, cell, linear, machine, rate

from harness.evals.samples import read_samples
from harness.jobs.journal import read_events
from harness.jobs.orders import load_order
from harness.jobs.store import find_run, home_folder
from harness.specs.load import find_document
from harness.stats.paired import mcnemar_exact

RECIPES = {"legal-cuad": 0.78, "support-banking77": 0.0, "finance-fomc": 0.0}
"""Each with the accuracy that it must reach whatever the baseline does."""
LIMIT_MIN = 30.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = Path(os.environ.get("HARNESS_DATA", "../shared/data"))
    parser.add_argument("--data", type=Path, default=default, help="folder that holds the public sets")
    parser.add_argument("--only", choices=RECIPES, action="append", help="one recipe; may be given again")
    options = parser.parse_args()
    if not options.data.is_dir():
        print(f"not run: {options.data} holds no public sets; name the folder with --data")
        return
    rows = known_rows() | {name: measure(name, options.data) for name in options.only or RECIPES}
    write(rows)
    sys.exit(any(row["missed"] for row in rows.values()))


def known_rows() -> dict[str, Any]:
    """What an earlier call measured; `--only` replaces its own row."""
    path = RESULTS / "learning.json"
    return dict(json.loads(path.read_text())["recipes"]) if path.exists() else {}


def measure(name: str, data: Path) -> dict[str, Any]:
    """Base, adapter and baseline on the evaluation records of one recipe."""
    recipe = Path("recipes") / f"{name}.yaml"
    command = [sys.executable, "-m", "harness", "train", str(recipe), "--data", str(data), "--json"]
    verdict = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=False).stdout)["verdict"]
    folder = find_run(home_folder(), name)
    loaded = load_order(find_document(recipe), data)
    train, held = (loaded.splits[loaded.first][split] for split in ("train", "eval"))
    said = linear(train, held)
    right = {record.id: answer in record.targets for answer, record in zip(said, held, strict=True)}
    scores = {stage: right_of(folder, stage, loaded.first) for stage in ("base", "adapter")}
    minutes = step_minutes(folder)
    row = {
        "date": datetime.now(UTC).date().isoformat(), "verdict": verdict, "train": len(train), "eval": len(held),
        "labels": len(loaded.labels[loaded.first]), "left_out": len(loaded.left_out),
        "baseline": rate(sum(right.values()), len(right)),
        **{stage: rate(sum(found.values()), len(found)) for stage, found in scores.items()},
        "gained": sum(scores["adapter"][id_] and not hit for id_, hit in right.items()),
        "lost": sum(hit and not scores["adapter"][id_] for id_, hit in right.items()),
        "minutes": minutes, "tok_s": json.loads((folder / "train.json").read_text())["tok_s"],
    }  # fmt: skip
    row["p"] = mcnemar_exact(row["lost"], row["gained"])
    return row | {"missed": missed(name, row)}


def right_of(folder: Path, stage: str, suite: str) -> dict[str, bool]:
    samples = read_samples(folder / "stages" / stage / suite / "samples.jsonl")
    return {sample.id: sample.score == 1.0 for sample in samples}


def step_minutes(folder: Path) -> dict[str, float]:
    """Of each step up to the adapter's verdict, the longest where a step was found again later."""
    minutes: dict[str, float] = {}
    for event in read_events(folder / "events.jsonl"):
        if event.name == "step.done" and event.data["step"] in ("prepare", "base", "train", "adapter"):
            step = event.data["step"]
            minutes[step] = max(minutes.get(step, 0.0), round(event.data["seconds"] / 60, 2))
    return minutes


def missed(name: str, row: dict[str, Any]) -> list[str]:
    """The targets that were not met, in words."""
    reached, minutes = row["adapter"]["accuracy"], sum(row["minutes"].values())
    marks = {"baseline": row["baseline"]["accuracy"], "mark": RECIPES[name]}
    under = [
        f"{reached:.3f} is under the {what}, {mark:.3f}" for what, mark in marks.items() if reached < mark
    ]
    return under + ([f"{minutes:.1f} minutes, over {LIMIT_MIN:.0f}"] if minutes > LIMIT_MIN else [])


def write(rows: dict[str, Any]) -> None:
    RESULTS.mkdir(exist_ok=True)
    document = {"machine": machine(), "recipes": rows}
    (RESULTS / "learning.json").write_text(json.dumps(document, indent=1) + "\n")
    lines = [
        "# What tuning teaches", "",
        f"{machine()}. SmolLM2-135M-Instruct, QLoRA of rank 16; accuracy with Wilson's 95 % intervals on the same "
        "records. The baseline is TF-IDF with logistic regression.", "",
        "| recipe | labels | train / eval | baseline | base | tuned | tuned against baseline | minutes |",
        "|---|---|---|---|---|---|---|---|",
        *(line(name, row) for name, row in rows.items()), "",
        "Minutes: base, training and adapter together; in brackets training alone, and the tokens it saw a second.", "",
        *(f"- {name}: missed: {'; '.join(row['missed'])}" for name, row in rows.items() if row["missed"]),
    ]  # fmt: skip
    text = "\n".join(lines).rstrip() + "\n"
    (RESULTS / "learning.md").write_text(text)
    print(text)


def line(name: str, row: dict[str, Any]) -> str:
    minutes = row["minutes"]
    return (
        f"| {name} | {row['labels']} | {row['train']:,} / {row['eval']:,} | {cell(row['baseline'])} "
        f"| {cell(row['base'])} | {cell(row['adapter'])} | +{row['gained']} −{row['lost']} (p {row['p']:.2g}) "
        f"| {sum(minutes.values()):.1f} ({minutes['train']:.1f}, {row['tok_s']:.0f} tok/s), {row['date']} |"
    )


if __name__ == "__main__":
    main()
