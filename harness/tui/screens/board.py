"""Screen 1: which run, which stage, which rule."""

from __future__ import annotations

from dataclasses import replace

from harness.evals.results import State
from harness.jobs.store import RunState
from harness.tui.context import BOARD, LIVE, Context
from harness.tui.screens.base import Screen
from harness.tui.views import verdicts
from harness.tui.views.board import Board, board_body, board_of
from harness.tui.views.cells import Line
from harness.tui.views.matrix import Cursor, Matrix, deciding_rule, matrix_of


class BoardScreen(Screen):
    """The runs, and the verdicts of the chosen one. The cursor stays on what matters until the person moves it."""

    name = BOARD

    def forget(self) -> None:
        self.matrix = Matrix((), ())
        self.cursor = getattr(self, "cursor", Cursor())
        self._is_stage_chosen = self._is_rule_chosen = False

    def follow(self) -> None:
        """Reads the verdicts of the chosen run, and keeps the cursor in their bounds."""
        folder = self.desk.folder
        if folder is not None:
            self.matrix = matrix_of(folder, is_running=folder.folder.name in self.desk.running())
        self._keep_cursor()

    def _keep_cursor(self) -> None:
        matrix = self.matrix
        stage = self.cursor.stage if self._is_stage_chosen else matrix.to_look_at
        stage = max(0, min(stage, len(matrix.stages) - 1))
        rule = self.cursor.rule if self._is_rule_chosen else deciding_rule(matrix, stage)
        self.cursor = replace(self.cursor, stage=stage, rule=max(0, min(rule, len(matrix.rules) - 1)))

    @property
    def stage(self) -> str | None:
        """The stage under the cursor."""
        stages = self.matrix.stages
        return stages[self.cursor.stage].stage if self.cursor.stage < len(stages) else None

    def context(self, common: Context) -> Context:
        return replace(common, pane=self.cursor.pane, stage=self.stage, n_rules=len(self.matrix.rules))

    def body(self, cells: int, rows: int) -> list[Line]:
        return board_body(self.board(), self.cursor, self.desk.context(), cells, rows)

    def board(self) -> Board:
        """The view model."""
        desk = self.desk
        running = {name: folder.progress for name, folder in desk.running_folders()}
        return board_of(
            desk.home.runs, desk.info, desk.folder, matrix=self.matrix, running=running, home=str(desk.home.home),
            now_s=desk.now(),
        )  # fmt: skip

    def back(self) -> bool:
        self.cursor = replace(self.cursor, pane="runs")
        return True

    def move(self, by: int) -> None:
        runs = self.desk.home.runs
        if self.cursor.pane == "stages":
            self._is_stage_chosen = True
            last = len(self.matrix.stages) - 1
            self.cursor = replace(self.cursor, stage=max(0, min(self.cursor.stage + by, last)))
            self._keep_cursor()
        elif runs:
            self.desk.choose_run(max(0, min(self.cursor.run + by, len(runs) - 1)))

    def do_open(self) -> None:
        info = self.desk.info
        if self.cursor.pane == "stages":
            self._open_stage()
        elif info and info.state is RunState.RUNNING:
            self.desk.go(LIVE)
        else:
            self.cursor = replace(self.cursor, pane="stages")

    def do_pane(self) -> None:
        self.cursor = replace(self.cursor, pane="runs" if self.cursor.pane == "stages" else "stages")

    def do_next_rule(self) -> None:
        self._turn_rule(1)

    def do_previous_rule(self) -> None:
        self._turn_rule(-1)

    def _turn_rule(self, by: int) -> None:
        self._is_rule_chosen = True
        self.cursor = replace(self.cursor, rule=(self.cursor.rule + by) % max(1, len(self.matrix.rules)))

    def _open_stage(self) -> None:
        """The failing samples of the slice that decided the stage under the cursor."""
        from harness.tui.views.samples import Filter

        folder = self.desk.folder
        if folder is None or not self.matrix.stages:
            return
        row = self.matrix.stages[self.cursor.stage]
        sources = [source for source in folder.sources if source[0] == row.stage]
        if not sources:
            self.desk.say(f"⊘ {row.stage} has no samples yet")
            return
        deciding = verdicts.worst(row.verdict.rules) if row.verdict else None
        source, wanted = sources[0], Filter()
        if deciding is not None and deciding.verdict is not State.PASS:
            source = (row.stage, deciding.suite) if (row.stage, deciding.suite) in sources else source
            term = deciding.slice if "=" in deciding.slice and " " not in deciding.slice else ""
            wanted = Filter(term, is_failures_only=True)
        self.desk.samples.open(source, wanted)
