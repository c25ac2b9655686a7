"""Starts and stops workers: one process a job, in a session of its own, so that no terminal takes it along."""

from __future__ import annotations

import os
import shutil
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
from harness.jobs.journal import Journal
from harness.jobs.store import FINAL, last_event, runs_folder

FIRST_RECORD_S = 120.0
FULL_DISK_BYTES = 1_000_000
STARTED = "--- started"
"""Opens each worker's part of `stderr.log`."""


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
    asked = {"options": options, "job": job, "command": command, "title": title, "cwd": str(Path.cwd())}
    if path.exists():
        _ask_again(folder, read_json(path), asked)
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    created = datetime.now(UTC).isoformat(timespec="seconds")
    write_json(
        path,
        {
            "format": 1, "run": run, "created": created, **asked, "document": document, "lock": lock,
            "harness": __version__,
        },
    )  # fmt: skip
    return folder


def _ask_again(folder: Path, manifest: Any, asked: dict[str, Any]) -> None:
    """Notes what is asked of the run now; a worker that does something else with it must end first."""
    if not isinstance(manifest, dict) or not isinstance(options := manifest.get("options"), dict):
        raise DataError(
            f"{folder / 'manifest.json'}: not what a run is described by", hint="--fresh starts another run"
        )
    if lease.holder(folder):
        if any(options.get(key) != asked["options"].get(key) for key in ("until", "out")):
            raise lease.LeaseHeldError(
                f"{folder.name} is at work on something else: {manifest.get('title')} to {options.get('out')}",
                hint=f"harness attach {folder.name}, then the same command again",
            )
    elif any(manifest.get(key) != asked[key] for key in ("options", "cwd")):
        write_json(folder / "manifest.json", {**manifest, **asked})


def start(folder: Path) -> int | None:
    """The pid of the worker that now works on the run; the one that already does, where there is one.

    Returns once the worker has written its first record.

    Raises:
        RunDiedError: it died before that; the message holds the end of its diagnostics.
    """
    # Whoever starts a run wants it to go on, also where somebody asked it to stop.
    (folder / "cancel").unlink(missing_ok=True)
    if running := lease.holder(folder):
        return running.pid
    before = last_event(folder)
    with (folder / "stderr.log").open("ab") as log:
        log.write(f"{STARTED} {datetime.now(UTC).isoformat(timespec='seconds')}\n".encode())
        log.flush()
        worker = subprocess.Popen(
            # -P: a folder that happens to hold a random.py or a harness/ must not be imported from.
            [sys.executable, "-P", "-m", "harness.jobs.worker", str(folder)],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, env=_environment(),
            cwd=_place(folder),
        )  # fmt: skip
    try:
        _await_first_record(folder, worker, before.seq if before else 0)
    except KeyboardInterrupt:
        worker.kill()
        raise
    found = lease.holder(folder)
    return found.pid if found else worker.pid


def _place(folder: Path) -> Path | None:
    """The folder in which the run was ordered: what its documents name is relative to that one."""
    with suppress(DataError, KeyError, TypeError):
        place = Path(read_json(folder / "manifest.json")["cwd"])
        return place if place.is_dir() else None
    return None


def _await_first_record(folder: Path, worker: subprocess.Popen[bytes], seq_before: int) -> None:
    deadline = time.monotonic() + FIRST_RECORD_S
    while time.monotonic() < deadline:
        code = worker.poll()
        event = last_event(folder)
        if event and event.seq > seq_before:
            return
        # A worker that finds another one at work leaves; the other one's record is as good.
        if code is not None and lease.holder(folder) is None:
            raise RunDiedError(
                f"the worker ended with code {code} before its first record\n{log_end(folder)}",
                hint=why_died(folder) or f"the whole log: {folder / 'stderr.log'}",
            )
        time.sleep(0.02)
    raise RunDiedError(
        f"the worker wrote no record within {FIRST_RECORD_S:.0f} s", hint=str(folder / "stderr.log")
    )


def log_end(folder: Path, lines: int = 15) -> str:
    """The last lines of what the newest worker and native code said."""
    with suppress(OSError):
        said = (folder / "stderr.log").read_text(errors="replace").rpartition(STARTED)[2]
        found = said.splitlines()[1:]
        cut = found[:-lines]
        # Above a long dump of stacks stands the line that says what happened.
        return "\n".join([line for line in cut if line.startswith("Fatal Python error")] + found[-lines:])
    return ""


def why_died(folder: Path) -> str:
    """What a worker that left nothing behind most likely died of; empty where nothing is known."""
    with suppress(OSError):
        if shutil.disk_usage(folder).free < FULL_DISK_BYTES:
            return f"the disk of {folder} is full: make room, then the same command resumes"
    said = log_end(folder)
    if said.startswith("Fatal Python error"):
        return "native code crashed; the same command resumes it (harness doctor looks at the libraries)"
    if not said.strip():
        return (
            "it was killed from outside, most often for memory (harness doctor); the same command resumes it"
        )
    return ""


def cancel(folder: Path, *, now: bool = False) -> str:
    """Stops the run after its current batch, or now; a sentence that says what was done.

    Raises:
        DataError: nobody works on it.
    """
    found = lease.holder(folder)
    if found is None:
        raise DataError(f"{folder.name} is not running", hint=f"harness show {folder.name}")
    if not now:
        (folder / "cancel").touch()
        return f"{folder.name} stops after this batch; the same command resumes it"
    if not lease.is_same_process(found):
        raise DataError(f"{folder.name} runs on {found.host}, pid {found.pid}: stop it there")
    with suppress(ProcessLookupError):
        os.killpg(found.pid, signal.SIGKILL)
    said = f"{folder.name} was stopped now; finished samples and checkpoints are kept"
    _last_word(folder, said)
    return said


def _last_word(folder: Path, said: str) -> None:
    """Writes for the killed worker what it can't write any more, unless another one works already."""
    with suppress(lease.LeaseHeldError, OSError), lease.hold(folder):
        last = last_event(folder)
        if last is None or last.name not in FINAL:
            journal = Journal(folder / "events.jsonl")
            journal.write("run.cancelled", sync=True, text=said)
            journal.close()


def has_ended(folder: Path) -> bool:
    """Whether the run has a last word, or nobody works on it any more."""
    event = last_event(folder)
    return (event is not None and event.name in FINAL) or lease.holder(folder) is None


def _environment() -> dict[str, str]:
    """The worker's environment; what a person has set stays."""
    quiet = {
        "HF_HUB_DISABLE_TELEMETRY": "1", "TRANSFORMERS_VERBOSITY": "error", "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1", "PYTHONUNBUFFERED": "1",
        # Threads that spin long while they wait take the cores from whatever else runs; threads that never spin
        # are late for the next operation. A third of libgomp's default is as fast alone and yields sooner.
        "GOMP_SPINCOUNT": "100000",
    }  # fmt: skip
    return {**quiet, **os.environ}
