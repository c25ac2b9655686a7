"""What the command line draws on stderr while a job runs, and the tables that it ends with."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.evals.gate import QUALITY_METRICS
from harness.jobs import launch
from harness.jobs.journal import Event, Tail
from harness.jobs.store import FINAL
from harness.text import visible

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

POLL_S = 0.1
GLYPHS = {
    "PASS": "✓ PASS", "FAIL": "✗ FAIL", "INCONCLUSIVE": "? INCONCLUSIVE", "SKIPPED": "· skipped",
    "STALE": "~ STALE", "WAIVED": "! WAIVED",
}  # fmt: skip
STYLES = {
    "PASS": "green", "FAIL": "bold red", "INCONCLUSIVE": "yellow", "SKIPPED": "dim", "STALE": "yellow",
    "WAIVED": "yellow",
}  # fmt: skip


def follow(folder: Path, console: Console, *, seq_after: int = 0) -> Event | None:
    """Shows the run's events as they come until it ends; its last event, None if it died without one."""
    tail = Tail(folder / "events.jsonl")
    last: Event | None = None
    with _screen(console) as screen:
        while True:
            ended = launch.has_ended(folder)
            events = tail.drain()
            for event in events:
                if event.seq > seq_after:
                    screen.show(event)
                last = event
            if ended and not events:
                break
            time.sleep(POLL_S)
    return last if last and last.name in FINAL else None


class _Screen:
    """Bars where stderr is a terminal, one line a step elsewhere."""

    def __init__(self, console: Console, bars: Progress | None) -> None:
        self._console, self._bars = console, bars
        self._task: TaskID | None = None
        self._title = ""
        self._of = 0

    def show(self, event: Event) -> None:
        handler = getattr(self, "_" + event.name.replace(".", "_"), None)
        if handler:
            handler(event.data)

    def _say(self, text: str, style: str = "") -> None:
        self._console.print(visible(text), style=style or None, markup=False, highlight=False)

    def _run_start(self, data: dict[str, Any]) -> None:
        again = "resumes" if data.get("resumed") else "starts"
        self._say(f"{data['run']} {again}, pid {data['pid']}")

    def _step_start(self, data: dict[str, Any]) -> None:
        self._title, self._of = f"{data['index']:>2}/{data['of']} {data['title']}", data["of"]
        if self._bars:
            self._task = self._bars.add_task(visible(self._title), total=None, note="")

    def _step_progress(self, data: dict[str, Any]) -> None:
        if self._bars and self._task is not None:
            self._bars.update(
                self._task, completed=data["done"], total=data["total"], note=visible(data["note"] or "")
            )

    def _train_step(self, data: dict[str, Any]) -> None:
        if self._bars and self._task is not None:
            note = f"loss {data['loss']:.3f} · {data['tok_s']:.0f} tok/s"
            self._bars.update(self._task, completed=data["step"], total=data["of"], note=note)

    def _step_done(self, data: dict[str, Any]) -> None:
        if self._bars and self._task is not None:
            self._bars.remove_task(self._task)
            self._task = None
        how = "was done before" if data["reused"] else f"{data['seconds']:.1f} s"
        self._say(f"{self._title}: {how}")

    def _verdict(self, data: dict[str, Any]) -> None:
        worst = f"  {data['worst']}" if data.get("worst") else ""
        self._say(f"      {data['stage']}: {GLYPHS[data['verdict']]}{worst}", STYLES[data["verdict"]])

    def _scorecard(self, data: dict[str, Any]) -> None:
        self._say(f"      {data['suite']}: accuracy {interval(data)} on {data['n']} items")

    def _note(self, data: dict[str, Any]) -> None:
        if data["level"] != "info":
            self._say(f"      {data['level']}: {data['text']}", "yellow")

    def _train_checkpoint(self, data: dict[str, Any]) -> None:
        if not self._bars:
            self._say(f"      checkpoint at step {data['step']}")


