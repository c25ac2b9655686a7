"""Starts and stops workers: one process a job, in a session of its own, so that no terminal takes it along."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness import __version__
from harness.errors import DataError, RunDiedError
from harness.files import read_json, write_json
from harness.jobs import lease
from harness.jobs.store import FINAL, last_event, runs_folder

FIRST_RECORD_S = 120.0


def prepare(
    home: Path,
    run: str,
    *,
    job: str,
    title: str,
    command: list[str],
    document: dict[str, Any],
    lock: str,
    options: dict[str, Any],
) -> Path:
    """The run's folder with its manifest, made if it was not there; an existing manifest stays.

    `options` of an existing run are replaced where they differ, because the same work may be asked
    for further (`train`, then `release`).
    """
    folder = runs_folder(home) / run
    path = folder / "manifest.json"
    if path.exists():
        manifest = read_json(path)
        if manifest["options"] != options:
            write_json(path, {**manifest, "options": options, "job": job, "command": command, "title": title})
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    write_json(
        path,
        {
            "format": 1, "run": run, "job": job, "title": title, "command": command,
            "created": datetime.now(UTC).isoformat(timespec="seconds"), "document": document, "lock": lock,
            "options": options, "harness": __version__,
        },
    )  # fmt: skip
    return folder


def start(folder: Path) -> int | None:
    """The pid of the worker that now works on the run; the one that already does, where there is one.

    Returns once the worker has written its first record.

    Raises:
        RunDiedError: it died before that; the message holds the end of its diagnostics.
    """
    if running := lease.holder(folder):
        return running.pid
    (folder / "cancel").unlink(missing_ok=True)
    before = last_event(folder)
    with (folder / "stderr.log").open("ab") as log:
        worker = subprocess.Popen(
            [sys.executable, "-m", "harness.jobs.worker", str(folder)],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, env=_environment(),
        )  # fmt: skip
    _await_first_record(folder, worker, before.seq if before else 0)
    return worker.pid


def _await_first_record(folder: Path, worker: subprocess.Popen[bytes], seq_before: int) -> None:
    deadline = time.monotonic() + FIRST_RECORD_S
    while time.monotonic() < deadline:
        event = last_event(folder)
        if event and event.seq > seq_before:
            return
        if worker.poll() is not None:
            raise RunDiedError(
                f"the worker ended with code {worker.returncode} before its first record\n{log_end(folder)}",
                hint=f"the whole log: {folder / 'stderr.log'}",
            )
        time.sleep(0.02)
    raise RunDiedError(
        f"the worker wrote no record within {FIRST_RECORD_S:.0f} s", hint=str(folder / "stderr.log")
    )


def log_end(folder: Path, lines: int = 15) -> str:
    """The last lines of what the worker and native code said."""
    with suppress(OSError):
        return "\n".join((folder / "stderr.log").read_text(errors="replace").splitlines()[-lines:])
    return ""


def cancel(folder: Path, *, now: bool = False) -> str:
    """Stops the run after its current batch, or now; a sentence that says what was done.

    Raises:
        DataError: nobody works on it.
    """
    found = lease.holder(folder)
    if found is None:
        raise DataError(f"{folder.name} is not running", hint=f"harness show {folder.name}")
    (folder / "cancel").touch()
    if not now:
        return f"{folder.name} stops after this batch; the same command resumes it"
    if not lease.is_same_process(found):
        raise DataError(f"{folder.name} runs on {found.host}, pid {found.pid}: stop it there")
    with suppress(ProcessLookupError):
        os.killpg(found.pid, signal.SIGKILL)
    return f"{folder.name} was stopped now; finished samples and checkpoints are kept"


def has_ended(folder: Path) -> bool:
    """Whether the run has a last word, or nobody works on it any more."""
    event = last_event(folder)
    return (event is not None and event.name in FINAL) or lease.holder(folder) is None


def _environment() -> dict[str, str]:
    """The worker's environment; what a person has set stays."""
    quiet = {
        "HF_HUB_DISABLE_TELEMETRY": "1", "TRANSFORMERS_VERBOSITY": "error", "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1", "PYTHONUNBUFFERED": "1",
        # Threads that spin while they wait take the cores from whatever else runs: two busy programs on two
        # cores then slow each other down many times over instead of twice.
        "OMP_WAIT_POLICY": "PASSIVE",
    }  # fmt: skip
    return {**quiet, **os.environ}
