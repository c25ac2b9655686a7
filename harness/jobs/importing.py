"""Results that a team already has, as a run that can be shown, compared and gated.

Such a run proves nothing of a model's bytes: its identity is `imported:` and the digest of the files that it
was read from, which no release takes for a model.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.data.records import Record
from harness.data.sources import load_split
from harness.errors import DataError, ExitCode
from harness.evals.results import Sample, Scorecard
from harness.evals.samples import Header, write_samples
from harness.evals.scorecard import find_reading, make_scorecard
from harness.files import digest_json, write_json
from harness.formats.log import Log, Wanted
from harness.formats.reading import read_logs
from harness.jobs import launch, lease
from harness.jobs.journal import Journal
from harness.jobs.orders import fresh_name
from harness.specs.load import find_document, load_suite
from harness.specs.suite import CHOOSES_LABEL, Suite
from harness.text import visible

STAGE = "model"
MAX_SHOWN = 5
_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")


def import_files(
    home: Path,
    files: Sequence[Path],
    wanted: Wanted,
    *,
    suite: Path | None,
    name: str | None,
    data_root: Path | None,
    command: Sequence[str],
    fresh: bool = False,
) -> Path:
    """The folder of the run that holds the files' samples, under the suite's name, the given one, or the tasks'.

    Raises:
        DataError: a file can't be read, or a name or suite is given for several tasks at once.
        SpecError: the suite has problems.
    """
    logs = read_logs(files, wanted)
    if len(logs) > 1 and (suite or name):
        tasks = ", ".join(visible(log.task, limit_chars=80) for log in logs)
        raise DataError(f"one name for {len(logs)} tasks: {tasks}", hint="import each alone")
    if suite is None:
        return import_run(home, [named(log, name) for log in logs], command=command, fresh=fresh)
    path = find_document(suite)
    loaded = load_suite(path, data_root=data_root)
    records = load_split(loaded, "eval", suite_path=path, data_root=data_root)
    return import_run(home, [aligned(logs[0], loaded, records)], suite=loaded, command=command, fresh=fresh)


def import_run(
    home: Path,
    logs: Sequence[Log],
    *,
    suite: Suite | None = None,
    command: Sequence[str],
    fresh: bool = False,
) -> Path:
    """The folder of the run that holds the logs, one suite a log; the same logs get the same folder.

    Raises:
        DataError: the logs are of several models.
    """
    models = list(dict.fromkeys(log.model for log in logs))
    if len(models) > 1:
        shown = ", ".join(visible(model or "(no name)", limit_chars=80) for model in models)
        raise DataError(
            f"logs of {len(models)} models: {shown}", hint="a run is of one model: import each alone"
        )
    key = digest_json([_source(log) for log in logs] + [suite.model_dump(mode="json") if suite else None])
    run = f"import-{logs[0].task}-{key[:8]}"
    folder = launch.prepare(
        home, fresh_name(home, run) if fresh else run, job="import",
        title=f"import {', '.join(log.task for log in logs)} of {logs[0].tool}", command=list(command),
        document={"suite": suite.model_dump(mode="json")} if suite else {}, lock=key,
        options={"model": models[0], "imported": [_source(log) for log in logs]},
    )  # fmt: skip
    with lease.hold(folder):
        journal = Journal(folder / "events.jsonl")
        try:
            _write(folder, journal, logs, suite)
        finally:
            journal.close()
    return folder


def imported_identity(logs: Sequence[Log]) -> str:
    """What stands where a model's content digest stands: the kind, and the digest of the source files' digests."""
    return f"imported:{digest_json([file.sha256 for log in logs for file in log.files])}"


def named(log: Log, name: str | None = None) -> Log:
    """The log under a name that a suite may have: the given one, or its task's with other characters replaced.

    Raises:
        DataError: no suite may have the given one.
    """
    if name is not None and not _NAME.fullmatch(name):
        wanted = "small letters, digits, dots, hyphens and underscores, at most 64"
        raise DataError(f"--name {visible(name, limit_chars=80)}: wanted {wanted}")
    plain = re.sub(r"[^a-z0-9_.-]+", "-", log.task.lower()).strip("-_.")
    return replace(log, task=name or plain[:64] or "task")


def aligned(log: Log, suite: Suite, records: Sequence[Record]) -> Log:
    """The log with the suite's name, and its records' gold answers, slices and units.

    A record that the log lacks becomes a sample in error: what was left out must not raise the score.

    Raises:
        DataError: the log has samples that the suite has not, or that were scored against another gold answer.
    """
    by_id = {sample.id: sample for sample in log.samples}
    known = {record.id for record in records}
    if unknown := [id_ for id_ in by_id if id_ not in known]:
        raise DataError(
            f"{_some(unknown)}: not among the {len(records)} items of suite {suite.suite}",
            hint="import without --suite, or name the suite whose ids these are",
        )
    samples = [_aligned(by_id.get(record.id), record) for record in records]
    other = [
        s.id for s in samples if (old := by_id.get(s.id)) and old.gold and not set(old.gold) & set(s.gold)
    ]
    if other:
        raise DataError(f"{_some(other)}: scored against another answer than suite {suite.suite} has")
    return replace(log, task=suite.suite, samples=tuple(samples))


def _aligned(sample: Sample | None, record: Record) -> Sample:
    if sample is None:
        found = Sample(record.id, record.targets, None, 0.0, {}, record.unit, error="not in the imported log")
    else:
        found = replace(sample, gold=record.targets, unit=record.unit)
    return replace(found, slices=record.slices)


def _some(ids: Sequence[str]) -> str:
    shown = ", ".join(visible(id_, keep_newlines=False, limit_chars=60) for id_ in ids[:MAX_SHOWN])
    count = f"{len(ids)} sample{'s' if len(ids) > 1 else ''}"
    return f"{count}: {shown}{' …' if len(ids) > MAX_SHOWN else ''}"


def _source(log: Log) -> dict[str, Any]:
    """Where the samples come from, as JSON."""
    return {
        "task": log.task, "tool": log.tool, "model": log.model, "metric": log.metric, "created": log.created,
        "files": [file._asdict() for file in log.files], "settings": dict(log.settings),
        "samples": digest_json([[sample.id, sample.unit, sample.slices] for sample in log.samples]),
    }  # fmt: skip


def _write(folder: Path, journal: Journal, logs: Sequence[Log], suite: Suite | None) -> None:
    began = time.monotonic()
    identity = imported_identity(logs)
    journal.write(
        "run.start", sync=True, run=folder.name, job="import", title="import", pid=os.getpid(), steps=["import"],
        resumed=(folder / "stages").exists(),
    )  # fmt: skip
    cards = [_write_log(folder, log, identity, suite, journal) for log in logs]
    document: dict[str, Any] = {
        "verdict": None, "release": None, "picked": None, "seconds": round(time.monotonic() - began, 1),
        "stages": [], "scorecard": cards[0].to_json(), "scorecards": [card.to_json() for card in cards],
    }  # fmt: skip
    write_json(folder / "result.json", document)
    journal.write(
        "run.done",
        sync=True,
        verdict=None,
        exit_code=int(ExitCode.DONE),
        release=None,
        seconds=document["seconds"],
    )


def _write_log(folder: Path, log: Log, identity: str, suite: Suite | None, journal: Journal) -> Scorecard:
    target = folder / "stages" / STAGE / log.task
    write_samples(
        target / "samples.jsonl", Header(identity, digest_json(_source(log)), log.metric), log.samples
    )
    write_json(target / "source.json", _source(log))
    card = make_scorecard(
        log.task, STAGE, identity, log.samples, slices=suite.slices if suite else _slice_keys(log.samples),
        is_labelled=suite is not None and suite.task in CHOOSES_LABEL,
    )  # fmt: skip
    write_json(target / "scorecard.json", card.to_json())
    if top := find_reading(card, "accuracy"):
        journal.write(
            "scorecard", **_reading_event(log, card, target), score=top.score, low=top.low, high=top.high
        )
    return card


def _reading_event(log: Log, card: Scorecard, target: Path) -> Mapping[str, Any]:
    return {"stage": STAGE, "suite": log.task, "n": card.n, "path": str(target / "scorecard.json")}


def _slice_keys(samples: Sequence[Sample]) -> list[str]:
    return sorted({key for sample in samples for key in sample.slices})
