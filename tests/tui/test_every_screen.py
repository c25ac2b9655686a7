"""What every screen has: its pictures, the keys that mean the same everywhere, and a test for each of its own."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from fakes import FakeRun
from screen import GOLDEN, KEYS, Terminal, terminal
from test_monitor import write_log

from harness.tui.context import BOARD, HELP, LIVE, NUMBERED, PLAN, SCREENS, START, TITLES, TRAIN
from harness.tui.keys import ACTIONS, actions_of, named
from harness.tui.twins import twin_of_screen

EVERYWHERE = {action.name for action in ACTIONS if set(SCREENS) <= set(action.screens)}
MOVES = (("down", "up"), ("last", "first"), ("page_down", "page_up"))
"""Pairs of which the second takes the first back, where the cursor began at the top."""
WITHOUT_CURSOR = (LIVE, TRAIN)


def test_every_screen_has_its_pictures() -> None:
    sizes = ("80x24", "100x30", "160x45")
    wanted = {f"recorded-{name}-{size}" for name in SCREENS for size in sizes}
    wanted |= {f"nocolor-{name}" for name in SCREENS}
    kept = {path.stem for path in GOLDEN.glob("*.txt")}
    assert {name for name in kept if name.startswith(("recorded-", "nocolor-"))} == wanted


def test_every_action_of_every_screen_is_done_by_a_test() -> None:
    """Tests say what they do (`does`), and fail where they did not; this one fails where none says it."""
    all_ = {f"{screen}.{action.name}" for screen in (*SCREENS, HELP) for action in actions_of(screen)}
    here = {f"{screen}.{name}" for screen in SCREENS for name in EVERYWHERE}
    assert declared(Path(__file__).parent) == all_ - here


def declared(folder: Path) -> set[str]:
    """The actions that tests in the folder say they do."""
    trees = [ast.parse(path.read_text()) for path in folder.glob("test_*.py")]
    tests = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.AsyncFunctionDef)]
    calls = [one for test in tests for one in test.decorator_list if isinstance(one, ast.Call)]
    found = [one for one in calls if isinstance(one.func, ast.Name) and one.func.id == "does"]
    return {ast.literal_eval(word) for call in found for word in call.args}


@pytest.mark.parametrize("name", SCREENS)
async def test_what_a_key_means_everywhere_it_does_on_this_screen(
    name: str, finished: FakeRun, failed: FakeRun, home: Path, place: Path
) -> None:
    write_log(home)
    done = set()
    async with terminal(home, run=finished.run) as screen:
        done |= await _opens_the_others(screen, name)
        done |= await _moves(screen, name)
        done |= await _goes_up(screen, name)
        done |= await _speaks_of_itself(screen, name)
        done |= await _quits(screen, name)
    assert done == EVERYWHERE


async def _opens_the_others(screen: Terminal, name: str) -> set[str]:
    for other in (*NUMBERED, START):
        await screen.open(name)
        number = "" if other == START else f"{KEYS[other][0]} "
        assert f"▌{number}{TITLES[other]}" in await screen.press(*KEYS[other])
    return {*NUMBERED, START}


async def _moves(screen: Terminal, name: str) -> set[str]:
    await screen.open(name)
    for there, back in MOVES:
        before = await screen.press(named(back).keys[0])
        moved = await screen.press(named(there).keys[0])
        assert (moved == before) == (name in WITHOUT_CURSOR), there
        assert await screen.press(named(back).keys[0]) == before
    return {move for pair in MOVES for move in pair}


async def _goes_up(screen: Terminal, name: str) -> set[str]:
    await screen.open(name)
    await screen.press("escape")
    assert screen.desk.screen == (START if name == PLAN else BOARD)
    return {"back"}


async def _speaks_of_itself(screen: Terminal, name: str) -> set[str]:
    """The command, the palette, the help and the theme of the screen."""
    before = await screen.open(name)
    await screen.press("y")
    assert screen.copied[-1] == twin_of_screen(screen.desk.context())
    assert "COMMANDS" in await screen.press("colon")
    await screen.press("escape")
    assert f"KEYS of {TITLES[name]}" in await screen.press("question_mark")
    assert await screen.press("question_mark") == before
    assert "theme; HARNESS_THEME=" in await screen.press("T")
    return {"copy", "palette", "help", "theme"}


async def _quits(screen: Terminal, name: str) -> set[str]:
    await screen.open(name)
    await screen.press("q")
    assert screen.app._exit
    return {"quit"}
