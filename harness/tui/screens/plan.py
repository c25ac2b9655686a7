"""The plan wizard: from what a domain demands to a recipe, and to its run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from harness.tui.comparisons import Plans
from harness.tui.context import PLAN, START, Context
from harness.tui.screens.base import Screen
from harness.tui.views.cells import Line
from harness.tui.views.plan import FIELDS, plan_body, plan_words, turned, usual_choices


class PlanScreen(Screen):
    """Each change asks `harness plan` again, in a process of its own."""

    name = PLAN

    def forget(self) -> None:
        """It is about no run."""
        self.chosen: tuple[str, ...] = getattr(self, "chosen", usual_choices())
        self._cursor: int = getattr(self, "_cursor", 0)
        self._scroll = 0
        self.plans: Plans = getattr(self, "plans", None) or Plans(self.desk.home.home)

    @property
    def words(self) -> list[str]:
        """The command that plans what is chosen."""
        return plan_words(self.chosen)

    @property
    def path(self) -> str:
        """Where the recipe goes: beside those that the start screen finds."""
        return f"{self.chosen[0]}-plan.yaml"

    def context(self, common: Context) -> Context:
        return replace(
            common, plan=tuple(self.words), document=self.path if Path(self.path).is_file() else None, kind="recipe",
            plan_file=self.path,
        )  # fmt: skip

    def crumbs(self) -> tuple[str, ...]:
        return (self.chosen[0],)

    def body(self, cells: int, rows: int) -> list[Line]:
        found = self.plans.find(self.words)
        said = "planning …" if found is None else found.error
        document = found.document if found else None
        return plan_body(
            self.chosen, self._cursor, document, said, self.path, cells, rows, scroll=self._scroll
        )

    def back(self) -> bool:
        self.desk.go(START)
        return True

    def move(self, by: int) -> None:
        self._cursor = max(0, min(self._cursor + by, len(FIELDS) - 1))

    def do_page_down(self) -> None:
        self._scroll += max(1, self.desk.size[1] // 3)

    def do_page_up(self) -> None:
        self._scroll = max(0, self._scroll - max(1, self.desk.size[1] // 3))

    def do_next_choice(self) -> None:
        self.chosen = turned(self.chosen, self._cursor, 1)
        self._scroll = 0

    def do_previous_choice(self) -> None:
        self.chosen = turned(self.chosen, self._cursor, -1)
        self._scroll = 0

    def do_write_plan(self) -> None:
        self.desk.command([*self.words, "--out", self.path], f"writing {self.path} …")

    def do_open(self) -> None:
        """Releases the recipe that was written."""
        self.desk.command(
            ["release", self.path, "--detach", "--json"], f"starting: harness release {self.path} …"
        )
