"""The plan wizard asks the command that stands below it, and starts what that wrote."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path

import pytest
from screen import FakeCommands, Terminal, does, terminal
from typer.testing import CliRunner

from harness.tui.comparisons import Answer, Plans
from harness.tui.views.plan import FIELDS, plan_body, plan_words, turned, usual_choices


class PlansAtOnce(Plans):
    """Plans in this process."""

    def find(self, words: Sequence[str]) -> Answer:
        from harness.cli import app

        return Answer(json.loads(CliRunner().invoke(app, [*words, "--json"]).stdout))


def wizard(screen: Terminal, home: Path) -> list[list[str]]:
    screen.desk.screens.plan.plans = PlansAtOnce(home)
    assert isinstance(screen.desk.commands, FakeCommands)
    return screen.desk.commands.asked


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@does("start.plan", "plan.next_choice")
async def test_a_choice_changes_the_command_and_the_recipe(home: Path) -> None:
    async with terminal(home, size=(160, 45)) as screen:
        wizard(screen, home)
        before = await screen.press("0", "p")
        assert "abstention" not in before
        text = await screen.press("j", "j", "j", "j", "l")
        assert "‹ high ›" in text
        assert "abstention" in text
        await screen.press("y")
        assert screen.copied == ["harness plan legal --consequence high"]


@does("plan.write_plan", "plan.open")
async def test_what_is_written_is_what_starts(home: Path, tmp_path: Path) -> None:
    async with terminal(home) as screen:
        asked = wizard(screen, home)
        assert "w writes the recipe first" in await screen.press("0", "p", "enter")
        await screen.press("w")
        assert asked == [["plan", "legal", "--out", "legal-plan.yaml"]]
        twin = next(action for action in _actions() if action.name == "write_plan").twin(
            screen.desk.context()
        )
        assert shlex.split(str(twin))[1:] == asked[0]
        (tmp_path / "legal-plan.yaml").write_text("recipe: legal-plan\n")
        assert "is there already" in await screen.press("w")
        await screen.press("enter")
        assert asked[1:] == [["release", "legal-plan.yaml", "--detach", "--json"]]


def _actions() -> tuple[object, ...]:
    from harness.tui.keys import ACTIONS

    return ACTIONS


@does("plan.previous_choice")
async def test_the_rest_of_the_plan_is_a_page_down(home: Path) -> None:
    async with terminal(home) as screen:
        wizard(screen, home)
        text = await screen.press("0", "p")
        assert "more lines: d, u" in text
        below = await screen.press("d", "d", "d", "d", "d")
        assert "more lines" not in below
        assert "‹ legal ›" in below
        assert text == await screen.press("l", "h")


async def test_escape_returns_to_the_list_of_documents(home: Path) -> None:
    async with terminal(home) as screen:
        wizard(screen, home)
        assert "▌Start" in await screen.press("0", "p", "escape")


@pytest.mark.parametrize("at", range(len(FIELDS)))
def test_every_value_of_every_line_is_one_that_the_command_takes(at: int) -> None:
    from harness.cli import app

    chosen = usual_choices()
    for _ in FIELDS[at].values:
        chosen = turned(chosen, at, 1)
        shown = CliRunner().invoke(app, [*plan_words(chosen), "--json"])
        assert shown.exit_code == 0, (plan_words(chosen), shown.output)
    assert chosen == usual_choices()


def test_the_real_command_answers(home: Path) -> None:
    from harness.tui.comparisons import ask

    assert (ask(home, ["plan", "legal"]).document or {})["recipe"]["domain"] == "legal"
    assert "no such domain" in ask(home, ["plan", "cooking"]).error


@pytest.mark.parametrize("value", [None, "\x1b[2J[/INST]", 7, [], {"tune": 3}, ["\x9b"]])
def test_a_document_of_any_kind_can_be_drawn(value: object) -> None:
    keys = ("recipe", "obligations", "reasons", "open", "estimates")
    recipe = {"gates": [{"metric": value, "at_least": 0.5}], "tune": {"a": value}}
    for document in (dict.fromkeys(keys), {"recipe": recipe, "open": [value], "reasons": [value]}):
        lines = plan_body(usual_choices(), 0, document, "", "x.yaml", 100, 24)
        assert len(lines) == 24
