"""The widget on which every screen is drawn: lines of styled text, and only those that changed."""

from __future__ import annotations

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from harness.tui.views.cells import Line, fit_line, to_ascii


class Canvas(Widget, can_focus=True):
    """Paints lines; outside text is made safe once more on its way to the terminal."""

    DEFAULT_CSS = "Canvas { width: 1fr; height: 1fr; }"

    def __init__(self, styles: dict[str, Style], *, is_ascii: bool) -> None:
        super().__init__()
        self._styles = styles
        self._is_ascii = is_ascii
        self._lines: list[Line] = []

    def wear(self, styles: dict[str, Style]) -> None:
        """Draws in these styles from now on."""
        self._styles = styles
        self.refresh()

    def show(self, lines: list[Line]) -> None:
        """Draws the lines; those that are as before are left alone."""
        before, self._lines = self._lines, lines
        if len(before) != len(lines):
            self.refresh()
            return
        changed = [y for y, (old, new) in enumerate(zip(before, lines, strict=True)) if old != new]
        if changed:
            self.refresh(*(Region(0, y, self.size.width, 1) for y in changed))

    def render_line(self, y: int) -> Strip:
        cells = self.size.width
        spans = fit_line(self._lines[y], cells) if y < len(self._lines) else ()
        segments = [Segment(self._text(span.text), self._style(span.style)) for span in spans]
        return Strip(segments).adjust_cell_length(cells, self._styles[""])

    def on_key(self, event: events.Key) -> None:
        event.stop()
        event.prevent_default()
        self.app.press(event.key)  # type: ignore[attr-defined]

    def _text(self, text: str) -> str:
        return to_ascii(text) if self._is_ascii else text

    def _style(self, name: str) -> Style:
        return self._styles.get(name, self._styles[""])
