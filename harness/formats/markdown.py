"""Verdicts as a comment on a pull request: what blocks comes first."""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Iterator, Sequence

from harness.evals.results import RuleVerdict, State, Verdict
from harness.formats.report import BLOCKING, GLYPHS, Report, by_suite, numbers, unexplained, worst_first
from harness.text import visible

MARKER = "<!-- harness-gate -->"
"""By this a bot finds its own comment again, to replace it."""
MAX_CHARS = 60_000
"""GitHub takes 65,536 characters in a comment."""
ROWS = (40, 12, 4, 1)
"""How many rows a table may have: the first number with which the comment is short enough."""
CELL_CHARS = 160
_STRUCTURAL = {ord(char): f"&#{ord(char)};" for char in string.punctuation if char not in ",-/=%;?"}


def markdown(report: Report) -> str:
    """The report in GitHub's Markdown, at most `MAX_CHARS` long; stands alone, ends with a line feed."""
    texts = ("\n".join(_lines(report, rows)) + "\n" for rows in ROWS)
    return next((text for text in texts if len(text) <= MAX_CHARS), _heading(report) + "\n")


def quoted(text: str) -> str:
    """Outside text as inline code in which no character means anything to Markdown, HTML or GitHub.

    Punctuation is written as character references: those never open or close a span, a link, a cell or a
    tag, and inside `<code>` GitHub makes no mentions, issue links or emoji.
    """
    shown = visible(text, keep_newlines=False, limit_chars=CELL_CHARS).strip()
    return f"<code>{shown.translate(_STRUCTURAL)}</code>" if shown else "—"


def _lines(report: Report, rows: int) -> Iterator[str]:
    yield MARKER
    yield _heading(report)
    yield ""
    if report.failure:
        yield f"**The run has no whole answer**: {quoted(report.failure)}"
        yield ""
    if not report.verdicts:
        return
    last = report.verdicts[-1]
    yield from _summary(last)
    yield ""
    yield from _stage_table(report, rows)
    yield from _rules(last, rows)


def _heading(report: Report) -> str:
    if not report.verdicts:
        return f"### ✗ No verdict · {quoted(report.run)}"
    last = report.verdicts[-1]
    return f"### {_state(last.verdict)} · {quoted(report.run)} · {quoted(last.stage)}"


def _summary(verdict: Verdict) -> Iterator[str]:
    """The slice that decides, and what it would take."""
    blocking = _blocking(verdict)
    if not blocking:
        yield unexplained(verdict) or f"All {len(verdict.rules)} rules let it through."
        return
    worst = blocking[0]
    yield f"Worst: {quoted(worst.slice)} at {quoted(worst.rule)}: {quoted(worst.reason)}"
    needed = [rule.needed for rule in blocking if rule.needed]
    if needed:
        yield ""
        yield f"About {max(needed):,} more items would settle every open rule that items can settle."


def _blocking(verdict: Verdict) -> list[RuleVerdict]:
    return [rule for rule in worst_first(verdict.rules) if rule.verdict in BLOCKING]


def _stage_table(report: Report, rows: int) -> Iterator[str]:
    found = [
        (verdict, suite, rules)
        for verdict in report.verdicts
        for suite, rules in (list(by_suite(verdict)) or [("", [])])
    ]
    yield from _header("stage", "suite", "items", "accuracy, bounds", "verdict", "blocking rules")
    for verdict, suite, rules in found[-rows:]:
        top = next((rule for rule in rules if (rule.metric, rule.slice) == ("accuracy", "all")), None)
        picked = " ◀ picked" if verdict.stage == report.picked else ""
        yield _row(
            quoted(verdict.stage) + picked, quoted(suite), _items(rules),
            numbers(top) if top else "—", _state(verdict.verdict),
            str(sum(rule.verdict in BLOCKING for rule in rules)),
        )  # fmt: skip
    yield from _left_out(len(found) - rows, "earlier stages")


def _items(rules: Sequence[RuleVerdict]) -> str:
    """How many items were scored: the rule on errors counts all of them."""
    return next((str(rule.n) for rule in rules if rule.metric == "error_rate"), "—")


def _rules(verdict: Verdict, rows: int) -> Iterator[str]:
    """The blocking rules in sight, the others folded away."""
    blocking = _blocking(verdict)
    others = [rule for rule in worst_first(verdict.rules) if rule.verdict not in BLOCKING]
    if blocking:
        yield ""
        yield f"**{len(blocking)} of {len(verdict.rules)} rules block** {quoted(verdict.stage)}:"
        yield ""
        yield from _rule_table(blocking, rows)
    if others:
        counts = Counter(rule.verdict for rule in others)
        yield ""
        waived = f", {counts[State.WAIVED]} waived" if counts[State.WAIVED] else ""
        passed = f"{counts[State.PASS]} pass, {counts[State.SKIPPED]} skipped{waived}"
        yield f"<details><summary>{passed}</summary>"
        yield ""
        yield from _rule_table(others, rows)
        yield ""
        yield "</details>"


def _rule_table(rules: Sequence[RuleVerdict], rows: int) -> Iterator[str]:
    yield from _header("verdict", "rule", "slice", "items", "score, bounds", "wanted", "more items", "why")
    for rule in rules[:rows]:
        yield _row(
            _state(rule.verdict), quoted(rule.rule), quoted(rule.slice), str(rule.n), numbers(rule),
            "—" if rule.threshold is None else f"{rule.threshold:.4g}",
            f"about {rule.needed:,}" if rule.needed else "—", quoted(rule.reason),
        )  # fmt: skip
    yield from _left_out(len(rules) - rows, "rules")


def _header(*names: str) -> Iterator[str]:
    yield _row(*names)
    yield _row(*("---" for _ in names))


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _left_out(count: int, what: str) -> Iterator[str]:
    if count > 0:
        yield ""
        yield f"and {count} more {what}"


def _state(state: State) -> str:
    return f"{GLYPHS[state]} {state.value}"
