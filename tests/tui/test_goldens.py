"""Whole screens, as text, at three sizes."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import RECORDED_S
from fakes import FakeRun
from screen import check_golden, terminal
from textual.color import Color

from harness.tui import plain
from harness.tui.context import SCREENS

SIZES = [(80, 24), (100, 30), (160, 45)]


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("board", ()),
        ("live", ("2",)),
        ("samples", ("3",)),
        ("reader", ("3", "f", "enter")),
        ("review", ("7",)),
        ("help", ("question_mark",)),
    ],
)
async def test_a_finished_release(
    name: str, keys: tuple[str, ...], size: tuple[int, int], finished: FakeRun, home: Path
) -> None:
    async with terminal(home, size=size) as screen:
        check_golden(f"finished-{name}-{size[0]}x{size[1]}", await screen.press(*keys))


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize(("name", "keys"), [("board", ()), ("live", ("2",)), ("train", ("5",))])
async def test_a_release_that_trains(
    name: str, keys: tuple[str, ...], size: tuple[int, int], failed: FakeRun, training: FakeRun, home: Path
) -> None:
    async with terminal(home, size=size) as screen:
        check_golden(f"training-{name}-{size[0]}x{size[1]}", await screen.press(*keys))


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize(("name", "keys"), [("board", ()), ("live", ("2",))])
async def test_a_release_that_is_being_scored(
    name: str, keys: tuple[str, ...], size: tuple[int, int], scoring: FakeRun, home: Path
) -> None:
    async with terminal(home, size=size) as screen:
        check_golden(f"scoring-{name}-{size[0]}x{size[1]}", await screen.press(*keys))


async def test_failed_and_dead_runs_say_what_happened(failed: FakeRun, died: FakeRun, home: Path) -> None:
    async with terminal(home, run=failed.run) as screen:
        check_golden("failed-board", screen.text)
    async with terminal(home, run=died.run) as screen:
        check_golden("died-board", screen.text)


async def test_an_empty_home_says_how_to_begin(
    home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    async with terminal(Path("home")) as screen:
        check_golden("empty-board", screen.text)


async def test_ascii_draws_no_other_character(training: FakeRun, home: Path) -> None:
    async with terminal(home, ascii=True) as screen:
        for key in ("1", "2", "3", "4", "5", "6", "8", "question_mark"):
            text = await screen.press(key)
            assert text.isascii(), sorted({char for char in text if not char.isascii()})
            check_golden(f"ascii-{screen.desk.screen}", text)


@pytest.mark.parametrize("name", SCREENS)
async def test_without_colour_every_cell_can_be_read(
    name: str, recorded: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with terminal(recorded, now_s=RECORDED_S) as screen:
        coloured = await screen.open(name)
    monkeypatch.setenv("NO_COLOR", "1")
    async with terminal(recorded, now_s=RECORDED_S) as screen:
        text = await screen.open(name)
        check_golden(f"nocolor-{name}", text)
        assert text == coloured
        shades = [contrast(segment) for line in screen.segments() for segment in line if segment.text.strip()]
    assert min(shades) >= 4.5


async def test_without_colour_a_verdict_stands_out(
    finished: FakeRun, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    async with terminal(home) as screen:
        shown = [segment for line in screen.segments() for segment in line]
    verdicts = [contrast(segment) for segment in shown if segment.text.strip() in VERDICTS]
    assert len(verdicts) >= 7
    assert min(verdicts) >= 7.0


@pytest.mark.parametrize("name", ["light", "dark"])
async def test_every_theme_can_be_read(
    name: str, finished: FakeRun, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_THEME", name)
    async with terminal(home) as screen:
        for key in "12345678":
            await screen.press(key)
            words = [
                segment
                for line in screen.segments()
                for segment in line
                if any(map(str.isalnum, segment.text))
            ]
            assert min(map(contrast, words)) >= 4.5


async def test_the_theme_of_the_terminal_names_no_colour_of_its_own(
    finished: FakeRun, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_THEME", "ansi")
    async with terminal(home) as screen:
        colours = {
            colour
            for line in screen.segments()
            for segment in line
            if segment.style
            for colour in (segment.style.color, segment.style.bgcolor)
        }
    assert {colour.type.name for colour in colours if colour} <= {"DEFAULT", "STANDARD"}


VERDICTS = {"✓ pass", "✗ FAIL", "? 1,920 more"}


def contrast(segment: object) -> float:
    """The WCAG contrast of a segment's ink on its paper."""
    style = segment.style  # type: ignore[attr-defined]
    ink, paper = (Color.from_rich_color(color) for color in (style.color, style.bgcolor))
    if style.reverse:
        ink, paper = paper, ink
    light, dark = sorted((_luminance(ink), _luminance(paper)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(color: Color) -> float:
    parts = [value / 255 for value in (color.r, color.g, color.b)]
    red, green, blue = (
        part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_plain_text_says_the_same_as_the_screens(finished: FakeRun, home: Path) -> None:
    board, live, samples = (show(home) for show in (plain.board, plain.live, plain.samples))
    for text in (board, live, samples):
        assert "\x1b" not in text
    assert "✓ pass ships" in board
    assert "? 1,920 more" in board
    assert "12 of 12 done" in live
    assert "clause-0003" in samples
    assert plain.board(home, ascii=True).isascii()


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("name", SCREENS)
async def test_every_screen_of_a_recorded_release(
    name: str, size: tuple[int, int], recorded: Path, place: Path
) -> None:
    async with terminal(recorded, size=size, now_s=RECORDED_S) as screen:
        check_golden(f"recorded-{name}-{size[0]}x{size[1]}", await screen.open(name))
