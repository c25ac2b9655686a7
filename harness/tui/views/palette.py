"""The command palette: every action of the screen by name, narrowed by what is typed."""

from __future__ import annotations

from harness.tui.context import Context
from harness.tui.keys import Action, actions_of, shown_key
from harness.tui.views.cells import Line, Span, fit, fit_line, line


def matches(context: Context, typed: str) -> list[Action]:
    """The screen's actions that hold all typed words, those whose name begins with them first."""
    words = typed.casefold().split()
    found = [action for action in actions_of(context.screen) if all(word in _text(action) for word in words)]
    start = words[0] if words else ""
    return sorted(found, key=lambda action: not action.label.casefold().startswith(start))


def _text(action: Action) -> str:
    return f"{action.label} {action.name} {action.does}".casefold().replace("_", " ")


def palette_body(context: Context, typed: str, cells: int, rows: int) -> list[Line]:
    """The matching actions with their keys and commands; the first one is what enter does."""
    found = matches(context, typed)
    lines: list[Line] = [line(Span(" COMMANDS", "head"), Span("   enter does the first · esc closes", "dim"))]
    if not found:
        lines.append(line(Span(" no action of this screen holds these words", "dim")))
    for at, action in enumerate(found[: rows - 1]):
        lines.append(fit_line(_row(action, context, at == 0, cells), cells))
    return lines


def _row(action: Action, context: Context, is_first: bool, cells: int) -> Line:
    reason = action.why_not(context)
    twin = action.twin(context)
    style = "off" if reason else "strong" if is_first else ""
    words = f"⊘ {reason}" if reason else twin or action.does
    return (
        Span("▌" if is_first else " ", "cursor"), Span(fit(shown_key(action.keys[0]), 6), "key"),
        Span(fit(action.label, min(20, cells // 4)), style),
        Span(words, "off" if reason else "code" if twin else "dim"),
    )  # fmt: skip
