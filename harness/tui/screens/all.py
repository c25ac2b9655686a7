"""The screens of a desk, each made when it is first wanted: what nobody opens is never imported."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING

from harness.tui.context import HELP, SCREENS
from harness.tui.screens.base import Screen
from harness.tui.screens.board import BoardScreen

if TYPE_CHECKING:
    from harness.tui.desk import Desk
    from harness.tui.screens.diff import DiffScreen
    from harness.tui.screens.export import ExportScreen
    from harness.tui.screens.help import HelpScreen
    from harness.tui.screens.live import LiveScreen
    from harness.tui.screens.monitor import MonitorScreen
    from harness.tui.screens.plan import PlanScreen
    from harness.tui.screens.review import ReviewScreen
    from harness.tui.screens.samples import SamplesScreen
    from harness.tui.screens.start import StartScreen
    from harness.tui.screens.train import TrainScreen


class Screens(Mapping[str, Screen]):
    """Every screen by its name. A quarter of the time to the first paint went into those that were not shown."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def __getitem__(self, name: str) -> Screen:
        if name not in (*SCREENS, HELP):
            raise KeyError(name)
        found: Screen = getattr(self, name)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter((*SCREENS, HELP))

    def __len__(self) -> int:
        return len(SCREENS) + 1

    def made(self) -> list[Screen]:
        """Those that were opened before."""
        return [self[name] for name in self if name in self.__dict__]

    @cached_property
    def board(self) -> BoardScreen:
        return BoardScreen(self._desk)

    @cached_property
    def live(self) -> LiveScreen:
        from harness.tui.screens.live import LiveScreen

        return LiveScreen(self._desk)

    @cached_property
    def samples(self) -> SamplesScreen:
        from harness.tui.screens.samples import SamplesScreen

        return SamplesScreen(self._desk)

    @cached_property
    def diff(self) -> DiffScreen:
        from harness.tui.screens.diff import DiffScreen

        return DiffScreen(self._desk)

    @cached_property
    def train(self) -> TrainScreen:
        from harness.tui.screens.train import TrainScreen

        return TrainScreen(self._desk)

    @cached_property
    def export(self) -> ExportScreen:
        from harness.tui.screens.export import ExportScreen

        return ExportScreen(self._desk)

    @cached_property
    def review(self) -> ReviewScreen:
        from harness.tui.screens.review import ReviewScreen

        return ReviewScreen(self._desk)

    @cached_property
    def monitor(self) -> MonitorScreen:
        from harness.tui.screens.monitor import MonitorScreen

        return MonitorScreen(self._desk)

    @cached_property
    def plan(self) -> PlanScreen:
        from harness.tui.screens.plan import PlanScreen

        return PlanScreen(self._desk)

    @cached_property
    def start(self) -> StartScreen:
        from harness.tui.screens.start import StartScreen

        return StartScreen(self._desk)

    @cached_property
    def help(self) -> HelpScreen:
        from harness.tui.screens.help import HelpScreen

        return HelpScreen(self._desk)
