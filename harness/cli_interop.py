"""The commands that read and write other tools' files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from harness.cli_options import Data, Fresh, Json, RunName, twin
from harness.errors import HarnessError


def add_interop(app: typer.Typer) -> None:
    """Puts the commands of this file among the others."""
    app.command("import")(import_results)
    app.command()(convert)


def import_results(
    files: Annotated[
        list[Path],
        typer.Argument(help="inspect's .eval or .json; lm-eval's results_*.json, samples_*.jsonl.", show_default=False),
    ],
    suite: Annotated[
        Path | None, typer.Option(help="The suite whose items these are: its golds, slices and units count.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="The suite's name in the run; by default the task's.")] = None,
    metric: Annotated[str | None, typer.Option(help="The score that counts; by default the first.")] = None,
    slices: Annotated[
        list[str] | None, typer.Option("--slice", help="Path into a document that becomes a slice; repeatable.")
    ] = None,
    unit: Annotated[
        str | None, typer.Option(help="Path to what is independent, such as the patient; by default the item.")
    ] = None,
    data: Data = None, json_out: Json = False, fresh: Fresh = False,
) -> None:  # fmt: skip
    """Results of other tools as a run to show, compare and gate.

    No release can rest on it: a log proves nothing of a model's bytes.

    Example: harness import logs/2026-11-22_task.eval --slice subject
    """
    from harness.formats.log import Wanted
    from harness.jobs.importing import import_files
    from harness.jobs.store import home_folder, read_result

    wanted = Wanted(metric, tuple(slices or ()), unit)
    folder = import_files(
        home_folder(), files, wanted, suite=suite, name=name, data_root=data, command=twin(), fresh=fresh
    )
    document = read_result(folder)
    if json_out:
        typer.echo(json.dumps({"run": folder.name, **document}, ensure_ascii=False, indent=1))
        return
    from harness.console import print_readings, stdout_console

    for card in document["scorecards"]:
        print_readings(stdout_console(), card)
    typer.echo(folder.name)


def convert(
    run: RunName = "last",
    to: Annotated[str, typer.Option(help="inspect, lm-eval, csv or parquet.")] = "inspect",
    out: Annotated[Path, typer.Option(help="Folder that the files are written to.")] = Path("converted"),
    stage: Annotated[str | None, typer.Option(help="A stage of the run; all by default.")] = None,
    suite: Annotated[str | None, typer.Option(help="A suite of the run; all by default.")] = None,
    json_out: Json = False,
) -> None:
    """A run's samples in the formats of other tools.

    Example: harness convert last --to inspect --out logs
    """
    from harness.jobs.converting import FORMATS
    from harness.jobs.converting import convert as write_files
    from harness.jobs.store import find_run, home_folder

    form = next((known for known in FORMATS if known == to), None)
    if form is None:
        raise HarnessError(f"--to {to}: no such format", hint=f"one of {', '.join(FORMATS)}")
    paths = [
        str(path) for path in write_files(find_run(home_folder(), run), form, out, stage=stage, suite=suite)
    ]
    typer.echo(json.dumps({"files": paths}, ensure_ascii=False) if json_out else "\n".join(paths))
