"""Every ordered pair of 14 published models, gated for non-inferiority on the same complaints.

    python benchmarks/cfpb_pairs.py                          data at $HARNESS_DATA, or ../shared/data
    python benchmarks/cfpb_pairs.py --data DIR               folder that holds ab/cfpb_llm_predictions

For each pair: "the candidate's accuracy is no more than .05 below the baseline's", judged once on all items (the
gate's paired rule: Tango's score with its exact tails) and item by item (the betting engine on -1, 0 and 1), which
may stop early. Both files of the data set are used, for nothing was fitted on either. The order of the items is a
seed's, fixed here; what other orders would have given stands beside it, so nobody has to trust one seed.

Writes benchmarks/results/cfpb_pairs.json and .md: numbers and the names of models, no text of a complaint. The exit
code is 1 where the two designs contradict each other on a pair (PASS and FAIL).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np

from harness.stats.paired import paired_bounds
from harness.stats.sequential import Betting, Claim, paired_claim, simulate

MARGIN, ALPHA, BETA = 0.05, 0.05, 0.05
DISCORDANCE = 0.15
"""Guess that sizes the bets, taken before any answer was read; a wrong one costs items, never validity."""
SEED = 20
OTHER_ORDERS = 100
TARGET = 0.40
"""Share of the items that stopping early should save, on average over decided pairs."""
OPEN = "INCONCLUSIVE"
VERDICTS = ("PASS", "FAIL", OPEN)
RESULTS = Path(__file__).parent / "results"
Array = np.ndarray[Any, Any]


class Answers(NamedTuple):
    """Which model got which complaint right."""

    models: tuple[str, ...]
    right: Array
    """Shape (items, models), bool; items by id."""


@dataclass(frozen=True)
class Pair:
    """One candidate against one baseline."""

    candidate: str
    baseline: str
    candidate_alone: int
    """Items that only the candidate gets right."""
    baseline_alone: int
    difference: float
    low: float
    """One-sided lower bound of the difference, at alpha; `high` at beta."""
    high: float
    fixed: str
    sequential: str
    used: int
    """Items that the sequential design read."""
    saved_frac: float


def main() -> int:
    """Gates all pairs, prints the summary and writes both files; 1 where the designs contradict each other."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder that holds ab/cfpb_llm_predictions")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    root = options.data or default_root()
    if not (root / "ab/cfpb_llm_predictions").is_dir():
        print(f"{root}/ab/cfpb_llm_predictions is not there: give --data or HARNESS_DATA", file=sys.stderr)
        return 2 if options.data else 0
    report = {
        "margin": MARGIN, "alpha": ALPHA, "beta": BETA, "guessed_discordance": DISCORDANCE, "seed": SEED,
        "target_saved_frac": TARGET, **measure(read_answers(root, ("train", "eval"))),
        "eval_file_only": measure(read_answers(root, ("eval",)))["summary"],
    }  # fmt: skip
    options.out.mkdir(exist_ok=True, parents=True)
    (options.out / "cfpb_pairs.json").write_text(json.dumps(report, indent=1) + "\n")
    (options.out / "cfpb_pairs.md").write_text(page(report))
    print(summary_table(report))
    return 1 if report["summary"]["contradictions"] else 0


def default_root() -> Path:
    return Path(os.environ.get("HARNESS_DATA", Path(__file__).parents[2] / "shared" / "data"))


def read_answers(root: Path, splits: Sequence[str]) -> Answers:
    """What every model got right, on all items of these files."""
    rows = [
        json.loads(line)
        for split in splits
        for line in (root / "ab/cfpb_llm_predictions" / f"{split}.jsonl").read_text("utf-8").splitlines()
    ]
    rows.sort(key=lambda row: row["id"])
    models = tuple(sorted(rows[0]["meta"]["predictions"]))
    right = [
        [row["meta"]["predictions"][model] == row["target"]["label"] for model in models] for row in rows
    ]
    return Answers(models, np.array(right, bool))


def measure(answers: Answers) -> dict[str, Any]:
    """All pairs in the fixed order, and the savings over other orders."""
    n = len(answers.right)
    order = np.random.default_rng(SEED).permutation(n)
    names = [(c, b) for c in range(len(answers.models)) for b in range(len(answers.models)) if c != b]
    scores = np.array([answers.right[:, c].astype(float) - answers.right[:, b] for c, b in names])
    pairs = [
        gate(answers.models[c], answers.models[b], row, order)
        for (c, b), row in zip(names, scores, strict=True)
    ]
    accuracy = {model: float(answers.right[:, k].mean()) for k, model in enumerate(answers.models)}
    return {
        "accuracy": accuracy,
        "summary": {"items": n, **summarise(pairs, n), "other_orders": reorder(scores, pairs)},
        "pairs": [asdict(pair) for pair in pairs],
    }


