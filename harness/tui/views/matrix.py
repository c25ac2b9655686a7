"""The verdicts of one run: stages of the chain by rules of the gate."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.evals.results import Reading, RuleVerdict, State, Verdict
from harness.tui.views import numbers, verdicts
from harness.tui.views.bars import Axis, axis_for, axis_title, interval_bar, progress_bar
from harness.tui.views.cells import Line, Span, fit, fit_line
from harness.tui.views.folders import RunFolder, stage_order

CELL = 10
"""Cells of one rule in the matrix."""
ERRORS_RULE = "errors within the suite's limit"

MAX_NAME_CHARS = 200
LEGENDS = ("━●━ bounds ┃ gate", "bounds ┃ gate", "bounds")
READINGS = ("accuracy, 95% interval", "accuracy, 95%", "95%")

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
    reading: Reading | None = None
    """Accuracy over all items, once they are all scored."""

    def rules(self, key: RuleKey) -> tuple[RuleVerdict, ...]:
        """What the rule says of each slice."""
        found = self.verdict.rules if self.verdict else ()
        return tuple(item for item in found if (item.suite, item.rule) == key)


@dataclass(frozen=True, slots=True)
class Matrix:
    """The verdicts of one run."""

    stages: tuple[StageRow, ...]
    rules: tuple[RuleKey, ...]
    picked: str | None = None
    """The stage that ships."""
    is_running: bool = False

    @property
    def to_look_at(self) -> int:
        """The stage that ships, else the last one that was judged and does not pass, else the last judged one."""
        shipped = [i for i, row in enumerate(self.stages) if row.stage == self.picked]
        if shipped:
            return shipped[0]
        judged = [i for i, row in enumerate(self.stages) if row.verdict]
        trouble = [i for i in judged if self.stages[i].verdict.verdict is not State.PASS]  # type: ignore[union-attr]
        return (trouble or judged or [0])[-1]


def matrix_of(folder: RunFolder, *, is_running: bool = False) -> Matrix:
    """The verdicts of the run, and the stages that are still to come."""
    judged, progress = folder.verdicts, folder.progress
    # Stages within a stage, such as the choice between two merges, are steps on the way and not judged.
    seen = {stage for stage, _ in progress.evaluations if "/" not in stage}
    stages = sorted({*judged, *seen, *planned_stages(folder.manifest)}, key=stage_order)
    active = progress.evaluation
    rows = []
    for stage in stages:
        totals = [one for (name, _), one in progress.evaluations.items() if name == stage]
        is_active = is_running and active is not None and active.stage == stage
        rows.append(
            StageRow(
                stage, judged.get(stage), _sum(one.done for one in totals), _sum(one.total for one in totals),
                is_active and stage not in judged, _accuracy(folder, stage),
            )
        )  # fmt: skip
    picked = (folder.result or {}).get("picked")
    return Matrix(
        tuple(rows), _rule_keys(judged.values()), picked if isinstance(picked, str) else None, is_running
    )


def _accuracy(folder: RunFolder, stage: str) -> Reading | None:
    """The first suite's accuracy at the stage; None before its scorecard is written."""
    cards = [card for (name, _), card in sorted(folder.scorecards.items()) if name == stage]
    readings = cards[0].readings if cards else ()
    return next((one for one in readings if (one.metric, one.slice) == ("accuracy", "all")), None)


def planned_stages(manifest: Mapping[str, Any]) -> tuple[str, ...]:
    """The stages that a release goes through; none for other jobs."""
    document = manifest.get("document")
    recipe = document.get("recipe") if isinstance(document, dict) else None
    if manifest.get("job") != "release" or not isinstance(recipe, dict):
        return ()
    options = manifest.get("options")
    until = options.get("until") if isinstance(options, dict) else None
    tune = recipe.get("tune")
    trains = not (isinstance(tune, dict) and tune.get("method") == "none")
    if until == "train":
        return ("base", "adapter") if trains else ("base",)
    export = recipe.get("export")
    quants = export.get("quants") if isinstance(export, dict) else ()
    before = ("base", "adapter", "merged", "f16") if trains else ("base", "f16")
    return (*before, *(str(quant) for quant in quants or ()))


def _sum(values: Any) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _rule_keys(found: Any) -> tuple[RuleKey, ...]:
    """All rules in the order in which they are written; the error limit, which every suite has, last."""
    keys = dict.fromkeys((item.suite, item.rule) for verdict in found for item in verdict.rules)
    return tuple(sorted(keys, key=lambda key: key[1] == ERRORS_RULE))


