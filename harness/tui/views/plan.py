"""The plan wizard: what the domain demands on one side, the recipe that follows on the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from harness.tui.views import numbers
from harness.tui.views.cells import Line, Span, beside, exactly, fit, fit_line, line, rule, wrap
from harness.tui.views.matrix import mark
from harness.tui.views.numbers import number
from harness.tui.views.samples import text_of

TWO_COLUMNS = 90
LEFT_CELLS = 40
ANY = "not said"


class Field(NamedTuple):
    """One thing that is known, or not said, before anything is trained."""

    name: str
    option: str
    """Of `harness plan`; empty for its argument."""
    values: tuple[str, ...]
    usual: str
    """What the command takes where nothing is said: it is not said again."""

    def words(self, value: str) -> list[str]:
        """What the command is told."""
        if not self.option:
            return [value]
        if value == self.usual:
            return []
        return [self.option] if self.values == ("no", "yes") else [self.option, value]


FIELDS = (
    Field("domain", "", ("legal", "healthcare", "finance", "support", "ecommerce", "science"), ""),
    Field("personal data", "--sensitive", ("no", "yes"), "no"),
    Field("p95 latency, ms", "--latency-ms", (ANY, "100", "200", "500", "2000"), ANY),
    Field("budget", "--budget", ("tight", "normal", "ample"), "normal"),
    Field("consequence of errors", "--consequence", ("low", "medium", "high"), "medium"),
    Field("knowledge", "--knowledge", ("stable", "changing"), "stable"),
    Field("right answers", "--at-least", ("0.6", "0.7", "0.75", "0.8", "0.9", "0.95"), "0.75"),
    Field("device's memory, MB", "--memory-mb", ("512", "1024", "2048", "4096", "8192", "16384"), "4096"),
)


def usual_choices() -> tuple[str, ...]:
    """What stands there when the wizard opens."""
    return tuple(field.usual or field.values[0] for field in FIELDS)


def plan_words(chosen: Sequence[str]) -> list[str]:
    """The command that plans what was chosen."""
    return [
        "plan",
        *(word for field, value in zip(FIELDS, chosen, strict=True) for word in field.words(value)),
    ]


def turned(chosen: Sequence[str], at: int, by: int) -> tuple[str, ...]:
    """The choices with the next value at this place."""
    values = FIELDS[at].values
    value = values[(values.index(chosen[at]) + by) % len(values)]
    return (*chosen[:at], value, *chosen[at + 1 :])


def plan_body(
    chosen: Sequence[str],
    cursor: int,
    document: Mapping[str, Any] | None,
    said: str,
    path: str,
    cells: int,
    rows: int,
    *,
    scroll: int = 0,
) -> list[Line]:
    """The screen between its frame's lines; `document` is what the command printed, None while it works."""
    wide = cells >= TWO_COLUMNS
    left = _choice_lines(chosen, cursor, LEFT_CELLS if wide else cells)
    right_cells = cells - LEFT_CELLS - 1 if wide else cells
    right = [line(Span(f" {said}", "dim"))] if document is None else _plan_lines(document, path, right_cells)
    if wide:
        return beside(exactly(left, rows), exactly(_from(right, scroll, rows), rows), LEFT_CELLS, cells)
    room = max(0, rows - len(left) - 1)
    return [*left, rule(cells), *exactly(_from(right, scroll, room), room)]


def _from(lines: list[Line], scroll: int, rows: int) -> list[Line]:
    """The lines from there on; the last one says that there are more."""
    first = min(scroll, max(0, len(lines) - rows))
    shown = lines[first : first + rows]
    if shown and first + rows < len(lines):
        shown[-1] = line(Span(f" ▼ {len(lines) - first - rows + 1} more lines: d, u", "dim"))
    return shown


def _choice_lines(chosen: Sequence[str], cursor: int, cells: int) -> list[Line]:
    lines: list[Line] = [line(Span(" WHAT IS KNOWN", "head"), Span("  h l change", "dim"))]
    for at, (field, value) in enumerate(zip(FIELDS, chosen, strict=True)):
        style = "strong" if at == cursor else "" if value != field.usual else "dim"
        shown = f"‹ {value} ›" if at == cursor else f"  {value}"
        words = (mark(at == cursor, True), Span(fit(field.name, 23), "dim"), Span(shown, style))
        lines.append(fit_line(words, cells))
    return lines


def _plan_lines(document: Mapping[str, Any], path: str, cells: int) -> list[Line]:
    """The recipe in short, why, what is obliged, what stays open."""
    recipe = _mapping(document.get("recipe"))
    tune, export = _mapping(recipe.get("tune")), _mapping(recipe.get("export"))
    gates = [gate for gate in recipe.get("gates") or () if isinstance(gate, dict)]
    settings = "  ".join(f"{key} {text_of(value)}" for key, value in tune.items())
    lines: list[Line] = [line(Span(" RECIPE", "head"), Span(f"  {path}", "code"))]
    lines += _field("base", text_of(recipe.get("base")), cells)
    lines += _field("suites", text_of(recipe.get("suites")), cells)
    lines += _field("tune", settings, cells)
    lines += _field("gates", " · ".join(_gate_words(gate) for gate in gates) or "none", cells)
    lines += _field("files", text_of(export.get("quants")), cells)
    lines += _field("takes", _estimate_words(_mapping(document.get("estimates"))), cells)
    owed = [one for one in document.get("obligations") or () if isinstance(one, dict)]
    lines.append(line(Span(" OBLIGED", "head")))
    for one in owed:
        lines += _field(
            text_of(one.get("name")), f"{text_of(one.get('because'))}: {text_of(one.get('wants'))}", cells
        )
    lines.append(line(Span(" WHY", "head")))
    for reason in document.get("reasons") or ():
        if isinstance(reason, dict):
            lines += _field(text_of(reason.get("key")), text_of(reason.get("text")), cells)
    for text in document.get("open") or ():
        lines += _field("open", text_of(text), cells, "warning")
    return lines


def _field(name: str, text: str, cells: int, style: str = "") -> list[Line]:
    label = 14
    parts = wrap(text, max(10, cells - label - 1), rows=12)
    heads = [f" {name}", *[""] * (len(parts) - 1)]
    return [
        (Span(fit(head, label - 1) + " ", "dim"), Span(part, style))
        for head, part in zip(heads, parts, strict=True)
    ]


def _gate_words(gate: Mapping[str, Any]) -> str:
    metric = text_of(gate.get("metric"))
    per = f" per {text_of(gate['per'])}" if gate.get("per") else ""
    for key, words in (
        ("at_least", "≥"),
        ("at_most", "≤"),
        ("within", "within"),
        ("no_worse_than", "down at most"),
    ):
        if (bound := number(gate.get(key))) is not None:
            return f"{metric}{per} {words} {bound:g}"
    return (
        f"{metric}{per} better than {text_of(gate.get('versus'))}" if gate.get("versus") else f"{metric}{per}"
    )


def _estimate_words(found: Mapping[str, Any]) -> str:
    training, seconds, cost = (number(found.get(key)) for key in ("training_mb", "seconds", "cost"))
    parts = [
        f"at most {numbers.quantity(round(training))} MB" if training is not None else "",
        f"{numbers.duration(seconds)} of training"
        if seconds is not None
        else "time unknown: nothing like it ran here",
        f"{cost:.2f} to train" if cost is not None else "",
    ]
    return " · ".join(filter(None, parts))


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