@contextmanager
def _screen(console: Console) -> Iterator[_Screen]:
    if not console.is_terminal:
        yield _Screen(console, None)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = [
        TextColumn("{task.description}", markup=False), BarColumn(bar_width=24), MofNCompleteColumn(),
        TimeRemainingColumn(compact=True), TextColumn("{task.fields[note]}", markup=False),
    ]  # fmt: skip
    with Progress(*columns, console=console, transient=True, refresh_per_second=4) as bars:
        yield _Screen(console, bars)


def interval(data: dict[str, Any]) -> str:
    """A score with its interval, or a dash for what is unknown."""
    if data.get("score") is None:
        return "—"
    text = f"{data['score']:.3f}"
    return f"{text} [{data['low']:.3f}, {data['high']:.3f}]" if data.get("low") is not None else text


def print_path(console: Console, document: dict[str, Any]) -> None:
    """The picture of a release's path: each stage with its headline number, verdict and reason."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_edge=False)
    for name in ("stage", "suite", "n", "accuracy, 95 % bounds", "verdict", "decided by"):
        table.add_column(
            name, overflow="fold", ratio=1 if name == "decided by" else None, no_wrap=name == "verdict"
        )
    for stage in document["stages"]:
        top = _headline(stage)
        verdict = stage["verdict"]
        table.add_row(
            stage["stage"], visible(stage["suite"]), str(stage["n"]), interval(top),
            Text(GLYPHS[verdict], style=STYLES[verdict]), Text(visible(_deciding(stage, document))),
        )  # fmt: skip
    console.print(table)


def _headline(stage: dict[str, Any]) -> dict[str, Any]:
    """The rule on all items' accuracy; empty where there is none."""
    found = [rule for rule in stage["rules"] if rule["metric"] == "accuracy" and rule["slice"] == "all"]
    return found[0] if found else {}


def _deciding(stage: dict[str, Any], document: dict[str, Any]) -> str:
    """Why the stage has its verdict, in one phrase."""
    why = document.get("why") or {}
    if stage["stage"] == document.get("picked"):
        return f"◀ picked: {why.get(stage['stage'], '')}"
    blocking = [rule for rule in stage["rules"] if rule["verdict"] == stage["verdict"] != "PASS"]
    if not blocking and stage["verdict"] != "PASS":
        measured = any(rule["metric"] in QUALITY_METRICS for rule in stage["rules"])
        return "every rule on this suite passes" if measured else "no rule measures the answers here"
    if not blocking:
        return str(why.get(stage["stage"], "every rule passes"))
    rule = blocking[0]
    more = f" (+{len(blocking) - 1} more)" if len(blocking) > 1 else ""
    needed = f"; about {rule['needed']} more items would settle it" if rule.get("needed") else ""
    return f"{rule['rule']} · {rule['slice']}: {rule['reason']}{needed}{more}"


