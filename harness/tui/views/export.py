"""Screen 6: the chain from adapter to quantized files, what each lost, and which one ships."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from harness.evals.results import State
from harness.tui.views import numbers, verdicts
from harness.tui.views.cells import Line, Span, between, exactly, fit, fit_line, line, rule, wrap
from harness.tui.views.folders import CHAIN, RunFolder
from harness.tui.views.matrix import mark, window
from harness.tui.views.numbers import number
from harness.tui.views.pareto import Point, scatter

TWO_COLUMNS = 90
BEFORE_QUANTS = ("base", "adapter", "merged", "f16")
MIB = 2**20


class Variant(NamedTuple):
    """One stage after training, with all that was measured on it."""

    stage: str
    bytes: int | None
    score: float | None
    """Accuracy on the first suite."""
    mean_kl: float | None
    top1: float | None
    is_parity: bool | None
    """Whether its tokenizer and template gave its parent's token ids."""
    latency_ms: float | None
    """95th percentile."""
    memory_mb: float | None
    verdict: State | None
    is_picked: bool
    reason: str


def variants_of(folder: RunFolder) -> list[Variant]:
    """The stages after training, in the chain's order; those that a recipe plans come before they are there."""
    recipe = (folder.manifest.get("document") or {}).get("recipe") or {}
    planned = (recipe.get("export") or {}).get("quants") or ()
    picks = folder.document("pick.json") or {}
    reasons = {row.get("quant"): row for row in picks.get("rows") or () if isinstance(row, dict)}
    known = {*planned, *reasons, *(name for name in folder.verdicts if name not in ("base", "adapter"))}
    always = ("f16",) if (recipe.get("tune") or {}).get("method") == "none" else ("merged", "f16")
    stages = [stage for stage in CHAIN if stage in known or stage in always]
    return [_variant(folder, stage, reasons.get(stage) or {}) for stage in stages]


def _variant(folder: RunFolder, stage: str, row: Mapping[str, Any]) -> Variant:
    fidelity = folder.document(f"stages/{stage}/fidelity.json") or folder.progress.fidelity.get(stage) or {}
    verdict = folder.verdicts.get(stage)
    rules = verdict.rules if verdict else ()
    latency = next((rule.score for rule in rules if rule.metric == "latency_p95_ms"), None)
    size = number(row.get("bytes")) or number((folder.progress.artifacts.get(stage) or {}).get("bytes"))
    parity = fidelity.get("token_parity")
    readings = [card.readings for (name, _), card in sorted(folder.scorecards.items()) if name == stage]
    score = next(
        (one.score for found in readings for one in found if (one.metric, one.slice) == ("accuracy", "all")),
        None,
    )
    worst = verdicts.worst(rules) if verdict and verdict.verdict is not State.PASS else None
    return Variant(
        stage, None if size is None else int(size), score, number(fidelity.get("mean_kl")),
        number(fidelity.get("top1")), parity if isinstance(parity, bool) else None, latency,
        number(fidelity.get("child_peak_mb")), verdict.verdict if verdict else None, bool(row.get("is_picked")),
        str(row.get("reason") or (f"{worst.rule}: {worst.reason}" if worst else "")),
    )  # fmt: skip


