"""Screen 2: one run while it works: steps, slices or loss curve, last events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from harness.evals.results import Reading, Scorecard
from harness.jobs.store import RunInfo, RunState
from harness.tui.views import numbers
from harness.tui.views.bars import Axis, Series, axis_title, interval_bar, plot, progress_bar
from harness.tui.views.board import RUN_GLYPHS
from harness.tui.views.cells import Line, Span, beside, between, exactly, fit, fit_line, line, rule, wrap
from harness.tui.views.events import event_lines, sentence
from harness.tui.views.folders import RunFolder
from harness.tui.views.matrix import window
from harness.tui.views.numbers import number
from harness.tui.views.progress import Evaluation, Progress, Step, Training

STEP_GLYPHS = {
    "done": ("✓", "pass-text"),
    "active": ("●", "running"),
    "stopped": ("⊘", "warning"),
    "waiting": ("○", "dim"),
}
OUTLOOK_CELLS = 15
_OUTLOOKS = {"cannot pass": "✗ cannot pass", "cannot fail": "✓ cannot fail", "open": "? open"}
_OUTLOOK_STYLES = {"cannot pass": "fail-text", "cannot fail": "pass-text", "open": "dim"}
PLOT_S = 1.0
"""How long a drawn curve is good for."""
TWO_COLUMNS = 90
"""From this width on the steps stand beside the numbers."""


class SliceRow(NamedTuple):
    """One slice of the evaluation."""

    name: str
    n: int
    score: float | None
    low: float | None
    high: float | None
    """Bounds only where n is final: an interval on a growing n promises too much."""
    gate: float | None
    outlook: str = ""
    """What is certain whatever the items that are left bring: see `outlook`."""


CANNOT_PASS, CANNOT_FAIL, OPEN = "cannot pass", "cannot fail", "open"


def outlook(hits: float, n: int, of: int | None, gate: float | None) -> str:
    """What no further item can change of a rule `at_least` on a mean of scores in 0 to 1.

    A PASS wants the lower bound at the gate, a FAIL the upper bound below it, and the mean lies between them: so a
    mean that can't reach the gate any more can't PASS, and one that can't fall below it can't FAIL. This is
    arithmetic on what is left, no test: looking at it often costs nothing.
    """
    if gate is None or of is None or of < n:
        return ""
    if (hits + of - n) / of < gate:
        return CANNOT_PASS
    return CANNOT_FAIL if hits / of >= gate else OPEN


def live_body(info: RunInfo, folder: RunFolder, cells: int, rows: int, *, now_s: float) -> list[Line]:
    """The live screen between its frame's lines."""
    progress = folder.progress
    head = [*head_lines(info, progress, cells, now_s=now_s), rule(cells)]
    left = rows - len(head)
    if cells < TWO_COLUMNS:
        return head + _stacked(progress, folder, cells, left, now_s)
    return head + _side_by_side(progress, folder, cells, left, now_s)


