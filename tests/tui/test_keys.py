"""The table of actions: one key a meaning, a page that is never out of date, commands that exist."""

from __future__ import annotations

import inspect
import shlex
from pathlib import Path

import pytest
from fakes import FakeRun
from typer.testing import CliRunner

from harness.jobs.store import RunState
from harness.tui.context import BOARD, HELP, LIVE, SAMPLES, SCREENS, Context
from harness.tui.desk import Desk
from harness.tui.keys import ACTIONS, actions_of, find, keys_page
from harness.tui.views.cells import plain
from harness.tui.views.frame import footer

KEYS_PAGE = Path(__file__).parents[2] / "docs" / "keys.md"


def test_the_page_of_keys_is_what_the_table_says() -> None:
    assert KEYS_PAGE.read_text() == keys_page(), "run: python -m harness.tui.keys > docs/keys.md"


@pytest.mark.parametrize("screen", [*SCREENS, HELP])
def test_a_key_means_one_thing_on_a_screen(screen: str) -> None:
    keys = [key for action in actions_of(screen) for key in action.keys]
    assert len(keys) == len(set(keys))
    assert all(find(key, screen) is not None for key in keys)


def test_every_action_has_a_handler_on_each_of_its_screens(home: Path) -> None:
    desk = Desk(home)
    for action in ACTIONS:
        for name in action.screens:
            handler = desk.handler(action, desk.screens[name])
            assert not inspect.signature(handler).parameters, (action.name, name)


def test_every_handler_belongs_to_an_action(home: Path) -> None:
    desk = Desk(home)
    handled = {
        name for owner in (desk, *desk.screens.values()) for name in dir(owner) if name.startswith("do_")
    }
    assert {name.removeprefix("do_") for name in handled} | set(SCREENS) == {
        action.name for action in ACTIONS
    }


def test_no_key_is_one_that_terminals_swallow() -> None:
    swallowed = {"ctrl+s", "ctrl+q", "ctrl+z", "ctrl+i", "ctrl+m", "ctrl+j", "ctrl+h", "ctrl+backslash"}
    assert not swallowed & {key for action in ACTIONS for key in action.keys}


CONTEXTS = [
    Context(screen=screen, run=run, state=state, command="harness demo", sample=sample, n_sources=1)
    for screen in SCREENS
    for run in (None, "legal-demo-3f9c1e2a")
    for state in (RunState.RUNNING, RunState.DONE)
    for sample in (None, "clause 0001; rm -rf x")
]


def test_every_command_that_a_key_stands_for_exists() -> None:
    from harness.cli import app

    commands = {shlex.split(twin)[1] for action in ACTIONS for c in CONTEXTS if (twin := action.twin(c))}
    for command in commands:
        assert CliRunner().invoke(app, [command, "--help"]).exit_code == 0, command


def test_a_name_cannot_break_out_of_a_command() -> None:
    twin = next(action for action in ACTIONS if action.name == "copy").twin
    words = shlex.split(str(twin(next(c for c in reversed(CONTEXTS) if c.screen == SAMPLES))))
    assert words == ["harness", "show", "legal-demo-3f9c1e2a", "clause 0001; rm -rf x"]


@pytest.mark.parametrize("cells", [60, 80, 100, 160])
@pytest.mark.parametrize("screen", [BOARD, LIVE, SAMPLES])
def test_the_footer_fits_and_always_holds_help_and_quit(screen: str, cells: int) -> None:
    text = plain(footer(Context(screen=screen), cells))
    assert len(text) <= cells
    assert text.endswith("? help  q quit")


def test_a_reason_is_given_for_each_action_that_cannot_be_done(finished: FakeRun, home: Path) -> None:
    desk = Desk(home)
    desk.catch_up()
    for action in actions_of(BOARD):
        reason = action.why_not(desk.context())
        assert reason is None or len(reason) > 8