def print_readings(console: Console, card: Mapping[str, Any]) -> None:
    """A scorecard's readings: what was measured, on which items, with 95 % intervals."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_edge=False)
    for column in ("metric", "slice", "n", "score, 95 % interval"):
        table.add_column(column, overflow="fold")
    for reading in card["readings"]:
        name = Text(visible(reading["slice"]))
        table.add_row(Text(visible(reading["metric"])), name, str(reading["n"]), Text(interval(reading)))
    console.print(table)
    if noise := card.get("noise"):
        console.print(_noise_words(noise), markup=False)


def _noise_words(noise: Mapping[str, Any]) -> str:
    """The noise floor in a line."""
    moved = noise["max_difference"]
    by = "" if moved is None else f"; log-probabilities moved by {moved:.2g} at most"
    drawn = "; answers are drawn at a temperature" if noise["is_sampled"] else ""
    return (
        f"noise floor: {noise['flips']} of {noise['items']} answers changed in other batches, "
        f"at most {noise['upper']:.3f} by 95 %{by}{drawn}"
    )


def print_rules(console: Console, stage: dict[str, Any]) -> None:
    """All rules of one stage, worst first."""
    from rich.table import Table
    from rich.text import Text

    order = {"FAIL": 0, "STALE": 1, "INCONCLUSIVE": 2, "WAIVED": 3, "PASS": 4, "SKIPPED": 5}
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), title_justify="left")
    for name in ("rule", "slice", "n", "score, bounds", "verdict", "reason"):
        table.add_column(name, overflow="fold", no_wrap=name == "verdict")
    for rule in sorted(stage["rules"], key=lambda rule: order[rule["verdict"]]):
        table.add_row(
            Text(visible(rule["rule"])), Text(visible(rule["slice"])), str(rule["n"]), interval(rule),
            Text(GLYPHS[rule["verdict"]], style=STYLES[rule["verdict"]]), Text(visible(rule["reason"])),
        )  # fmt: skip
    console.print(table)


def print_sample(console: Console, answers: Sequence[Mapping[str, Any]]) -> None:
    """One sample's answers, stage by stage, with confidence and the labels that came next."""
    first = answers[0]
    console.print(
        visible(f"{first['id']}  gold {' or '.join(first['gold'])}  {first['slices']}"), markup=False
    )
    for answer in answers:
        mark = "✓" if answer["score"] == 1.0 else "✗"
        sure = f"{answer['confidence']:.3f}" if answer["confidence"] is not None else "—"
        why = answer["error"] or answer.get("error_class") or "nothing could be read"
        said = answer["answer"] if answer["answer"] is not None else f"({why})"
        ranked = sorted((answer["label_probs"] or {}).items(), key=lambda item: -item[1])[1:3]
        rest = ", ".join(f"{label} {prob:.3f}" for label, prob in ranked)
        console.print(
            visible(f"{mark} {answer['stage']:<8} {said}  p {sure}  then {rest or '—'}", keep_newlines=False),
            markup=False,
        )
        for line in _details(answer):
            console.print(visible(f"    {line}", keep_newlines=False), markup=False)


def _details(answer: Mapping[str, Any]) -> Iterator[str]:
    """What only some tasks have: several scores, parts, other confidences, weights of choices, the way it is wrong."""
    if len(answer.get("scores", {})) > 1 or (answer.get("scores") and answer["score"] not in (0.0, 1.0)):
        yield "scores       " + ", ".join(f"{name} {value:.3f}" for name, value in answer["scores"].items())
    if answer.get("parsed") is not None:
        yield f"read as      {json.dumps(answer['parsed'], ensure_ascii=False)}"
    if counts := answer.get("counts"):
        cells = (f"{name} {tp} right, {fp} wrong, {fn} missed" for name, (tp, fp, fn) in counts.items())
        yield "parts        " + "; ".join(cells)
    if confidences := answer.get("confidences"):
        yield "confidence   " + ", ".join(f"{name} {value:.3f}" for name, value in confidences.items())
    if weights := answer.get("choice_logprobs"):
        yield "log P        " + ", ".join(f"{value:.3f}" for value in weights)
    if error_class := answer.get("error_class"):
        yield f"wrong by     {error_class}"


def print_what_next(console: Console, folder: Path, document: Mapping[str, Any]) -> None:
    """What happened, and what a person can do now."""
    run = folder.name
    minutes = f"{document['seconds'] / 60:.1f} min"
    verdict = document["verdict"]
    lines = [
        f"verdict {GLYPHS[verdict]} in {minutes}" if verdict else f"scored in {minutes}; no gate was asked"
    ]
    if document["release"]:
        lines += [
            f"release {document['release']}",
            "",
            "check it        harness verify " + document["release"],
        ]
    elif verdict and verdict != "PASS":
        lines += ["", f"why             harness gate {run}"]
    lines += [f"look at samples harness show {run} SAMPLE", "browse          harness"]
    for line in lines:
        console.print(visible(line), markup=False)


def stderr_console() -> Console:
    """Where progress goes."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def stdout_console() -> Console:
    """Where results go; wide enough for a table where nobody says how wide the other end is."""
    from rich.console import Console

    width = None if sys.stdout.isatty() or os.environ.get("COLUMNS") else 160
    return Console(highlight=False, width=width)
