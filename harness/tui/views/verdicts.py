"""How a verdict is shown: a glyph, a word and a weight, never a colour alone."""

from __future__ import annotations

from collections.abc import Sequence

from harness.evals.results import RuleVerdict, State
from harness.tui.views.cells import Span

GLYPHS = {
    State.PASS: "✓", State.FAIL: "✗", State.INCONCLUSIVE: "?", State.SKIPPED: "·", State.STALE: "~",
    State.WAIVED: "w",
}  # fmt: skip
STYLES = {
    State.PASS: "pass", State.FAIL: "fail", State.INCONCLUSIVE: "unsure", State.SKIPPED: "dim",
    State.STALE: "unsure", State.WAIVED: "unsure",
}  # fmt: skip
_WORDS = {
    State.PASS: "pass", State.FAIL: "FAIL", State.SKIPPED: "too few", State.STALE: "stale", State.WAIVED: "waived",
}  # fmt: skip
_ORDER = (State.FAIL, State.STALE, State.INCONCLUSIVE, State.WAIVED, State.PASS, State.SKIPPED)
CELLS = 13
"""Enough for the longest verdict."""


def state_of(text: object) -> State | None:
    """The state with this name, or None."""
    try:
        return State(str(text))
    except ValueError:
        return None


def glyph(state: State | None) -> str:
    return GLYPHS[state] if state is not None else " "


def style(state: State | None) -> str:
    return STYLES[state] if state is not None else "dim"


def words(state: State | None, needed: int | None = None) -> str:
    """`✓ pass`, `✗ FAIL`, `? 180 more`, `~ stale`, `w waived`, `· too few` or a dash."""
    if state is None:
        return "—"
    if state is State.INCONCLUSIVE:
        return f"? {needed:,} more" if needed and needed < 100_000 else "? unsure"
    return f"{GLYPHS[state]} {_WORDS[state]}"


def badge(state: State | None, needed: int | None = None) -> Span:
    """The verdict in words and style; a FAIL is reversed."""
    text = words(state, needed)
    return Span(f" {text} " if state is State.FAIL else text, style(state))


def ranked(rules: Sequence[RuleVerdict]) -> list[RuleVerdict]:
    """A FAIL before an INCONCLUSIVE before a PASS, then the one with least to spare."""
    return sorted(rules, key=lambda rule: (_ORDER.index(rule.verdict), margin(rule)))


def worst(rules: Sequence[RuleVerdict]) -> RuleVerdict | None:
    """The rule that decides, or None."""
    return min(rules, key=lambda rule: (_ORDER.index(rule.verdict), margin(rule)), default=None)


def margin(rule: RuleVerdict) -> float:
    """How far the score lies on the good side of its threshold; unknown counts as worst."""
    if rule.score is None or rule.threshold is None:
        return float("-inf") if rule.verdict is not State.SKIPPED else float("inf")
    apart = rule.score - rule.threshold
    return -apart if "at most" in rule.rule else apart
