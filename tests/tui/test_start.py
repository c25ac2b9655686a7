"""Jobs started from the terminal are those that their commands start."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from fakes import FakeRun
from screen import FakeCommands, Terminal, check_golden, terminal

from harness.tui.commands import Commands, Said
from harness.tui.views.documents import documents

RECIPE = "# a recipe\nrecipe: my-first\ndomain: legal\ndescription: Something to try.\nbase: embedded:smollm2-135m\n"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a recipe of its own, and nothing else that comes with the harness."""
    place = tmp_path / "place"
    (place / "recipes").mkdir(parents=True)
    (place / "recipes" / "mine.yaml").write_text(RECIPE)
    (place / "suites").mkdir()
    (place / "suites" / "one.yaml").write_text("suite: one\ndomain: science\ntask: generate\n")
    (place / "suites" / "other.yaml").write_text("something: else\n")
    monkeypatch.chdir(place)
    monkeypatch.setattr("harness.tui.views.documents.bundled_root", lambda: tmp_path / "nowhere")
    return place


def asked(screen: Terminal) -> list[list[str]]:
    commands = screen.desk.commands
    assert isinstance(commands, FakeCommands)
    return commands.asked


def test_recipes_and_suites_are_found_and_other_files_are_not(place: Path) -> None:
    found = documents(place)
    assert [(one.kind, one.name, one.path) for one in found] == [
        ("recipe", "my-first", "recipes/mine.yaml"),
        ("suite", "one", "suites/one.yaml"),
    ]
    assert found[0].about == "embedded:smollm2-135m"


def test_a_description_may_take_several_lines(place: Path) -> None:
    (place / "suites" / "one.yaml").write_text(
        "suite: one\ndescription: >-\n  Several\n  words.\ntask: generate\n"
    )
    found = {one.name: one for one in documents(place)}["one"]
    assert (found.description, found.about) == ("Several words.", "generate")


async def test_the_list_of_documents(place: Path, home: Path) -> None:
    async with terminal(home) as screen:
        check_golden("start-100x30", await screen.press("0"))
    async with terminal(home, size=(80, 24)) as screen:
        check_golden("start-80x24", await screen.press("0", "j"))


@pytest.mark.parametrize(("key", "verb"), [("enter", "release"), ("t", "train"), ("e", "export")])
async def test_what_a_key_starts_is_what_its_command_starts(
    key: str, verb: str, place: Path, home: Path
) -> None:
    async with terminal(home) as screen:
        await screen.press("0", key)
        assert asked(screen) == [[verb, "recipes/mine.yaml", "--detach", "--json"]]
        if key == "enter":
            await screen.press("y")
            assert shlex.split(screen.copied[0])[1:] == asked(screen)[0][:2]


async def test_a_suite_is_scored_with_the_model_that_was_named(place: Path, home: Path) -> None:
    async with terminal(home) as screen:
        await screen.press("0", "j", "m")
        await screen.press(*["backspace"] * 40, *"x.gguf", "enter")
        await screen.press("enter", "y")
        assert asked(screen) == [["eval", "suites/one.yaml", "--model", "x.gguf", "--detach", "--json"]]
        assert screen.copied == ["harness eval suites/one.yaml --model x.gguf"]
        assert "the cursor is on no recipe" in await screen.press("t")


async def test_a_run_that_was_started_is_shown_live(
    place: Path, finished: FakeRun, training: FakeRun, home: Path
) -> None:
    async with terminal(home, run=finished.run) as screen:
        await screen.press("0", "enter")
        screen.desk.commands.answers.append(Said("started", run=training.run))  # type: ignore[attr-defined]
        screen.app.look()
        text = await screen.press()
        assert "▌2 Live" in text
        assert training.run in text.splitlines()[0]


async def test_what_stands_in_the_way_is_said(place: Path, home: Path) -> None:
    async with terminal(home) as screen:
        await screen.press("0", "c")
        assert asked(screen) == [["check", "recipes/mine.yaml"]]
        screen.desk.commands.answers.append(Said("mine.yaml has 1 problem", is_error=True))  # type: ignore[attr-defined]
        screen.app.look()
        assert "mine.yaml has 1 problem" in await screen.press()


def test_the_real_command_answers_with_what_is_wrong(place: Path, home: Path) -> None:
    said = Commands(home).run(["check", "recipes/mine.yaml"])
    assert said.is_error
    assert "mine.yaml" in said.text
    assert Commands(home).run(["runs"]).is_error is False


def test_a_file_of_another_kind_is_no_document(tmp_path: Path) -> None:
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00recipe: no")
    (tmp_path / "folder.yaml").mkdir()
    found = documents(tmp_path)
    assert not [one for one in found if str(tmp_path) in one.path or not Path(one.path).is_absolute()]