def _stacked(progress: Progress, folder: RunFolder, cells: int, rows: int, now_s: float) -> list[Line]:
    if rows < 20:
        head = [_steps_line(progress, cells), rule(cells)]
    else:
        step_rows = min(len(progress.steps) + 1, rows // 3)
        head = [*exactly(step_lines(progress, cells, step_rows, now_s=now_s), step_rows), rule(cells)]
    event_rows = 3 if rows < 20 else 5
    number_rows = rows - len(head) - event_rows - 1
    body = exactly(_numbers(folder, cells, number_rows, now_s), number_rows)
    return [*head, *body, rule(cells), *event_lines(progress, cells, event_rows)]


def _steps_line(progress: Progress, cells: int) -> Line:
    """The steps in one line: how many are done, and which come next."""
    waiting = [step.title or step.name for step in progress.steps.values() if step.state == "waiting"]
    coming = f"  then {', '.join(waiting)}" if waiting else ""
    words = f"  {progress.n_done} of {len(progress.steps)} done"
    return fit_line((Span(" STEPS", "head"), Span(words), Span(coming, "dim")), cells)


def _side_by_side(progress: Progress, folder: RunFolder, cells: int, rows: int, now_s: float) -> list[Line]:
    event_rows = max(5, rows // 4)
    top = rows - event_rows - 1
    steps_cells = min(46, cells * 2 // 5)
    columns = beside(
        exactly(step_lines(progress, steps_cells, top, now_s=now_s), top),
        exactly(_numbers(folder, cells - steps_cells - 1, top, now_s), top),
        steps_cells, cells,
    )  # fmt: skip
    return [*columns, rule(cells), *event_lines(progress, cells, event_rows)]


def head_lines(info: RunInfo, progress: Progress, cells: int, *, now_s: float) -> list[Line]:
    """What the run is, how far, and how long still."""
    glyph, style = RUN_GLYPHS[info.state]
    started = f"started {numbers.clock(progress.started_s)} · pid {progress.pid or numbers.UNKNOWN}"
    if info.state is RunState.RUNNING and progress.started_s is not None:
        started += f" · {numbers.duration(now_s - progress.started_s)} so far"
    word = line(Span(f" {glyph} {info.state}", style or "strong"), Span(f"  {info.title}"))
    lines = [between(word, line(Span(started + " ", "dim")), cells)]
    step = progress.active
    if info.state is RunState.RUNNING and step is not None:
        lines.append(_step_bar(progress, step, cells))
    if info.state is RunState.DIED:
        lines.append(
            line(Span(" The worker died before its last word: r goes on from its last batch", "fail-text"))
        )
    if progress.ended is not None and info.state is not RunState.RUNNING:
        text, ended_style = sentence(progress.ended)
        lines += [line(Span(f" {part}", ended_style)) for part in wrap(text, cells - 2, rows=2)]
    return lines


def _step_bar(progress: Progress, step: Step, cells: int) -> Line:
    share = numbers.share(step.done, step.total)
    of = f"{list(progress.steps).index(step.name) + 1}/{len(progress.steps)}"
    title = fit(f"{of} {step.title or step.name}", min(30, cells // 4))
    done = f"{numbers.quantity(step.done)}/{numbers.quantity(step.total)} {step.unit}".rstrip()
    percent = "    " if share is None else f"{share:4.0%}"
    tail = f" {percent}  {done}  {_rate(step)}  eta {numbers.duration(step.eta_s)} "
    bar = progress_bar(share, max(6, cells - len(title) - len(tail) - 2))
    return fit_line((Span(f" {title} ", "running"), *bar, Span(tail)), cells)


def _rate(step: Step) -> str:
    unit = step.unit[:-1] if step.unit.endswith("s") else step.unit
    return f"{numbers.quantity(step.rate)} {unit or 'it'}/s" if step.rate is not None else numbers.UNKNOWN


def step_lines(progress: Progress, cells: int, rows: int, *, now_s: float) -> list[Line]:
    """The steps of the job, the active one in view."""
    steps = list(progress.steps.values())
    if not steps:
        return [line(Span(" STEPS", "head")), line(Span(" waiting for the worker's first record", "dim"))]
    active = next((i for i, step in enumerate(steps) if step.state in ("active", "stopped")), progress.n_done)
    first = window(active, len(steps), rows - 1)
    title = between(
        line(Span(" STEPS", "head")), line(Span(f"{progress.n_done} of {len(steps)} done ", "dim")), cells
    )  # fmt: skip
    return [title, *(_step_line(step, cells, now_s) for step in steps[max(0, first) : first + rows - 1])]


def _step_line(step: Step, cells: int, now_s: float) -> Line:
    glyph, style = STEP_GLYPHS[step.state]
    took = ""
    if step.state == "done":
        took = "reused" if step.is_reused else numbers.duration(step.seconds)
    elif step.state == "active":
        share = numbers.share(step.done, step.total)
        elapsed = numbers.duration(now_s - step.started_s) if step.started_s is not None else ""
        took = f"{share:.0%}" if share is not None else elapsed
    name = step.title or step.name
    text_style = {"active": "running", "waiting": "dim"}.get(step.state, "")
    return between(
        line(Span(f" {glyph} ", style), Span(name, text_style)), line(Span(took + " ", "dim")), cells
    )


def _numbers(folder: RunFolder, cells: int, rows: int, now_s: float) -> list[Line]:
    progress = folder.progress
    if progress.is_training:
        return training_lines(progress, cells, rows, now_s=now_s)
    if progress.evaluation is not None:
        return slice_lines(folder, cells, rows)
    if progress.training.losses:
        return training_lines(progress, cells, rows, now_s=now_s)
    return [
        line(Span(" NUMBERS", "head")),
        line(Span(" The first numbers come with the first evaluation.", "dim")),
    ]


def slice_rows(folder: RunFolder) -> list[SliceRow]:
    """The slices of the last evaluation: all of it first, then the worst."""
    found = folder.progress.evaluation
    if found is None:
        return []
    gates = accuracy_gates(folder.manifest)
    card = folder.scorecards.get((found.stage, found.suite))
    if found.is_complete and card is not None:
        rows = [_final_row(reading, gates) for reading in _shown_readings(card)]
    else:
        rows = _running_rows(folder, found, gates)
    return sorted(
        rows, key=lambda row: (row.name != "all", row.score if row.score is not None else 2.0, row.name)
    )


def _running_rows(
    folder: RunFolder, found: Evaluation, gates: Mapping[tuple[str, str], float]
) -> list[SliceRow]:
    sizes = _sizes(folder, found)
    whole = _sum_of_scores(found)
    rows = [_running_row("all", found.done or 0, float(found.correct or 0), gates)]
    if whole is not None:
        rows = [rows[0]._replace(outlook=outlook(whole, found.done or 0, found.total, rows[0].gate))]
    for name, (n, hits) in found.slices.items():
        row = _running_row(name, n, hits, gates)
        rows.append(row._replace(outlook=outlook(hits, n, sizes.get(name), row.gate)))
    return rows


def _running_row(name: str, n: int, hits: float, gates: Mapping[tuple[str, str], float]) -> SliceRow:
    return SliceRow(name, n, hits / n if n else None, None, None, _gate_of(gates, name))


def _sizes(folder: RunFolder, found: Evaluation) -> dict[str, int]:
    """Items of each slice, as a stage that was scored before says; the items are the same at every stage."""
    cards = [
        card
        for (_, suite), card in folder.scorecards.items()
        if suite == found.suite and card.n == found.total
    ]
    return {
        reading.slice: reading.n
        for card in cards
        for reading in card.readings
        if reading.metric == "accuracy"
    }


def _sum_of_scores(found: Evaluation) -> float | None:
    """Of all items: the slices of a key that every item has one value of; None where no key is such."""
    sums: dict[str, tuple[int, float]] = {}
    for name, (n, hits) in found.slices.items():
        key = name.partition("=")[0]
        before = sums.get(key, (0, 0.0))
        sums[key] = (before[0] + n, before[1] + hits)
    return next((hits for n, hits in sums.values() if n == found.done), None)


def _shown_readings(card: Scorecard) -> list[Reading]:
    return [reading for reading in card.readings if reading.metric in ("accuracy", "recall")]


def _final_row(reading: Reading, gates: Mapping[tuple[str, str], float]) -> SliceRow:
    gate = _gate_of(gates, reading.slice, reading.metric)
    name = reading.slice.replace("label=", "recall ") if reading.metric == "recall" else reading.slice
    return SliceRow(name, reading.n, reading.score, reading.low, reading.high, gate)


def accuracy_gates(manifest: Mapping[str, Any]) -> dict[tuple[str, str], float]:
    """Thresholds of the recipe's `at_least` rules by (metric, slice key); `all` is the key of whole suites."""
    document = manifest.get("document")
    recipe = document.get("recipe") if isinstance(document, dict) else None
    gates = recipe.get("gates") if isinstance(recipe, dict) else None
    found = {}
    for gate in gates if isinstance(gates, list) else ():
        bound = number(gate.get("at_least")) if isinstance(gate, dict) else None
        if bound is not None:
            found[str(gate.get("metric")), str(gate.get("per") or "all")] = bound
    return found


def _gate_of(gates: Mapping[tuple[str, str], float], name: str, metric: str = "accuracy") -> float | None:
    return gates.get((metric, name.partition("=")[0]))


def slice_lines(folder: RunFolder, cells: int, rows: int) -> list[Line]:
    """The table of slices. While samples still come in there are points, no intervals."""
    found = folder.progress.evaluation
    if found is None:
        return []
    table = slice_rows(folder)
    is_final = any(row.low is not None for row in table)
    name_cells = max(12, min(28, cells // 3))
    outlook_cells = _outlook_cells(table, cells - name_cells)
    bar_cells = max(8, cells - name_cells - 24 - outlook_cells)
    scale = Axis(0.0, 1.0)
    head = (
        Span(fit(" slice", name_cells) + fit("n", 7, ">") + fit("score", 8, ">") + "  ", "dim"),
        Span(axis_title(scale, bar_cells, "95% interval" if is_final else "so far"), "dim"),
        Span(fit("gate", 6, ">"), "dim"), Span(fit("  certain" if outlook_cells > 3 else "", outlook_cells), "dim"),
    )  # fmt: skip
    lost = [row.name for row in table if row.outlook == CANNOT_PASS]
    offer = [_offer_line(lost, cells)] if lost and outlook_cells else []
    rows -= len(offer)
    lines = [_evaluation_title(folder, cells, is_final), head]
    for row in table[: max(0, rows - 2)]:
        bar = interval_bar(
            scale, bar_cells, score=row.score, low=row.low, high=row.high, gate=row.gate,
            style=_row_style(row, is_final),
        )  # fmt: skip
        lines.append(
            (Span(fit(f" {row.name}", name_cells), "strong" if row.name == "all" else ""),
             Span(fit(f"{row.n:,}", 7, ">"), "dim"), Span(fit(numbers.score(row.score), 8, ">") + "  "), *bar,
             Span(fit(numbers.score(row.gate) if row.gate is not None else "", 6, ">"), "dim"),
             _outlook_span(row, outlook_cells))
        )  # fmt: skip
    if len(table) > rows - 2:
        lines[-1] = line(Span(f" … and {len(table) - rows + 3} more, all better than these", "dim"))
    return lines + offer


def _outlook_cells(table: Sequence[SliceRow], cells: int) -> int:
    """Room for what is certain: in words, as a glyph where a bar leaves no more, none where nothing is."""
    if not any(row.outlook for row in table):
        return 0
    return OUTLOOK_CELLS if cells >= OUTLOOK_CELLS + 36 else 3


def _outlook_span(row: SliceRow, cells: int) -> Span:
    words = f"  {_OUTLOOKS.get(row.outlook, '')}"[:cells].ljust(cells)
    return Span(words, _OUTLOOK_STYLES.get(row.outlook, "dim"))


def _offer_line(names: list[str], cells: int) -> Line:
    which = ", ".join(names[:2]) + (f" and {len(names) - 2} more" if len(names) > 2 else "")
    words = f" ▲ {which} cannot pass any more, whatever is left: x stops the run"
    return fit_line((Span(words, "warning"),), cells)


def _evaluation_title(folder: RunFolder, cells: int, is_final: bool) -> Line:
    found = folder.progress.evaluation
    assert found is not None
    counted = f"{numbers.amount(found.done)} of {numbers.amount(found.total)}"
    errors = f" · {found.errors} errors" if found.errors else ""
    words = "final" if is_final else "bounds come with the last sample"
    words = words if cells >= TWO_COLUMNS or is_final else ""
    left = line(Span(f" {found.stage} × {found.suite}", "head"), Span(f"  {counted}{errors}"))
    return between(left, line(Span(f"{words} ", "dim")), cells)


def _row_style(row: SliceRow, is_final: bool) -> str:
    if not is_final or row.gate is None or row.low is None or row.high is None:
        return "progress"
    return "pass-bar" if row.low >= row.gate else "fail-bar" if row.high < row.gate else "unsure-bar"


def training_lines(progress: Progress, cells: int, rows: int, *, now_s: float) -> list[Line]:
    """The last reading and the loss curves."""
    training, last = progress.training, progress.training.last
    held_out = training.held_out[-1][1] if training.held_out else None
    title = line(
        Span(" TRAIN", "head"),
        Span(f"  step {numbers.quantity(number(last.get('step')))}/{numbers.amount(training.of)}"),
        Span(f"  loss {numbers.score(number(last.get('loss')))}", "strong"),
        Span(f"  held out {numbers.score(held_out)}"),
        Span(f"  eta {numbers.duration(number(last.get('eta_s')))}", "dim"),
    )
    rate, memory = number(last.get("lr")), number(last.get("memory_mb"))
    facts = [
        f"lr {rate:.2e}" if rate is not None else "",
        f"grad {numbers.quantity(number(last.get('grad_norm')))}",
        f"{numbers.quantity(number(last.get('tok_s')))} tok/s",
        f"{memory / 1024:.1f} GiB" if memory is not None else "",
        f"checkpoint {training.checkpoints[-1]}" if training.checkpoints else "no checkpoint yet",
    ]
    legend = line(
        Span(" ⠒ train", "curve"),
        Span("  ○ held out", "curve-2"),
        Span(f"   {' · '.join(filter(None, facts))}", "dim"),
    )
    return [title, legend, *_picture(training, cells - 1, rows - 2, now_s)]


def _picture(training: Training, cells: int, rows: int, now_s: float) -> list[Line]:
    drawn = training.picture
    if drawn is not None and drawn[0] == (cells, rows) and 0 <= now_s - drawn[1] < PLOT_S:
        return drawn[2]
    series = [Series(training.losses.points(), "curve"), Series(training.held_out, "curve-2", glyph="○")]
    lines = plot(series, cells, rows)
    training.picture = ((cells, rows), now_s, lines)
    return lines
