"""Pictures of the screens, as SVG, of a run that is there: `python -m harness.tui.pictures OUT --run RUN`."""

from __future__ import annotations

import argparse
import asyncio
import re
from collections.abc import Sequence
from pathlib import Path

from harness.files import write_atomic
from harness.tui.app import HarnessApp
from harness.tui.desk import Desk

KEYS = {
    "board": ("1",), "live": ("2",), "samples": ("3", "f"), "diff": ("4",), "train": ("5",), "export": ("6",),
    "review": ("7",), "monitor": ("8",),
}  # fmt: skip
"""What is pressed before each picture is taken."""
WAIT_S = 60.0


async def picture(home: Path, run: str | None, keys: Sequence[str], cells: int, rows: int) -> str:
    """The screen after the keys, as an SVG document, once nothing on it is being worked out."""
    desk = Desk(home, run=run)
    desk.catch_up()
    app = HarnessApp(desk)
    async with app.run_test(size=(cells, rows)) as pilot:
        await pilot.press(*keys)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + WAIT_S
        while _is_busy(desk, cells, rows) and loop.time() < deadline:
            await asyncio.sleep(0.2)
            app.look()
        await pilot.pause()
        return without_addresses(app.export_screenshot(title="harness"))


def without_addresses(svg: str) -> str:
    """The picture with the fonts of the machine that shows it: Rich names a web server's."""
    return re.sub(r',\s*url\("[^"]*"\) format\("[^"]*"\)', "", svg)


def _is_busy(desk: Desk, cells: int, rows: int) -> bool:
    text = "".join(span.text for line in desk.lines(cells, rows) for span in line)
    return any(words in text for words in ("comparing …", "… reading the record", "looking,"))


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes one file a screen."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path, help="folder for the pictures")
    parser.add_argument("--home", type=Path, help="where runs are; $HARNESS_HOME, else .harness")
    parser.add_argument("--run", help="a run's name; the newest by default")
    parser.add_argument("--screens", default="board,samples,diff,train,export")
    parser.add_argument("--cells", type=int, default=110)
    parser.add_argument("--rows", type=int, default=34)
    asked = parser.parse_args(arguments)
    from harness.jobs.store import home_folder

    home = (asked.home or home_folder()).absolute()
    for name in asked.screens.split(","):
        drawn = asyncio.run(picture(home, asked.run, KEYS[name], asked.cells, asked.rows))
        write_atomic(asked.out / f"{name}.svg", drawn)


if __name__ == "__main__":
    main()
