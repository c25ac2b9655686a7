"""Every domain's public sets in one table: a baseline, the base model, a short tuning, and the file that would ship.

    python benchmarks/domains.py --data ../shared/data
    python benchmarks/domains.py --data ../shared/data --only pubmedqa --only bbq --limit 60 --minutes 10

A cell is a run of the harness, found again by what goes into it: the same command goes on where the last one stopped.
First the base model answers every set; then two sets of each domain, and judges, are tuned (QLoRA, few steps), exported
and asked again, one after another, until --minutes are over. What was not run is named. Scores have 95 %
intervals, verdicts come from the set's rules, slices have tables. Beside them: TF-IDF with logistic regression where
labels are chosen, the option or the training record nearest by TF-IDF elsewhere. Writes domains.json and .md in
benchmarks/results. --dry-run names the cells, their rules and baselines, and asks no model.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parent))

from domains_baseline import baseline_samples
from domains_report import report
from legal_cuad import RESULTS, machine

from harness.errors import HarnessError
from harness.evals.results import Sample, Scorecard, State
from harness.evals.run import Work
from harness.evals.samples import read_samples
from harness.evals.scorecard import find_reading, make_scorecard
from harness.files import write_json
from harness.jobs import launch
from harness.jobs.evaluate import STAGE, work_of
from harness.jobs.orders import order_eval, order_release
from harness.jobs.regate import Rules, judge_again
from harness.jobs.store import RunState, home_folder, last_event, run_state
from harness.specs.gate import Gate
from harness.specs.load import load_gates
from harness.specs.suite import CHOOSES_LABEL, SCORED_BY_LOGPROB, Limit
from harness.specs.yaml import read_yaml

ROOT = Path(__file__).resolve().parents[1]
BASE = "embedded:smollm2-135m"
QUANTS = ("q4_k_m",)
CHECK_S = 1.0
"""Between two looks at a run."""
TUNED_S = 180.0
"""What a tuned cell is taken to last before one was measured."""
GRACE_S = 60.0
"""How long a run that was asked to stop may take to."""


class Public(NamedTuple):
    """A set, the suite that asks it, and what it has to reach."""

    name: str
    domain: str
    suite: str
    bar: float | None = None
    """Accuracy, or the first scorer's mean, to be shown; None where `suites/shared/rules` has the set's own rules."""
    steps: int = 0
    """Of tuning, at 8 records a step; 0: not tuned."""
    prompt_tok: int | None = None
    """Prompts are cut to this, and counted as truncated, where the suite's own budget takes too long here."""


SETS = (
    Public("fomc_stance", "finance", "finance/fomc", 0.55, 90),
    Public("tatqa", "finance", "finance/tatqa", 0.30, 24, 768),
    Public("banking77", "support", "support/banking77", 0.70, 120),
    Public("clinc150_oos", "support", "support/clinc150_oos", 0.70, 120),
    Public("pubmedqa", "healthcare", "healthcare/pubmedqa", 0.55, 40, 448),
    Public("mts_dialog", "healthcare", "healthcare/mts_dialog", 0.55, 30, 384),
    Public("cuad_clauses", "legal", "legal/cuad", 0.65, 90),
    Public("contract_nli", "legal", "legal/contract_nli", 0.55, 24, 512),
    Public("scifact_pairs", "science", "science/scifact_pairs", 0.60, 60, 256),
    Public("evidence_inference", "science", "science/evidence_inference", 0.50, 30, 512),
    Public("product_attributes", "ecommerce", "ecommerce/product_attributes", 0.40, 60),
    Public("product_descriptions", "ecommerce", "ecommerce/product_descriptions", 0.80, 40),
    Public("truthfulqa", "shared", "shared/truthfulqa"),
    Public("halueval_general", "shared", "shared/halueval_general", steps=40, prompt_tok=256),
    Public("truth_judge", "shared", "shared/truth_judge", steps=90),
    Public("bbq", "shared", "shared/bbq"),
    Public("hatecheck", "shared", "shared/hatecheck", steps=90),
    Public("winobias", "shared", "shared/winobias"),
    Public("xstest", "shared", "shared/xstest"),
    Public("mmlu", "shared", "shared/mmlu", prompt_tok=384),
)
TUNE_ORDER = (
    "fomc_stance", "banking77", "scifact_pairs", "pubmedqa", "cuad_clauses", "product_attributes", "mts_dialog",
    "clinc150_oos", "evidence_inference", "contract_nli", "tatqa", "product_descriptions", "hatecheck", "truth_judge",
    "halueval_general",
)  # fmt: skip
"""One of each domain first: the budget may end anywhere."""


