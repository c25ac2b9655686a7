"""The one table of actions: it drives dispatch, the footer, the help screen and `docs/keys.md`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from harness.tui.context import (
    BOARD,
    DIFF,
    HELP,
    LIVE,
    MONITOR,
    PLAN,
    REVIEW,
    SAMPLES,
    SCREENS,
    START,
    TITLES,
    TRAIN,
    Context,
)
from harness.tui.reasons import (
    no_document,
    no_failures,
    no_other_rule,
    no_other_source,
    no_other_suite,
    no_recipe,
    no_run,
    no_sample,
    no_sources,
    no_train_gates,
    not_paused,
    not_resumable,
    not_running,
    not_training,
    nothing_compared,
    nothing_disputed,
    nothing_said,
    nothing_to_judge,
    nothing_to_open,
    paused_already,
    writing,
    written_already,
)
from harness.tui.twins import (
    cancel,
    compare_twin,
    open_twin,
    plan_twin,
    review,
    review_twin,
    run,
    screen_twin,
    start_twin,
    steer,
)


@dataclass(frozen=True, slots=True)
class Action:
    """Something a key does."""

    keys: tuple[str, ...]
    """The first one is shown."""
    name: str
    label: str
    """One or two words for the footer."""
    does: str
    """A sentence for the help screen."""
    screens: tuple[str, ...] = SCREENS
    why_not: Callable[[Context], str | None] = lambda _: None
    """Why it can't be done now, or None when it can."""
    twin: Callable[[Context], str | None] = lambda _: None
    """The command that does the same, or None where there is nothing to type."""
    is_next: bool = False
    """Whether the board offers it as a next step."""
    is_in_footer: bool = True


