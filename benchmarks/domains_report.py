"""The table of `domains.py` as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def report(document: Mapping[str, Any]) -> str:
    """The document as Markdown."""
    lines = [
        "# Six domains and what they share, on public data", "",
        f"{document['date']}, {document['machine']}. Base {document['model']}; at most {document['limit']} items "
        f"a set ({document['written_limit']} where answers are written), drawn by seed {document['seed']}. 95 % "
        "intervals (Wilson for scores of 0 and 1). Tuned: QLoRA of the given steps, 8 records each: a short look at "
        "what tuning does, not the best that can be had. Picked: the smallest quant, on the same items. Baseline: "
        "TF-IDF with logistic regression where labels are chosen; else the option, or the training record, nearest "
        "by TF-IDF.", "",
        "| domain | set | score | n | baseline | base | tuned (steps) | picked | verdict: base, tuned, picked |",
        "|---|---|---|---|---|---|---|---|---|",
        *(table_line(row) for row in document["sets"]), "", "## Why not", "",
        *(line for row in document["sets"] for line in reasons(row)),
    ]  # fmt: skip
    for row in document["sets"]:
        lines += slice_table(row)
    return "\n".join(lines).rstrip() + "\n"


def table_line(row: Mapping[str, Any]) -> str:
    cells = row["cells"]
    tuned = f"{shown(cells.get('tuned'))} ({row['steps']})" if "tuned" in cells else "—"
    picked = f"{shown(cells['picked'])} {cells['picked']['quant']}" if "picked" in cells else "—"
    verdicts = ", ".join(
        cells[name]["verdict"] if name in cells else "—" for name in ("base", "tuned", "picked")
    )
    return (
        f"| {row['domain']} | {row['name']} | {row.get('score', '—')} | {row.get('n', '—')} "
        f"| {shown(cells.get('baseline'))} | {shown(cells.get('base'))} | {tuned} | {picked} | {verdicts} |"
    )


def shown(found: Mapping[str, Any] | None) -> str:
    if found is None or found["score"] is None:
        return "—"
    interval = f" [{found['low']:.3f}, {found['high']:.3f}]" if found["low"] is not None else ""
    return f"{found['score']:.3f}{interval}"


def reasons(row: Mapping[str, Any]) -> Iterator[str]:
    """Why a verdict is none to ship with, and what was not run."""
    for name, found in row["cells"].items():
        if found.get("why"):
            yield f"- {row['name']}, {name}: {found['verdict']}: {found['why']}"
        if found["errors"] or found["truncated"]:
            yield f"- {row['name']}, {name}: {found['errors']} errors, {found['truncated']} of {found['n']} texts cut"
    for name, why in row["not_run"].items():
        yield f"- {row['name']}, {name}: not run: {why}"


def slice_table(row: Mapping[str, Any]) -> list[str]:
    """The scores of each slice in each cell, and the set's own figures."""
    names = [name for name in ("baseline", "base", "tuned", "picked") if name in row["cells"]]
    by_cell = {name: {one["slice"]: one for one in row["cells"][name]["slices"]} for name in names}
    slices = list(dict.fromkeys(slice_ for name in names for slice_ in by_cell[name]))
    lines = ["", f"## {row['name']}", "", f"Rules: {'; '.join(row.get('rules', []))}."]
    more = [
        f"- {name}: " + ", ".join(f"{what} {value:.3f}" for what, value in row["cells"][name]["more"].items())
        for name in names
        if row["cells"][name]["more"]
    ]
    lines += ["", *more] if more else []
    if slices:
        lines += ["", f"| slice | n | {' | '.join(names)} |", f"|---|---|{'---|' * len(names)}"]
    for slice_ in slices:
        n = next(by_cell[name][slice_]["n"] for name in names if slice_ in by_cell[name])
        cells = " | ".join(shown(by_cell[name].get(slice_)) for name in names)
        lines.append(f"| {slice_.replace('|', '/')} | {n} | {cells} |")
    return lines
