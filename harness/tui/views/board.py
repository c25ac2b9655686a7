"""Screen 1: the runs, the verdicts of one of them by stage and rule, why, and what to do next."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.evals.results import RuleVerdict, State, Verdict
from harness.jobs.store import RunInfo, RunState
from harness.tui.keys import ACTIONS, Context, shown_key
from harness.tui.views import numbers, verdicts
from harness.tui.views.bars import Axis, axis_for, axis_title, interval_bar, progress_bar
from harness.tui.views.cells import Line, Span, beside, between, fit, fit_line, line, rule, wrap
from harness.tui.views.folders import RunFolder, stage_order
from harness.tui.views.progress import Progress, Step

RUN_GLYPHS = {
    RunState.RUNNING: ("●", "running"),
    RunState.DONE: ("✓", ""),
    RunState.FAILED: ("✗", "fail-text"),
    RunState.CANCELLED: ("⊘", "warning"),
    RunState.DIED: ("✗", "fail-text"),
}
CELL = 10
"""Cells of one rule in the matrix."""
WIDE = 140
"""From this width on a side pane shows the stage's rules slice by slice."""
ERRORS_RULE = "errors within the suite's limit"

RuleKey = tuple[str, str]
"""(suite, rule)."""


@dataclass(frozen=True, slots=True)
class StageRow:
    """One stage of the chain."""

    stage: str
    verdict: Verdict | None
    done: int | None = None
    total: int | None = None
    """Items scored so far, while there is no verdict."""
    is_active: bool = False

    def rules(self, key: RuleKey) -> tuple[RuleVerdict, ...]:
        """What the rule says of each slice."""
        found = self.verdict.rules if self.verdict else ()
        return tuple(item for item in found if (item.suite, item.rule) == key)


@dataclass(frozen=True, slots=True)
class Matrix:
    """The verdicts of one run."""

    stages: tuple[StageRow, ...]
    rules: tuple[RuleKey, ...]

    @property
    def first_trouble(self) -> int:
        """The last stage that was judged and does not pass, else the last judged one."""
        judged = [i for i, row in enumerate(self.stages) if row.verdict]
        trouble = [i for i in judged if self.stages[i].verdict.verdict is not State.PASS]  # type: ignore[union-attr]
        return (trouble or judged or [0])[-1]


@dataclass(frozen=True, slots=True)
class Board:
    """All that the board shows."""

    runs: tuple[RunInfo, ...]
    run: RunInfo | None = None
    progress: Progress | None = None
    matrix: Matrix = Matrix((), ())
    picked: str | None = None
    home: str = ""
    now_s: float = 0.0


def board_of(
    runs: Sequence[RunInfo], run: RunInfo | None, folder: RunFolder | None, *, home: str, now_s: float
) -> Board:
    """The board with one run chosen."""
    if run is None or folder is None:
        return Board(tuple(runs), home=home, now_s=now_s)
    picked = (folder.result or {}).get("picked")
    return Board(
        tuple(runs), run, folder.progress, matrix_of(folder), str(picked) if picked else None, home, now_s,
    )  # fmt: skip


def matrix_of(folder: RunFolder) -> Matrix:
    """The verdicts of the run, and the stages that are still to come."""
    judged, progress = folder.verdicts, folder.progress
    seen = {stage for stage, _ in progress.evaluations}
    stages = sorted({*judged, *seen, *planned_stages(folder.manifest)}, key=stage_order)
    active = progress.evaluation
    rows = []
    for stage in stages:
        totals = [one for (name, _), one in progress.evaluations.items() if name == stage]
        is_active = folder.progress.ended is None and active is not None and active.stage == stage
        rows.append(
            StageRow(
                stage, judged.get(stage), _sum(one.done for one in totals), _sum(one.total for one in totals),
                is_active and stage not in judged,
            )
        )  # fmt: skip
    return Matrix(tuple(rows), _rule_keys(judged.values()))


