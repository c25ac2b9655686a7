"""A command that waits for a run: starts its worker or joins the one at work, shows it, ends as it ends."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from harness.errors import CancelledError, ExitCode, HarnessError, RunDiedError
from harness.jobs import launch, lease
from harness.jobs.store import last_event

if TYPE_CHECKING:
    from harness.evals.compare import Comparison
    from harness.jobs.journal import Event

RESUMES = "the same command resumes it"


def work(folder: Path, *, json_out: bool, detach: bool, baseline: Path | None = None) -> None:
    """Starts the run's worker, or joins the one that works already, and shows it.

    With `baseline`, a run's folder, the result ends with the comparison on the same items.
    """
    before = last_event(folder)
    is_joined = lease.holder(folder) is not None
    interrupt = Interrupt(folder)
    try:
        launch.start(folder)
    except KeyboardInterrupt:
        raise CancelledError(f"{folder.name} was stopped before it began", hint=RESUMES) from None
    if detach:
        said = (
            json.dumps({"run": folder.name}) if json_out else f"{folder.name}\nharness attach {folder.name}"
        )
        typer.echo(said)
        return
    seq_after = before.seq if before and not is_joined else 0
    _show(folder, interrupt, json_out=json_out, seq_after=seq_after, baseline=baseline)


def watch(folder: Path, *, json_out: bool) -> None:
    """Shows the run from its beginning until it ends, then its result.

    Raises:
        HarnessError: with the run's exit code, where it has no result.
        typer.Exit: with the run's exit code, where it has one.
    """
    _show(folder, Interrupt(folder), json_out=json_out, seq_after=0)


def _show(
    folder: Path, interrupt: Interrupt, *, json_out: bool, seq_after: int, baseline: Path | None = None
) -> None:
    from harness.console import follow

    interrupt.is_watching = True
    try:
        last = follow(folder, interrupt.console, seq_after=seq_after)
    except KeyboardInterrupt:
        said = f"{folder.name} is no longer watched"
        raise CancelledError(said, hint=f"harness attach {folder.name}") from None
    _raise_without_result(folder, last, was_killed=interrupt.presses > 1)
    assert last is not None
    _print_result(folder, json_out=json_out, baseline=baseline)
    raise typer.Exit(last.data["exit_code"])


def _raise_without_result(folder: Path, last: Event | None, *, was_killed: bool) -> None:
    if last is None and was_killed:
        raise CancelledError(f"{folder.name} was stopped now", hint=RESUMES)
    if last is None:
        said = f"{folder.name} died without a last word\n{launch.log_end(folder)}"
        raise RunDiedError(said, hint=launch.why_died(folder) or RESUMES)
    if last.name == "run.cancelled":
        raise CancelledError(last.data["text"], hint=RESUMES)
    if last.name == "run.failed":
        error = HarnessError(last.data["error"], hint=last.data.get("hint", ""))
        error.exit_code = ExitCode(last.data["exit_code"])
        raise error


class Interrupt:
    """First ctrl+c: stop after this batch. Second: stop now. The terminal is answered at once.

    It listens from the moment it is made: a worker that is being started must not stay behind unseen.
    """

    def __init__(self, folder: Path) -> None:
        from harness.console import stderr_console

        self.presses = 0
        self.is_watching = False
        self.console = stderr_console()
        self._folder = folder
        signal.signal(signal.SIGINT, self)

    def __call__(self, *_: object) -> None:
        self.presses += 1
        says = "stopping after this batch; ctrl+c again stops now" if self.presses == 1 else "stopping now"
        self.console.print(says, markup=False)
        try:
            launch.cancel(self._folder, now=self.presses > 1)
        except (HarnessError, OSError):
            # Nobody is at work yet, or nobody that can be stopped from here: then what this process does ends.
            if self.presses > 1 or not self.is_watching:
                raise KeyboardInterrupt from None


def _print_result(folder: Path, *, json_out: bool, baseline: Path | None) -> None:
    text = (folder / "result.json").read_text(encoding="utf-8")
    found = _compared(baseline, folder) if baseline else None
    if json_out:
        more = {"comparison": found.to_json()} if found else {}
        typer.echo(json.dumps({**json.loads(text), **more}, indent=1) if more else text.rstrip())
        return
    from harness.console import print_path, print_readings, print_what_next, stdout_console

    document = json.loads(text)
    console = stdout_console()
    console.print()
    if "scorecard" in document:
        print_readings(console, document["scorecard"])
    else:
        print_path(console, document)
    if found:
        from harness.console_compare import print_comparison

        console.print()
        print_comparison(console, found)
    print_what_next(console, folder, document)


def _compared(baseline: Path, folder: Path) -> Comparison:
    from harness.evals.compare import compare
    from harness.jobs.verdicts import stages_to_compare

    return compare(baseline, folder, *stages_to_compare(baseline, folder, None, None))
