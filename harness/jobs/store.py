"""Run folders: where they are, what state they are in."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

from harness.errors import DataError
from harness.files import read_json
from harness.jobs import lease
from harness.jobs.journal import Event, parse_event

FINAL = ("run.done", "run.failed", "run.cancelled")


class RunState(StrEnum):
    """What has become of a run."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    DIED = "died"


class RunInfo(NamedTuple):
    """One run, as lists show it."""

    run: str
    job: str
    title: str
    state: RunState
    verdict: str | None
    created: str
    """UTC, ISO 8601."""
    folder: Path


def home_folder() -> Path:
    """`$HARNESS_HOME`, else `.harness` in the working directory. It need not exist."""
    return Path(os.environ.get("HARNESS_HOME") or ".harness").absolute()


def runs_folder(home: Path) -> Path:
    return home / "runs"


def list_runs(home: Path) -> list[RunInfo]:
    """All runs, newest first; a folder without a readable manifest is no run."""
    found = [describe_run(path.parent) for path in runs_folder(home).glob("*/manifest.json")]
    return sorted((info for info in found if info), key=lambda info: info.created, reverse=True)


def describe_run(folder: Path) -> RunInfo | None:
    """What lists show of the run in the folder; None where the manifest can't be read."""
    try:
        manifest = read_json(folder / "manifest.json")
        last = last_event(folder)
        return RunInfo(
            run=folder.name,
            job=str(manifest["job"]),
            title=str(manifest["title"]),
            state=_state(folder, last),
            verdict=_verdict(last),
            created=str(manifest["created"]),
            folder=folder,
        )
    except (DataError, KeyError, TypeError):
        return None


def find_run(home: Path, name: str) -> Path:
    """The folder of the run with this name, this unique beginning of a name, or `last`.

    Raises:
        DataError: no run or several runs answer to it.
    """
    runs = list_runs(home)
    if name == "last" and runs:
        return runs[0].folder
    exact = [info.folder for info in runs if info.run == name]
    found = exact or [info.folder for info in runs if info.run.startswith(name)]
    if len(found) == 1:
        return found[0]
    if not found:
        raise DataError(f"no run is called {name!r} in {runs_folder(home)}", hint="harness runs")
    raise DataError(f"{name!r} could mean {', '.join(path.name for path in found[:5])}", hint="harness runs")


def run_state(folder: Path) -> RunState:
    """What has become of the run in the folder."""
    return _state(folder, last_event(folder))


def last_event(folder: Path) -> Event | None:
    """The newest whole event, read from the journal's end."""
    try:
        with (folder / "events.jsonl").open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            for window in (65536, size):
                file.seek(max(0, size - window))
                if event := _newest(file.read()):
                    return event
    except OSError:
        return None
    return None


def _newest(data: bytes) -> Event | None:
    lines = (line for line in reversed(data.splitlines(keepends=True)) if line.endswith(b"\n"))
    return next((event for line in lines if (event := parse_event(line))), None)


def read_result(folder: Path) -> Any:
    """The document that the finished run prints.

    Raises:
        DataError: the run has none.
    """
    return read_json(folder / "result.json")


def _verdict(last: Event | None) -> str | None:
    found = last.data.get("verdict") if last and last.name == "run.done" else None
    return None if found is None else str(found)


def _state(folder: Path, last: Event | None) -> RunState:
    if lease.holder(folder):
        return RunState.RUNNING
    if last is None or last.name not in FINAL:
        return RunState.DIED
    return {"run.done": RunState.DONE, "run.failed": RunState.FAILED}.get(last.name, RunState.CANCELLED)