def planned_stages(manifest: Mapping[str, Any]) -> tuple[str, ...]:
    """The stages that a release goes through; none for other jobs."""
    document = manifest.get("document")
    recipe = document.get("recipe") if isinstance(document, dict) else None
    if manifest.get("job") != "release" or not isinstance(recipe, dict):
        return ()
    options = manifest.get("options")
    until = options.get("until") if isinstance(options, dict) else None
    if until == "train":
        return ("base", "adapter")
    export = recipe.get("export")
    quants = export.get("quants") if isinstance(export, dict) else ()
    return ("base", "adapter", "merged", "f16", *(str(quant) for quant in quants or ()))


def _sum(values: Any) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _rule_keys(found: Any) -> tuple[RuleKey, ...]:
    """All rules in the order in which they are written; the error limit, which every suite has, last."""
    keys = dict.fromkeys((item.suite, item.rule) for verdict in found for item in verdict.rules)
    return tuple(sorted(keys, key=lambda key: key[1] == ERRORS_RULE))


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where the person is on the board."""

    pane: str = "runs"
    run: int = 0
    stage: int = 0
    rule: int = 0


def board_body(board: Board, cursor: Cursor, context: Context, cells: int, rows: int) -> list[Line]:
    """The board between its frame's lines: runs, verdicts, why and next, in `rows` rows."""
    if not board.runs:
        return _welcome(board)
    matrix_rows = len(board.matrix.stages) or 1
    run_rows = max(1, min(len(board.runs), rows - matrix_rows - 9, 8))
    body = [_runs_title(board, cursor, cells), *_run_lines(board, cursor, cells, run_rows), rule(cells)]
    left_cells = cells if cells < WIDE else 96
    left = _verdict_lines(board, cursor, left_cells, max(1, rows - len(body) - 7))
    left.append(rule(left_cells))
    left += _why_and_next(board, cursor, context, left_cells, rows - len(body) - len(left))
    if cells < WIDE:
        return body + left
    side = slice_lines(board, cursor, cells - left_cells - 2, rows - len(body))
    return body + beside(left, [(Span(" "), *spans) for spans in side], left_cells, cells)


_FIRST_STEPS = (
    ("harness demo", "base model, tuning, quantizing and gates on an example"),
    ("harness release RECIPE.yaml", "the same for a recipe of yours"),
    ("harness check RECIPE.yaml", "what is wrong with it, without loading a model"),
)


_WAITING = "A run appears here as soon as it begins."


def _welcome(board: Board) -> list[Line]:
    hint = "The first one takes minutes, without a network or a GPU:"
    steps = [
        line("   ", Span(fit(command, 30), "code"), Span(words, "dim")) for command, words in _FIRST_STEPS
    ]
    head = [line(Span(" No runs yet", "strong")), line(Span(f" in {board.home}", "dim"))]
    return [(), *head, (), line(Span(f" {hint}")), (), *steps, (), line(Span(f" {_WAITING}", "dim"))]


def _runs_title(board: Board, cursor: Cursor, cells: int) -> Line:
    running = sum(info.state is RunState.RUNNING for info in board.runs)
    right = f"{cursor.run + 1} of {len(board.runs)} " if len(board.runs) > 1 else " "
    left = line(Span(" RUNS", "head"), Span(f"  {len(board.runs)} kept, {running} running", "dim"))
    return between(left, line(Span(right, "dim")), cells)


def _run_lines(board: Board, cursor: Cursor, cells: int, rows: int) -> list[Line]:
    first = window(cursor.run, len(board.runs), rows)
    return [
        _run_line(board, info, index == cursor.run, cursor.pane == "runs", cells)
        for index, info in list(enumerate(board.runs))[first : first + rows]
    ]


