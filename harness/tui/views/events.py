"""Events of a journal in words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from harness.jobs.journal import Event
from harness.tui.views import numbers
from harness.tui.views.cells import Line, Span, exactly, fit_line, line
from harness.tui.views.numbers import number
from harness.tui.views.progress import Progress


def event_lines(progress: Progress, cells: int, rows: int) -> list[Line]:
    """The last events, the newest at the bottom."""
    lines: list[Line] = [line(Span(" EVENTS", "head"))]
    for event in list(progress.events)[-(rows - 1) :]:
        text, style = sentence(event)
        lines.append(fit_line((Span(f" {numbers.clock(event.time)}  ", "dim"), Span(text, style)), cells))
    return exactly(lines, rows)


def sentence(event: Event) -> tuple[str, str]:
    """What happened, in words, and the style of the line."""
    data = event.data
    text = _SENTENCES.get(event.name)
    if text is not None:
        return text(data)
    return f"{event.name} {data}", "dim"


def _note(data: Mapping[str, Any]) -> tuple[str, str]:
    style = {"warning": "warning", "error": "fail"}.get(str(data.get("level")), "")
    mark = {"warning": "▲ ", "fail": "✗ "}.get(style, "")
    return f"{mark}{data.get('text', '')}", "warning" if style else ""


def _scorecard_words(data: Mapping[str, Any]) -> tuple[str, str]:
    low, high = (numbers.score(number(data.get(key))) for key in ("low", "high"))
    score = numbers.score(number(data.get("score")))
    return f"{data.get('stage')}: {data.get('suite')} {score} [{low}, {high}] n={data.get('n')}", ""


def _verdict_words(data: Mapping[str, Any]) -> tuple[str, str]:
    verdict = str(data.get("verdict"))
    mark, style = {"PASS": ("✓", "pass"), "FAIL": ("✗", "fail-text")}.get(verdict, ("?", "unsure"))
    worst = data.get("worst")
    return f"{mark} {data.get('stage')}: {verdict}" + (f" · {_worst(worst)}" if worst else ""), style


def _worst(worst: Any) -> str:
    if isinstance(worst, Mapping):
        return " · ".join(str(worst[key]) for key in ("rule", "slice") if worst.get(key))
    return str(worst)


def _fidelity_words(data: Mapping[str, Any]) -> tuple[str, str]:
    kl, top1 = number(data.get("mean_kl")), number(data.get("top1"))
    words = f"{data.get('stage')} against {data.get('parent')}: mean KL {numbers.score(kl)}"
    return f"{words}, same first choice {'—' if top1 is None else f'{top1:.1%}'}", ""


def _artifact_words(data: Mapping[str, Any]) -> tuple[str, str]:
    size = number(data.get("bytes"))
    return f"wrote {data.get('name')}, {'—' if size is None else f'{size / 2**20:,.1f} MiB'}", ""


def _done_words(data: Mapping[str, Any]) -> tuple[str, str]:
    verdict, release = str(data.get("verdict") or ""), data.get("release")
    words = (
        f"run ended{': ' + verdict if verdict else ''} after {numbers.duration(number(data.get('seconds')))}"
    )
    return words + (f", release {release}" if release else ""), "strong"


def _failed_words(data: Mapping[str, Any]) -> tuple[str, str]:
    hint = data.get("hint")
    return f"✗ run failed: {data.get('error')}" + (f"; {hint}" if hint else ""), "fail-text"


def _gate_words(data: Mapping[str, Any]) -> tuple[str, str]:
    found = (
        f"gate at step {data.get('step')}: {numbers.score(number(data.get('score')))} on development records"
    )
    if data.get("failed"):
        then = {"stop": "; training stops", "roll_back": "; training goes back"}.get(
            str(data.get("action")), ""
        )
        return f"✗ {found} · {data.get('failed')}{then}", "warning"
    return f"✓ {found}", "pass-text"


def _step_done_words(data: Mapping[str, Any]) -> tuple[str, str]:
    took = numbers.duration(number(data.get("seconds")))
    return (
        f"{data.get('step')} {'taken from an earlier run' if data.get('reused') else 'done in ' + took}",
        "dim",
    )


_SENTENCES: dict[str, Callable[[Mapping[str, Any]], tuple[str, str]]] = {
    "run.start": lambda data: (f"run {'resumed' if data.get('resumed') else 'started'}, pid {data.get('pid')}", ""),
    "step.start": lambda data: (f"{data.get('title') or data.get('step')} …", "dim"),
    "step.done": _step_done_words,
    "train.held_out": lambda data: (
        f"held-out loss {numbers.score(number(data.get('loss')))} at step {data.get('step')}", ""
    ),
    "train.gate": _gate_words,
    "train.order": lambda data: (f"asked at step {data.get('step')}: {data.get('order')}", "strong"),
    "train.checkpoint": lambda data: (f"checkpoint at step {data.get('step')} saved", ""),
    "scorecard": _scorecard_words,
    "verdict": _verdict_words,
    "fidelity": _fidelity_words,
    "artifact": _artifact_words,
    "note": _note,
    "run.done": _done_words,
    "run.failed": _failed_words,
    "run.cancelled": lambda data: (f"run stopped: {data.get('text') or 'on request'}", "warning"),
}  # fmt: skip