ACTIONS: tuple[Action, ...] = (
    Action(
        ("1",), "board", "Board", "Shows all runs, and the verdicts of the chosen one.",
        twin=lambda _: "harness runs", is_in_footer=False,
    ),
    Action(
        ("2",), "live", "Live", "Shows the steps, the numbers and the last events of the chosen run.",
        why_not=no_run, twin=lambda c: f"harness attach {run(c)}", is_in_footer=False,
    ),
    Action(
        ("3",), "samples", "Samples", "Lists the samples of the chosen run.",
        why_not=no_sources, twin=open_twin, is_in_footer=False,
    ),
    Action(
        ("4",), "diff", "Diff", "Compares the chosen run's stage with a baseline, item by item.",
        why_not=no_sources, twin=compare_twin, is_in_footer=False,
    ),
    Action(
        ("5",), "train", "Train", "Shows the training of the chosen run: curves, checkpoints, data.",
        why_not=no_run, twin=lambda c: f"harness attach {run(c)}", is_in_footer=False,
    ),
    Action(
        ("6",), "export", "Export", "Shows the files of the chosen run: size, fidelity, verdict, and which one ships.",
        why_not=no_run, twin=lambda c: f"harness show {run(c)}", is_in_footer=False,
    ),
    Action(
        ("7",), "review", "Review", "Shows answers of the chosen stage one by one, for a person to judge.",
        why_not=no_sources, twin=review, is_in_footer=False,
    ),
    Action(
        ("8",), "monitor", "Monitor", "Shows what answers on this device: releases, requests, bands, times.",
        twin=lambda _: "harness monitor", is_in_footer=False,
    ),
    Action(
        ("p",), "pause", "pause", "Lets training wait after its step, with a checkpoint written.", (TRAIN,),
        why_not=writing(paused_already), twin=steer("pause"),
    ),
    Action(
        ("c",), "go_on", "go on", "Ends the pause.", (TRAIN,), why_not=writing(not_paused), twin=steer("go-on"),
    ),
    Action(
        ("v",), "gate_now", "gate now", "Scores the checkpoint of this step on the development records.", (TRAIN,),
        why_not=writing(no_train_gates), twin=steer("gate"),
    ),
    Action(
        ("b",), "roll_back", "roll back",
        "Goes back to the checkpoint that the gates like best, else to the newest, with half the learning rate.",
        (TRAIN,), why_not=writing(not_training), twin=steer("roll-back"),
    ),
    Action(
        ("s",), "finish", "keep best", "Trains no further: the best checkpoint so far becomes the adapter.", (TRAIN,),
        why_not=writing(not_training), twin=steer("finish"),
    ),
    Action(
        ("r",), "right", "right", "Says that the answer is right.", (REVIEW,), why_not=writing(nothing_to_judge),
        twin=review_twin("right"),
    ),
    Action(
        ("w",), "wrong", "wrong", "Says that the answer is wrong.", (REVIEW,), why_not=writing(nothing_to_judge),
        twin=review_twin("wrong"),
    ),
    Action(
        ("v",), "unclear", "unclear", "Says that nobody can tell.", (REVIEW,), why_not=writing(nothing_to_judge),
        twin=review_twin("unclear"),
    ),
    Action(
        ("s",), "skip", "skip", "Leaves the answer for later.", (REVIEW,), why_not=writing(nothing_to_judge),
        twin=review_twin("skipped"),
    ),
    Action(
        ("b",), "bad_item", "bad item", "Says that the record itself is wrong.", (REVIEW,),
        why_not=writing(nothing_to_judge), twin=review_twin("bad item"),
    ),
    Action(
        ("c",), "comment", "comment", "Asks for a reason, kept with the next word.", (REVIEW,),
        why_not=writing(nothing_to_judge),
    ),
    Action(
        ("e",), "correct", "correct", "Asks what the right answer would have been, kept with the next word.", (REVIEW,),
        why_not=writing(nothing_to_judge),
    ),
    Action(
        ("U",), "undo", "undo", "Takes your newest word back.", (REVIEW,), why_not=writing(nothing_said),
        twin=review_twin("undone"),
    ),
    Action(
        ("a",), "adjudicate", "disputes", "Turns to the answers on which reviewers disagree, and back.", (REVIEW,),
        why_not=nothing_disputed, twin=lambda c: f"{review(c)} --disputed",
    ),
    Action(
        ("0",), "start", "new job", "Lists recipes and suites, to start a job from.",
        twin=lambda _: "harness release recipes/demo.yaml",
    ),
    Action(
        ("enter",), "open", "open",
        "Goes one deeper: a run to its verdicts or its progress, a stage to its failing samples, a sample to its text. "
        "On the start screen it releases the recipe, or scores the suite; on the plan it releases what was written.",
        tuple(screen for screen in SCREENS if screen != MONITOR), why_not=nothing_to_open, twin=open_twin, is_next=True,
    ),
    Action(("escape",), "back", "back", "Goes one up, or takes the filter away.", is_in_footer=False),
    Action(("j", "down"), "down", "down", "The next line.", is_in_footer=False),
    Action(("k", "up"), "up", "up", "The line before.", is_in_footer=False),
    Action(("g", "home"), "first", "first", "The first line.", is_in_footer=False),
    Action(("G", "end"), "last", "last", "The last line.", is_in_footer=False),
    Action(("d", "pagedown"), "page_down", "page", "Half a screen down.", is_in_footer=False),
    Action(("u", "pageup"), "page_up", "page up", "Half a screen up.", is_in_footer=False),
    Action(("tab",), "pane", "pane", "Moves between the two lists.", (BOARD, DIFF), why_not=no_run),
    Action(
        ("m",), "baseline", "baseline", "Takes this run as the baseline that the others are compared with.", (BOARD,),
        why_not=no_sources, is_in_footer=False,
    ),
    Action(
        ("t",), "start_train", "train", "Starts the recipe up to the gate on the trained adapter.", (START,),
        why_not=writing(no_recipe), twin=start_twin("train"),
    ),
    Action(
        ("e",), "start_export", "export", "Starts the recipe up to the gated quants.", (START,),
        why_not=writing(no_recipe), twin=start_twin("export"),
    ),
    Action(
        ("c",), "check", "check", "Looks for problems in the document, without loading a model.", (START,),
        why_not=no_document, twin=start_twin("check"),
    ),
    Action(
        ("p",), "plan", "plan", "Plans a recipe from what the domain demands.", (START,),
        twin=lambda _: "harness plan legal",
    ),
    Action(
        ("w",), "write_plan", "write", "Writes the planned recipe, with its reasons.", (PLAN,),
        why_not=written_already, twin=plan_twin,
    ),
    Action(("l", "right"), "next_choice", "change", "The next value of this line.", (PLAN,)),
    Action(
        ("h", "left"), "previous_choice", "value before", "The value before.", (PLAN,), is_in_footer=False,
    ),
    Action(
        ("slash",), "find", "find",
        "Asks for words that a recipe or suite must hold: in its name, domain or description.", (START,),
    ),
    Action(("m",), "model", "model", "Asks for the model that suites are scored with.", (START,)),
    Action(
        ("a",), "stage_a", "A's stage", "Shows another stage as A, the baseline.", (DIFF,), why_not=nothing_compared,
    ),
    Action(
        ("b",), "stage_b", "B's stage", "Shows another stage as B, the candidate.", (DIFF,), why_not=nothing_compared,
    ),
    Action(
        ("f",), "flips", "lost/gained", "Lists what was lost, what was gained, or both.", (DIFF,),
        why_not=nothing_compared,
    ),
    Action(("s",), "next_suite", "suite", "Shows the next suite.", (DIFF,), why_not=no_other_suite),
    Action(
        ("l", "right"), "next_rule", "rule", "Shows the bars of the next rule.", (BOARD,), why_not=no_other_rule,
    ),
    Action(
        ("h", "left"), "previous_rule", "rule before", "Shows the bars of the rule before.", (BOARD,),
        why_not=no_other_rule, is_in_footer=False,
    ),
    Action(
        ("f",), "failures", "failures only", "Lists failures only, or all samples again.", (SAMPLES,),
        why_not=no_sources,
    ),
    Action(
        ("slash",), "filter", "filter",
        "Asks for words that a sample must hold; key=value asks for a slice, label=value for a gold label.", (SAMPLES,),
        why_not=no_sources,
    ),
    Action(("n",), "next_failure", "next failure", "The next failing sample.", (SAMPLES,), why_not=no_failures),
    Action(
        ("N",), "previous_failure", "failure before", "The failing sample before.", (SAMPLES,), why_not=no_failures,
        is_in_footer=False,
    ),
    Action(("s",), "next_source", "stage", "Shows the next stage or suite.", (SAMPLES,), why_not=no_other_source),
    Action(
        ("S",), "previous_source", "stage before", "Shows the stage or suite before.", (SAMPLES,),
        why_not=no_other_source, is_in_footer=False,
    ),
    Action(
        ("J",), "read_down", "text down", "Shows the next lines of the sample's text.", (SAMPLES,),
        why_not=no_sample, is_in_footer=False,
    ),
    Action(
        ("K",), "read_up", "text up", "Shows the lines before of the sample's text.", (SAMPLES,),
        why_not=no_sample, is_in_footer=False,
    ),
    Action(("z",), "zoom", "zoom", "Gives the sample's text the whole screen.", (SAMPLES,), why_not=no_sample),
    Action(
        ("x",), "cancel", "stop", "Stops the running job after its current batch; finished work is kept.",
        (BOARD, LIVE, TRAIN), why_not=writing(not_running), twin=cancel, is_next=True,
    ),
    Action(
        ("X",), "cancel_now", "stop now", "Stops the running job at once; finished batches are kept.", (BOARD, LIVE),
        why_not=writing(not_running), twin=lambda c: f"{cancel(c)} --now", is_in_footer=False,
    ),
    Action(
        ("r",), "resume", "resume", "Starts a run that was stopped, failed or died; it goes on where it was.",
        (BOARD, LIVE, TRAIN), why_not=writing(not_resumable), twin=lambda c: c.command or f"harness show {run(c)}",
        is_next=True,
    ),
    Action(
        ("y",), "copy", "copy command", "Copies the command that shows the same as this screen, or the sample's name.",
        twin=screen_twin, is_in_footer=False,
    ),
    Action(
        ("colon",), "palette", "commands", "Finds an action of this screen by its name.", is_in_footer=False,
    ),
    Action(
        ("T",), "theme", "theme", "Turns to the next theme: dark, light, or the terminal's own colours.",
        is_in_footer=False,
    ),
    Action(("question_mark", "f1"), "help", "help", "Lists all keys.", (*SCREENS, HELP)),
    Action(("q", "ctrl+c"), "quit", "quit", "Closes the window. Jobs keep running.", (*SCREENS, HELP)),
)  # fmt: skip

