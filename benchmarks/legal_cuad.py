"""The real CUAD clauses, end to end, beside a linear baseline on the same records.

    python benchmarks/legal_cuad.py --data ../shared/data

Runs `harness release recipes/legal-cuad.yaml` (or takes the run that is there), trains TF-IDF with logistic
regression on the same training records, scores it on the same evaluation records, and writes
`benchmarks/results/legal_cuad.json` and `.md`: accuracy of each stage with its interval, sizes, fidelity, token
parity, precision and recall of each clause type for the picked file, and the wall time.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness.data.records import Record
from harness.evals.results import Sample
from harness.evals.samples import read_samples
from harness.evals.scorecard import make_scorecard
from harness.jobs.orders import load_order
from harness.jobs.store import find_run, home_folder
from harness.specs.load import find_document
from harness.stats.paired import mcnemar_exact, paired_bounds
from harness.stats.proportions import wilson

RECIPE = Path("recipes/legal-cuad.yaml")
RESULTS = Path(__file__).parent / "results"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = Path(os.environ.get("HARNESS_DATA", "../shared/data"))
    parser.add_argument("--data", type=Path, default=default, help="folder that holds legal/cuad_clauses")
    options = parser.parse_args()
    if not (options.data / "legal" / "cuad_clauses").is_dir():
        print(f"not run: {options.data} holds no legal/cuad_clauses; name the folder with --data")
        return
    document, wall_s = release(options.data)
    folder = find_run(home_folder(), "legal-cuad")
    loaded = load_order(find_document(RECIPE), options.data)
    suite = loaded.suites[loaded.first]
    train, held = (loaded.splits[loaded.first][split] for split in ("train", "eval"))
    stages = {
        stage["stage"]: read_samples(folder / "stages" / stage["stage"] / suite.suite / "samples.jsonl")
        for stage in document["stages"]
    }
    report = {
        "date": datetime.now(UTC).date().isoformat(), "machine": machine(), "wall_s": round(wall_s, 1),
        "records": {"train": len(train), "eval": len(held)}, "verdict": document["verdict"],
        "picked": document["picked"], "baseline": baseline(train, held),
        "stages": [stage_row(name, samples, stages, folder) for name, samples in stages.items()],
        "labels": label_rows(stages[document["picked"] or list(stages)[-1]]),
    }  # fmt: skip
    write(report)


def release(data: Path) -> tuple[dict[str, Any], float]:
    """The release's document and the seconds that this command took (few when the run was there already)."""
    began = time.monotonic()
    command = [sys.executable, "-m", "harness", "release", str(RECIPE), "--data", str(data), "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    document = json.loads(done.stdout)
    return document, max(time.monotonic() - began, document.get("seconds", 0.0))


def linear(train: Sequence[Record], held: Sequence[Record]) -> list[str]:
    """TF-IDF (words and pairs) with logistic regression: the usual first answer to such a question."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    model = make_pipeline(words, LogisticRegression(C=30.0, max_iter=2000))
    model.fit([record.input for record in train], [record.targets[0] for record in train])
    return list(model.predict([record.input for record in held]))


def baseline(train: Sequence[Record], held: Sequence[Record]) -> dict[str, Any]:
    """The linear model's rate on the evaluation records."""
    said = linear(train, held)
    return rate(sum(answer in record.targets for answer, record in zip(said, held, strict=True)), len(held))


def stage_row(
    name: str, samples: Sequence[Sample], stages: Mapping[str, Sequence[Sample]], folder: Path
) -> dict[str, Any]:
    """One stage: accuracy, change against f16 on the same items, token parity, fidelity, size."""
    right = {sample.id: sample.score for sample in samples}
    row = {"stage": name, **rate(round(sum(right.values())), len(right))}
    row["confidence"] = sum(sample.confidence or 0.0 for sample in samples) / len(samples)
    reference = {sample.id: sample for sample in stages["f16"]} if "f16" in stages else {}
    if reference:
        lost = sum(reference[key].score > score for key, score in right.items())
        gained = sum(reference[key].score < score for key, score in right.items())
        bounds = paired_bounds(lost, gained, len(right))
        row["versus_f16"] = {"difference": (gained - lost) / len(right), "lost": lost, "gained": gained,
                             "low": bounds.low if bounds else None, "p": mcnemar_exact(lost, gained)}  # fmt: skip
        same = sum(reference[s.id].prompt_digest == s.prompt_digest for s in samples)
        row["same_token_ids"] = same
    fidelity = folder / "stages" / name / "fidelity.json"
    if fidelity.exists():
        found = json.loads(fidelity.read_text())
        row |= {"mean_kl": found["mean_kl"], "top1": found["top1"]}
    file = folder / "artifacts" / f"model-{name}.gguf"
    return row | ({"bytes": file.stat().st_size} if file.exists() else {})


def label_rows(samples: Sequence[Sample]) -> list[dict[str, Any]]:
    card = make_scorecard("s", "s", "", samples, slices=[], is_labelled=True)
    rows: dict[str, dict[str, Any]] = {}
    for reading in card.readings:
        if reading.slice.startswith("label="):
            row = rows.setdefault(reading.slice.removeprefix("label="), {})
            row[reading.metric] = {
                "n": reading.n,
                "score": reading.score,
                "low": reading.low,
                "high": reading.high,
            }
    return [{"label": label, **row} for label, row in rows.items()]


def rate(hits: int, n: int) -> dict[str, Any]:
    found = wilson(hits, n)
    return {
        "n": n,
        "accuracy": hits / n,
        "low": found.low if found else None,
        "high": found.high if found else None,
    }


def machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "?")
    return f"{os.cpu_count()} cores of {name}, Python {platform.python_version()}"


