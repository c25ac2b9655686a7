"""Screen 5: the training of the chosen run."""

from __future__ import annotations

from harness.tui.context import SAMPLES, TRAIN
from harness.tui.screens.base import Screen
from harness.tui.views.cells import Line
from harness.tui.views.train import train_body


class TrainScreen(Screen):
    """Curves, checkpoints and data."""

    name = TRAIN

    def body(self, cells: int, rows: int) -> list[Line]:
        info, folder = self.desk.info, self.desk.folder
        if info is None or folder is None:
            return []
        return train_body(info, folder, cells, rows, now_s=self.desk.now())

    def do_open(self) -> None:
        self.desk.go(SAMPLES)