def export_body(folder: RunFolder, cursor: int, cells: int, rows: int) -> list[Line]:
    """The screen between its frame's lines."""
    variants = variants_of(folder)
    recipe = (folder.manifest.get("document") or {}).get("recipe") or {}
    head = [_device_line(folder, recipe, cells), rule(cells)]
    table_rows = min(len(variants) + 1, max(4, (rows - 6) // 2))
    table = exactly(_table(variants, cursor, cells, table_rows), table_rows)
    here = variants[min(cursor, len(variants) - 1)] if variants else None
    reason = exactly(_reason_lines(here, cells), 2)
    room = rows - len(head) - len(table) - len(reason) - 2
    picture = _picture(variants, recipe, cells, room)
    return [*head, *table, rule(cells), *reason, rule(cells), *picture]


def _device_line(folder: RunFolder, recipe: Mapping[str, Any], cells: int) -> Line:
    device = recipe.get("device") or {}
    limits = [
        f"{device['memory_mb']:,} MB" if device.get("memory_mb") else "",
        f"{device['threads']} threads" if device.get("threads") else "",
    ]
    export = recipe.get("export") or {}
    words = f"  device {device.get('name', 'not named')} · {' · '.join(filter(None, limits)) or 'no limits'}"
    words += f" · KL at most {number(export.get('max_mean_kl')) or 0:g}"
    release = (folder.result or {}).get("release")
    right = (
        line(Span(f"ships in {release} ", "pass-text")) if release else line(Span("no release yet ", "dim"))
    )
    return between(line(Span(" EXPORT", "head"), Span(words)), right, cells)


def _table(variants: Sequence[Variant], cursor: int, cells: int, rows: int) -> list[Line]:
    is_wide = cells >= TWO_COLUMNS
    title = (
        fit("  variant", 12)
        + fit("MiB", 8, ">")
        + fit("score", 8, ">")
        + fit("KL", 8, ">")
        + fit("top-1", 8, ">")
    )
    title += fit("p95 ms", 8, ">") + fit("MB used", 9, ">") if is_wide else ""
    lines = [line(Span(title + fit("ids", 5, ">") + "   verdict", "dim"))]
    first = window(cursor, len(variants), rows - 1)
    for at, one in list(enumerate(variants))[first : first + rows - 1]:
        lines.append(_row(one, at == cursor, is_wide))
    return [fit_line(spans, cells) for spans in lines]


def _row(one: Variant, is_here: bool, is_wide: bool) -> Line:
    size = numbers.UNKNOWN if one.bytes is None else f"{one.bytes / MIB:,.0f}"
    top1 = numbers.UNKNOWN if one.top1 is None else f"{one.top1:.1%}"
    parity = {True: "✓", False: "✗", None: numbers.UNKNOWN}[one.is_parity]
    text = (
        fit(size, 8, ">")
        + fit(numbers.score(one.score), 8, ">")
        + fit(numbers.score(one.mean_kl), 8, ">")
        + fit(top1, 8, ">")
    )
    if is_wide:
        text += fit(numbers.quantity(one.latency_ms), 8, ">") + fit(numbers.quantity(one.memory_mb), 9, ">")
    badge = verdicts.badge(one.verdict) if one.verdict else Span("  to come", "dim")
    ships = Span("  ◀ ships", "pass-text") if one.is_picked else Span("")
    return (
        mark(is_here, True), Span(fit(f" {one.stage}", 11), "strong" if is_here or one.is_picked else ""),
        Span(text), Span(fit(parity, 5, ">"), "fail-text" if one.is_parity is False else "dim"), Span("   "), badge,
        ships,
    )  # fmt: skip


def _reason_lines(here: Variant | None, cells: int) -> list[Line]:
    if here is None:
        return [line(Span(" Nothing is exported yet.", "dim"))]
    words = here.reason or (
        "a step on the way, not shipped" if here.stage in BEFORE_QUANTS else "not judged yet"
    )
    return [
        line(Span(f" {part}" if index else f" {here.stage}: {part}"))
        for index, part in enumerate(wrap(words, cells - 12, rows=2))
    ]


def _picture(variants: Sequence[Variant], recipe: Mapping[str, Any], cells: int, rows: int) -> list[Line]:
    points = [
        Point(one.stage, one.bytes / 1e6, one.score, *_glyph(one))
        for one in variants
        if one.bytes is not None and one.score is not None
    ]
    gates = [
        number(gate.get("at_least")) for gate in recipe.get("gates") or ()
        if isinstance(gate, dict) and gate.get("metric") == "accuracy" and not gate.get("per")
    ]  # fmt: skip
    gate = next((value for value in gates if value is not None), None)
    limit = number((recipe.get("device") or {}).get("memory_mb"))
    in_sight = (
        limit if limit is not None and points and limit < 2 * max(point.x for point in points) else None
    )
    title = line(
        Span(" SIZE × ACCURACY", "head"),
        Span("  ● ships or could  ○ on the way or unsure  ✗ fails  ┄ gate", "dim"),
    )
    drawn = scatter(points, cells, rows - 1, gate=gate, limit=in_sight, unit="MB")
    if not drawn:
        return (
            [line(Span(" The picture needs a file that was scored, and more rows.", "dim"))]
            if rows > 0
            else []
        )
    return [title, *drawn]


def _glyph(one: Variant) -> tuple[str, str]:
    if one.stage in BEFORE_QUANTS or one.verdict is None or one.verdict is State.INCONCLUSIVE:
        return ("○", "dim")
    return ("●", "pass-text") if one.verdict is State.PASS else ("✗", "fail-text")
