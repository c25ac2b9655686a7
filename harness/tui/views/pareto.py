"""Named points on a plane: size across, quality up, with the gate and the device's limit as lines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from harness.tui.views.bars import Axis, runs
from harness.tui.views.cells import Line, Span, fit, width

LABEL_CELLS = 7


class Point(NamedTuple):
    """One variant."""

    name: str
    x: float
    y: float
    glyph: str
    style: str


def scatter(
    points: Sequence[Point],
    cells: int,
    rows: int,
    *,
    gate: float | None = None,
    limit: float | None = None,
    unit: str,
) -> list[Line]:
    """The points with their names, `rows` high; empty where there is nothing to draw or no room."""
    body_rows, body_cells = rows - 2, cells - LABEL_CELLS
    if not points or body_rows < 3 or body_cells < 20:
        return []
    xs = [point.x for point in points] + ([limit] if limit is not None else [])
    ys = [point.y for point in points] + ([gate] if gate is not None else [])
    x_axis, y_axis = _around(xs), _around(ys)
    marks = [[(" ", "")] * body_cells for _ in range(body_rows)]
    if gate is not None:
        marks[body_rows - 1 - y_axis.cell(gate, body_rows)] = [("┄", "gate")] * body_cells
    if limit is not None:
        for row in marks:
            row[x_axis.cell(limit, body_cells)] = ("┊", "warning")
    ordered = sorted(points, key=lambda one: one.glyph == "●")  # what may ship is drawn on top
    for point in ordered:
        marks[body_rows - 1 - y_axis.cell(point.y, body_rows)][x_axis.cell(point.x, body_cells)] = (
            point.glyph,
            point.style,
        )
    for point in reversed(ordered):
        _name(marks, point, x_axis, y_axis)
    lines = [
        (
            Span(fit(_label(y_axis, row, body_rows), LABEL_CELLS - 1, ">"), "dim"),
            Span("┤", "rule"),
            *runs(cells_of),
        )
        for row, cells_of in enumerate(marks)
    ]
    lines.append((Span(" " * (LABEL_CELLS - 1) + "└" + "─" * body_cells, "rule"),))
    left, right = f"{x_axis.low:.3g}", f"{x_axis.high:.3g} {unit}"
    gap = " " * max(1, body_cells - len(left) - len(right))
    return [*lines, (Span(" " * LABEL_CELLS + left + gap + right, "dim"),)]


def _around(values: Sequence[float]) -> Axis:
    low, high = min(values), max(values)
    room = (high - low) * 0.12 or abs(high) * 0.1 or 1.0
    return Axis(low - room, high + room)


def _label(axis: Axis, row: int, rows: int) -> str:
    if row not in (0, rows // 2, rows - 1):
        return ""
    return f"{axis.high - (axis.high - axis.low) * (row + 0.5) / rows:.3g}"


def _name(marks: list[list[tuple[str, str]]], point: Point, x_axis: Axis, y_axis: Axis) -> None:
    """Writes the point's name on the side where there is room."""
    rows, cells = len(marks), len(marks[0])
    row, column = marks[rows - 1 - y_axis.cell(point.y, rows)], x_axis.cell(point.x, cells)
    size = width(point.name)
    for start in (column + 2, column - 1 - size):
        if _is_free(row, start, size):
            row[start : start + size] = [(char, point.style) for char in point.name]
            return


def _is_free(row: Sequence[tuple[str, str]], start: int, size: int) -> bool:
    """Whether the name can stand there: a torn one would be read as another."""
    return 0 <= start <= len(row) - size and all(char in " ┄┊" for char, _ in row[start : start + size])
