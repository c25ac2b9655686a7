"""The help screen: every key of the screen that it was asked on, written from the table of actions."""

from __future__ import annotations

from harness.tui.context import TITLES, Context
from harness.tui.keys import actions_of, shown_key
from harness.tui.views.cells import Line, Span, fit, line, wrap


def help_body(context: Context, cells: int, rows: int, scroll: int) -> list[Line]:
    """The keys, what they do, and why those that can't be used now can't."""
    title = f" KEYS of {TITLES.get(context.screen, context.screen)}"
    lines: list[Line] = [line(Span(title, "head"), Span("   j k move, any other key closes", "dim")), ()]
    for action in actions_of(context.screen):
        lines += _entry(action.keys, action.does, action.why_not(context), cells)
    lines += [(), *_legend()]
    first = min(scroll, max(0, len(lines) - rows))
    return lines[first : first + rows]


def _entry(names: tuple[str, ...], does: str, reason: str | None, cells: int) -> list[Line]:
    key = fit(" " + " ".join(shown_key(name) for name in names), 12)
    out = []
    for index, part in enumerate(wrap(does, cells - 13, rows=6)):
        out.append(
            line(Span(key if index == 0 else " " * 12, "key" if reason is None else "off"), Span(part))
        )
    if reason is not None:
        out.append(line(Span(" " * 12), Span(f"⊘ {reason}", "off")))
    return out


def _legend() -> list[Line]:
    bounds = "the score and its bounds: one-sided, at the rule's error rates; "
    return [
        line(Span(" SIGNS", "head")),
        line(Span("   ✓ pass    ", "pass"), Span("the lower bound clears the gate")),
        line(Span("  "), Span(" ✗ FAIL ", "fail"), Span("   the upper bound misses it")),
        line(Span("   ? unsure  ", "unsure"), Span("the bounds straddle it; more items would settle it")),
        line(Span("   · too few ", "dim"), Span("reported, not judged")),
        line(Span("   ━●━       "), Span(bounds), Span("┃", "gate"), Span(" the gate")),
    ]