class Asked(NamedTuple):
    """What the command line asked for."""

    data: Path
    home: Path
    model: str
    limit: int
    written_limit: int
    seed: int


class Budget:
    """Minutes that are left, and what a tuned cell has taken so far."""

    def __init__(self, minutes: float) -> None:
        self._ends = time.monotonic() + 60.0 * minutes
        self.longest_s = 0.0

    @property
    def left_s(self) -> float:
        return self._ends - time.monotonic()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = Path(os.environ.get("HARNESS_DATA", "../shared/data"))
    parser.add_argument("--data", type=Path, default=default, help="folder that holds the public sets")
    parser.add_argument(
        "--only", choices=[one.name for one in SETS], action="append", help="may be given again"
    )
    parser.add_argument("--limit", type=int, default=120, help="items a set; a random subset by --seed")
    parser.add_argument(
        "--written-limit", type=int, default=40, help="items of a set whose answers are written"
    )
    parser.add_argument("--seed", type=int, default=17)
    parser.add_argument(
        "--minutes", type=float, default=120.0, help="nothing is begun or kept on after these"
    )
    parser.add_argument("--model", default=BASE, help="the base as `harness eval --model` names it")
    parser.add_argument("--no-tune", action="store_true", help="baselines and the base alone")
    parser.add_argument("--dry-run", action="store_true", help="name the cells, and ask no model")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    found = [one for one in SETS if not options.only or one.name in options.only]
    asked = Asked(options.data.absolute(), home_folder(), options.model, options.limit, options.written_limit,
                  options.seed)  # fmt: skip
    budget = Budget(options.minutes)
    rows = {one.name: begin(one, asked) for one in found}
    if not options.dry_run:
        ask_all(found, rows, asked, budget, tunes=not options.no_tune)
    settings = {
        "model": asked.model,
        "limit": asked.limit,
        "written_limit": asked.written_limit,
        "seed": asked.seed,
    }
    path = options.out / "domains.json"
    rows = {**known_rows(path, settings), **rows}
    document = {"date": datetime.now(UTC).date().isoformat(), "machine": machine(), **settings,
                "sets": [rows[one.name] for one in SETS if one.name in rows]}  # fmt: skip
    text = report(document)
    if not options.dry_run:
        options.out.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(document, indent=1) + "\n")
        path.with_suffix(".md").write_text(text)
    print(text)


