"""What the person sees and can do, without a terminal: keys come in, lines come out."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from harness.jobs.store import RunInfo, RunState
from harness.tui import keys
from harness.tui.commands import Commands
from harness.tui.context import BOARD, HELP, LIVE, MONITOR, PLAN, SCREENS, START, Context
from harness.tui.inputs import Inputs
from harness.tui.jobs import Jobs
from harness.tui.screens.all import Screens
from harness.tui.screens.base import Effect, Screen
from harness.tui.twins import twin_of_screen
from harness.tui.views.board import title_right
from harness.tui.views.cells import Line, Span, line
from harness.tui.views.folders import LINES_A_LOOK, Home, RunFolder, can_be_written
from harness.tui.views.frame import CHROME_ROWS, frame

if TYPE_CHECKING:
    from harness.tui.screens.board import BoardScreen
    from harness.tui.screens.diff import DiffScreen
    from harness.tui.screens.review import ReviewScreen
    from harness.tui.screens.samples import SamplesScreen

RUNS_S = 1.0
"""How often the list of runs is read."""
MESSAGE_S = 8.0


class Desk:
    """The chosen run, the screens, and what is common to them."""

    def __init__(
        self,
        home: Path,
        *,
        run: str | None = None,
        jobs: Jobs | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.home = Home(home)
        self.screen = BOARD
        self.size = (100, 30)
        self.now = now
        self._run = run
        self._jobs = jobs or Jobs()
        self.commands = Commands(home)
        self.inputs = Inputs()
        self._listed_s = float("-inf")
        self._asked: Callable[[], None] | None = None
        self._message: Line = ()
        self._message_s = 0.0
        self._before_help = BOARD
        self._palette: str | None = None
        self._is_read_only = False
        self.screens = Screens(self)

    def _forget(self) -> None:
        for screen in self.screens.made():
            screen.forget()

    @property
    def board(self) -> BoardScreen:
        return self.screens.board

    @property
    def samples(self) -> SamplesScreen:
        return self.screens.samples

    @property
    def diff(self) -> DiffScreen:
        return self.screens.diff

    @property
    def review(self) -> ReviewScreen:
        return self.screens.review

    @property
    def here(self) -> Screen:
        """The screen that is shown."""
        return self.screens[self.screen]

    # What is read

    def look(self) -> bool:
        """Reads what is new, within bounds; whether there is more to read at once."""
        self._hear()
        now = self.now()
        if now - self._listed_s >= RUNS_S:
            self._listed_s = now
            self.home.look()
            self._is_read_only = not can_be_written(self.home.home)
            self._keep_run()
        more = self._read_journals()
        self.board.follow()
        return self.here.look() or more

    def _read_journals(self) -> bool:
        """Reads the chosen run first, then the running ones; whether the bound was reached."""
        left = LINES_A_LOOK
        infos = [self.info] if self.info else []
        for info in infos + [one for one in self._running() if one is not self.info]:
            left -= self.home.folder(info).look(left)
            if left <= 0:
                return True
        return False

    def catch_up(self) -> None:
        """Reads all there is."""
        self._listed_s = float("-inf")
        while self.look():
            pass

    def _keep_run(self) -> None:
        names = [info.run for info in self.home.runs]
        if self._run not in names:
            self._run = names[0] if names else None
        if self._run is not None:
            self.board.cursor = replace(self.board.cursor, run=names.index(self._run))

    def choose_run(self, index: int) -> None:
        """Shows the run at this place of the list."""
        if self.home.runs[index].run != self._run:
            self._run = self.home.runs[index].run
            self._forget()
        self.board.cursor = replace(self.board.cursor, run=index)
        self.look()

    @property
    def info(self) -> RunInfo | None:
        """The chosen run."""
        return next((info for info in self.home.runs if info.run == self._run), None)

    @property
    def folder(self) -> RunFolder | None:
        info = self.info
        return self.home.folder(info) if info else None

    def running(self) -> list[str]:
        """Names of the runs that somebody works on."""
        return [info.run for info in self._running()]

    def running_folders(self) -> list[tuple[str, RunFolder]]:
        """The runs that somebody works on, by name."""
        return [(info.run, self.home.folder(info)) for info in self._running()]

    def _running(self) -> list[RunInfo]:
        return [info for info in self.home.runs if info.state is RunState.RUNNING]

    def context(self) -> Context:
        """What the actions of the shown screen depend on."""
        return self._context(self.here)

    def context_behind(self) -> Context:
        """The same of the screen behind the help."""
        return self._context(self.screens[self._before_help])

    def _context(self, screen: Screen) -> Context:
        info, folder = self.info, self.folder
        common = Context(
            screen=screen.name,
            run=info.run if info else None,
            state=info.state if info else None,
            command=folder.command if folder else None,
            stage=self.board.stage,
            n_sources=len(folder.sources) if folder else 0,
            is_read_only=self._is_read_only,
        )
        return screen.context(common)

    # What is drawn

    def lines(self, cells: int, rows: int) -> list[Line]:
        """The whole screen."""
        self.size = (cells, rows)
        shown = self.context_behind() if self.screen == HELP else self.context()
        return frame(
            self.context(), self.body(cells, rows - CHROME_ROWS), crumbs=self._crumbs(),
            right=title_right(self.home.runs), twin=twin_of_screen(shown), message=self._shown_message(),
            cells=cells, rows=rows,
        )  # fmt: skip

    def body(self, cells: int, rows: int) -> list[Line]:
        """The screen between its frame's lines."""
        if self._palette is not None:
            from harness.tui.views.palette import palette_body

            return palette_body(self.context(), self._palette, cells, rows)
        return self.here.body(cells, rows)

    def _crumbs(self) -> list[str]:
        run = [self.info.run] if self.info and self.screen not in (START, PLAN, MONITOR) else []
        return [self.screen, *run, *self.here.crumbs()]

    def say(self, text: str, style: str = "warning") -> None:
        """Shows a sentence above the command line for some seconds."""
        self._message, self._message_s = line(Span(text, style)), self.now()

    def _shown_message(self) -> Line:
        if self._asked is None and self.now() - self._message_s > MESSAGE_S:
            self._message = ()
        return self._message

    # What is done

    def press(self, key: str) -> Effect:
        """Does what the key means here; a key that can't be used now says why."""
        if self._asked is not None:
            return self._answer(key)
        self._message = ()
        action = keys.find(key, self.screen)
        if action is None:
            return self._unbound(key)
        reason = action.why_not(self.context())
        if reason is not None:
            self.say(f"⊘ {action.label}: {reason}")
            return Effect()
        return self.handler(action, self.here)() or Effect()

    def handler(self, action: keys.Action, screen: Screen) -> Callable[[], Effect | None]:
        """What does the action there: the screen itself, else the desk; an action named as a screen opens it."""
        if action.name in SCREENS:
            return partial(self.go, action.name)
        name = f"do_{action.name}"
        found: Callable[[], Effect | None] = getattr(screen, name, None) or getattr(self, name)
        return found

    def _unbound(self, key: str) -> Effect:
        if self.screen == HELP and key in ("j", "down", "k", "up"):
            self.here.move(1 if key in ("j", "down") else -1)
        elif self.screen == HELP:
            self.screen = self._before_help
        return Effect()

    def _answer(self, key: str) -> Effect:
        asked, self._asked, self._message = self._asked, None, ()
        if key == "y" and asked is not None:
            asked()
        else:
            self.say("nothing was stopped", "dim")
        return Effect()

    def go(self, screen: str) -> None:
        """Opens a screen."""
        self.screen = screen
        self.here.enter()
        self.look()

    def do_baseline(self) -> None:
        if self.info is not None:
            self.diff.mark_baseline(self.info.run)
            self.say(f"{self.info.run} is the baseline: 4 compares another run with it", "")

    def do_back(self) -> None:
        if not self.here.back():
            self.go(BOARD)

    def typed(self, text: str) -> None:
        """Takes the line while it is being typed."""
        if self._palette is not None:
            self._palette = text

    def submitted(self, text: str) -> Effect:
        """Gives the line that the person typed to the palette, or to the screen that asked for it."""
        if self._palette is None:
            self.here.submitted(text)
            return Effect()
        from harness.tui.views.palette import matches

        found, self._palette = matches(self.context(), text), None
        return self.press(found[0].keys[0]) if found else Effect()

    def left(self) -> None:
        """The person left the line without an answer."""
        self._palette = None

    def do_palette(self) -> Effect:
        self._palette = ""
        return Effect(prompt="", hint="an action's name, such as samples, stop or theme")

    def do_theme(self) -> Effect:
        return Effect(is_theme=True)

    def command(self, words: Sequence[str], said: str) -> None:
        """Runs a command of the command line; a run that it starts is shown."""
        self.say(said, "")
        self.commands.start(words)

    def _hear(self) -> None:
        if said := self._jobs.heard():
            self.say(said)
        if (answer := self.commands.heard()) is not None:
            self.say(answer.text, "fail-text" if answer.is_error else "pass-text")
            if answer.run is not None:
                self._run, self._listed_s = answer.run, float("-inf")
                self._forget()
                self.screen = LIVE

    def ask(self, question: str, act: Callable[[], None]) -> None:
        """Does it after a `y`; any other key leaves it."""
        self.say(f"{question}  y yes · any other key no", "strong")
        self._asked = act

    def do_cancel(self) -> None:
        if (info := self.info) is not None:
            self.ask(f"stop {info.run} after this batch?", lambda: self._jobs.cancel(info.folder, now=False))

    def do_cancel_now(self) -> None:
        if (info := self.info) is not None:
            self.ask(f"kill the worker of {info.run} now?", lambda: self._jobs.cancel(info.folder, now=True))

    def do_resume(self) -> None:
        if self.info is not None:
            self.say(f"starting a worker on {self.info.run} …", "")
            self._jobs.resume(self.info.folder)

    def do_copy(self) -> Effect:
        text = twin_of_screen(self.context())
        self.say(f"copied: {text}", "")
        return Effect(copied=text)

    def do_help(self) -> None:
        if self.screen == HELP:
            self.screen = self._before_help
        else:
            self._before_help = self.screen
            self.go(HELP)

    def do_quit(self) -> Effect:
        return Effect(is_quit=True)
