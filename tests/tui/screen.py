"""The terminal as a test sees it: an app of a given size, keys, and the whole screen as text."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from conftest import NOW_S
from rich.segment import Segment
from textual import events
from textual.pilot import Pilot

from harness.tui.app import HarnessApp
from harness.tui.commands import Said
from harness.tui.comparisons import Answer, Comparisons, Sides
from harness.tui.context import NUMBERED, PLAN, START
from harness.tui.desk import Desk

GOLDEN = Path(__file__).parent / "golden"
KEYS = {name: (str(number),) for number, name in enumerate(NUMBERED, start=1)} | {
    START: ("0",),
    PLAN: ("0", "p"),
}
"""How a person comes to each screen."""
Test = TypeVar("Test", bound=Callable[..., Any])


def does(*actions: str) -> Callable[[Test], Test]:
    """Says of a test which actions its keys do, as `screen.action`; the test fails where one of them was not done."""

    def declare(test: Test) -> Test:
        test.does = actions  # type: ignore[attr-defined]
        return test

    return declare


class FakeJobs:
    """Notes what was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, bool | None]] = []

    def cancel(self, folder: Path, *, now: bool) -> None:
        self.asked.append(("cancel", folder.name, now))

    def resume(self, folder: Path) -> None:
        self.asked.append(("resume", folder.name, None))

    def heard(self) -> str | None:
        return None


MAX_TURNS = 100


class FakeCommands:
    """Notes the commands, and answers as the test says."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.answers: list[Said] = []

    def start(self, words: Sequence[str]) -> None:
        self.asked.append(list(words))

    def heard(self) -> Said | None:
        return self.answers.pop(0) if self.answers else None


class ComparisonsAtOnce(Comparisons):
    """Works the comparison out in this process, before it is asked for again."""

    def find(self, sides: Sides) -> Answer:
        key = (sides, self._stamp(sides.run_a, sides.stage_a), self._stamp(sides.run_b, sides.stage_b))
        if key not in self._answers:
            self._answers[key] = self._compare(sides)
        return self._answers[key]

    def _compare(self, sides: Sides) -> Answer:
        from harness.errors import HarnessError
        from harness.evals.compare import compare

        folders = [self._home / "runs" / run for run in (sides.run_a, sides.run_b)]
        try:
            found = compare(*folders, sides.stage_a, sides.stage_b)
        except HarnessError as error:
            return Answer(None, error.message)
        return Answer(json.loads(json.dumps(found.to_json())))


class Terminal:
    """An app under test."""

    def __init__(self, app: HarnessApp, pilot: Pilot[Any]) -> None:
        self.app = app
        self.pilot = pilot
        self.copied: list[str] = []
        app.copy_to_clipboard = self.copied.append  # type: ignore[method-assign]

    @property
    def desk(self) -> Desk:
        return self.app.desk

    async def press(self, *keys: str) -> str:
        """The screen after the keys.

        Not with `pilot.press`: that waits until the processor is idle, which on a busy machine takes seconds.
        """
        for key in keys:
            character = " " if key == "space" else key if len(key) == 1 else None
            self.app.post_message(events.Key(key, character))
            await self.settle()
        await self.settle()
        return self.text

    async def open(self, name: str) -> str:
        """The screen with this name, opened by its keys; the plan shows a document that `harness plan` printed."""
        if name == PLAN:
            planned = Answer(json.loads((GOLDEN / "plan.json").read_text()))
            self.desk.screens.plan.plans.find = lambda words: planned  # type: ignore[method-assign]
        return await self.press(*KEYS[name])

    async def settle(self) -> None:
        """Returns when every widget has done all that was asked of it, what followed from that, and is drawn."""
        seen: list[str] = []
        while (
            len(seen) < 4 or len(set(seen[-3:])) > 1
        ):  # a new layout is drawn some turns after it is asked for
            await self.pilot._wait_for_screen()
            seen.append(self.text)

    def segments(self) -> list[list[Segment]]:
        """What goes to the terminal, line by line."""
        return [list(strip) for strip in self.app.screen._compositor.render_strips()]

    @property
    def text(self) -> str:
        """The whole screen as text."""
        lines = ["".join(segment.text for segment in line).rstrip() for line in self.segments()]
        return "\n".join(lines) + "\n"


@asynccontextmanager
async def terminal(
    home: Path, *, size: tuple[int, int] = (100, 30), ascii: bool = False, run: str | None = None,
    now_s: float = NOW_S,
) -> AsyncIterator[Terminal]:  # fmt: skip
    """The terminal on the home folder, with all there is to read read."""
    desk = Desk(home, run=run, jobs=FakeJobs(), now=lambda: now_s)  # type: ignore[arg-type]
    desk.commands = FakeCommands()  # type: ignore[assignment]
    desk.diff.comparisons = ComparisonsAtOnce(home)
    desk.catch_up()
    for info in desk.home.runs:  # at once, where the terminal reads them in a thread
        desk.inputs.read_now(desk.home.folder(info))
    app = HarnessApp(desk, is_ascii=ascii)
    async with app.run_test(size=size) as pilot:
        shown = Terminal(app, pilot)
        while "harness" not in shown.text:
            await shown.settle()
        yield shown


def check_golden(name: str, text: str) -> None:
    """The text is what is kept under the name; `HARNESS_GOLDEN=write` keeps this one instead."""
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("HARNESS_GOLDEN") == "write":
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert path.exists(), f"{path} is not there: run with HARNESS_GOLDEN=write, and read what it wrote"
    assert text == path.read_text()
