"""The screens as text, for pipes, logs and screen readers: the same lines that the terminal draws."""

from __future__ import annotations

from pathlib import Path

from harness.tui.views.cells import plain, to_ascii

CELLS, ROWS = 100, 44


def board(home: Path, *, run: str | None = None, cells: int = CELLS, ascii: bool = False) -> str:
    """The board with the newest run, or the one called `run`, as lines of text."""
    return _screen(home, "board", run, cells, ascii)


def live(home: Path, *, run: str | None = None, cells: int = CELLS, ascii: bool = False) -> str:
    """The steps, numbers and last events of a run, as lines of text."""
    return _screen(home, "live", run, cells, ascii)


def samples(home: Path, *, run: str | None = None, cells: int = CELLS, ascii: bool = False) -> str:
    """The first samples of a run, as lines of text."""
    return _screen(home, "samples", run, cells, ascii)


def train(home: Path, *, run: str | None = None, cells: int = CELLS, ascii: bool = False) -> str:
    """The training of a run, as lines of text."""
    return _screen(home, "train", run, cells, ascii)


def export(home: Path, *, run: str | None = None, cells: int = CELLS, ascii: bool = False) -> str:
    """The exported files of a run, as lines of text."""
    return _screen(home, "export", run, cells, ascii)


def monitor(home: Path, *, cells: int = CELLS, ascii: bool = False) -> str:
    """What answers on this device, as lines of text."""
    return _screen(home, "monitor", None, cells, ascii)


def _screen(home: Path, screen: str, run: str | None, cells: int, is_ascii: bool) -> str:
    from harness.tui.desk import Desk

    desk = Desk(home, run=run)
    desk.catch_up()
    desk.go(screen)
    drawn = [plain(spans) for spans in desk.body(cells, ROWS)]
    lines = [text.rstrip(" │") for text in drawn if text.strip(" │")]
    text = "\n".join(lines).rstrip() + "\n"
    return to_ascii(text) if is_ascii else text
