"""Writes numbers.jsonl and reports.jsonl: invented tables, questions over them, and the arithmetic of each answer.

    python suites/finance/make_numbers.py suites/finance

Numbers are drawn by a fixed seed, so the files come out the same each time. Every answer is computed here from the
table's own cells, and stands beside the derivation that gives it.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

SEED = 29
COMPANIES = (
    ("Ardmore Mills", "EUR", "million"), ("Basalt Tiles", "USD", "thousand"), ("Corran Ferries", "GBP", "million"),
    ("Dunlin Seeds", "EUR", "thousand"), ("Elm Optics", "CHF", "million"), ("Fulmar Foods", "USD", "million"),
    ("Garnet Tools", "EUR", "thousand"), ("Heron Freight", "GBP", "thousand"), ("Isobar Weather", "USD", "thousand"),
    ("Juniper Clinics", "EUR", "million"),
)  # fmt: skip


class Report(NamedTuple):
    """One company's two years, in its own currency and scale."""

    name: str
    currency: str
    scale: str
    cells: dict[str, tuple[float, float]]
    """Row name to the values of 2022 and 2023; a loss is negative."""
    export_percent: int


class Question(NamedTuple):
    """A question with the arithmetic that answers it."""

    kind: str
    text: str
    derivation: str
    value: float
    scale: str


def reports() -> Iterator[Report]:
    """The reports, the same each time."""
    draw = random.Random(SEED)  # noqa: S311 (no secret: the draw must repeat)
    for name, currency, scale in COMPANIES:
        revenue = round(draw.uniform(80, 900), 1)
        grown = round(revenue * draw.uniform(0.8, 1.3), 1)
        cost, cost_then = round(grown * draw.uniform(0.5, 0.7), 1), round(revenue * draw.uniform(0.5, 0.7), 1)
        cells = {
            "Revenue": (revenue, grown),
            "Cost of sales": (cost_then, cost),
            "Interest paid": (round(draw.uniform(2, 9), 1), round(draw.uniform(2, 9), 1)),
            "Net income (loss)": (round(draw.uniform(-20, 40), 1), round(draw.uniform(-40, 40), 1)),
            "Inventory": (round(draw.uniform(20, 90), 1), round(draw.uniform(20, 90), 1)),
        }
        yield Report(name, currency, scale, cells, draw.randint(11, 74))


def questions(report: Report) -> Iterator[Question]:
    """One question of each kind about the report."""
    then, now = (lambda row: report.cells[row][0]), (lambda row: report.cells[row][1])
    show = "{:.1f}".format
    revenue, before = now("Revenue"), then("Revenue")
    yield Question(
        "lookup", "What was inventory in 2023?", show(now("Inventory")), now("Inventory"), report.scale
    )
    yield Question(
        "sign", "What was net income or loss in 2023?", show(now("Net income (loss)")), now("Net income (loss)"),
        report.scale,
    )  # fmt: skip
    yield Question(
        "difference", "By how much did revenue change from 2022 to 2023?", f"{show(revenue)} - {show(before)}",
        revenue - before, report.scale,
    )  # fmt: skip
    yield Question(
        "percent", "By what percentage did revenue change from 2022 to 2023?",
        f"({show(revenue)} - {show(before)}) / {show(before)}", (revenue - before) / before * 100, "percent",
    )  # fmt: skip
    yield Question(
        "average", "What is the average of interest paid in 2022 and 2023?",
        f"({show(then('Interest paid'))} + {show(now('Interest paid'))}) / 2",
        (then("Interest paid") + now("Interest paid")) / 2, report.scale,
    )  # fmt: skip
    yield Question(
        "share", "What was cost of sales as a percentage of revenue in 2023?",
        f"{show(now('Cost of sales'))} / {show(revenue)}", now("Cost of sales") / revenue * 100, "percent",
    )  # fmt: skip
    yield Question(
        "text", "How much revenue came from exports in 2023?", f"{show(revenue)} * {report.export_percent}%",
        revenue * report.export_percent / 100, report.scale,
    )  # fmt: skip


def document(report: Report) -> dict[str, str]:
    """The report as a table, with brackets around losses, and a sentence that the table needs."""

    def cell(value: float) -> str:
        return f"({abs(value):,.1f})" if value < 0 else f"{value:,.1f}"

    rows = [f"{row} | {cell(a)} | {cell(b)}" for row, (a, b) in report.cells.items()]
    table = "\n".join([f"{report.name}, in {report.currency} {report.scale} | 2022 | 2023", *rows])
    text = f"Exports made up {report.export_percent}% of revenue in 2023."
    return {"doc_id": report.name, "text": f"{table}\n\n{text}"}


def records() -> Iterator[dict[str, Any]]:
    """The questions of all reports, numbered."""
    asked = [(report, question) for report in reports() for question in questions(report)]
    for number, (report, question) in enumerate(asked, start=1):
        yield {
            "id": f"finance-number-{number:03d}",
            "input": question.text,
            "doc_id": report.name,
            "target": {
                "answer": round(question.value, 2), "scale": question.scale, "derivation": question.derivation,
            },
            "slices": {"kind": question.kind, "scale": question.scale, "sign": _sign(question.value)},
        }  # fmt: skip


def _sign(value: float) -> str:
    return "minus" if value < 0 else "plus"


def main(arguments: list[str]) -> int:
    """Writes both files into the folder; 2 for a wrong call."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python suites/finance/make_numbers.py FOLDER\n")
        return 2
    for name, rows in (("numbers", records()), ("reports", map(document, reports()))):
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (Path(arguments[0]) / f"{name}.jsonl").write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
