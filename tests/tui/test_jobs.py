"""Stopping and starting, through the same functions as the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
from fakes import FakeRun

from harness.errors import RunDiedError
from harness.tui.jobs import Jobs


def heard(jobs: Jobs) -> str:
    """The next sentence, waited for: it comes from a thread."""
    return jobs._said.get(timeout=30)


def test_a_running_job_is_asked_to_stop_after_its_batch(training: FakeRun) -> None:
    jobs = Jobs()
    jobs.cancel(training.folder, now=False)

    assert "stops after this batch" in heard(jobs)
    assert (training.folder / "cancel").exists()


def test_a_job_that_is_gone_cannot_be_stopped_and_says_so(died: FakeRun) -> None:
    jobs = Jobs()
    jobs.cancel(died.folder, now=True)

    assert "is not running" in heard(jobs)
    assert not (died.folder / "cancel").exists()


def test_resuming_says_the_pid_or_why_not(died: FakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Path] = []
    monkeypatch.setattr("harness.jobs.launch.start", lambda folder: started.append(folder) or 4711)
    jobs = Jobs()
    jobs.resume(died.folder)
    assert heard(jobs) == f"{died.run} goes on, pid 4711"
    assert started == [died.folder]

    def fail(folder: Path) -> int:
        raise RunDiedError("the worker ended with code 1", hint="see stderr.log")

    monkeypatch.setattr("harness.jobs.launch.start", fail)
    jobs.resume(died.folder)
    assert heard(jobs) == "the worker ended with code 1; see stderr.log"


def test_only_the_newest_sentence_is_shown() -> None:
    jobs = Jobs()
    assert jobs.heard() is None
    jobs._said.put("one")
    jobs._said.put("two")
    assert jobs.heard() == "two"
    assert jobs.heard() is None
