"""What can go wrong, and the exit code that says so.

HarnessError                 2  anything a person can mend
├── SpecError                2  a document has problems: all of them, with file, line and key
├── DataError                2  records that can't be read, overlap, or are missing
├── ModelError               2  a model that can't be found, loaded or used
├── StatsError               2  a computation asked for on data that can't carry it
├── IntegrityError           2  bytes are not the bytes that were promised
├── RefusedError             1  a gate stands in the way
├── RunDiedError             4  a worker ended without a result
└── CancelledError         130  somebody asked the run to stop
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple


class ExitCode(IntEnum):
    """The verdict of a command, for scripts and CI."""

    DONE = 0
    """Done, or every gate rule passes."""
    GATE_FAILED = 1
    """A gate rule fails, or a gate refused to let the work begin."""
    BAD_INPUT = 2
    """A document, a record, a path or an option is wrong."""
    INCONCLUSIVE = 3
    """No rule fails, but at least one needs more samples."""
    RUN_DIED = 4
    """The worker ended without a result; the same command resumes it."""
    INTERRUPTED = 130
    """Stopped by a person; the same command resumes it."""


class Problem(NamedTuple):
    """One thing wrong in one document."""

    file: str
    line: int | None
    """1-based; None when the whole document is meant."""
    key: str
    """Dotted path, such as `gates[0].at_least`; empty when the whole document is meant."""
    found: str
    wanted: str
    hint: str = ""
    """Nearest allowed name, or the command that fixes it."""


class HarnessError(Exception):
    """Base of all errors that are shown without a traceback."""

    exit_code: ExitCode = ExitCode.BAD_INPUT

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        """What to do about it: a command where there is one."""


class SpecError(HarnessError):
    """All problems of one or more documents at once."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__(describe_problems(self.problems))


class DataError(HarnessError):
    """Records that can't be read, overlap between splits, or are missing."""


class ModelError(HarnessError):
    """A model that can't be found, loaded or used."""


class StatsError(HarnessError):
    """A computation asked for on data that can't carry it."""


class IntegrityError(HarnessError):
    """Bytes that are not the bytes that were promised."""


class RefusedError(HarnessError):
    """A gate stands in the way."""

    exit_code = ExitCode.GATE_FAILED


class RunDiedError(HarnessError):
    """A worker that ended without a result."""

    exit_code = ExitCode.RUN_DIED


class CancelledError(HarnessError):
    """A run that somebody asked to stop; its finished samples and checkpoints are kept."""

    exit_code = ExitCode.INTERRUPTED


def describe_problems(problems: Sequence[Problem]) -> str:
    """The problems as text, grouped by file, one line each with columns aligned."""
    lines: list[str] = []
    for file in dict.fromkeys(problem.file for problem in problems):
        here = [problem for problem in problems if problem.file == file]
        lines.append(f"{file} has {len(here)} problem{'s' if len(here) > 1 else ''}")
        lines.extend(_rows(here))
    return "\n".join(lines)


def _rows(problems: Sequence[Problem]) -> list[str]:
    where = [f"line {problem.line}" if problem.line else "-" for problem in problems]
    what = [f"{problem.key} = {problem.found}" if problem.key else problem.found for problem in problems]
    where_width = max(len(text) for text in where)
    what_width = min(max(len(text) for text in what), 60)
    return [
        f"  {place:<{where_width}}  {thing:<{what_width}}  {_wanted(problem)}".rstrip()
        for place, thing, problem in zip(where, what, problems, strict=True)
    ]


def _wanted(problem: Problem) -> str:
    hint = f"; {problem.hint}" if problem.hint else ""
    return f"wanted {problem.wanted}{hint}" if problem.wanted else problem.hint
