"""The process that does one job: `python -m harness.jobs.worker RUN_FOLDER`."""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness.errors import CancelledError, ExitCode, HarnessError
from harness.files import read_json
from harness.jobs import lease
from harness.jobs.journal import Journal


def main(folder: Path) -> int:
    """Does the job that the folder's manifest describes; the exit code that the journal ends with."""
    faulthandler.enable()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    signal.signal(signal.SIGTERM, lambda *_: (folder / "cancel").touch())
    try:
        with lease.hold(folder):
            journal = Journal(folder / "events.jsonl")
            try:
                return do(folder, journal)
            finally:
                journal.close()
    except lease.LeaseHeldError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code


def do(folder: Path, journal: Journal) -> int:
    """The exit code of the job, after its last word in the journal. The caller holds the lease."""
    began = time.monotonic()
    try:
        result = _job(read_json(folder / "manifest.json"))(folder, journal)
    except CancelledError as stop:
        journal.write("run.cancelled", sync=True, text=stop.message)
        return ExitCode.INTERRUPTED
    except HarnessError as error:
        return _failed(journal, error.message, error.hint, error.exit_code)
    except Exception as error:
        traceback.print_exc()
        hint = f"the traceback is in {folder / 'stderr.log'}; the same command resumes"
        return _failed(journal, f"{type(error).__name__}: {error}", hint, ExitCode.RUN_DIED)
    seconds = round(time.monotonic() - began, 3)
    journal.write("run.done", sync=True, seconds=seconds, **result)
    return int(result["exit_code"])


def _job(manifest: dict[str, Any]) -> Callable[[Path, Journal], dict[str, Any]]:
    if manifest["job"] == "release":
        from harness.jobs.release import run_release

        return run_release
    if manifest["job"] == "eval":
        from harness.jobs.evaluate import run_eval

        return run_eval
    raise HarnessError(f"no job is called {manifest['job']!r}")


def _failed(journal: Journal, error: str, hint: str, code: ExitCode) -> int:
    journal.write("run.failed", sync=True, error=error, hint=hint, exit_code=int(code))
    return int(code)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
