"""Screen 2: what the chosen run does now."""

from __future__ import annotations

from harness.tui.context import LIVE, SAMPLES
from harness.tui.screens.base import Screen
from harness.tui.views.cells import Line
from harness.tui.views.live import live_body


class LiveScreen(Screen):
    """Steps, numbers and the last events."""

    name = LIVE

    def body(self, cells: int, rows: int) -> list[Line]:
        info, folder = self.desk.info, self.desk.folder
        if info is None or folder is None:
            return []
        return live_body(info, folder, cells, rows, now_s=self.desk.now())

    def do_open(self) -> None:
        self.desk.go(SAMPLES)