def gate(candidate: str, baseline: str, scores: Array, order: Array) -> Pair:
    """Both verdicts on one pair; `scores` are candidate minus baseline, shape (items,)."""
    n, won, lost = len(scores), int((scores > 0).sum()), int((scores < 0).sum())
    bounds = paired_bounds(lost, won, n, ALPHA, BETA)
    assert bounds is not None
    fixed = "PASS" if bounds.low > -MARGIN else "FAIL" if bounds.high < -MARGIN else OPEN
    outcome = Betting(claim_of(n)).extend(scores[order].tolist())
    verdict, saved = outcome.decision or OPEN, 1.0 - outcome.n / n
    return Pair(
        candidate, baseline, won, lost, (won - lost) / n, *bounds, fixed, verdict, outcome.n, saved
    )  # fmt: skip


def claim_of(n: int) -> Claim:
    return paired_claim(MARGIN, n, DISCORDANCE, ALPHA, BETA)


def summarise(pairs: Sequence[Pair], n: int) -> dict[str, Any]:
    """Counts of verdicts and the share of the n items saved."""
    table = Counter((pair.fixed, pair.sequential) for pair in pairs)
    saved = {
        verdict: [pair.saved_frac for pair in pairs if pair.sequential == verdict] for verdict in VERDICTS
    }
    decided = saved["PASS"] + saved["FAIL"]
    mean_saved = float(np.mean(decided)) if decided else None
    return {
        "pairs": len(pairs),
        "fixed": {verdict: sum(pair.fixed == verdict for pair in pairs) for verdict in VERDICTS},
        "sequential": {verdict: len(saved[verdict]) for verdict in VERDICTS},
        "fixed_by_sequential": {f: {s: table[f, s] for s in VERDICTS} for f in VERDICTS},
        "contradictions": table["PASS", "FAIL"] + table["FAIL", "PASS"],
        "median_discordance": median((pair.candidate_alone + pair.baseline_alone) / n for pair in pairs),
        "mean_saved_frac_of_decided": mean_saved,
        "mean_saved_frac": {v: float(np.mean(saved[v])) if saved[v] else None for v in VERDICTS},
        "mean_saved_frac_of_all": float(np.mean([pair.saved_frac for pair in pairs])),
        "is_target_met": mean_saved is not None and mean_saved >= TARGET,
    }


def reorder(scores: Array, pairs: Sequence[Pair]) -> dict[str, Any]:
    """What `OTHER_ORDERS` other random orders of the same items give; `scores` of shape (pairs, items)."""
    count, n = scores.shape
    rng = np.random.default_rng([SEED, 1])
    rows = np.concatenate([scores[:, rng.permutation(n)] for _ in range(OTHER_ORDERS)])
    runs = simulate(claim_of(n), rows)
    passes, fails, used = (part.reshape(OTHER_ORDERS, count) for part in runs)
    decided = passes | fails
    saved = np.array(
        [1.0 - row[mask].mean() / n if mask.any() else 0.0 for row, mask in zip(used, decided, strict=True)]
    )
    fixed = np.array([pair.fixed for pair in pairs])
    against = (passes & (fixed == "FAIL")) | (fails & (fixed == "PASS"))
    return {
        "orders": OTHER_ORDERS,
        "mean_saved_frac_of_decided": {
            "mean": float(saved.mean()), "least": float(saved.min()), "most": float(saved.max()),
        },
        "mean_decided_frac": float(decided.mean()),
        "contradicts_fixed_frac": float(against.mean()),
    }  # fmt: skip


