"""A home that others write: read-only, as a mounted folder is, or looked at by several windows."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import NOW_S, RECORDED_S
from fakes import FakeRun
from screen import terminal

from harness.tui.context import SCREENS, TITLES
from harness.tui.desk import Desk
from harness.tui.views.cells import plain
from harness.tui.views.folders import can_be_written

CAPABILITIES_V3 = 0x20080522
CAP_DAC_OVERRIDE = 1
"""With it root may write whatever the mode of a file says (capabilities(7))."""


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Sets(ctypes.Structure):
    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


@pytest.fixture
def read_only(recorded: Path) -> Iterator[Path]:
    """The recorded home, for this thread as for a user who may not write there, root or not."""
    libc = ctypes.CDLL(None, use_errno=True)
    header, sets = _Header(CAPABILITIES_V3, 0), (_Sets * 2)()
    assert libc.capget(ctypes.byref(header), sets) == 0
    had = sets[0].effective
    folders = [recorded, *(path for path in recorded.rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    sets[0].effective = had & ~(1 << CAP_DAC_OVERRIDE)
    assert libc.capset(ctypes.byref(header), sets) == 0
    yield recorded
    sets[0].effective = had
    assert libc.capset(ctypes.byref(header), sets) == 0
    for folder in folders:
        folder.chmod(0o755)


def files(home: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in home.rglob("*")}


async def test_every_screen_of_it_opens_and_nothing_is_written(read_only: Path, place: Path) -> None:
    with pytest.raises(PermissionError):
        (read_only / "runs" / "x").mkdir()
    before = files(read_only)
    async with terminal(read_only, now_s=RECORDED_S) as screen:
        for name in SCREENS:
            text = await screen.open(name)
            assert f"▌{'' if name in ('start', 'plan') else SCREENS.index(name) + 1} ".rstrip() in text
            assert TITLES[name] in text
    assert files(read_only) == before


@pytest.mark.parametrize(
    ("keys", "label"),
    [(("7", "r"), "right"), (("7", "U"), "undo"), (("0", "enter"), "open"), (("0", "t"), "train"),
     (("5", "p"), "pause"), (("2", "x"), "stop"), (("1", "r"), "resume")],
)  # fmt: skip
async def test_what_would_write_says_that_it_can_not(
    keys: tuple[str, ...], label: str, read_only: Path, place: Path
) -> None:
    before = files(read_only)
    async with terminal(read_only, now_s=RECORDED_S) as screen:
        assert f"⊘ {label}: this home can only be read from here" in await screen.press(*keys)
    assert files(read_only) == before


def test_a_home_that_is_not_there_yet_is_written_where_its_folder_can_be(read_only: Path) -> None:
    assert not can_be_written(read_only / "new" / "home")
    assert can_be_written(read_only.parent / "new" / "home")


def test_two_windows_follow_one_run(training: FakeRun, home: Path) -> None:
    windows = [Desk(home, now=lambda: NOW_S), Desk(home, now=lambda: NOW_S)]
    for window in windows:
        window.catch_up()
        window.press("2")
    training.journal.write("note", level="info", text="both can read this")
    for window in windows:
        window.look()
        assert "both can read this" in "\n".join(map(plain, window.lines(100, 30)))
