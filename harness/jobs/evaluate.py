"""The job that scores one model on one suite."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.data.splits import draw
from harness.errors import DataError, ExitCode
from harness.evals.run import Work, evaluate
from harness.evals.scorecard import find_reading, make_scorecard, read_noise
from harness.files import read_json, write_json
from harness.jobs.journal import Journal
from harness.jobs.judging import Judges
from harness.jobs.orders import labels_of, read_splits
from harness.jobs.progress import Progress
from harness.specs.load import LoadedSuite, find_document, load_suite
from harness.specs.suite import CHOOSES_LABEL

STAGE = "model"


def run_eval(folder: Path, journal: Journal) -> dict[str, Any]:
    """What `run.done` says. The samples, the scorecard and `result.json` are in the folder."""
    began = time.monotonic()
    options = read_json(folder / "manifest.json")["options"]
    progress = Progress(journal, folder, [("eval", f"score {options['model']}")])
    journal.write(
        "run.start", sync=True, run=folder.name, job="eval", title=f"eval with {options['model']}", pid=os.getpid(),
        steps=["eval"], resumed=(folder / "stages").exists(),
    )  # fmt: skip
    work = work_of(options)
    with progress.step("eval"):
        answers = folder.parents[1] / "answers" if options.get("cache", True) else None
        card = _score(folder, work, options["model"], progress, answers)
    document: dict[str, Any] = {
        "verdict": None, "release": None, "picked": None, "seconds": round(time.monotonic() - began, 1),
        "stages": [], "scorecard": card,
    }  # fmt: skip
    write_json(folder / "result.json", document)
    return {"verdict": None, "exit_code": int(ExitCode.DONE), "release": None}


def work_of(options: dict[str, Any]) -> Work:
    path = find_document(options["suite"])
    data_root = Path(options["data_root"]) if options["data_root"] else None
    suite = load_suite(path, data_root=data_root)
    splits = read_splits(LoadedSuite(suite, path), data_root)
    records = splits[options["split"]]
    if not records:
        raise DataError(f"suite {suite.suite} has no {options['split']} records", hint="--split eval")
    if limit := options.get("limit"):
        records = draw(records, limit["n"], limit["seed"])
    if not options.get("repeat", True):
        suite = suite.model_copy(update={"repeat": 0})
    return Work(STAGE, suite, labels_of(suite, splits), tuple(records), tuple(splits["train"]))


def _score(
    folder: Path, work: Work, reference: str, progress: Progress, answers: Path | None
) -> dict[str, Any]:
    from harness.models.load import open_model

    target = folder / "stages" / STAGE / work.suite.suite
    model = open_model(reference, answers=answers, on_progress=progress.note)
    judges = Judges(answers=answers, on_progress=progress.note)
    try:
        work = replace(work, judge=judges.of(work.suite))
        samples = evaluate(
            model, work, target / "samples.jsonl", on_event=progress.event, should_stop=progress.should_stop
        )
        identity = model.identity.digest
    finally:
        model.close()
        judges.close()
    card = make_scorecard(
        work.suite.suite, STAGE, identity, samples, slices=work.suite.slices,
        is_labelled=work.suite.task in CHOOSES_LABEL, noise=read_noise(target),
    )  # fmt: skip
    write_json(target / "scorecard.json", card.to_json())
    top = find_reading(card, "accuracy")
    if top:
        progress.event(
            "scorecard", stage=STAGE, suite=work.suite.suite, n=card.n, score=top.score, low=top.low, high=top.high,
            path=str(target / "scorecard.json"),
        )  # fmt: skip
    return card.to_json()
