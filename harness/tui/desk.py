"""What the person sees and can do, without a terminal: keys come in, lines come out."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from harness.evals.results import Scorecard, State
from harness.jobs.store import RunInfo, RunState
from harness.tui import keys
from harness.tui.inputs import Inputs
from harness.tui.jobs import Jobs
from harness.tui.keys import BOARD, HELP, LIVE, SAMPLES, Context
from harness.tui.views import verdicts
from harness.tui.views.board import Board, board_body, board_of, title_right
from harness.tui.views.cells import Line, Span, line
from harness.tui.views.folders import LINES_A_LOOK, Home, RunFolder
from harness.tui.views.frame import CHROME_ROWS, frame
from harness.tui.views.help import help_body
from harness.tui.views.live import live_body
from harness.tui.views.matrix import Cursor, Matrix, deciding_rule, matrix_of
from harness.tui.views.reader import SampleScreen, boxes, max_scroll, samples_body
from harness.tui.views.samples import Filter, SampleIndex, SampleList, text_of

RUNS_S = 1.0
"""How often the list of runs is read."""
MESSAGE_S = 8.0


class Effect(NamedTuple):
    """What a key asks of the terminal."""

    is_quit: bool = False
    copied: str | None = None
    prompt: str | None = None
    """The text to start with."""


class Desk:
    """The state of the screens."""

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
        self.cursor = Cursor()
        self.samples = SampleScreen()
        self._run = run
        self._jobs = jobs or Jobs()
        self._inputs = Inputs()
        self._now = now
        self._listed_s = float("-inf")
        self._matrix = Matrix((), ())
        self._list: SampleList | None = None
        self._indexes: dict[Path, SampleIndex] = {}
        self._asked: Callable[[], None] | None = None
        self._message: Line = ()
        self._message_s = 0.0
        self._is_stage_chosen = False
        self._is_rule_chosen = False
        self._before_help = BOARD
        self._scroll_help = 0
        self._size = (100, 30)

    # What is read

    def look(self) -> bool:
        """Reads what is new, within bounds; whether there is more to read at once."""
        now = self._now()
        if now - self._listed_s >= RUNS_S:
            self._listed_s = now
            self.home.look()
            self._keep_run()
        if said := self._jobs.heard():
            self.say(said)
        more = self._read_journals()
        if self.folder is not None:
            self._follow_trouble(self.folder)
        if self.screen == SAMPLES and self._list is not None:
            more = self._list.look() or more
        return more

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
            self.cursor = replace(self.cursor, run=names.index(self._run))

    def _follow_trouble(self, folder: RunFolder) -> None:
        """Keeps the cursor on what matters until the person moves it."""
        self._matrix = matrix_of(folder, is_running=folder.folder.name in self.running())
        self._keep_cursor(self._matrix)

    def _keep_cursor(self, matrix: Matrix) -> None:
        stage = self.cursor.stage if self._is_stage_chosen else matrix.to_look_at
        stage = max(0, min(stage, len(matrix.stages) - 1))
        rule = self.cursor.rule if self._is_rule_chosen else deciding_rule(matrix, stage)
        self.cursor = replace(self.cursor, stage=stage, rule=max(0, min(rule, len(matrix.rules) - 1)))

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

    def _running(self) -> list[RunInfo]:
        return [info for info in self.home.runs if info.state is RunState.RUNNING]

    def context(self) -> Context:
        """What the actions depend on."""
        info, folder, found = self.info, self.folder, self._list
        matrix = self._matrix
        stage = matrix.stages[self.cursor.stage].stage if self.cursor.stage < len(matrix.stages) else None
        if self.screen == SAMPLES and self.samples.source:
            stage = self.samples.source[0]
        return Context(
            screen=self.screen,
            run=info.run if info else None,
            state=info.state if info else None,
            command=folder.command if folder else None,
            pane=self.cursor.pane,
            stage=stage,
            n_rules=len(matrix.rules),
            n_sources=len(folder.sources) if folder else 0,
            n_listed=len(found) if found else 0,
            n_failures=found.n_failures if found else 0,
            sample=self._sample_name(),
            has_filter=bool(found and found.wanted.text),
            is_failures_only=bool(found and found.wanted.is_failures_only),
            is_reading=self.samples.is_reading,
        )

    def _sample_name(self) -> str | None:
        sample = self._listed_sample()
        return None if sample is None else text_of(sample.get("id"))

    def _listed_sample(self) -> dict[str, Any] | None:
        if self._list is None or not len(self._list):
            return None
        return self._list.index.data(self._list[self.samples.position])

    def _sample(self) -> dict[str, Any] | None:
        """The sample under the cursor, with its input where that is known."""
        sample, folder, source = self._listed_sample(), self.folder, self.samples.source
        if sample is None or folder is None or source is None or "input" in sample:
            return sample
        text = self._inputs.find(folder, source[1], text_of(sample.get("id")))
        return sample if text is None else {"input": text, **sample}

    # What is drawn

    def lines(self, cells: int, rows: int) -> list[Line]:
        """The whole screen."""
        self._size = (cells, rows)
        context = self.context()
        body = self.body(cells, rows - CHROME_ROWS)
        return frame(
            context, body, crumbs=self._crumbs(context), right=title_right(self.home.runs),
            twin=keys.twin_of_screen(replace(context, screen=self._shown)), message=self._shown_message(),
            cells=cells, rows=rows,
        )  # fmt: skip

    @property
    def _shown(self) -> str:
        return self._before_help if self.screen == HELP else self.screen

    def body(self, cells: int, rows: int) -> list[Line]:
        """The screen between its frame's lines."""
        info, folder = self.info, self.folder
        if self.screen == HELP:
            context = replace(self.context(), screen=self._before_help)
            return help_body(context, cells, rows, self._scroll_help)
        if self.screen == LIVE and info and folder:
            return live_body(info, folder, cells, rows, now_s=self._now())
        if self.screen == SAMPLES:
            return samples_body(self._list, self.samples, self._card(), self._sample(), cells, rows)
        return board_body(self.board(), self.cursor, self.context(), cells, rows)

    def _card(self) -> Scorecard | None:
        folder = self.folder
        return folder.scorecards.get(self.samples.source) if folder and self.samples.source else None

    def board(self) -> Board:
        """The board's view model."""
        running = {info.run: self.home.folder(info).progress for info in self._running()}
        return board_of(
            self.home.runs,
            self.info,
            self.folder,
            matrix=self._matrix,
            running=running,
            home=str(self.home.home),
            now_s=self._now(),
        )

    def _crumbs(self, context: Context) -> list[str]:
        crumbs = [self.screen] + ([context.run] if context.run else [])
        if self.screen == SAMPLES and self.samples.source:
            crumbs += [*self.samples.source, *([context.sample] if context.sample else [])]
        return crumbs

    def say(self, text: str, style: str = "warning") -> None:
        """Shows a sentence above the command line for some seconds."""
        self._message, self._message_s = line(Span(text, style)), self._now()

    def _shown_message(self) -> Line:
        if self._asked is None and self._now() - self._message_s > MESSAGE_S:
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
        return getattr(self, f"do_{action.name}")() or Effect()

    def _unbound(self, key: str) -> Effect:
        if self.screen == HELP and key in ("j", "down", "k", "up"):
            self._scroll_help = max(0, self._scroll_help + (1 if key in ("j", "down") else -1))
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
        if screen == SAMPLES:
            self._open_samples()
            self.look()

    def do_board(self) -> None:
        self.go(BOARD)

    def do_live(self) -> None:
        self.go(LIVE)

    def do_samples(self) -> None:
        self.go(SAMPLES)

    def do_open(self) -> None:
        if self.screen == SAMPLES:
            self.samples = replace(self.samples, is_reading=True, scroll=0)
        elif self.screen == LIVE:
            self.go(SAMPLES)
        elif self.cursor.pane == "stages":
            self._open_stage()
        elif self.info and self.info.state is RunState.RUNNING:
            self.go(LIVE)
        else:
            self.cursor = replace(self.cursor, pane="stages")

    def do_back(self) -> None:
        wanted = self._list.wanted if self._list else Filter()
        if self.screen == SAMPLES and self.samples.is_reading:
            self.samples = replace(self.samples, is_reading=False, scroll=0)
        elif self.screen == SAMPLES and wanted != Filter():
            self._refilter(Filter())
        elif self.screen != BOARD:
            self.go(BOARD)
        else:
            self.cursor = replace(self.cursor, pane="runs")

    def do_down(self) -> None:
        self._move(1)

    def do_up(self) -> None:
        self._move(-1)

    def do_page_down(self) -> None:
        self._move(max(1, self._size[1] // 3))

    def do_page_up(self) -> None:
        self._move(-max(1, self._size[1] // 3))

    def do_first(self) -> None:
        self._move(-(10**9))

    def do_last(self) -> None:
        self._move(10**9)

    def _move(self, by: int) -> None:
        if self.screen == SAMPLES and self._list is not None:
            if self.samples.is_reading:
                self._scroll(by)
            else:
                self._go_to(self.samples.position + by)
        elif self.screen == BOARD and self.cursor.pane == "stages":
            stages = len(self._matrix.stages)
            self._is_stage_chosen = True
            self.cursor = replace(self.cursor, stage=max(0, min(self.cursor.stage + by, stages - 1)))
            self._keep_cursor(self._matrix)
        elif self.screen == BOARD and self.home.runs:
            self._choose_run(max(0, min(self.cursor.run + by, len(self.home.runs) - 1)))

    def _choose_run(self, index: int) -> None:
        if self.home.runs[index].run != self._run:
            self._matrix = Matrix((), ())
            self._run = self.home.runs[index].run
            self._is_stage_chosen = self._is_rule_chosen = False
            self._list, self.samples = None, SampleScreen()
        self.cursor = replace(self.cursor, run=index)
        self.look()

    def do_pane(self) -> None:
        self.cursor = replace(self.cursor, pane="runs" if self.cursor.pane == "stages" else "stages")

    def do_next_rule(self) -> None:
        self._turn_rule(1)

    def do_previous_rule(self) -> None:
        self._turn_rule(-1)

    def _turn_rule(self, by: int) -> None:
        self._is_rule_chosen = True
        count = self.context().n_rules
        self.cursor = replace(self.cursor, rule=(self.cursor.rule + by) % max(1, count))

    # Samples

    def _open_samples(self, source: tuple[str, str] | None = None, wanted: Filter | None = None) -> None:
        folder = self.folder
        sources = folder.sources if folder else []
        if folder is None or not sources:
            self._list = None
            return
        chosen = source or self.samples.source
        if chosen not in sources:
            chosen = folder.newest_source or sources[-1]
        if chosen == self.samples.source and wanted is None and self._list is not None:
            return
        path = folder.samples_path(chosen)
        index = self._indexes.setdefault(path, SampleIndex(path))
        self._list = SampleList(index, wanted or (self._list.wanted if self._list else Filter()))
        self.samples = SampleScreen(source=chosen)

    def _open_stage(self) -> None:
        folder = self.folder
        if folder is None or not self._matrix.stages:
            return
        row = self._matrix.stages[self.cursor.stage]
        sources = [source for source in folder.sources if source[0] == row.stage]
        if not sources:
            self.say(f"⊘ {row.stage} has no samples yet")
            return
        deciding = verdicts.worst(row.verdict.rules) if row.verdict else None
        source, wanted = sources[0], Filter()
        if deciding is not None and deciding.verdict is not State.PASS:
            source = (row.stage, deciding.suite) if (row.stage, deciding.suite) in sources else source
            term = deciding.slice if "=" in deciding.slice and " " not in deciding.slice else ""
            wanted = Filter(term, is_failures_only=True)
        self.screen = SAMPLES
        self._open_samples(source, wanted)
        self.look()

    def set_filter(self, text: str) -> None:
        """Lists the samples that hold all words of the text."""
        wanted = self._list.wanted if self._list else Filter()
        self._refilter(replace(wanted, text=text.strip()))

    def _refilter(self, wanted: Filter) -> None:
        if self._list is not None:
            self._list = SampleList(self._list.index, wanted)
            self.samples = replace(self.samples, position=0, scroll=0)
            self.look()

    def do_failures(self) -> None:
        if self._list is not None:
            wanted = self._list.wanted
            self._refilter(replace(wanted, is_failures_only=not wanted.is_failures_only))

    def do_filter(self) -> Effect:
        return Effect(prompt=self._list.wanted.text if self._list else "")

    def do_next_failure(self) -> None:
        self._next_failure(1)

    def do_previous_failure(self) -> None:
        self._next_failure(-1)

    def _next_failure(self, step: int) -> None:
        found = self._list.failure_from(self.samples.position, step) if self._list else None
        if found is None:
            self.say(f"no failure {'after' if step > 0 else 'before'} this one", "dim")
        else:
            self._go_to(found)

    def _go_to(self, position: int) -> None:
        last = len(self._list) - 1 if self._list else 0
        self.samples = replace(self.samples, position=max(0, min(position, last)), scroll=0)

    def do_next_source(self) -> None:
        self._turn_source(1)

    def do_previous_source(self) -> None:
        self._turn_source(-1)

    def _turn_source(self, by: int) -> None:
        sources = self.folder.sources if self.folder else []
        at = sources.index(self.samples.source) if self.samples.source in sources else 0
        self._open_samples(sources[(at + by) % len(sources)])
        self.look()

    def do_read_down(self) -> None:
        self._scroll(1)

    def do_read_up(self) -> None:
        self._scroll(-1)

    def _scroll(self, by: int) -> None:
        box = boxes(self.samples, self._card(), self._size[0], self._size[1] - CHROME_ROWS)
        room = max_scroll(self._sample(), self.samples, box)
        self.samples = replace(self.samples, scroll=max(0, min(self.samples.scroll + by, room)))

    def do_zoom(self) -> None:
        self.samples = replace(self.samples, is_reading=not self.samples.is_reading, scroll=0)

    # Jobs and the rest

    def do_cancel(self) -> None:
        self._ask("stop {run} after this batch?", now=False)

    def do_cancel_now(self) -> None:
        self._ask("kill the worker of {run} now?", now=True)

    def _ask(self, question: str, *, now: bool) -> None:
        info = self.info
        if info is not None:
            self.say(f"{question.format(run=info.run)}  y yes · any other key no", "strong")
            self._asked = lambda: self._jobs.cancel(info.folder, now=now)

    def do_resume(self) -> None:
        if self.info is not None:
            self.say(f"starting a worker on {self.info.run} …", "")
            self._jobs.resume(self.info.folder)

    def do_copy(self) -> Effect:
        text = keys.twin_of_screen(self.context())
        self.say(f"copied: {text}", "")
        return Effect(copied=text)

    def do_help(self) -> None:
        if self.screen == HELP:
            self.screen = self._before_help
        else:
            self._before_help, self.screen, self._scroll_help = self.screen, HELP, 0

    def do_quit(self) -> Effect:
        return Effect(is_quit=True)