def deciding_rule(matrix: Matrix, stage: int) -> int:
    """The rule that decides a stage which does not pass; the first one where it passes or was not judged."""
    verdict = matrix.stages[stage].verdict if stage < len(matrix.stages) else None
    if verdict is None or verdict.verdict is State.PASS:
        return 0
    worst = verdicts.worst(verdict.rules)
    return matrix.rules.index((worst.suite, worst.rule)) if worst else 0


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where the person is on the board."""

    pane: str = "runs"
    run: int = 0
    stage: int = 0
    rule: int = 0


@dataclass(frozen=True, slots=True)
class Layout:
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
    def of(cls, matrix: Matrix, cursor: Cursor, cells: int) -> Layout:
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
            sign = "›" if index == self.chosen else " "
            style = "strong" if index == self.chosen else "dim"
            spans.append(Span(fit(sign + short_name(self.matrix.rules[index][1]), CELL), style))
        title = axis_title(self.axis, self.bar_cells, *(LEGENDS if self.matrix.rules else READINGS))
        spans += [
            Span(" " + title + " ", "dim"),
            Span(fit("gate", 6, ">") + "  ", "dim"),
            Span("verdict", "dim"),
        ]
        return fit_line(spans, self.cells)

    def row(self, row: StageRow, is_here: bool, is_focused: bool) -> Line:
        key = self.matrix.rules[self.chosen] if self.matrix.rules else None
        deciding = verdicts.worst(row.rules(key)) if key else None
        shown = deciding or (None if self.matrix.rules else row.reading)
        n = shown.n if shown else None
        spans = [
            mark(is_here, is_focused), Span(fit(row.stage, 8) + " ", "strong" if is_here else ""),
            Span(fit(numbers.amount(n) if n is not None else "", 6, ">") + " ", "dim"),
        ]  # fmt: skip
        for index in range(self.first, self.first + self.columns):
            spans.append(_cell(verdicts.worst(row.rules(self.matrix.rules[index]))))
        spans += [Span(" "), *self._bar(deciding, row), Span(" ")]
        gate = numbers.score(deciding.threshold) if deciding else ""
        spans += [Span(fit(gate, 6, ">") + "  ", "gate"), *_stage_verdict(row, self.matrix.is_running)]
        if row.stage == self.matrix.picked:
            spans.append(Span(" ships", "strong"))
        return fit_line(spans, self.cells)

    def _bar(self, deciding: RuleVerdict | None, row: StageRow) -> Line:
        if deciding is None and row.is_active:
            return progress_bar(numbers.share(row.done, row.total), self.bar_cells)
        if deciding is None and not self.matrix.rules and (one := row.reading):
            return interval_bar(
                self.axis, self.bar_cells, score=one.score, low=one.low, high=one.high, style="dim-bar"
            )
        if deciding is None:
            return (Span(" " * self.bar_cells),)
        return interval_bar(
            self.axis, self.bar_cells, score=deciding.score, low=deciding.low, high=deciding.high,
            gate=deciding.threshold, style=f"{verdicts.style(deciding.verdict)}-bar",
        )  # fmt: skip


def _values(row: StageRow, rules: Sequence[RuleKey], chosen: int) -> list[float | None]:
    deciding = verdicts.worst(row.rules(rules[chosen])) if rules else None
    if deciding:
        return [deciding.score, deciding.low, deciding.high, deciding.threshold]
    return [row.reading.score, row.reading.low, row.reading.high] if row.reading and not rules else []


def _cell(item: RuleVerdict | None) -> Span:
    if item is None:
        return Span(fit(" ·", CELL), "faint")
    number = numbers.signed(item.score) if is_difference(item.rule) else numbers.score(item.score)
    return Span(
        fit(f" {verdicts.glyph(item.verdict)} {number}", CELL), f"{verdicts.style(item.verdict)}-text"
    )


def _stage_verdict(row: StageRow, is_running: bool) -> Line:
    if row.verdict is not None:
        deciding = verdicts.worst(row.verdict.rules)
        return (verdicts.badge(row.verdict.verdict, deciding.needed if deciding else None),)
    if row.reading is not None:
        return (Span("● "), Span(f"{numbers.score(row.reading.score)} ", "strong"), Span("no gate", "dim"))
    if row.done is not None:
        glyph, style = ("●", "running") if row.is_active else ("⊘", "dim")
        return (Span(f"{glyph} {numbers.amount(row.done)}/{numbers.amount(row.total)}", style),)
    return (Span("○ waiting" if is_running else "○ not reached", "dim"),)


def is_difference(rule_name: str) -> bool:
    """Whether the rule's score is a difference between two stages."""
    return bool(re.search(r"\b(no worse|better) than\b", rule_name[:MAX_NAME_CHARS]))


def short_name(rule_name: str) -> str:
    """`accuracy`, `rec/label` or `vs base`: what fits over a column."""
    rule_name = rule_name[:MAX_NAME_CHARS]
    if found := re.search(r"\b(?:no worse|better) than (\S+)", rule_name):
        return f"vs {found[1]}"
    if found := re.search(r"^(\S+) per (\S+)", rule_name):
        return f"{found[1][:3]}/{found[2]}"
    return re.split(r" (?:at least|at most|equal|from|within) ", rule_name)[0]


def window(cursor: int, length: int, rows: int) -> int:
    """The first shown index, so that the cursor is in view with something before it."""
    return max(0, min(cursor - rows // 2, length - rows))


def mark(is_here: bool, is_focused: bool) -> Span:
    return Span("▌" if is_here else " ", "cursor" if is_focused else "dim")