def write(report: dict[str, Any]) -> None:
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "legal_cuad.json").write_text(json.dumps(report, indent=1) + "\n")
    lines = [
        "# CUAD clauses, end to end", "",
        f"{report['date']}, {report['machine']}. {report['records']['train']} training and "
        f"{report['records']['eval']} evaluation clauses, 38 types; {report['wall_s'] / 60:.1f} minutes in all. "
        f"Verdict {report['verdict']}, picked {report['picked']}. Intervals: Wilson, 95 %.", "",
        "| stage | accuracy | versus f16 | lost / gained | same token ids | mean KL | top-1 | MB |",
        "|---|---|---|---|---|---|---|---|",
        f"| TF-IDF + logistic regression | {cell(report['baseline'])} | | | | | | |",
        *(stage_line(row) for row in report["stages"]), "",
        f"## Each clause type, {report['picked'] or 'last stage'}", "",
        "| type | precision (n) | recall (n) |", "|---|---|---|",
        *(f"| {row['label']} | {cell(row['precision'])} ({row['precision']['n']}) "
          f"| {cell(row['recall'])} ({row['recall']['n']}) |" for row in report["labels"]),
    ]  # fmt: skip
    (RESULTS / "legal_cuad.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines[:16]))


def stage_line(row: Mapping[str, Any]) -> str:
    versus = row.get("versus_f16")
    cells = [
        row["stage"], cell(row),
        f"{versus['difference']:+.3f}" if versus else "", f"{versus['lost']} / {versus['gained']}" if versus else "",
        f"{row['same_token_ids']} of {row['n']}" if "same_token_ids" in row else "",
        f"{row['mean_kl']:.1e}" if "mean_kl" in row else "", f"{row['top1']:.1%}" if "top1" in row else "",
        f"{row['bytes'] / 1e6:.0f}" if "bytes" in row else "",
    ]  # fmt: skip
    return "| " + " | ".join(cells) + " |"


def cell(found: Mapping[str, Any]) -> str:
    value = found.get("accuracy", found.get("score"))
    return f"{value:.3f} [{found['low']:.3f}, {found['high']:.3f}]" if value is not None else "—"


if __name__ == "__main__":
    main()
