"""Screen 5: how training goes: curves, what was kept, what it learns from, what it costs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.jobs.store import RunInfo
from harness.tui.views import numbers
from harness.tui.views.bars import progress_bar
from harness.tui.views.cells import Line, Span, beside, between, exactly, fit, fit_line, line, rule
from harness.tui.views.events import event_lines
from harness.tui.views.folders import RunFolder
from harness.tui.views.live import head_lines, training_lines
from harness.tui.views.numbers import count, number
from harness.tui.views.progress import Training

TWO_COLUMNS = 90
SIDE_CELLS = 38
ROWS_WITH_MEMORY = 20
"""On fewer the curve needs the room."""


def train_body(info: RunInfo, folder: RunFolder, cells: int, rows: int, *, now_s: float) -> list[Line]:
    """The screen between its frame's lines."""
    training = folder.progress.training
    head = [*head_lines(info, folder.progress, cells, now_s=now_s)[:1], _method_line(folder.manifest, cells)]
    if training.is_paused:
        head[0] = line(
            Span(" ⊘ paused", "warning"), Span("  after this step: c goes on, s keeps the best, x stops")
        )
    if not training.losses:
        words = " No training step yet: the base is scored first, and its verdict decides whether training begins."
        return [*head, rule(cells), *_data_lines(folder, cells), (), line(Span(words, "dim"))]
    head += [_bar(training, cells), rule(cells)]
    memory = _memory_lines(training, cells) if rows >= ROWS_WITH_MEMORY else []
    foot = [rule(cells), *_data_lines(folder, cells), *memory]
    foot += event_lines(folder.progress, cells, 3)
    room = rows - len(head) - len(foot)
    if cells < TWO_COLUMNS:
        foot = [*_gate_lines(training, cells, 4), *foot] if training.gates else foot
        room = rows - len(head) - len(foot)
        return [*head, *exactly(training_lines(folder.progress, cells, room, now_s=now_s), room), *foot]
    left_cells = cells - SIDE_CELLS - 1
    left = exactly(training_lines(folder.progress, left_cells, room, now_s=now_s), room)
    gates = _gate_lines(training, SIDE_CELLS, room * 2 // 3) if training.gates else []
    right = exactly([*gates, *_checkpoint_lines(folder, SIDE_CELLS, room - len(gates))], room)
    return [*head, *beside(left, right, left_cells, cells), *foot]


def _method_line(manifest: Mapping[str, Any], cells: int) -> Line:
    recipe = (manifest.get("document") or {}).get("recipe") or {}
    tune = recipe.get("tune") or {}
    rate = number(tune.get("learning_rate"))
    facts = [
        str(tune.get("method", "")), f"r{tune.get('rank')} α{number(tune.get('alpha')) or 0:g}",
        f"batch {tune.get('batch')}", f"lr {rate:.0e} {tune.get('schedule', '')}" if rate else "",
        f"at most {tune.get('max_tokens')} tokens", f"seed {tune.get('seed')}",
    ]  # fmt: skip
    words = " · ".join(filter(None, facts)) if tune else "no recipe on record"
    return fit_line((Span(f" {recipe.get('base', '')}", "strong"), Span(f"  {words}", "dim")), cells)


def _bar(training: Training, cells: int) -> Line:
    last = training.last
    done, of = number(last.get("step")), training.of
    share = numbers.share(done, of)
    tail = f" {numbers.quantity(done)}/{numbers.amount(of)} steps  {numbers.quantity(number(last.get('tok_s')))} tok/s"
    tail += f"  eta {numbers.duration(number(last.get('eta_s')))} "
    return fit_line((Span(" "), *progress_bar(share, max(6, cells - len(tail) - 1)), Span(tail)), cells)


def _checkpoint_lines(folder: RunFolder, cells: int, rows: int) -> list[Line]:
    """The checkpoints that were saved, newest first, each with its held-out loss; the best one is marked."""
    training = folder.progress.training
    losses = dict(training.held_out)
    best = min(losses.values(), default=None)
    title = line(Span(" CHECKPOINTS", "head"), Span(f"  {len(training.checkpoints)} saved", "dim"))
    lines = [title, line(Span(fit("   step", 9) + fit("held-out loss", 16, ">"), "dim"))]
    for step in reversed(training.checkpoints):
        loss = losses.get(float(step))
        is_best = loss is not None and loss == best
        lines.append(
            line(Span(" ● " if is_best else " ○ ", "pass-text" if is_best else "dim"), Span(fit(str(step), 6)),
                 Span(fit(numbers.score(loss), 16, ">"), "strong" if is_best else ""),
                 Span("  lowest" if is_best else "", "pass-text"))
        )  # fmt: skip
    if len(lines) > rows:
        lines = [*lines[: rows - 1], line(Span(f"   and {len(lines) - rows + 1} before", "dim"))]
    return [fit_line(spans, cells) for spans in lines]


def _gate_lines(training: Training, cells: int, rows: int) -> list[Line]:
    """The checkpoints that the development records judged, the newest first, and why one may not leave."""
    best = _best_step(training)
    lines = [between(line(Span(" GATES", "head")), line(Span("development records ", "dim")), cells)]
    for gate in reversed(training.gates):
        failed, is_vetoed = str(gate.get("failed") or ""), bool(gate.get("is_vetoed"))
        mark = (
            Span(" ⊘ ", "fail-text")
            if is_vetoed
            else Span(" ✗ ", "warning")
            if failed
            else Span(" ✓ ", "pass-text")
        )
        kept = number(gate.get("kept"))
        words = "best" if gate.get("step") == best else failed
        if is_vetoed:
            words = f"may not leave: {failed}"
        lines.append(
            line(mark, Span(fit(numbers.quantity(number(gate.get("step"))), 6)),
                 Span(fit(numbers.score(number(gate.get("score"))), 7), "strong"),
                 Span(fit("" if kept is None else f"kept {numbers.score(kept)}", 12 if kept is not None else 0), "dim"),
                 Span(words, "pass-text" if words == "best" else "dim"))
        )  # fmt: skip
    if len(lines) > rows:
        lines = [*lines[: rows - 1], line(Span(f"   and {len(lines) - rows + 1} before", "dim"))]
    return [fit_line(spans, cells) for spans in lines]


def _best_step(training: Training) -> object:
    """The step of the gate that leads: the newest that was told to be the best."""
    return next((gate.get("step") for gate in reversed(training.gates) if gate.get("is_best")), None)


_ACCOUNTS = ("weights", "adapters", "gradients", "optimizer", "activations", "logits")


def _memory_lines(training: Training, cells: int) -> list[Line]:
    """What training was expected to take, by account, and what it took; nothing where nothing was told."""
    expected, actual = training.expected, training.actual
    if not expected:
        return []
    parts = [
        f"{name} {numbers.quantity(round(value))}"
        for name in _ACCOUNTS
        if (value := number(expected.get(f"{name}_mb"))) is not None
    ]
    total, room = number(expected.get("total_mb")), number(expected.get("available_mb"))
    words = f"  {numbers.quantity(_whole(total))}"
    words += f" of {numbers.quantity(_whole(room))}" if room is not None else ""
    words += f" MB expected: {' · '.join(parts)}"
    took = number(actual.get("total_mb"))
    right = f"took {numbers.quantity(_whole(took))} MB " if took is not None else ""
    return [between(line(Span(" MEM", "head"), Span(words)), line(Span(right, "strong")), cells)]


def _whole(value: float | None) -> float | None:
    return None if value is None else float(round(value))


def _data_lines(folder: RunFolder, cells: int) -> list[Line]:
    """What the preflight counted, and the memory that training takes."""
    found = folder.document("preflight.json")
    if not found:
        return [line(Span(" DATA", "head"), Span("   not looked at yet", "dim"))]
    tokens, supervised = count(found.get("tokens")) or 0, count(found.get("supervised_tok")) or 0
    share = f"{supervised / tokens:.1%}" if tokens else numbers.UNKNOWN
    findings = [one for one in found.get("findings") or () if isinstance(one, dict)]
    fatal = [one for one in findings if one.get("is_fatal")]
    overlap = next((one for one in findings if one.get("check") == "overlaps"), {})
    shared = len(overlap.get("ids") or ())
    words = (
        f"  {numbers.amount(count(found.get('trained')))} examples · {tokens:,} tokens, {share} carry loss · "
        f"longest {found.get('longest_tok')} · {shared} shared with the gate's records"
    )
    memory = number(folder.progress.training.last.get("memory_mb"))
    held = f"{memory / 1024:.1f} GiB " if memory is not None else ""
    state = Span(" ✓", "pass-text") if not fatal else Span(f" ✗ {len(fatal)} refused", "fail-text")
    return [between(line(Span(" DATA", "head"), state, Span(words)), line(Span(held, "dim")), cells)]