def window(cursor: int, length: int, rows: int) -> int:
    """The first shown index, so that the cursor is in view with something before it."""
    return max(0, min(cursor - rows // 2, length - rows))


def _run_line(board: Board, info: RunInfo, is_here: bool, is_focused: bool, cells: int) -> Line:
    glyph, style = RUN_GLYPHS[info.state]
    name_cells = min(32, cells // 3)
    age_cells = 11 if cells >= 90 else 0
    head = [
        _mark(is_here, is_focused), Span(f"{glyph} ", style),
        Span(fit(info.run, name_cells - 1) + " ", "strong" if is_here else ""),
    ]  # fmt: skip
    status = _status(board, info, is_here, max(10, cells - name_cells - age_cells - 4))
    age = Span(fit(numbers.ago(info.created, board.now_s), age_cells, ">"), "dim")
    return between((*head, *status), (age,) if age_cells else (), cells)


def _mark(is_here: bool, is_focused: bool) -> Span:
    return Span("▌" if is_here else " ", "cursor" if is_focused else "dim")


def _status(board: Board, info: RunInfo, is_here: bool, cells: int) -> Line:
    if info.state is RunState.RUNNING and is_here and board.progress is not None:
        return running_line(board.progress, cells)
    title = fit(info.title, max(0, min(24, cells - 24)))
    word = Span(f" {info.state}", "" if info.state is RunState.DONE else RUN_GLYPHS[info.state][1])
    verdict = verdicts.state_of(info.verdict)
    end: Line = (Span("  "), verdicts.badge(verdict)) if verdict is not None else ()
    picked = f", ships {board.picked}" if is_here and board.picked else ""
    return fit_line((Span(title, "dim"), word, *end, Span(picked)), cells)


def running_line(progress: Progress, cells: int) -> Line:
    """The step, how far it is, and how long it will take."""
    step = progress.active
    if step is None:
        return line(Span("running", "running"), Span(" · waiting for the first step", "dim"))
    share = numbers.share(step.done, step.total)
    percent = "    " if share is None else f"{share:4.0%}"
    eta = f" eta {numbers.duration(step.eta_s)}"
    head = f"{list(progress.steps).index(step.name) + 1}/{len(progress.steps)} "
    bar_cells = max(6, min(20, cells // 4))
    room = cells - len(head) - bar_cells - len(percent) - len(eta) - 2
    return (
        Span(head, "dim"), Span(fit(step_title(step), room) + " ", "running"), *progress_bar(share, bar_cells),
        Span(percent), Span(eta),
    )  # fmt: skip


def step_title(step: Step) -> str:
    return step.title or step.name


def _verdict_lines(board: Board, cursor: Cursor, cells: int, rows: int) -> list[Line]:
    matrix = board.matrix
    if not matrix.stages:
        waiting = "The first verdict appears here when a stage has been judged."
        ended = "This run ended before a stage was judged."
        is_running = board.run is not None and board.run.state is RunState.RUNNING
        return [line(Span(" VERDICTS", "head")), line(Span(f" {waiting if is_running else ended}", "dim"))]
    layout = _Layout.of(matrix, cursor, cells)
    shown = max(1, rows - 2)
    first = window(cursor.stage, len(matrix.stages), shown)
    lines = [_matrix_title(board, cursor, cells), layout.header()]
    for index, row in list(enumerate(matrix.stages))[first : first + shown]:
        lines.append(layout.row(row, index == cursor.stage, cursor.pane == "stages"))
    return lines


def _matrix_title(board: Board, cursor: Cursor, cells: int) -> Line:
    rules = board.matrix.rules
    left = line(
        Span(" VERDICTS", "head"), Span("  "), Span(fit(board.run.run if board.run else "", 24).rstrip())
    )
    if not rules:
        return left
    suite, name = rules[cursor.rule]
    many = len({suite for suite, _ in rules}) > 1
    shown = f"{suite}: {name}" if many else name
    right = line(
        Span("bars: ", "dim"), Span(shown, "strong"), Span(f"  {cursor.rule + 1}/{len(rules)} ", "dim")
    )
    return between(left, right, cells)


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where the matrix has its columns."""

    matrix: Matrix
    chosen: int
    first: int
    """The first rule that has a column."""
    columns: int
    bar_cells: int
    axis: Axis
    cells: int

    @classmethod
    def of(cls, matrix: Matrix, cursor: Cursor, cells: int) -> _Layout:
        fixed = 1 + 9 + 7 + 8 + verdicts.CELLS + 1
        columns = max(0, min(len(matrix.rules), (cells - fixed - 20) // CELL))
        bar_cells = max(8, min(44, cells - fixed - columns * CELL - 2))
        values = [value for row in matrix.stages for value in _values(row, matrix.rules, cursor.rule)]
        name = matrix.rules[cursor.rule][1] if matrix.rules else ""
        axis = axis_for(values, is_difference=is_difference(name))
        first = max(0, min(cursor.rule - columns // 2, len(matrix.rules) - columns))
        return cls(matrix, cursor.rule, first, columns, bar_cells, axis, cells)

    def header(self) -> Line:
        spans = [Span(fit(" stage", 10), "dim"), Span(fit("n", 6, ">") + " ", "dim")]
        for index in range(self.first, self.first + self.columns):
            mark = "›" if index == self.chosen else " "
            style = "strong" if index == self.chosen else "dim"
            spans.append(Span(fit(mark + short_name(self.matrix.rules[index][1]), CELL), style))
        title = axis_title(self.axis, self.bar_cells, "━●━ bounds ┃ gate")
        spans += [
            Span(" " + title + " ", "dim"),
            Span(fit("gate", 6, ">") + "  ", "dim"),
            Span("verdict", "dim"),
        ]
        return fit_line(spans, self.cells)

    def row(self, row: StageRow, is_here: bool, is_focused: bool) -> Line:
        key = self.matrix.rules[self.chosen] if self.matrix.rules else None
        deciding = verdicts.worst(row.rules(key)) if key else None
        n = deciding.n if deciding else None
        spans = [
            _mark(is_here, is_focused), Span(fit(row.stage, 8) + " ", "strong" if is_here else ""),
            Span(fit(numbers.amount(n) if n is not None else "", 6, ">") + " ", "dim"),
        ]  # fmt: skip
        for index in range(self.first, self.first + self.columns):
            spans.append(_cell(verdicts.worst(row.rules(self.matrix.rules[index]))))
        spans += [Span(" "), *self._bar(deciding, row), Span(" ")]
        gate = numbers.score(deciding.threshold) if deciding else ""
        spans += [Span(fit(gate, 6, ">") + "  ", "gate"), *_stage_verdict(row)]
        return fit_line(spans, self.cells)

    def _bar(self, deciding: RuleVerdict | None, row: StageRow) -> Line:
        if deciding is None:
            if row.is_active:
                return progress_bar(numbers.share(row.done, row.total), self.bar_cells)
            return (Span(" " * self.bar_cells),)
        return interval_bar(
            self.axis, self.bar_cells, score=deciding.score, low=deciding.low, high=deciding.high,
            gate=deciding.threshold, style=f"{verdicts.style(deciding.verdict)}-bar",
        )  # fmt: skip


def _values(row: StageRow, rules: Sequence[RuleKey], chosen: int) -> list[float | None]:
    deciding = verdicts.worst(row.rules(rules[chosen])) if rules else None
    return [deciding.score, deciding.low, deciding.high, deciding.threshold] if deciding else []


def _cell(item: RuleVerdict | None) -> Span:
    if item is None:
        return Span(fit(" ·", CELL), "faint")
    number = numbers.signed(item.score) if is_difference(item.rule) else numbers.score(item.score)
    return Span(
        fit(f" {verdicts.glyph(item.verdict)} {number}", CELL), f"{verdicts.style(item.verdict)}-text"
    )


def _stage_verdict(row: StageRow) -> Line:
    if row.verdict is not None:
        deciding = verdicts.worst(row.verdict.rules)
        return (verdicts.badge(row.verdict.verdict, deciding.needed if deciding else None),)
    if row.is_active:
        return (Span(f"● {numbers.amount(row.done)}/{numbers.amount(row.total)}", "running"),)
    return (Span("● scored" if row.done else "○ waiting", "dim"),)


def is_difference(rule_name: str) -> bool:
    """Whether the rule's score is a difference between two stages."""
    return bool(re.search(r"\b(no worse|better) than\b", rule_name))


def short_name(rule_name: str) -> str:
    """`accuracy`, `rec/label` or `vs base`: what fits over a column."""
    if found := re.search(r"\b(?:no worse|better) than (\S+)", rule_name):
        return f"vs {found[1]}"
    if found := re.search(r"^(\S+) per (\S+)", rule_name):
        return f"{found[1][:3]}/{found[2]}"
    return "errors" if rule_name == ERRORS_RULE else rule_name.split(" ")[0]


def _why_and_next(board: Board, cursor: Cursor, context: Context, cells: int, rows: int) -> list[Line]:
    if cells < 90:
        return why_lines(board, cursor, cells, rows)
    next_cells = 36
    left = why_lines(board, cursor, cells - next_cells - 1, rows)
    right = next_lines(context, next_cells, rows)
    return [
        (*fit_line(one, cells - next_cells), *other)
        for one, other in zip(_filled(left, rows), _filled(right, rows), strict=True)
    ]


def _filled(lines: list[Line], rows: int) -> list[Line]:
    return lines[:rows] + [()] * (rows - len(lines))


def why_lines(board: Board, cursor: Cursor, cells: int, rows: int) -> list[Line]:
    """Why the stage under the cursor is judged as it is, or why the run ended."""
    ended = _ended_lines(board, cells)
    row = board.matrix.stages[cursor.stage] if board.matrix.stages else None
    if row is None or row.verdict is None:
        words = "has not been judged yet" if row else ""
        head = [line(Span(f" WHY  {row.stage} {words}", "head"))] if row and not ended else []
        return (ended + head)[:rows]
    state = row.verdict.verdict
    verb = {State.PASS: "passes", State.FAIL: "fails", State.INCONCLUSIVE: "is undecided"}.get(
        state, "is not judged"
    )
    lines = [*ended, line(Span(f" WHY {row.stage} {verb}", "head"), Span(f"  {tally(row.verdict)}", "dim"))]
    for item in ranked(row.verdict.rules):
        if len(lines) >= rows or (item.verdict is State.PASS and len(lines) > len(ended) + 2):
            break
        lines += _rule_lines(item, cells)
    return lines[:rows]


def tally(verdict: Verdict) -> str:
    """`2 fail, 1 unsure, 14 pass`."""
    words = {
        State.FAIL: "fail",
        State.INCONCLUSIVE: "unsure",
        State.PASS: "pass",
        State.SKIPPED: "too few items",
    }
    counts = {state: sum(item.verdict is state for item in verdict.rules) for state in words}
    return ", ".join(f"{count} {words[state]}" for state, count in counts.items() if count)


def ranked(rules: Sequence[RuleVerdict]) -> list[RuleVerdict]:
    """The rules, those that decide first."""
    left, out = list(rules), []
    while left:
        first = verdicts.worst(tuple(left))
        out.append(first)
        left = [item for item in left if item is not first]
    return [item for item in out if item is not None]


def _rule_lines(item: RuleVerdict, cells: int) -> list[Line]:
    where = "" if item.slice == "all" else f" · {item.slice}"
    glyph = Span(f" {verdicts.glyph(item.verdict)} ", f"{verdicts.style(item.verdict)}-text")
    return [fit_line((glyph, Span(item.rule, "strong"), Span(where), Span(f"  {item.reason}", "dim")), cells)]


def _ended_lines(board: Board, cells: int) -> list[Line]:
    run, progress = board.run, board.progress
    if run is None or progress is None:
        return []
    if run.state is RunState.DIED:
        return [
            line(
                Span(" ✗ The worker ended without a last word.", "fail-text"),
                Span(" r goes on from there.", "dim"),
            )
        ]
    if progress.ended is None or run.state is RunState.RUNNING:
        return []
    if run.state is RunState.FAILED:
        lines = [
            line(Span(f" ✗ {text}" if index == 0 else f"   {text}", "fail-text"))
            for index, text in enumerate(wrap(str(progress.ended.data.get("error", "")), cells - 4, rows=4))
        ]
        hint = str(progress.ended.data.get("hint") or "")
        return lines + [line(Span(f"   {text}", "dim")) for text in wrap(hint, cells - 4, rows=2) if text]  # fmt: skip
    if run.state is RunState.CANCELLED:
        text = str(progress.ended.data.get("text") or "stopped on request")
        return [line(Span(f" ⊘ {text}", "warning"), Span("  r goes on from there", "dim"))]
    return []


def next_lines(context: Context, cells: int, rows: int) -> list[Line]:
    """What can be done now; what can't says why."""
    lines = [line(Span("NEXT", "head"))]
    for action in ACTIONS:
        if not action.is_next or context.screen not in action.screens:
            continue
        reason = action.why_not(context)
        key = fit(shown_key(action.keys[0]), 6)
        if reason is None:
            lines.append(line(Span(key, "key"), Span(next_words(action.name, context))))
        else:
            lines.append(line(Span(key, "off"), Span(f"⊘ {action.label}: {reason}", "off")))
    return [fit_line(spans, cells) for spans in lines[:rows]]


def next_words(name: str, context: Context) -> str:
    """What the action would do here, in a few words."""
    if name == "open" and context.pane == "stages":
        return f"open the samples of {context.stage}"
    if name == "open":
        return "watch it live" if context.state is RunState.RUNNING else "look at its verdicts"
    return {"cancel": "stop after this batch", "resume": "resume where it stopped"}.get(name, name)


def slice_lines(board: Board, cursor: Cursor, cells: int, rows: int) -> list[Line]:
    """Every rule of the stage under the cursor, slice by slice, those that decide first."""
    row = board.matrix.stages[cursor.stage] if board.matrix.stages else None
    if row is None or row.verdict is None:
        return [line(Span("SLICES", "head"))]
    lines = [line(Span(f"SLICES of {row.stage}", "head"))]
    bar_cells = max(8, cells - 36)
    for item in ranked(row.verdict.rules)[: rows - 1]:
        values = [item.score, item.low, item.high, item.threshold]
        axis = Axis(0.0, 1.0) if all(v is None or 0 <= v <= 1 for v in values) else axis_for(values)
        if is_difference(item.rule):
            axis = axis_for(values, is_difference=True)
        bar = interval_bar(
            axis, bar_cells, score=item.score, low=item.low, high=item.high, gate=item.threshold,
            style=f"{verdicts.style(item.verdict)}-bar",
        )  # fmt: skip
        name = short_name(item.rule) if item.slice == "all" else item.slice
        lines.append(
            (Span(fit(f"{verdicts.glyph(item.verdict)} ", 2), f"{verdicts.style(item.verdict)}-text"),
             Span(fit(name, 20) + " "), Span(fit(f"{item.n:,}", 5, ">") + " ", "dim"), *bar, Span(" "),
             Span(fit(numbers.score(item.score), 6, ">")))
        )  # fmt: skip
    return [fit_line(spans, cells) for spans in lines]


def title_right(runs: Sequence[RunInfo]) -> Line:
    """How many jobs run, for the title line."""
    running = sum(info.state is RunState.RUNNING for info in runs)
    words = f"● {running} job{'s' if running != 1 else ''} running" if running else "no job running"
    return line(Span(words, "running" if running else "dim"))
