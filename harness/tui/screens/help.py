"""The help screen, over the screen that it was asked on."""

from __future__ import annotations

from harness.tui.context import HELP
from harness.tui.screens.base import Screen
from harness.tui.views.cells import Line
from harness.tui.views.help import help_body


class HelpScreen(Screen):
    """Every key of the screen behind it."""

    name = HELP
    scroll = 0

    def enter(self) -> None:
        self.scroll = 0

    def body(self, cells: int, rows: int) -> list[Line]:
        return help_body(self.desk.context_behind(), cells, rows, self.scroll)

    def move(self, by: int) -> None:
        self.scroll = max(0, self.scroll + by)
