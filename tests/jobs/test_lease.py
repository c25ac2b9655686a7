import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from harness.jobs import lease
from harness.jobs.journal import Journal
from harness.jobs.lease import LeaseHeldError
from harness.jobs.store import RunState, run_state

HOLD = """
import sys
from pathlib import Path
from harness.jobs import lease
with lease.hold(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def holder_process(folder: Path) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    return process


def test_a_run_has_one_holder(tmp_path: Path) -> None:
    process = holder_process(tmp_path)
    try:
        found = lease.holder(tmp_path)
        assert found is not None
        assert found.pid == process.pid
        assert lease.is_same_process(found)
        with pytest.raises(LeaseHeldError, match="another process"), lease.hold(tmp_path):
            pass
    finally:
        process.kill()
        process.communicate()


def test_a_killed_holder_holds_nothing(tmp_path: Path) -> None:
    process = holder_process(tmp_path)
    Journal(tmp_path / "events.jsonl").write("run.start")
    assert run_state(tmp_path) is RunState.RUNNING

    os.kill(process.pid, signal.SIGKILL)
    process.communicate()

    assert lease.holder(tmp_path) is None
    assert run_state(tmp_path) is RunState.DIED
    with lease.hold(tmp_path):
        assert lease.holder(tmp_path) is not None


def test_the_last_word_tells_the_state(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "events.jsonl")
    states = []
    for name in ("run.start", "run.cancelled", "run.failed", "run.done"):
        journal.write(name)
        states.append(run_state(tmp_path))

    assert states == [RunState.DIED, RunState.CANCELLED, RunState.FAILED, RunState.DONE]
