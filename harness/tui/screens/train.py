"""Screen 5: the training of the chosen run."""

from __future__ import annotations

from dataclasses import replace

from harness.jobs.steering import Order
from harness.tui.context import SAMPLES, TRAIN, Context
from harness.tui.screens.base import Screen
from harness.tui.views.cells import Line
from harness.tui.views.train import train_body


class TrainScreen(Screen):
    """Curves, gates, checkpoints, memory and data; orders go out as the command that is their twin."""

    name = TRAIN

    def context(self, common: Context) -> Context:
        folder = self.desk.folder
        if folder is None:
            return common
        training, step = folder.progress.training, folder.progress.active
        return replace(
            common,
            is_training=bool(training.losses) and step is not None and step.name == "train",
            is_paused=training.is_paused,
            has_train_gates=bool(training.gates),
        )

    def body(self, cells: int, rows: int) -> list[Line]:
        info, folder = self.desk.info, self.desk.folder
        if info is None or folder is None:
            return []
        return train_body(info, folder, cells, rows, now_s=self.desk.now())

    def do_open(self) -> None:
        self.desk.go(SAMPLES)

    def do_pause(self) -> None:
        self._steer(Order.PAUSE)

    def do_go_on(self) -> None:
        self._steer(Order.GO_ON)

    def do_gate_now(self) -> None:
        self._steer(Order.GATE)

    def do_roll_back(self) -> None:
        self.desk.ask(
            "go back to the best checkpoint, with half the rate?", lambda: self._steer(Order.ROLL_BACK)
        )

    def do_finish(self) -> None:
        self.desk.ask("train no further, and keep the best checkpoint?", lambda: self._steer(Order.FINISH))

    def _steer(self, order: Order) -> None:
        if (info := self.desk.info) is not None:
            self.desk.command(["steer", info.run, order.value], f"asking: {order.value} …")
