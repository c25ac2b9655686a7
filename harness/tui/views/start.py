"""The list of recipes and suites from which jobs are started."""

from __future__ import annotations

from collections.abc import Sequence

from harness.tui.views.cells import Line, Span, between, exactly, fit, fit_line, line, rule, wrap
from harness.tui.views.documents import DocumentInfo
from harness.tui.views.matrix import mark, window

MODEL = "embedded:smollm2-135m"
"""What a suite is tried with where no other model is named: it needs no network."""


def start_body(
    found: Sequence[DocumentInfo], cursor: int, model: str, cells: int, rows: int, *, words: str = ""
) -> list[Line]:
    """The screen between its frame's lines."""
    if not found:
        elsewhere = " No recipe and no suite here: `harness check FILE` looks into one that lies elsewhere."
        nothing = f" No recipe and no suite holds “{words}”: esc shows all."
        return [(), line(Span(nothing if words else elsewhere, "dim"))]
    here = found[min(cursor, len(found) - 1)]
    about = _about_lines(here, model, cells)
    room = rows - len(about) - 2
    first = window(cursor, len(found), room)
    n_recipes = sum(info.kind == "recipe" for info in found)
    counts = f"  {_counted(n_recipes, 'recipe')}, {_counted(len(found) - n_recipes, 'suite')}"
    title = line(
        Span(" START", "head"),
        Span(f"{counts} that hold “{words}”: esc shows all" if words else counts, "dim"),
    )
    listed = [_row(info, at == cursor, cells) for at, info in list(enumerate(found))[first : first + room]]
    return [title, *exactly(listed, room), rule(cells), *about]


def _counted(n: int, noun: str) -> str:
    return f"{n} {noun}{'s' if n != 1 else ''}"


def _row(info: DocumentInfo, is_here: bool, cells: int) -> Line:
    name_cells = min(28, cells // 3)
    head = (
        mark(is_here, True), Span(fit(info.kind, 8), "dim"),
        Span(fit(info.name, name_cells) + " ", "strong" if is_here else ""), Span(fit(info.domain, 12), "dim"),
    )  # fmt: skip
    return between(fit_line((*head, Span(info.description, "dim")), cells - 1), (), cells)


def _about_lines(info: DocumentInfo, model: str, cells: int) -> list[Line]:
    words = wrap(info.description or "no description", cells - 2, rows=2)
    facts = f" base {info.about}" if info.kind == "recipe" else f" task {info.about} · enter scores {model}"
    return [
        *exactly([line(Span(f" {part}")) for part in words], 2),
        line(Span(facts, "dim"), Span(f"   {info.path}", "code")),
    ]
