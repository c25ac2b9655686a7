"""Jobs started from the terminal are those that their commands start."""

from __future__ import annotations

import shlex
from pathlib import Path

from fakes import FakeRun
from screen import FakeCommands, Terminal, does, terminal

from harness.tui.commands import Commands, Said
from harness.tui.views.documents import documents


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


def test_what_comes_with_the_harness_stands_below_what_is_here(place: Path, tmp_path: Path) -> None:
    bundled = tmp_path / "nowhere" / "recipes"
    bundled.mkdir(parents=True)
    (bundled / "a.yaml").write_text("recipe: a\n")
    assert [one.name for one in documents(place)] == ["my-first", "a", "one"]


@does("start.open", "start.start_train", "start.start_export")
async def test_what_a_key_starts_is_what_its_command_starts(place: Path, home: Path) -> None:
    async with terminal(home) as screen:
        await screen.press("0", "y", "enter", "t", "e")
        assert asked(screen) == [
            [verb, "recipes/mine.yaml", "--detach", "--json"] for verb in ("release", "train", "export")
        ]
        assert shlex.split(screen.copied[0])[1:] == asked(screen)[0][:2]


@does("start.model")
async def test_a_suite_is_scored_with_the_model_that_was_named(place: Path, home: Path) -> None:
    async with terminal(home) as screen:
        await screen.press("0", "j", "m")
        await screen.press(*["backspace"] * 40, *"x.gguf", "enter")
        await screen.press("enter", "y")
        assert asked(screen) == [["eval", "suites/one.yaml", "--model", "x.gguf", "--detach", "--json"]]
        assert screen.copied == ["harness eval suites/one.yaml --model x.gguf"]
        assert "the cursor is on no recipe" in await screen.press("t")


@does("start.find")
async def test_documents_are_found_by_their_words(place: Path, home: Path) -> None:
    async with terminal(home) as screen:
        text = await screen.press("0", "slash", *"Science", "enter")
        assert "0 recipes, 1 suite that hold “Science”" in text
        await screen.press("enter", "slash", *"zzz", "enter")
        assert asked(screen)[0][:2] == ["eval", "suites/one.yaml"]
        assert "No recipe and no suite holds “Sciencezzz”" in screen.text
        assert "there is no recipe and no suite here" in await screen.press("enter")
        assert "1 recipe, 1 suite" in await screen.press("escape")
        assert "▌1 Board" in await screen.press("escape")


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


@does("start.check")
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
