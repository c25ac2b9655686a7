"""A run's samples in the formats of other tools."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, get_args

from harness.errors import DataError
from harness.evals.samples import read_header, read_samples
from harness.files import read_json, write_atomic
from harness.formats.log import Log
from harness.jobs.asked import inputs_of
from harness.jobs.verdicts import sampled_stages
from harness.scoring.scorers import default_scorer

Format = Literal["inspect", "lm-eval", "csv", "parquet"]
FORMATS: tuple[Format, ...] = get_args(Format)


def convert(
    folder: Path, to: Format, out: Path, *, stage: str | None = None, suite: str | None = None
) -> list[Path]:
    """The files that were written below `out`: all stages and suites of the run, or one.

    Raises:
        DataError: the run has no such samples, or Parquet is asked for without pyarrow.
    """
    files = _files(logs_of(folder, stage=stage, suite=suite), to, folder.name)
    for name, content in files.items():
        write_atomic(out / name, content)
    return [out / name for name in files]


def logs_of(folder: Path, *, stage: str | None = None, suite: str | None = None) -> list[Log]:
    """The run's samples, a log for each stage and suite, in the order of the chain.

    Raises:
        DataError: the run has none, or no such stage or suite.
    """
    manifest = read_json(folder / "manifest.json")
    stages = [name for name in sampled_stages(folder) if stage in (None, name)]
    found = [
        _log(path, manifest, name)
        for name in stages
        for path in sorted((folder / "stages" / name).glob("*/samples.jsonl"))
        if suite in (None, path.parent.name)
    ]
    if not found:
        asked = " ".join(f"{what} {name!r}" for what, name in (("stage", stage), ("suite", suite)) if name)
        raise DataError(
            f"{folder.name} has no samples{f' for {asked}' if asked else ''}", hint="harness runs"
        )
    return found


def _log(path: Path, manifest: Mapping[str, Any], stage: str) -> Log:
    suite = path.parent.name
    header = read_header(path)
    return Log(
        task=suite, model=_model(manifest, stage), metric=_metric(path, manifest, suite),
        samples=tuple(read_samples(path)), tool=f"dragongate {manifest['harness']}",
        created=str(manifest["created"]), inputs=inputs_of(manifest, stage, suite, header),
        settings={
            "run": manifest["run"], "stage": stage, "lock": manifest["lock"],
            "identity": header.identity if header else None, "requests": header.requests if header else None,
        },
    )  # fmt: skip


def _model(manifest: Mapping[str, Any], stage: str) -> str:
    """The model as it was asked for; in a chain of stages the run and the stage."""
    reference = manifest["options"].get("model")
    return str(reference) if reference else f"{manifest['run']}/{stage}"


def _metric(path: Path, manifest: Mapping[str, Any], suite: str) -> str:
    """The name of what `Sample.score` holds: the suite's first scorer, or the metric that was imported."""
    source = path.with_name("source.json")
    if source.exists():
        return str(read_json(source)["metric"])
    document = manifest["document"]
    spec = document.get("suites", {}).get(suite) or document.get("suite") or {}
    scorers = spec.get("scorers") or [{"name": default_scorer(spec.get("task", ""))}]
    return str(scorers[0]["name"])


def _files(logs: Sequence[Log], to: Format, run: str) -> dict[str, str | bytes]:
    """The contents by path."""
    if to == "inspect":
        from harness.formats.inspect_write import inspect_eval, inspect_name

        return {inspect_name(log): inspect_eval(log) for log in logs}
    if to == "lm-eval":
        from harness.formats.lm_eval_write import lm_eval_files

        each = (lm_eval_files(list(group)) for _, group in groupby(logs, key=lambda log: log.model))
        return {name: text for files in each for name, text in files.items()}
    from harness.formats.tables import csv_text, parquet_bytes

    return {f"{run}.csv": csv_text(logs)} if to == "csv" else {f"{run}.parquet": parquet_bytes(logs)}