def known_rows(path: Path, settings: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What an earlier call with the same settings measured; `--only` replaces its own rows."""
    if not path.exists():
        return {}
    document = json.loads(path.read_text())
    if any(document.get(key) != value for key, value in settings.items()):
        return {}
    return {row["name"]: row for row in document["sets"]}


def begin(one: Public, asked: Asked) -> dict[str, Any]:
    """The set's row with its baseline; a reason where the data is not there."""
    row: dict[str, Any] = {**one._asdict(), "cells": {}, "not_run": {}}
    suite = read_yaml(ROOT / "suites" / f"{one.suite}.yaml").data
    if not (asked.data / suite["records"]["public"]).is_dir():
        row["not_run"]["all"] = f"{asked.data} holds no {suite['records']['public']}"
        return row
    path = write_suite(one, asked)
    work = work_of({"suite": path, "data_root": str(asked.data), "split": "eval"})
    row |= {"task": work.suite.task, "n": len(work.records), "n_train": len(work.train), "score": "accuracy",
            "rules": [gate.name for gate in rules_of(one)]}  # fmt: skip
    if work.suite.scorers and work.suite.task not in CHOOSES_LABEL:
        row["score"] = work.suite.scorers[0].score_name
    if samples := baseline_samples(work):
        row["cells"]["baseline"] = cell(one, work, "baseline", samples)
    else:
        row["not_run"]["baseline"] = "nothing that a word count could answer with"
    return row


def ask_all(
    sets: Sequence[Public], rows: Mapping[str, dict[str, Any]], asked: Asked, budget: Budget, *, tunes: bool
) -> None:
    """The base on every set, then tuned sets in their order; each row says what was not run, and why."""
    here = {one.name: one for one in sets if "all" not in rows[one.name]["not_run"]}
    for name, one in here.items():
        attempt(ask_base, "base", one, rows[name], asked, budget)
    for name in here:
        if name not in TUNE_ORDER:
            rows[name]["not_run"]["tuned"] = "bias or knowledge as it is: the base alone"
        elif not tunes:
            rows[name]["not_run"]["tuned"] = "--no-tune"
    for name in TUNE_ORDER:
        if tunes and name in here:
            attempt(ask_tuned, "tuned", here[name], rows[name], asked, budget)


def attempt(
    ask: Callable[[Public, dict[str, Any], Asked, Budget], None], what: str, one: Public, row: dict[str, Any],
    asked: Asked, budget: Budget,
) -> None:  # fmt: skip
    """Asks; what is wrong with one set stops no other."""
    print(f"{one.name}, {what}: {budget.left_s / 60:.1f} minutes left", file=sys.stderr, flush=True)
    try:
        ask(one, row, asked, budget)
    except HarnessError as error:
        row["not_run"][what] = error.message


def ask_base(one: Public, row: dict[str, Any], asked: Asked, budget: Budget) -> None:
    """The base's cell, from `harness eval`."""
    folder = order_eval(
        asked.home, write_suite(one, asked), model=asked.model, data_root=asked.data, split="eval", repeat=False,
        command=["python", "benchmarks/domains.py", "--only", one.name],
    )  # fmt: skip
    if why := finish(folder, budget):
        row["not_run"]["base"] = why
        return
    work = work_of(json.loads((folder / "manifest.json").read_text())["options"])
    row["cells"]["base"] = stage_cell(one, work, folder, STAGE, rules_of(one))


def ask_tuned(one: Public, row: dict[str, Any], asked: Asked, budget: Budget) -> None:
    """The cells of adapter and picked file, from `harness export` of a recipe that lets every stage through."""
    path = write_recipe(one, asked)
    folder = order_release(
        asked.home, path, data_root=asked.data, until="export", out=asked.home / "releases",
        command=["python", "benchmarks/domains.py", "--only", one.name],
    )  # fmt: skip
    began = time.monotonic()
    needed_s = max(budget.longest_s, TUNED_S)
    if run_state(folder) is not RunState.DONE and budget.left_s < needed_s:
        left_min = max(0.0, budget.left_s / 60)
        row["not_run"]["tuned"] = f"{left_min:.1f} minutes were left, and it takes some {needed_s / 60:.1f}"
        return
    if why := finish(folder, budget):
        row["not_run"]["tuned"] = why
        return
    budget.longest_s = max(budget.longest_s, time.monotonic() - began)
    work = work_of({"suite": write_suite(one, asked), "data_root": str(asked.data), "split": "eval"})
    picked = json.loads((folder / "result.json").read_text())["picked"]
    tuned = (*rules_of(one), Gate(metric="accuracy", versus="base", better_than=0.0))
    row["cells"]["tuned"] = stage_cell(one, work, folder, "adapter", tuned)
    if picked is None:
        row["not_run"]["picked"] = "no quant was picked"
        return
    shipped = (*tuned, Gate(metric="accuracy", versus="f16", no_worse_than=0.1, stages=QUANTS))
    row["cells"]["picked"] = stage_cell(one, work, folder, picked, shipped) | {"quant": picked}


def finish(folder: Path, budget: Budget) -> str | None:
    """Waits for the run, which is started where it has not ended; why there is no result, None where there is one.

    When the budget ends, the run is asked to stop after its batch: what it did is kept, and the next call goes on.
    """
    if run_state(folder) is RunState.DONE:
        return None
    if budget.left_s <= 0.0:
        return "the minutes were over"
    launch.start(folder)
    try:
        was_stopped = wait(folder, budget)
    except KeyboardInterrupt:
        launch.cancel(folder)
        raise
    if run_state(folder) is RunState.DONE:
        return None
    if was_stopped:
        return "begun, and stopped when the minutes were over: the same command goes on"
    last = last_event(folder)
    said = str(last.data.get("error", "")) if last else ""
    return f"{run_state(folder)}: {said or launch.log_end(folder, lines=1)}"


def wait(folder: Path, budget: Budget) -> bool:
    """Returns when the run has ended; whether it was asked to, because the minutes were over."""
    stop_at = None
    while not launch.has_ended(folder):
        time.sleep(CHECK_S)
        if stop_at is None and budget.left_s <= 0.0:
            launch.cancel(folder)
            stop_at = time.monotonic() + GRACE_S
        elif stop_at is not None and time.monotonic() > stop_at:
            launch.cancel(folder, now=True)
            break
    return stop_at is not None


def write_suite(one: Public, asked: Asked) -> Path:
    """The set's suite with at most --limit records, nothing asked twice, and the prompt's budget of this table."""
    document = json.loads(json.dumps(read_yaml(ROOT / "suites" / f"{one.suite}.yaml").data))
    is_written = document["task"] not in SCORED_BY_LOGPROB
    n = min(asked.limit, asked.written_limit) if is_written else asked.limit
    document["limit"] = {"eval": Limit(n=n, seed=asked.seed).model_dump()}
    document["repeat"] = 0
    document.pop("invariance", None)
    if one.prompt_tok is not None:
        document["prompt"] |= {"max_tokens": one.prompt_tok, "over_length": "truncate"}
    return written(asked, f"{one.name}.suite.yaml", document)


def write_recipe(one: Public, asked: Asked) -> Path:
    """A recipe that tunes for `steps` steps and gates nothing: the set's rules are asked of its samples afterwards."""
    suite = read_yaml(write_suite(one, asked)).data
    answer_tok = 32 if suite["task"] in SCORED_BY_LOGPROB else 320
    document = {
        "recipe": f"domains-{one.name.replace('_', '-')}", "domain": "shared", "base": asked.model,
        "suites": [f"{one.name}.suite.yaml"],
        "tune": {
            "method": "qlora", "rank": 16, "alpha": 32, "batch": 8, "max_steps": one.steps, "learning_rate": 5e-4,
            "max_tokens": suite["prompt"].get("max_tokens", 512) + answer_tok, "checkpoint_every": one.steps,
        },
        "preflight": {"overlaps": "drop"},
        "attempts": "count",
        "gates": [{"metric": "accuracy", "at_least": 0.0}],
        "export": {"quants": list(QUANTS), "max_mean_kl": 20.0},
        "device": {"name": "this-machine", "threads": 2},
    }  # fmt: skip
    return written(asked, f"{one.name}.recipe.yaml", document)


def written(asked: Asked, name: str, document: Mapping[str, Any]) -> Path:
    """The path of the document, as JSON, which is YAML."""
    folder = asked.home / "domains"
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / name, document)
    return folder / name


