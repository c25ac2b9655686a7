"""Whether conformal sets of a real model cover what they promise, domain by domain.

    python benchmarks/mmlu_conformal.py --data ../shared/data               minutes on two cores
    python benchmarks/mmlu_conformal.py --data ../shared/data --alpha 0.2

MMLU's four options are scored by log-probability with SmolLM2-135M; their softmax are the probabilities of the labels.
The published training part calibrates, the evaluation part is covered (LAC: every option that is likely enough). Each
domain has its own threshold (Mondrian), so each promises 1 - alpha, and the number covered of n is beta-binomial. The
coverage seen is set beside that law's central 95 %, for each domain and for all items with one threshold; a band
widened for all of them together (Bonferroni) decides the exit code, which is 1 where a coverage lies outside.

Nothing here needs a good model: with one that guesses, sets are large and still cover. Their size is what tells.
With --cache the probabilities are kept, so that another alpha costs nothing. Writes mmlu_conformal.json and .md in
benchmarks/results.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from harness.models.base import ChoiceRequest, Message, Prompt
from harness.stats.conformal import (
    conformal_rank,
    conformal_threshold,
    coverage,
    coverage_band,
    lac_scores,
    prediction_sets,
)

RESULTS = Path(__file__).parent / "results"
MODEL = "embedded:smollm2-135m"
LETTERS = ("A", "B", "C", "D")
MAX_TOK = 512
CONFIDENCE = 0.95
Array = np.ndarray[Any, Any]


class Scored(NamedTuple):
    """Items with the model's probabilities of their options."""

    probs: Array
    """(items, 4)"""
    gold: Array
    """(items,), the right option's index"""
    domains: list[str]


def main() -> int:
    """Scores, calibrates, covers, prints and writes; 1 where a coverage is outside its band."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = Path(os.environ.get("HARNESS_DATA", "../shared/data"))
    parser.add_argument("--data", type=Path, default=default, help="folder that holds uncertainty/mmlu")
    parser.add_argument("--alpha", type=float, default=0.1)
    parser.add_argument("--limit", type=int, help="items a split, for a quick look")
    parser.add_argument("--cache", type=Path, help="folder that keeps the model's probabilities")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    if not (options.data / "uncertainty" / "mmlu").is_dir():
        print(f"not run: {options.data} holds no uncertainty/mmlu; name the folder with --data")
        return 0
    began = time.monotonic()
    splits = {name: load(options.data, name, options.limit, options.cache) for name in ("train", "eval")}
    report = measure(splits["train"], splits["eval"], options.alpha)
    report["seconds"] = round(time.monotonic() - began, 1)
    report["machine"] = {"processor": platform.processor() or platform.machine(), "python": platform.python_version(),
                         "torch": version("torch"), "transformers": version("transformers")}  # fmt: skip
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "mmlu_conformal.json").write_text(json.dumps(report, indent=1) + "\n")
    (options.out / "mmlu_conformal.md").write_text(table(report))
    print(table(report))
    return 0 if all(row["inside_joint"] for row in report["rows"]) else 1


def measure(calibration: Scored, test: Scored, alpha: float) -> dict[str, Any]:
    """The coverage of each domain with its own threshold, and of all items with one."""
    names = sorted(set(calibration.domains) & set(test.domains))
    joint = 1.0 - (1.0 - CONFIDENCE) / (len(names) + 1)
    rows = [cover("all", calibration, test, alpha, joint)]
    rows += [cover(name, only(calibration, name), only(test, name), alpha, joint) for name in names]
    return {
        "model": MODEL, "alpha": alpha, "confidence": CONFIDENCE, "joint_confidence": joint,
        "accuracy": float((test.probs.argmax(axis=1) == test.gold).mean()), "rows": rows,
    }  # fmt: skip


def cover(name: str, calibration: Scored, test: Scored, alpha: float, joint: float) -> dict[str, Any]:
    """One threshold from the calibration items, the coverage of the test items, and where it was to be expected."""
    n_cal, n_test = len(calibration.gold), len(test.gold)
    threshold = conformal_threshold(lac_scores(calibration.probs, calibration.gold), alpha)
    found = coverage(prediction_sets(test.probs, threshold), test.gold)
    band, wide = (coverage_band(n_cal, n_test, alpha, level) for level in (CONFIDENCE, joint))
    assert band is not None
    assert wide is not None
    covered = found.covered.hits / n_test
    return {
        "domain": name, "n_cal": n_cal, "n_test": n_test, "rank": conformal_rank(n_cal, alpha),
        "threshold": threshold if math.isfinite(threshold) else None, "covered": found.covered.hits,
        "coverage": covered, "low": band.low, "high": band.high, "inside": band.low <= covered <= band.high,
        "joint_low": wide.low, "joint_high": wide.high, "inside_joint": wide.low <= covered <= wide.high,
        "mean_size": found.mean_size, "empty": found.empty,
    }  # fmt: skip


def only(scored: Scored, domain: str) -> Scored:
    """The items of one domain."""
    mine = np.array([one == domain for one in scored.domains])
    return Scored(scored.probs[mine], scored.gold[mine], [domain] * int(mine.sum()))


def load(data: Path, split: str, limit: int | None, cache: Path | None) -> Scored:
    """The items of a split with the model's probabilities, computed or kept from an earlier run."""
    path = data / "uncertainty" / "mmlu" / f"{split}.jsonl"
    items = [json.loads(line) for line in path.read_text().splitlines()][:limit]
    kept = cache / f"mmlu-{split}.json" if cache else None
    known: dict[str, list[float]] = json.loads(kept.read_text()) if kept and kept.exists() else {}
    if any(item["id"] not in known for item in items):
        known = ask(items)
        if kept:
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_text(json.dumps(known))
    probs = np.array([known[item["id"]] for item in items])
    gold = np.array([item["target"]["index"] for item in items])
    return Scored(probs, gold, [item["slices"]["domain"] for item in items])


