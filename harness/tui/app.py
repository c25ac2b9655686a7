"""The terminal program: a thin shell of timers and keys around `Desk`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import ClassVar

from textual.app import App, ComposeResult
from textual.binding import BindingType
from textual.widgets import Input

from harness.text import visible
from harness.tui.canvas import Canvas
from harness.tui.desk import Desk
from harness.tui.screens.base import Effect
from harness.tui.themes import NAMES, Theme, theme

LOOK_S = 0.25
"""How often files are read; at most `LINES_A_LOOK` lines a time."""


class Prompt(Input):
    """One line to type into; what is pasted is made safe as well."""

    DEFAULT_CSS = """
    Prompt { dock: bottom; height: 1; border: none; padding: 0 1; display: none; }
    Prompt:focus { border: none; }
    Prompt.open { display: block; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [("escape", "app.close_prompt", "Close")]

    def validate_value(self, value: str) -> str:
        return visible(value, keep_newlines=False, limit_chars=500)


class HarnessApp(App[None]):
    """Shows run folders; closing it stops nothing."""

    CSS = "Screen { overflow: hidden; }"
    ENABLE_COMMAND_PALETTE = False

    def __init__(self, desk: Desk, *, is_ascii: bool = False) -> None:
        # Textual takes the variable out of the environment.
        self._is_monochrome = bool(os.environ.get("NO_COLOR"))
        super().__init__()
        self.desk = desk
        self.animation_level = "none"
        asked = os.environ.get("HARNESS_THEME", "")
        self._theme = theme(asked if asked in NAMES else NAMES[0], is_monochrome=self._is_monochrome)
        self._canvas = Canvas(self._theme.styles, is_ascii=is_ascii)

    def compose(self) -> ComposeResult:
        yield self._canvas
        yield Prompt(select_on_focus=False)

    def on_mount(self) -> None:
        self._wear(self._theme)
        self._canvas.focus()
        self.set_interval(LOOK_S, self.look)
        self.call_after_refresh(self.look)

    def _wear(self, chosen: Theme) -> None:
        self._theme = chosen
        # The terminal's own colours must reach it as such, not as a guess of what they look like.
        self.ansi_color = chosen.name == "ansi" and not self._is_monochrome
        for widget in (self.screen, self.query_one(Prompt)):
            widget.styles.background = chosen.paper
        self._canvas.wear(chosen.styles)

    def _turn_theme(self) -> None:
        following = NAMES[(NAMES.index(self._theme.name) + 1) % len(NAMES)]
        self._wear(theme(following, is_monochrome=self._is_monochrome))
        self.desk.say(f"{following} theme; HARNESS_THEME={following} opens with it", "")

    def on_resize(self) -> None:
        self.call_after_refresh(self.draw)

    def look(self) -> None:
        """Reads what is new and draws it; goes on at once while there is more, with keys in between."""
        if self.desk.look():
            self.set_timer(0.005, self.look)
        self.draw()

    def draw(self) -> None:
        size = self._canvas.size
        if size.width and size.height:
            self._canvas.show(self.desk.lines(size.width, size.height))

    def press(self, key: str) -> None:
        """Does what the key means on this screen."""
        self._do(self.desk.press(key))

    def _do(self, effect: Effect) -> None:
        if effect.is_quit:
            self.exit()
        elif effect.copied is not None:
            self.copy_to_clipboard(effect.copied)
        elif effect.prompt is not None:
            self._open_prompt(effect.prompt, effect.hint)
        elif effect.is_theme:
            self._turn_theme()
        self.draw()

    def _open_prompt(self, text: str, hint: str) -> None:
        prompt = self.query_one(Prompt)
        prompt.placeholder = hint
        prompt.value = text
        prompt.cursor_position = len(text)
        prompt.add_class("open")
        prompt.focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        if not event.input.has_class("open"):  # the last key's change, told after the prompt was left
            return
        self.desk.typed(event.value)
        self.draw()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        effect = self.desk.submitted(event.value)
        self._close_prompt()
        self._do(effect)

    def action_close_prompt(self) -> None:
        self.desk.left()
        self._close_prompt()

    def _close_prompt(self) -> None:
        self.query_one(Prompt).remove_class("open")
        self._canvas.focus()
        self.look()

    def on_mouse_scroll_down(self) -> None:
        self.press("j")

    def on_mouse_scroll_up(self) -> None:
        self.press("k")


def run(home: Path, *, ascii: bool = False) -> None:
    """Opens the terminal on a home folder, and returns when it is closed. Jobs keep running."""
    desk = Desk(home)
    HarnessApp(desk, is_ascii=ascii).run()
    sys.stderr.write(farewell(desk))


def farewell(desk: Desk) -> str:
    """What is said when the window closes."""
    running = desk.running()
    if not running:
        return ""
    jobs = f"{len(running)} job{'s keep' if len(running) > 1 else ' keeps'} running"
    return f"{jobs}; `harness` opens the board again, `harness attach {running[0]}` follows one\n"