def rules_of(one: Public) -> tuple[Gate, ...]:
    """The set's rules: the file of its own, or its bar."""
    if one.bar is None:
        own = ROOT / "suites" / "shared" / "rules" / f"{Path(one.suite).name}.yaml"
        return load_gates(own)
    return (Gate(metric="accuracy", at_least=one.bar),)


def stage_cell(one: Public, work: Work, folder: Path, stage: str, gates: tuple[Gate, ...]) -> dict[str, Any]:
    """The stage's cell with the verdict of the rules on its samples."""
    samples = read_samples(folder / "stages" / stage / work.suite.suite / "samples.jsonl")
    verdict = judge_again(folder, stage, rules=Rules(gates, work.suite.suite)).verdict
    blocking = [rule for rule in verdict.rules if rule.verdict not in (State.PASS, State.SKIPPED)]
    worst = min(blocking, key=lambda rule: rule.verdict is not State.FAIL, default=None)
    why = "" if worst is None else f"{worst.rule} ({worst.slice}): {worst.reason}"
    return cell(one, work, stage, samples) | {
        "run": folder.name,
        "verdict": verdict.verdict.value,
        "why": why,
    }


def cell(one: Public, work: Work, stage: str, samples: Sequence[Sample]) -> dict[str, Any]:
    """The score with its interval, its slices, and what else the scorecard says of all items."""
    card = make_scorecard(
        work.suite.suite,
        stage,
        "",
        samples,
        slices=work.suite.slices,
        is_labelled=work.suite.task in CHOOSES_LABEL,
    )
    top = find_reading(card, "accuracy")
    assert top is not None
    return {"n": top.n, "score": top.score, "low": top.low, "high": top.high, "errors": card.n_errors,
            "truncated": card.n_truncated, "slices": list(slice_rows(card)),
            "more": extra(one, card)}  # fmt: skip


def slice_rows(card: Scorecard) -> Iterator[dict[str, Any]]:
    for reading in card.readings:
        if reading.metric == "accuracy" and reading.slice != "all":
            yield {"slice": reading.slice, "n": reading.n, "score": reading.score, "low": reading.low,
                   "high": reading.high}  # fmt: skip


def extra(one: Public, card: Scorecard) -> dict[str, float]:
    """What the set is known for: bias scores, refusals, agreement and calibration of judges, rates by label."""
    found = {
        f"bias score, {reading.slice.partition('=')[2]}": 2.0 * reading.score - 1.0
        for reading in card.readings
        if one.name == "bbq" and reading.metric == "precision" and reading.score is not None
    }
    if one.name in ("halueval_general", "truth_judge", "hatecheck", "xstest"):
        found |= {
            f"{reading.metric}, {reading.slice.partition('=')[2]}": reading.score
            for reading in card.readings
            if reading.metric in ("precision", "recall") and reading.score is not None
        }
    for metric in ("ece", "ece_by_chance", "auroc"):
        reading = find_reading(card, metric, "confidence=confidence")
        if reading is not None and reading.score is not None:
            found[metric] = reading.score
    return found


if __name__ == "__main__":
    main()