def ask(items: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    """The probabilities of the four options by item."""
    from harness.models.load import open_model

    model = open_model(MODEL, threads=2)
    requests = [ChoiceRequest(item["id"], Prompt((Message("user", question(item)),), MAX_TOK, "truncate"), LETTERS)
                for item in items]  # fmt: skip
    probs: dict[str, list[float]] = {}
    try:
        for batch in model.plan(requests):
            for answer in model.score_choices([requests[index] for index in batch]):
                if answer.choice_logprobs is None:
                    raise SystemExit(f"{answer.id}: {answer.error}")
                logprobs = np.array(answer.choice_logprobs)
                weights = np.exp(logprobs - logprobs.max())
                probs[answer.id] = [float(p) for p in weights / weights.sum()]
            print(f"{len(probs)} of {len(requests)}", file=sys.stderr, flush=True)
    finally:
        model.close()
    return probs


def question(item: Mapping[str, Any]) -> str:
    """The question with its lettered options."""
    options = "\n".join(f"{letter}. {text}" for letter, text in zip(LETTERS, item["options"], strict=True))
    return f"{item['input']}\n{options}\nAnswer with the letter of the right option."


def table(report: Mapping[str, Any]) -> str:
    """The rows as Markdown."""
    lines = [
        "# Conformal sets on MMLU, by domain", "",
        f"{report['model']}, accuracy {report['accuracy']:.3f}, promised coverage {1 - report['alpha']:.2f}. Bands: "
        f"beta-binomial, central {report['confidence']:.0%}; one threshold a domain, and one for `all`.", "",
        "| domain | calibration | test | coverage | band | inside | mean set size |", "|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for row in report["rows"]:
        lines.append(
            f"| {row['domain']} | {row['n_cal']} | {row['n_test']} | {row['coverage']:.3f} | "
            f"{row['low']:.3f} to {row['high']:.3f} | {'yes' if row['inside'] else 'no'} | {row['mean_size']:.2f} |"
        )
    outside = [row["domain"] for row in report["rows"] if not row["inside_joint"]]
    lines += ["", f"Outside the band of all rows together ({report['joint_confidence']:.2%}): "
              f"{', '.join(outside) or 'none'}."]  # fmt: skip
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
