"""What every screen has, and how it asks something of the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, NamedTuple

from harness.tui.context import Context
from harness.tui.views.cells import Line

if TYPE_CHECKING:
    from harness.tui.desk import Desk


class Effect(NamedTuple):
    """What a key asks of the terminal."""

    is_quit: bool = False
    copied: str | None = None
    prompt: str | None = None
    """The text to start with."""
    is_theme: bool = False
    """The next theme."""
    hint: str = ""
    """What to type, shown while nothing is."""


class Screen:
    """One screen of the desk. Its `do_…` methods are the actions of `keys.py` that it answers itself."""

    name: ClassVar[str]

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.forget()

    def enter(self) -> None:
        """The person opens the screen."""

    def forget(self) -> None:
        """The screen is made, or another run was chosen."""

    def look(self) -> bool:
        """Reads what is new while the screen is shown; whether there is more to read at once."""
        return False

    def context(self, common: Context) -> Context:
        """What the screen's actions depend on."""
        return common

    def crumbs(self) -> tuple[str, ...]:
        """Where in the screen the person is, after the run's name."""
        return ()

    def body(self, cells: int, rows: int) -> list[Line]:
        """The screen between its frame's lines."""
        raise NotImplementedError

    def back(self) -> bool:
        """Goes one up within the screen; False when it is at its top."""
        return False

    def move(self, by: int) -> None:
        """Moves the cursor by so many lines; the ends hold it."""

    def submitted(self, text: str) -> None:
        """Takes the line that the person typed."""

    def do_down(self) -> None:
        self.move(1)

    def do_up(self) -> None:
        self.move(-1)

    def do_page_down(self) -> None:
        self.move(max(1, self.desk.size[1] // 3))

    def do_page_up(self) -> None:
        self.move(-max(1, self.desk.size[1] // 3))

    def do_first(self) -> None:
        self.move(-(10**9))

    def do_last(self) -> None:
        self.move(10**9)
