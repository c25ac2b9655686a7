"""What is reported of a run, and where to."""

from __future__ import annotations

import stat
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import DataError
from harness.evals.results import RuleVerdict, State, Verdict
from harness.files import write_atomic

STDOUT = "-"
GLYPHS = {
    State.PASS: "✓", State.FAIL: "✗", State.INCONCLUSIVE: "?", State.SKIPPED: "·", State.STALE: "~",
    State.WAIVED: "!",
}  # fmt: skip
BLOCKING = (State.FAIL, State.STALE, State.INCONCLUSIVE)
NOTHING_JUDGED = "no stage was judged"


@dataclass(frozen=True, slots=True)
class Report:
    """A run's verdicts. The last one is the one that counts, as in `harness gate`."""

    run: str
    verdicts: tuple[Verdict, ...]
    """One a stage, in the order of the chain."""
    error: str | None = None
    """Why the run ended without doing all that it was asked; None where it did, or is still at work."""
    picked: str | None = None
    """The stage whose file was picked for release."""

    @property
    def failure(self) -> str | None:
        """Why the verdicts are not the whole story; never None where there is none at all."""
        return self.error or (None if self.verdicts else NOTHING_JUDGED)


def worst_first(rules: Sequence[RuleVerdict]) -> list[RuleVerdict]:
    """The rules as one reads them: failures, then open ones, both by how far they miss, then the others as they are."""
    order = (*BLOCKING, State.WAIVED, State.PASS, State.SKIPPED)

    def rank(rule: RuleVerdict) -> tuple[int, float]:
        gap = abs((rule.score or 0.0) - (rule.threshold or 0.0)) if rule.verdict in BLOCKING else 0.0
        return order.index(rule.verdict), -gap

    return sorted(rules, key=rank)


def unexplained(verdict: Verdict) -> str | None:
    """Why a verdict blocks that no rule of its own blocks; None where one does, or nothing blocks."""
    if verdict.verdict is State.PASS or any(rule.verdict in BLOCKING for rule in verdict.rules):
        return None
    return "no rule on the quality of the answers passed, so nothing is proved"


def by_suite(verdict: Verdict) -> Iterator[tuple[str, list[RuleVerdict]]]:
    """The verdict's rules, suite by suite, in their order."""
    for suite in dict.fromkeys(rule.suite for rule in verdict.rules):
        yield suite, [rule for rule in verdict.rules if rule.suite == suite]


def numbers(rule: RuleVerdict) -> str:
    """The rule's score with its bounds; a dash for what is unknown."""
    if rule.score is None:
        return "—"
    low, high = ("—" if bound is None else f"{bound:.4g}" for bound in (rule.low, rule.high))
    bounds = f" [{low}, {high}]" if rule.low is not None or rule.high is not None else ""
    return f"{rule.score:.4g}{bounds}"


def deliver(text: str, target: str) -> None:
    """Writes the text to the file, whole or not at all, or to stdout for `-`.

    What is no plain file, such as `/dev/stdout` or a pipe, is written to and never replaced.

    Raises:
        DataError: it can't be written.
    """
    data = text.encode("utf-8")
    if target == STDOUT:
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    path = Path(target)
    try:
        if _is_plain(path):
            write_atomic(path.resolve(), data)
        else:
            with path.open("wb") as file:
                file.write(data)
    except OSError as error:
        raise DataError(
            f"{target}: {error.strerror or error}", hint="name a file, or - for stdout"
        ) from error


def _is_plain(path: Path) -> bool:
    """Whether a rename may put another file in its place. Links of `/dev` and `/proc` stand for open files."""
    if path.absolute().is_relative_to("/dev") or path.absolute().is_relative_to("/proc"):
        return False
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except FileNotFoundError:
        return True
