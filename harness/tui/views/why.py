"""Why a stage is judged as it is, and what can be done next."""

from __future__ import annotations

from harness.evals.results import RuleVerdict, State, Verdict
from harness.jobs.store import RunInfo, RunState
from harness.tui.context import Context
from harness.tui.keys import ACTIONS, shown_key
from harness.tui.views import numbers, verdicts
from harness.tui.views.bars import Axis, axis_for, interval_bar
from harness.tui.views.cells import Line, Span, between, fit, fit_line, line, wrap
from harness.tui.views.matrix import StageRow, is_difference
from harness.tui.views.progress import Progress

VERBS = {
    State.PASS: "passes",
    State.FAIL: "fails",
    State.INCONCLUSIVE: "is undecided",
    State.SKIPPED: "is not judged",
    State.STALE: "is about something else by now",
    State.WAIVED: "is waived",
}
COUNTED = {
    State.FAIL: "fail",
    State.INCONCLUSIVE: "unsure",
    State.PASS: "pass",
    State.SKIPPED: "too few items",
    State.STALE: "stale",
    State.WAIVED: "waived",
}


def why_lines(
    info: RunInfo | None, progress: Progress | None, row: StageRow | None, cells: int, rows: int
) -> list[Line]:
    """Why the run ended, then why the stage is judged as it is, the rules that decide first."""
    lines = _ended_lines(info, progress, cells)
    if row is None:
        return lines[:rows]
    if row.verdict is None:
        waiting = "is being scored" if row.is_active else "has not been judged"
        return [*lines, line(Span(f" {row.stage} {waiting}", "dim"))][:rows]
    title = line(Span(f" WHY {row.stage} {VERBS[row.verdict.verdict]}", "head"))
    lines.append(between(title, line(Span(f"{tally(row.verdict)} ", "dim")), cells))
    for index, item in enumerate(verdicts.ranked(row.verdict.rules)):
        lines.append(rule_line(item, cells))
        if index == 0:
            lines += [
                line(Span(f"     {part}", "dim")) for part in wrap(item.reason, cells - 6, rows=2) if part
            ]
    return lines[:rows]


def tally(verdict: Verdict) -> str:
    """`2 fail, 1 unsure, 14 pass`."""
    counts = {state: sum(item.verdict is state for item in verdict.rules) for state in COUNTED}
    return ", ".join(f"{count} {COUNTED[state]}" for state, count in counts.items() if count)


def rule_line(item: RuleVerdict, cells: int) -> Line:
    """One rule of one slice with its score, its bounds and its gate."""
    score = numbers.signed if is_difference(item.rule) else numbers.score
    bounds = f"{score(item.score)} "
    if item.low is not None or item.high is not None:
        bounds += f"[{score(item.low)}, {score(item.high)}] "
    needed = f"gate {item.threshold:g} " if item.threshold is not None else ""
    right = line(Span(bounds), Span(fit(needed, 10), "dim"))
    mark = Span(f" {verdicts.glyph(item.verdict)} ", f"{verdicts.style(item.verdict)}-text")
    return between(line(mark, Span(what(item))), right, cells)


def what(item: RuleVerdict) -> str:
    """What was judged: `recall Audit Rights`, `accuracy contract=supply`, or the rule where it holds for all."""
    return item.rule if item.slice == "all" else f"{item.metric} {item.slice.removeprefix('label=')}"


def _ended_lines(info: RunInfo | None, progress: Progress | None, cells: int) -> list[Line]:
    if info is None or progress is None:
        return []
    if info.state is RunState.DIED:
        return [line(Span(" ✗ The worker died", "fail-text"), Span("  r goes on from its last batch", "dim"))]
    if progress.ended is None:
        return []
    data = progress.ended.data
    if info.state is RunState.FAILED:
        error = _marked("✗", str(data.get("error") or "the run failed"), "fail-text", cells)
        return error + _marked(" ", str(data.get("hint") or ""), "dim", cells)
    if info.state is RunState.CANCELLED:
        return _marked(
            "⊘", f"{data.get('text') or 'stopped on request'}; r goes on from there", "warning", cells
        )
    return []


def _marked(mark: str, text: str, style: str, cells: int) -> list[Line]:
    parts = [part for part in wrap(text, cells - 4, rows=3) if part]
    return [line(Span(f" {mark if index == 0 else ' '} {part}", style)) for index, part in enumerate(parts)]


def shipped_lines(release: str, picked: str | None, cells: int) -> list[Line]:
    """What the finished run shipped, and how to check it."""
    words = f"ships {picked or 'one file'}: harness verify {release}"
    return _marked("✓", words, "pass-text", cells)


def next_lines(context: Context, cells: int, rows: int) -> list[Line]:
    """What can be done now; what can't says why."""
    lines = [line(Span("NEXT", "head"))]
    for action in ACTIONS:
        if not action.is_next or context.screen not in action.screens:
            continue
        reason = action.why_not(context)
        key = fit(shown_key(action.keys[0]), 6)
        if reason is None:
            lines.append(line(Span(key, "key"), Span(_next_words(action.name, context))))
        else:
            lines.append(line(Span(key, "off"), Span(f"⊘ {action.label}: {reason}", "off")))
    return [fit_line(spans, cells) for spans in lines[:rows]]


def _next_words(name: str, context: Context) -> str:
    if name == "open" and context.pane == "stages":
        return f"open the samples of {context.stage}"
    if name == "open":
        return "watch it live" if context.state is RunState.RUNNING else "look at its verdicts"
    return {"cancel": "stop after this batch", "resume": "resume where it stopped"}.get(name, name)


def slice_lines(row: StageRow | None, cells: int, rows: int) -> list[Line]:
    """Every rule of the stage, slice by slice, those that decide first."""
    if row is None or row.verdict is None:
        return [line(Span("SLICES", "head")), line(Span("nothing has been judged here yet", "dim"))]
    found = verdicts.ranked(row.verdict.rules)
    lines = [line(Span(f"SLICES of {row.stage}", "head"), Span(f"  {tally(row.verdict)}", "dim"))]
    lines += [_slice_line(item, cells) for item in found[: rows - 1]]
    if len(found) > rows - 1:
        lines[-1] = line(Span(f"… and {len(found) - rows + 2} more", "dim"))
    return [fit_line(spans, cells) for spans in lines]


def _slice_line(item: RuleVerdict, cells: int) -> Line:
    name_cells = max(18, cells * 2 // 5)
    values = [item.score, item.low, item.high, item.threshold]
    is_rate = not is_difference(item.rule) and all(value is None or 0 <= value <= 1 for value in values)
    axis = Axis(0.0, 1.0) if is_rate else axis_for(values, is_difference=is_difference(item.rule))
    bar = interval_bar(
        axis, max(8, cells - name_cells - 16), score=item.score, low=item.low, high=item.high, gate=item.threshold,
        style=f"{verdicts.style(item.verdict)}-bar",
    )  # fmt: skip
    mark = Span(f"{verdicts.glyph(item.verdict)} ", f"{verdicts.style(item.verdict)}-text")
    score = (numbers.signed if is_difference(item.rule) else numbers.score)(item.score)
    count = Span(fit(f"{item.n:,}", 5, ">") + " ", "dim")
    return (
        mark,
        Span(fit(what(item), name_cells - 1) + " "),
        count,
        *bar,
        Span(" "),
        Span(fit(score, 6, ">")),
    )
