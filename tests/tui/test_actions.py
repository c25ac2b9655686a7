"""Every action of the table, by its key."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from fakes import SUITE, FakeRun
from screen import FakeCommands, FakeJobs, Terminal, does, terminal

from harness.tui.app import farewell
from harness.tui.keys import ACTIONS


def asked(screen: Terminal) -> list[tuple[str, str, bool | None]]:
    jobs = screen.desk._jobs
    assert isinstance(jobs, FakeJobs)
    return jobs.asked


def cursor_line(text: str, below: str) -> str:
    """The line with the cursor under a heading."""
    return next(line for line in text[text.index(below) :].splitlines() if line.startswith("▌"))


async def test_digits_open_the_screens(finished: FakeRun, home: Path) -> None:
    async with terminal(home) as screen:
        assert "▌2 Live" in await screen.press("2")
        assert "▌3 Samples" in await screen.press("3")
        assert "▌1 Board" in await screen.press("1")


@does("board.open", "samples.open")
async def test_enter_goes_from_a_run_to_a_stage_to_its_samples_to_a_text(
    finished: FakeRun, home: Path
) -> None:
    async with terminal(home) as screen:
        await screen.press("enter")
        assert screen.desk.board.cursor.pane == "stages"
        text = await screen.press("j", "enter")
        assert "q4_0 × legal-clauses  139 of 640  failures only" in text
        text = await screen.press("enter")
        assert " GOLD       Indemnification" in text
        assert "▌✗" not in text


@does("live.open")
async def test_enter_on_a_running_run_shows_it_live(training: FakeRun, home: Path) -> None:
    async with terminal(home) as screen:
        assert "▌2 Live" in await screen.press("enter")
        assert "▌3 Samples" in await screen.press("enter")


async def test_a_failing_slice_is_the_filter_of_its_samples(home: Path, scoring: FakeRun) -> None:
    async with terminal(home) as screen:
        await screen.press("tab", "enter")
        assert "base × legal-clauses  520 of 640  failures only" in screen.text


@does("samples.failures")
async def test_escape_goes_up_one_at_a_time(finished: FakeRun, home: Path) -> None:
    async with terminal(home) as screen:
        await screen.press("3", "f", "enter")
        assert "▌✗" not in screen.text
        assert "failures only" in await screen.press("escape")
        assert "all samples" in await screen.press("escape")
        assert "▌1 Board" in await screen.press("escape")


async def test_moving_through_the_samples(finished: FakeRun, home: Path) -> None:
    async with terminal(home) as screen:
        await screen.press("3")
        assert "clause-0001" in cursor_line(await screen.press("j"), "gold →")
        assert "clause-0000" in cursor_line(await screen.press("k"), "gold →")
        assert "clause-0010" in cursor_line(await screen.press("d"), "gold →")
        assert "clause-0000" in cursor_line(await screen.press("u"), "gold →")
        assert "clause-0639" in cursor_line(await screen.press("G"), "gold →")
        assert "clause-0000" in cursor_line(await screen.press("g"), "gold →")


@does("samples.next_failure", "samples.previous_failure")
async def test_n_finds_the_next_failure_and_says_when_there_is_none(finished: FakeRun, home: Path) -> None:
    async with terminal(home) as screen:
        await screen.press("3")
        assert "✗ clause-0003" in cursor_line(await screen.press("n"), "gold →")
        assert "✗ clause-0009" in cursor_line(await screen.press("n"), "gold →")
        assert "✗ clause-0003" in cursor_line(await screen.press("N"), "gold →")
        assert "no failure before this one" in await screen.press("N")


@does("samples.filter")
async def test_the_filter_lists_what_holds_all_its_words(finished: FakeRun, home: Path) -> None:
    async with terminal(home, size=(200, 30)) as screen:
        await screen.press("3", "slash")
        await screen.press(*"label=x")
        assert "label=x" in screen.text
        text = await screen.press("backspace", *"termination", "enter")
        assert "  80 of 640" in text
        await screen.press("slash", *[key for _ in range(20) for key in ("backspace",)], *"contract=supply")
        text = await screen.press("space", *"audit", "enter")
        assert "holding “contract=supply audit”" in text
        rows = [line for line in text.splitlines() if line[1:3] in ("✓ ", "✗ ") and "clause-" in line]
        assert rows
        assert all("Audit" in row for row in rows)


async def test_escape_leaves_the_prompt_as_it_was(finished: FakeRun, home: Path) -> None:
    async with terminal(home) as screen:
        await screen.press("3", "slash", "q", "escape")
        assert "all samples" in screen.text
        assert "clause-0001" in cursor_line(await screen.press("j"), "gold →")


@does("samples.next_source", "samples.previous_source")
async def test_stages_of_the_samples_turn(finished: FakeRun, home: Path) -> None:
    async with terminal(home) as screen:
        await screen.press("3")
        assert " base × " in await screen.press("s")
        assert " q4_0 × " in await screen.press("S")
        assert " q5_k_m × " in await screen.press("S")


@does("samples.zoom")
async def test_z_gives_the_text_the_whole_screen(finished: FakeRun, home: Path) -> None:
    async with terminal(home) as screen:
        assert "▌✓" in await screen.press("3")
        assert "▌✓" not in await screen.press("z")
        assert "▌✓" in await screen.press("z")


@does("samples.read_down", "samples.read_up")
async def test_a_long_text_is_moved(home: Path) -> None:
    run = FakeRun(home, n=32)
    run.sample = _long_sample(run)  # type: ignore[method-assign]
    run.until("eval.batch", 1)
    async with terminal(home) as screen:
        first = await screen.press("3", "z")
        assert "more lines" in first
        assert "line 0 " in first
        second = await screen.press(*"JJJ")
        assert second != first
        assert await screen.press(*"KKK") == first
        assert "line 199" in await screen.press("G")


def _long_sample(run: FakeRun) -> object:
    from dataclasses import replace

    made = FakeRun.sample
    text = "\n".join(f"line {index} of the output" for index in range(200))
    return lambda index, accuracy: replace(made(run, index, accuracy), output=text)


@does("board.pane", "board.next_rule", "board.previous_rule")
async def test_tab_and_rules_move_on_the_board(finished: FakeRun, home: Path) -> None:
    async with terminal(home) as screen:
        assert "bars: accuracy at least 0.8  1/4" in screen.text
        assert "bars: recall per label at least 0.6  2/4" in await screen.press("l")
        assert "bars: accuracy at least 0.8  1/4" in await screen.press("h")
        await screen.press("tab", "g")
        assert "WHY base fails" in screen.text
        await screen.press("j")
        assert "WHY adapter passes" in screen.text


async def test_another_run_is_chosen(finished: FakeRun, failed: FakeRun, home: Path) -> None:
    async with terminal(home) as screen:
        text = await screen.press("j")
        assert cursor_line(text, "RUNS").startswith(f"▌✗ {failed.run}")
        assert "adapter: recall per label fails for 3 labels" in text


@does("board.cancel", "board.cancel_now", "live.cancel", "live.cancel_now")
async def test_a_job_is_stopped_only_after_a_yes(training: FakeRun, home: Path) -> None:
    async with terminal(home) as screen:
        assert "y yes" in await screen.press("x")
        assert "nothing was stopped" in await screen.press("n")
        assert asked(screen) == []
        await screen.press("x", "y", "X", "y", "2", "x", "y", "X", "y")
        assert asked(screen) == [("cancel", training.run, now) for now in (False, True, False, True)]


@does("board.resume", "live.resume", "train.resume")
async def test_a_dead_run_is_resumed(died: FakeRun, home: Path) -> None:
    async with terminal(home) as screen:
        for place in "125":
            assert "starting a worker" in await screen.press(place, "r")
        assert asked(screen) == [("resume", died.run, None)] * 3


async def test_a_key_that_cannot_be_used_says_why(finished: FakeRun, home: Path) -> None:
    async with terminal(home) as screen:
        assert "⊘ stop: it is not running" in await screen.press("x")
        assert "⊘ resume: it is done" in await screen.press("r")
        assert asked(screen) == []


async def test_nothing_breaks_where_there_is_no_run(home: Path) -> None:
    async with terminal(home) as screen:
        for action in ACTIONS:
            if action.name != "quit":
                for key in action.keys:
                    await screen.press(key)
        assert "No runs yet" in await screen.press("escape", "1")


async def test_y_copies_the_command_of_the_screen(finished: FakeRun, home: Path) -> None:
    async with terminal(home) as screen:
        await screen.press("y", "2", "y", "3", "y")
        assert screen.copied == [
            "harness board --plain",
            f"harness attach {finished.run}",
            f"harness show {finished.run} clause-0000",
        ]


async def test_help_lists_every_key_of_the_screen(finished: FakeRun, home: Path) -> None:
    async with terminal(home, size=(100, 70)) as screen:
        text = await screen.press("question_mark")
        assert all(action.does.split(",")[0][:40] in text for action in ACTIONS if "board" in action.screens)
        assert "▌1 Board" in await screen.press("question_mark")


@does("help.help", "help.quit")
async def test_help_closes_by_its_key_and_the_window_closes_from_it(finished: FakeRun, home: Path) -> None:
    async with terminal(home) as screen:
        assert "KEYS of Export" in await screen.press("6", "question_mark")
        assert "▌6 Export" in await screen.press("question_mark")
        await screen.press("question_mark", "q")
        assert screen.app._exit


@pytest.mark.parametrize("key", ["q", "ctrl+c"])
async def test_quitting_says_that_jobs_keep_running(key: str, training: FakeRun, home: Path) -> None:
    async with terminal(home) as screen:
        await screen.press(key)
        assert not screen.app.is_running or screen.app._exit
        said = farewell(screen.desk)
    assert "1 job keeps running" in said
    assert f"harness attach {training.run}" in said


async def test_quitting_without_jobs_says_nothing(finished: FakeRun, home: Path) -> None:
    async with terminal(home) as screen:
        await screen.press("q")
        assert farewell(screen.desk) == ""


async def test_what_the_journal_gets_is_shown(training: FakeRun, home: Path) -> None:
    async with terminal(home) as screen:
        assert "41/60" in await screen.press("2")
        training.journal.write(
            "step.progress", step="train", done=42, total=60, unit="steps", rate=1.0, eta_s=18.0
        )
        screen.app.look()
        assert "42/60" in await screen.press()


async def test_looking_writes_nothing_into_the_run(training: FakeRun, home: Path) -> None:
    def stamp() -> dict[str, tuple[int, int]]:
        return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in sorted(home.rglob("*"))}

    before = stamp()
    async with terminal(home) as screen:
        await screen.press("1", "j", "2", "3", "f", "n", "enter", "escape", "s", "question_mark", "q")
    assert {name: found for name, found in stamp().items() if "lease" not in name} == {
        name: found for name, found in before.items() if "lease" not in name
    }


@pytest.mark.parametrize("module", ["harness.tui.app", "harness.tui.plain"])
def test_the_terminal_loads_no_engine(module: str) -> None:
    heavy = ("torch", "transformers", "sklearn", "scipy", "numpy", "pydantic", "llama_cpp")
    code = f"import sys, {module}, harness.tui.desk; print([m for m in {heavy} if m in sys.modules])"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ
    )
    assert found.stdout.strip() == "[]"


def test_the_view_models_load_no_textual() -> None:
    code = (
        "import sys, pkgutil, importlib, harness.tui.views as views\n"
        "import harness.tui.desk, harness.tui.plain, harness.tui.keys\n"
        "for one in pkgutil.iter_modules(views.__path__): importlib.import_module(f'harness.tui.views.{one.name}')\n"
        "print('textual' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


async def test_the_diff_compares_the_first_stage_with_the_one_under_the_cursor(
    finished: FakeRun, home: Path
) -> None:
    async with terminal(home) as screen:
        await screen.press("tab", "g", "j")
        text = await screen.press("4")
        assert f"A {finished.run} · base  ⇄  B {finished.run} · adapter" in text
        assert "▲ better" in text


@does("diff.stage_a", "diff.stage_b")
async def test_the_stages_of_the_diff_turn_and_are_never_the_same(finished: FakeRun, home: Path) -> None:
    async with terminal(home) as screen:
        await screen.press("4")
        seen = set()
        for _ in range(8):
            text = await screen.press("b")
            line = next(line for line in text.splitlines() if "⇄" in line)
            a, b = (side.strip() for side in line.split("⇄"))
            assert a.removeprefix("A ") != b.removeprefix("B "), line
            seen.add(b)
        assert len(seen) == 6
        assert "adapter" in next(line for line in (await screen.press("a")).splitlines() if "⇄" in line)


@does("diff.flips")
async def test_flips_are_listed_by_what_became_of_them(finished: FakeRun, home: Path) -> None:
    async with terminal(home) as screen:
        await screen.press("4")
        assert "▌↓ " in await screen.press("f")
        text = await screen.press("f")
        assert "▌↑ " in text
        assert "gained only" in text
        assert "both ways" in await screen.press("f")


@does("diff.open")
async def test_enter_on_a_flip_opens_the_candidates_sample(finished: FakeRun, home: Path) -> None:
    async with terminal(home) as screen:
        await screen.press("4", "j", "j")
        flip = screen.desk.context().sample
        text = await screen.press("enter")
        assert "▌3 Samples" in text
        assert f"› {flip}" in text


@does("diff.pane")
async def test_tab_gives_the_cursor_to_the_slices_and_back(finished: FakeRun, home: Path) -> None:
    async with terminal(home) as screen:
        flips = await screen.press("4")
        slices = await screen.press("tab", "j")
        assert cursor_line(slices, "slice") != cursor_line(flips, "slice")
        assert screen.desk.diff.here.flip == 0
        assert await screen.press("k", "tab") == flips


@does("diff.next_suite")
async def test_another_suite_is_compared(finished: FakeRun, home: Path) -> None:
    for stage in ("base", "q5_k_m"):
        folder = finished.folder / "stages" / stage
        shutil.copytree(folder / SUITE, folder / "second-suite")
    async with terminal(home) as screen:
        assert SUITE in await screen.press("4")
        text = await screen.press("s")
        assert "second-suite" in text
        assert SUITE not in text
        assert SUITE in await screen.press("s")


@does("board.baseline")
async def test_another_run_is_the_baseline(finished: FakeRun, failed: FakeRun, home: Path) -> None:
    async with terminal(home) as screen:
        assert "is the baseline" in await screen.press("m")
        text = await screen.press("j", "4")
        assert f"A {finished.run} · base  ⇄  B {failed.run} · base" in text
        await screen.press("y")
        assert screen.copied == [f"harness compare {finished.run} {failed.run} --stage base --stage-b base"]


async def test_a_diff_of_one_stage_says_what_is_needed(died: FakeRun, home: Path) -> None:
    async with terminal(home) as screen:
        assert "m on the board" in await screen.press("4")


@does("export.open")
async def test_a_variant_of_the_export_opens_its_failures(finished: FakeRun, home: Path) -> None:
    async with terminal(home) as screen:
        assert "◀ ships" in next(
            line for line in (await screen.press("6")).splitlines() if line.startswith("▌ ")
        )
        await screen.press("j")
        text = await screen.press("enter")
        assert "q4_0 × legal-clauses" in text
        assert "failures only" in text


@does("train.open")
async def test_enter_goes_from_training_to_what_was_scored_so_far(training: FakeRun, home: Path) -> None:
    async with terminal(home) as screen:
        assert "base × legal-clauses" in await screen.press("5", "enter")


@does("train.cancel")
async def test_training_can_be_stopped_from_its_screen(training: FakeRun, home: Path) -> None:
    async with terminal(home) as screen:
        assert "41/60 steps" in await screen.press("5")
        await screen.press("x", "y")
        assert asked(screen) == [("cancel", training.run, False)]


async def test_the_palette_finds_an_action_by_its_name(finished: FakeRun, home: Path) -> None:
    async with terminal(home) as screen:
        assert "COMMANDS" in await screen.press("colon")
        text = await screen.press(*"sampl")
        assert "▌3" in text
        assert "▌3 Samples" in await screen.press("enter")


async def test_the_palette_says_why_an_action_cannot_be_done(finished: FakeRun, home: Path) -> None:
    async with terminal(home) as screen:
        text = await screen.press("colon", *"stop")
        assert "⊘ it is not running" in text
        assert "⊘ stop: it is not running" in await screen.press("enter")
        assert asked(screen) == []


async def test_escape_leaves_the_palette_without_doing_anything(finished: FakeRun, home: Path) -> None:
    async with terminal(home) as screen:
        before = screen.text
        await screen.press("colon", *"quit")
        assert await screen.press("escape", "1") == before
        assert "no action of this screen" in await screen.press("colon", *"zzz")
        assert "▌1 Board" in await screen.press("enter")


async def test_the_theme_turns_and_comes_back(finished: FakeRun, home: Path) -> None:
    async with terminal(home) as screen:
        for name in ("light", "ansi", "dark"):
            assert f"{name} theme" in await screen.press("T")


ORDERS = [("p", "pause", ""), ("v", "gate", ""), ("b", "roll-back", "y"), ("s", "finish", "y")]


@does("train.pause", "train.gate_now", "train.roll_back", "train.finish")
async def test_an_order_to_training_is_its_command(training: FakeRun, home: Path) -> None:
    async with terminal(home) as screen:
        await screen.press("5")
        for key, order, yes in ORDERS:
            await screen.press(key, *yes)
            commands = screen.desk.commands
            assert isinstance(commands, FakeCommands)
            assert commands.asked.pop() == ["steer", training.run, order]
            twin = next(action for action in ACTIONS if action.name == NAMES[key]).twin(screen.desk.context())
            assert shlex.split(str(twin)) == ["harness", "steer", training.run, order]


NAMES = {"p": "pause", "v": "gate_now", "b": "roll_back", "s": "finish", "c": "go_on"}


async def test_an_order_that_undoes_something_is_asked_about_first(training: FakeRun, home: Path) -> None:
    async with terminal(home) as screen:
        await screen.press("5", "s", "n")
        assert isinstance(screen.desk.commands, FakeCommands)
        assert screen.desk.commands.asked == []


@does("train.go_on")
async def test_a_paused_training_says_so_and_can_go_on(training: FakeRun, home: Path) -> None:
    async with terminal(home) as screen:
        await screen.press("5", "c")
        assert "training is not paused" in screen.text
        training.journal.write("train.order", step=41, order="pause")
        screen.desk.catch_up()
        text = await screen.press("p")
        assert "⊘ paused" in text
        assert "training is paused: c goes on" in text
        await screen.press("c")
        assert isinstance(screen.desk.commands, FakeCommands)
        assert screen.desk.commands.asked == [["steer", training.run, "go-on"]]
        training.journal.write("train.order", step=41, order="go-on")
        screen.desk.catch_up()
        assert "⊘ paused" not in await screen.press("j")


@pytest.mark.parametrize("key", NAMES)
async def test_nothing_is_asked_of_a_run_that_does_not_train(key: str, scoring: FakeRun, home: Path) -> None:
    async with terminal(home) as screen:
        text = await screen.press("5", key)
        assert "it does not train now" in text
        assert isinstance(screen.desk.commands, FakeCommands)
        assert screen.desk.commands.asked == []
