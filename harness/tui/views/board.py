"""Screen 1: the runs, the verdicts of one of them by stage and rule, why, and what to do next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from harness.jobs.store import RunInfo, RunState
from harness.tui.context import Context
from harness.tui.views import numbers, verdicts
from harness.tui.views.bars import progress_bar
from harness.tui.views.cells import Line, Span, beside, between, exactly, fit, fit_line, line, rule
from harness.tui.views.events import event_lines
from harness.tui.views.folders import RunFolder
from harness.tui.views.matrix import Cursor, Layout, Matrix, StageRow, mark, matrix_of, window
from harness.tui.views.progress import Progress, Step
from harness.tui.views.why import next_lines, shipped_lines, slice_lines, why_lines

RUN_GLYPHS = {
    RunState.RUNNING: ("●", "running"),
    RunState.DONE: ("✓", ""),
    RunState.FAILED: ("✗", "fail-text"),
    RunState.CANCELLED: ("⊘", "warning"),
    RunState.DIED: ("✗", "fail-text"),
}
TWO_COLUMNS = 90
"""From this width on the next steps stand beside the reasons."""
WIDE = 140
"""From this width on a side pane shows the stage's rules slice by slice."""


@dataclass(frozen=True, slots=True)
class Board:
    """All that the board shows."""

    runs: tuple[RunInfo, ...]
    run: RunInfo | None = None
    progress: Progress | None = None
    """Of the chosen run."""
    running: Mapping[str, Progress] = field(default_factory=dict)
    """Of every running run, by its name."""
    matrix: Matrix = field(default_factory=lambda: Matrix((), ()))
    release: str | None = None
    """Where the release was written."""
    home: str = ""
    now_s: float = 0.0


def board_of(
    runs: Sequence[RunInfo],
    run: RunInfo | None,
    folder: RunFolder | None,
    *,
    matrix: Matrix | None = None,
    running: Mapping[str, Progress] | None = None,
    home: str = "",
    now_s: float,
) -> Board:
    """The board with one run chosen; the matrix is made from its folder where none is given."""
    if run is None or folder is None:
        return Board(tuple(runs), home=home, now_s=now_s)
    release = (folder.result or {}).get("release")
    return Board(
        tuple(runs), run, folder.progress, running or {},
        matrix or matrix_of(folder, is_running=run.state is RunState.RUNNING),
        release=release if isinstance(release, str) else None, home=home, now_s=now_s,
    )  # fmt: skip


def board_body(board: Board, cursor: Cursor, context: Context, cells: int, rows: int) -> list[Line]:
    """The board between its frame's lines: runs, verdicts, why and next, in `rows` rows."""
    if not board.runs:
        return _welcome(board)
    matrix_rows = len(board.matrix.stages) or 1
    run_rows = max(1, min(len(board.runs), rows - matrix_rows - (9 if rows < 20 else 11), 8))
    body = [_runs_title(board, cursor, cells), *_run_lines(board, cursor, cells, run_rows), rule(cells)]
    left_cells = cells if cells < WIDE else 98
    why_rows = 5 if rows < 20 else 8
    left = _verdict_lines(board, cursor, left_cells, max(3, rows - len(body) - why_rows))
    left.append(rule(left_cells))
    room = rows - len(body) - len(left)
    if cells < WIDE:
        return [*body, *left, *_why_and_next(board, cursor, context, left_cells, room)][:rows]
    left += _why_and_next(board, cursor, context, left_cells, min(8, room))
    if board.progress is not None and room > 12:
        left += [rule(left_cells), *event_lines(board.progress, left_cells, room - 9)]
    side = slice_lines(stage_at(board, cursor), cells - left_cells - 2, rows - len(body))
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


def _run_line(board: Board, info: RunInfo, is_here: bool, is_focused: bool, cells: int) -> Line:
    glyph, style = RUN_GLYPHS[info.state]
    name_cells = min(32, cells // 3)
    age_cells = 11 if cells >= 90 else 0
    head = [
        mark(is_here, is_focused), Span(f"{glyph} ", style),
        Span(fit(info.run, name_cells - 1) + " ", "strong" if is_here else ""),
    ]  # fmt: skip
    status = _status(board, info, is_here, max(10, cells - name_cells - age_cells - 4))
    age = Span(fit(numbers.ago(info.created, board.now_s), age_cells, ">"), "dim")
    return between((*head, *status), (age,) if age_cells else (), cells)


def _status(board: Board, info: RunInfo, is_here: bool, cells: int) -> Line:
    if info.state is RunState.RUNNING and (progress := board.running.get(info.run)):
        return running_line(progress, cells)
    title = fit(info.title, max(0, min(24, cells - 24)))
    word = Span(f" {info.state}", "" if info.state is RunState.DONE else RUN_GLYPHS[info.state][1])
    verdict = verdicts.state_of(info.verdict)
    end: Line = (Span("  "), verdicts.badge(verdict)) if verdict is not None else ()
    picked = f", ships {board.matrix.picked}" if is_here and board.matrix.picked else ""
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
    layout = Layout.of(matrix, cursor, cells)
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


def _why_and_next(board: Board, cursor: Cursor, context: Context, cells: int, rows: int) -> list[Line]:
    next_cells = 36 if cells >= TWO_COLUMNS else 0
    room = cells - next_cells - (1 if next_cells else 0)
    why = why_lines(board.run, board.progress, stage_at(board, cursor), room, rows)
    if board.release and board.run and board.run.state is RunState.DONE:
        why = [*shipped_lines(board.release, board.matrix.picked, room), *why]
    if not next_cells:
        return why[: max(0, rows)]
    pairs = zip(exactly(why, rows), exactly(next_lines(context, next_cells, rows), rows), strict=True)
    return [(*fit_line(one, cells - next_cells), *other) for one, other in pairs]


def stage_at(board: Board, cursor: Cursor) -> StageRow | None:
    """The stage under the cursor."""
    return board.matrix.stages[cursor.stage] if cursor.stage < len(board.matrix.stages) else None


def title_right(runs: Sequence[RunInfo]) -> Line:
    """How many jobs run, for the title line."""
    running = sum(info.state is RunState.RUNNING for info in runs)
    words = f"● {running} job{'s' if running != 1 else ''} running" if running else "no job running"
    return line(Span(words, "running" if running else "dim"))
