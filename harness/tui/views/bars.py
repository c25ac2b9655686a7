"""Bars and plots drawn in characters: pure functions of numbers and cells."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from harness.tui.views.cells import Line, Span, fit

POINTS_PER_COLUMN = 2
LABEL_CELLS = 7
"""What the numbers beside a plot take, with the frame."""
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""Bits of a braille cell by row and column."""


class Axis(NamedTuple):
    """The range of values that a bar stands for."""

    low: float
    high: float

    def cell(self, value: float, cells: int) -> int:
        """The cell in which the value lies; the ends hold what lies beyond them."""
        share = (value - self.low) / (self.high - self.low) if self.high > self.low else 0.0
        return min(cells - 1, max(0, math.floor(share * cells)))


def axis_for(values: Iterable[float | None], *, is_difference: bool = False) -> Axis:
    """A range with round ends that holds all values: 0 to 1 for rates, symmetric for differences."""
    known = [value for value in values if value is not None and math.isfinite(value)]
    top = max((abs(value) for value in known), default=1.0)
    if is_difference or any(value < 0 for value in known):
        return Axis(-_round_up(top), _round_up(top))
    if top > 1.0:
        return Axis(0.0, _round_up(top))
    return Axis(0.5, 1.0) if known and min(known) >= 0.5 else Axis(0.0, 1.0)


def _round_up(value: float) -> float:
    if value < 1e-9:
        return 1.0
    size = 10.0 ** math.floor(math.log10(value))
    return next(step * size for step in (1, 2, 2.5, 5, 10) if step * size >= value * 0.999999)


def interval_bar(
    axis: Axis,
    cells: int,
    *,
    score: float | None,
    low: float | None = None,
    high: float | None = None,
    gate: float | None = None,
    style: str = "",
) -> Line:
    """`···━●━┃···`: the score, its bounds and its gate on the axis; `◉` where score and gate meet."""
    marks: list[tuple[str, str]] = [("·", "faint")] * cells
    if low is not None and high is not None:
        for index in range(axis.cell(low, cells), axis.cell(high, cells) + 1):
            marks[index] = ("━", style)
    here = None if score is None else axis.cell(score, cells)
    if gate is not None:
        marks[axis.cell(gate, cells)] = ("┃", "gate")
    if here is not None:
        marks[here] = ("◉" if marks[here][0] == "┃" else "●", style)
    return runs(marks)


def axis_title(axis: Axis, cells: int, *words: str) -> str:
    """`0.5 ───── words ───── 1.0`, exactly as wide as its bars, with the first of the words that fit."""
    left, right = f"{axis.low:g}", f"{axis.high:g}"
    room = cells - len(left) - len(right) - 2
    shown = next((text for text in words if len(text) + 4 <= room), "")
    if not shown:
        return fit(f"{left} {'─' * max(0, room)} {right}", cells)
    dashes = room - len(shown) - 2
    return f"{left} {'─' * (dashes // 2)} {shown} {'─' * (dashes - dashes // 2)} {right}"


def progress_bar(share: float | None, cells: int) -> Line:
    """How much is done; an even track where that is unknown."""
    full = 0 if share is None else math.floor(share * cells)
    return (Span("█" * full, "progress"), Span("░" * (cells - full), "faint"))


def runs(marks: Sequence[tuple[str, str]]) -> Line:
    """The characters as a line, those of one style together."""
    out: list[Span] = []
    for char, style in marks:
        if out and out[-1].style == style:
            out[-1] = Span(out[-1].text + char, style)
        else:
            out.append(Span(char, style))
    return tuple(out)


class Series(NamedTuple):
    """Points of one line, x rising."""

    points: Sequence[tuple[float, float]]
    style: str
    glyph: str | None = None
    """Drawn as single marks where it is set, else as a line in braille."""