NAMES = {
    "slash": "/",
    "colon": ":",
    "question_mark": "?",
    "escape": "esc",
    "f1": "F1",
    "pagedown": "pgdn",
    "pageup": "pgup",
}


def shown_key(key: str) -> str:
    """The key as a person reads it."""
    return NAMES.get(key, key)


def actions_of(screen: str) -> tuple[Action, ...]:
    """What can be asked for on the screen, in the table's order."""
    return tuple(action for action in ACTIONS if screen in action.screens)


def find(key: str, screen: str) -> Action | None:
    """The action of the key on the screen."""
    return next((action for action in actions_of(screen) if key in action.keys), None)


def named(name: str) -> Action:
    """The action with this name."""
    return next(action for action in ACTIONS if action.name == name)


def keys_page(actions: Sequence[Action] = ACTIONS) -> str:
    """The content of `docs/keys.md`."""
    context = Context(screen=BOARD, command="the command that made the run")
    lines = [
        "# Keys",
        "",
        "Written from the table in `harness/tui/keys.py`; `python -m harness.tui.keys` prints it.",
        "A key whose action is not possible at the moment says why when it is pressed.",
        "",
        "| key | where | what it does | on the command line |",
        "|---|---|---|---|",
    ]
    lines += [_row(action, context) for action in actions]
    return "\n".join(lines) + "\n"


def _row(action: Action, context: Context) -> str:
    keys = ", ".join(f"`{shown_key(key)}`" for key in action.keys)
    shown = [TITLES[screen] for screen in action.screens if screen in TITLES]
    where = "everywhere" if len(shown) == len(SCREENS) else ", ".join(shown)
    twin = action.twin(context)
    return f"| {keys} | {where} | {action.does} | {f'`{twin}`' if twin else ''} |"


if __name__ == "__main__":
    import sys

    sys.stdout.write(keys_page())
