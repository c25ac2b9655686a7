"""What every screen has: title, tabs, body, message, command and keys."""

from __future__ import annotations

from collections.abc import Sequence

from harness.tui.context import NUMBERED, TITLES, Context
from harness.tui.keys import actions_of, shown_key
from harness.tui.views.cells import Line, Span, between, exactly, fit_line, line, line_width, rule, safe

CHROME_ROWS = 6
"""Rows that are not body: title, tabs, line, message, command, keys."""


def frame(
    context: Context,
    body: Sequence[Line],
    *,
    crumbs: Sequence[str],
    right: Line,
    twin: str,
    message: Line = (),
    cells: int,
    rows: int,
) -> list[Line]:
    """A whole screen, exactly `rows` lines of `cells`."""
    lines = [_title(crumbs, right, cells), _tabs(context, cells), rule(cells)]
    lines += exactly(list(body), rows - CHROME_ROWS)
    lines += [(Span(" "), *message), _twin(twin, cells), footer(context, cells)]
    return [fit_line(spans, cells) for spans in lines]


def _title(crumbs: Sequence[str], right: Line, cells: int) -> Line:
    first, *rest = crumbs
    left = [Span(" harness", "title"), Span(" · ", "dim"), Span(safe(first), "title")]
    for crumb in rest:
        left += [Span(" › ", "dim"), Span(safe(crumb))]
    return between(tuple(left), (*right, Span(" ")), cells)


def _tabs(context: Context, cells: int) -> Line:
    whole = _tab_spans(context, is_short=False)
    return fit_line(whole if line_width(tuple(whole)) <= cells else _tab_spans(context, is_short=True), cells)


def _tab_spans(context: Context, *, is_short: bool) -> list[Span]:
    """The numbered screens, and the shown one where it has no number; short ones are numbers alone."""
    spans: list[Span] = []
    for index, screen in enumerate(NUMBERED, start=1):
        here = screen == context.screen
        title = f"{index} " if is_short and not here else f"{index} {TITLES[screen]} "
        spans += [Span("▌" if here else " ", "cursor"), Span(title, "tab" if here else "dim")]
    if context.screen not in NUMBERED and context.screen in TITLES:
        spans += [Span("▌", "cursor"), Span(f"{TITLES[context.screen]} ", "tab")]
    return spans


def _twin(twin: str, cells: int) -> Line:
    return between(
        line(Span(" CLI ", "dim"), Span(safe(twin), "code")), line(Span("y copies ", "dim")), cells
    )


def footer(context: Context, cells: int) -> Line:
    """The keys of the screen, greyed where they can't be used now; `?` and `q` always fit."""
    fixed = [action for action in actions_of(context.screen) if action.name in ("help", "quit")]
    always = [span for action in fixed for span in _hint(shown_key(action.keys[0]), action.label, True)]
    spans: list[Span] = [Span(" ")]
    for action in actions_of(context.screen):
        if not action.is_in_footer or action in fixed:
            continue
        hint = _hint(shown_key(action.keys[0]), action.label, action.why_not(context) is None)
        if line_width((*spans, *hint, *always)) > cells:
            break
        spans += hint
    return (*spans, *always)


def _hint(key: str, label: str, is_possible: bool) -> list[Span]:
    if is_possible:
        return [Span(key, "key"), Span(f" {label}  ")]
    return [Span(f"{key} {label}  ", "off")]