def plot(series: Sequence[Series], cells: int, rows: int) -> list[Line]:
    """A plot with a labelled frame, `rows` high; empty where there is nothing to draw."""
    points = [point for one in series for point in one.points]
    label_cells = LABEL_CELLS
    if not points or rows < 3 or cells < label_cells + 10:
        return []
    x_axis = Axis(min(x for x, _ in points), max(x for x, _ in points))
    y_axis = _padded(min(y for _, y in points), max(y for _, y in points))
    body = _canvas(series, x_axis, y_axis, cells - label_cells, rows - 2)
    lines = [
        (Span(_y_label(y_axis, row, rows - 2).rjust(label_cells - 1), "dim"), Span("┤", "rule"), *spans)
        for row, spans in enumerate(body)
    ]
    lines.append((Span(" " * (label_cells - 1) + "└" + "─" * (cells - label_cells), "rule"),))
    left, right = f"{x_axis.low:g}", f"step {x_axis.high:g}"
    gap = max(1, cells - label_cells - len(left) - len(right))
    lines.append((Span(" " * label_cells + left + " " * gap + right, "dim"),))
    return lines


def _padded(low: float, high: float) -> Axis:
    room = (high - low) * 0.02 or abs(high) * 0.05 or 1.0
    return Axis(low - room, high + room)


def _y_label(axis: Axis, row: int, rows: int) -> str:
    if row not in (0, rows // 2, rows - 1):
        return ""
    value = axis.high - (axis.high - axis.low) * (row + 0.5) / rows
    forms = (f"{value:.3g}", f"{value:.2g}", f"{value:.0e}")
    return next((form for form in forms if len(form) < LABEL_CELLS), "")


def _canvas(series: Sequence[Series], x_axis: Axis, y_axis: Axis, cells: int, rows: int) -> list[Line]:
    marks: list[list[tuple[str, str]]] = [[(" ", "")] * cells for _ in range(rows)]
    for one in series:
        if one.glyph is None:
            _draw_line(marks, one, x_axis, y_axis)
    for one in series:
        for x, y in one.points if one.glyph is not None else ():
            row = rows - 1 - y_axis.cell(y, rows)
            marks[row][x_axis.cell(x, cells)] = (str(one.glyph), one.style)
    return [runs(row) for row in marks]


def _draw_line(marks: list[list[tuple[str, str]]], one: Series, x_axis: Axis, y_axis: Axis) -> None:
    rows, cells = len(marks), len(marks[0])
    bits = [[0] * cells for _ in range(rows)]
    last: tuple[int, int, int] | None = None
    for column, low, high, end in _columns(one.points, x_axis, y_axis, cells * POINTS_PER_COLUMN, rows * 4):
        if last is not None:
            _join(bits, last, column, end if low <= end <= high else low, rows)
        for height in range(low, high + 1):
            _dot(bits, column, height, rows)
        last = (column, low, high)
    for row, values in enumerate(bits):
        for index, value in enumerate(values):
            if value:
                marks[row][index] = (chr(0x2800 + value), one.style)


def _columns(
    points: Sequence[tuple[float, float]], x_axis: Axis, y_axis: Axis, columns: int, heights: int
) -> list[tuple[int, int, int, int]]:
    """(dot column, lowest dot, highest dot, first dot): the extremes of each column, so that spikes stay."""
    out: list[tuple[int, int, int, int]] = []
    for x, y in points:
        column, height = x_axis.cell(x, columns), y_axis.cell(y, heights)
        if out and out[-1][0] == column:
            _, low, high, first = out[-1]
            out[-1] = (column, min(low, height), max(high, height), first)
        else:
            out.append((column, height, height, height))
    return out


def _join(bits: list[list[int]], last: tuple[int, int, int], column: int, height: int, rows: int) -> None:
    """Dots between two columns that are not neighbours."""
    start, low, high = last
    origin = (low + high) / 2
    for between in range(start + 1, column):
        share = (between - start) / (column - start)
        _dot(bits, between, round(origin + (height - origin) * share), rows)


def _dot(bits: list[list[int]], column: int, height: int, rows: int) -> None:
    from_top = rows * 4 - 1 - height
    bits[from_top // 4][column // 2] |= _DOTS[from_top % 4][column % 2]