def page(report: Mapping[str, Any]) -> str:
    """The report as Markdown."""
    models = sorted(report["accuracy"], key=lambda model: -report["accuracy"][model])
    numbered = "".join(
        f"| {k} | {model} | {report['accuracy'][model]:.3f} |\n" for k, model in enumerate(models, 1)
    )
    return (
        "# 14 models on the same complaints, every ordered pair gated\n\n"
        f"Claim of each gate: the candidate's accuracy is at most {MARGIN:g} below the baseline's. alpha = beta = "
        f"{ALPHA:g}; {report['summary']['items']} items; data: `ab/cfpb_llm_predictions`, both files. Written by "
        "`benchmarks/cfpb_pairs.py`. Each pair is a gate of its own: nothing here picks a best model, so nothing is "
        "corrected for the number of pairs.\n\n"
        f"{summary_table(report)}\n\n"
        "Fixed verdicts (rows) and sequential ones (columns):\n\n"
        f"{cross_table(report['summary']['fixed_by_sequential'])}\n"
        "## Verdicts of the sequential design\n\n"
        "A row is a candidate, a column a baseline, by number. P passes, F fails, `?` is inconclusive, then the "
        "items used. A trailing `*`: the fixed design says otherwise.\n\n"
        f"{verdict_matrix(report['pairs'], models)}\n"
        f"| number | model | accuracy |\n|---|---|---|\n{numbered}"
    )


def summary_table(report: Mapping[str, Any]) -> str:
    """The savings, on all items and on the evaluation file alone."""
    columns = report["summary"], report["eval_file_only"]
    lines = ["| | both files | eval file alone |", "|---|---|---|"]
    for name, shown in SUMMARY.items():
        lines.append(f"| {name} | " + " | ".join(shown(column) for column in columns) + " |")
    return "\n".join(lines)


def _verdicts(counts: Mapping[str, int]) -> str:
    return " / ".join(str(counts[verdict]) for verdict in VERDICTS)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"


def _range(of: Mapping[str, float]) -> str:
    return f"{_percent(of['mean'])} ({_percent(of['least'])} to {_percent(of['most'])})"


SUMMARY = {
    "items": lambda s: str(s["items"]),
    "pairs": lambda s: str(s["pairs"]),
    "fixed: PASS / FAIL / INCONCLUSIVE": lambda s: _verdicts(s["fixed"]),
    "sequential: PASS / FAIL / INCONCLUSIVE": lambda s: _verdicts(s["sequential"]),
    "pairs on which the designs contradict each other": lambda s: str(s["contradictions"]),
    f"items saved, mean over decided pairs (target {TARGET:.0%})": lambda s: (
        f"{_percent(s['mean_saved_frac_of_decided'])}, {'met' if s['is_target_met'] else 'missed'}"
    ),
    "items saved, pairs that PASS": lambda s: _percent(s["mean_saved_frac"]["PASS"]),
    "items saved, pairs that FAIL": lambda s: _percent(s["mean_saved_frac"]["FAIL"]),
    "items saved, all pairs": lambda s: _percent(s["mean_saved_frac_of_all"]),
    f"items saved in {OTHER_ORDERS} other orders, decided pairs: mean (least to most)": lambda s: _range(
        s["other_orders"]["mean_saved_frac_of_decided"]
    ),
    f"pairs decided in {OTHER_ORDERS} other orders": lambda s: _percent(
        s["other_orders"]["mean_decided_frac"]
    ),
    f"verdicts against the fixed one in {OTHER_ORDERS} other orders": lambda s: (
        f"{100 * s['other_orders']['contradicts_fixed_frac']:.2f} %"
    ),
    "discordant items, median over pairs": lambda s: _percent(s["median_discordance"]),
}


def cross_table(table: Mapping[str, Mapping[str, int]]) -> str:
    rows = [
        f"| {fixed} | " + " | ".join(str(table[fixed][v]) for v in VERDICTS) + " |\n" for fixed in VERDICTS
    ]
    return "| | " + " | ".join(VERDICTS) + " |\n|---|---|---|---|\n" + "".join(rows)


def verdict_matrix(pairs: Sequence[Mapping[str, Any]], models: Sequence[str]) -> str:
    cells = {(pair["candidate"], pair["baseline"]): cell(pair) for pair in pairs}
    head = "| | " + " | ".join(str(k) for k in range(1, len(models) + 1)) + " |\n"
    rows = [
        f"| **{k}** | " + " | ".join(cells.get((candidate, baseline), "") for baseline in models) + " |\n"
        for k, candidate in enumerate(models, 1)
    ]
    return head + "|---" * (len(models) + 1) + "|\n" + "".join(rows)


def cell(pair: Mapping[str, Any]) -> str:
    sign = {"PASS": "P", "FAIL": "F", OPEN: "?"}[pair["sequential"]]
    differs = "" if pair["fixed"] == pair["sequential"] else "*"
    return f"{sign} {pair['used']}{differs}"


if __name__ == "__main__":
    sys.exit(main())
