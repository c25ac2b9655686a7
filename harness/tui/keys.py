"""The one table of actions: it drives dispatch, the footer, the help screen and `docs/keys.md`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from shlex import quote

from harness.jobs.store import RunState

BOARD, LIVE, SAMPLES, DIFF = "board", "live", "samples", "diff"
TRAIN, EXPORT, START, HELP = "train", "export", "start", "help"
NUMBERED = (BOARD, LIVE, SAMPLES, DIFF, TRAIN, EXPORT)
"""The screens that stand in the line of tabs, opened by their number."""
SCREENS = (*NUMBERED, START)
TITLES = {name: name.capitalize() for name in SCREENS}


@dataclass(frozen=True, slots=True)
class Context:
    """What an action may depend on: where the person is, and what is under the cursor."""

    screen: str
    run: str | None = None
    state: RunState | None = None
    command: str | None = None
    """The command that made the run, and that resumes it."""
    pane: str = "runs"
    """On the board: `runs` or `stages`."""
    stage: str | None = None
    """On the board the stage under the cursor, on the sample screen the one shown."""
    n_rules: int = 0
    n_sources: int = 0
    """Sample files of the run."""
    n_listed: int = 0
    """Samples that the filter lets through."""
    n_failures: int = 0
    """Failures among them."""
    sample: str | None = None
    has_filter: bool = False
    is_failures_only: bool = False
    is_reading: bool = False
    """Whether the sample's whole text fills the screen."""
    n_suites: int = 0
    """On the diff: suites that both sides were scored on."""
    document: str | None = None
    """On the start screen: the file under the cursor."""
    kind: str | None = None
    """`recipe` or `suite`."""
    model: str | None = None
    """What a suite is scored with."""
    comparison: tuple[str, ...] | None = None
    """On the diff: the words of the command that compares the two sides."""


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


def _run(context: Context) -> str:
    return quote(context.run or "RUN")


def _no_run(context: Context) -> str | None:
    return None if context.run else "there is no run yet: harness demo starts one"


def _not_running(context: Context) -> str | None:
    if context.state is RunState.RUNNING:
        return None
    return _no_run(context) or "it is not running"


def _not_resumable(context: Context) -> str | None:
    if context.run is None:
        return _no_run(context)
    if context.state is RunState.RUNNING:
        return "it runs already"
    if context.state is RunState.DONE:
        return "it is done"
    return None


def _no_sources(context: Context) -> str | None:
    return _no_run(context) or (None if context.n_sources else "the run has no finished samples yet")


def _no_other_source(context: Context) -> str | None:
    return _no_sources(context) or (
        None if context.n_sources > 1 else "this run has samples of one stage only"
    )


def _no_other_rule(context: Context) -> str | None:
    return _no_run(context) or (None if context.n_rules > 1 else "there is no other rule to show yet")


def _no_failures(context: Context) -> str | None:
    return _no_sources(context) or (None if context.n_failures else "no failing sample is in this list")


def _no_sample(context: Context) -> str | None:
    return _no_sources(context) or (None if context.sample else "the list is empty: f or / change the filter")


def _no_filter(context: Context) -> str | None:
    return None if context.has_filter or context.is_failures_only else "no filter is set"


def _nothing_compared(context: Context) -> str | None:
    return _no_run(context) or (
        None if context.comparison else "two stages with samples are needed: m on the board marks a baseline"
    )


def _no_other_suite(context: Context) -> str | None:
    return _nothing_compared(context) or (
        None if context.n_suites > 1 else "the two have one suite in common"
    )


def _no_recipe(context: Context) -> str | None:
    return None if context.kind == "recipe" else "the cursor is on no recipe"


def _no_document(context: Context) -> str | None:
    return None if context.document else "there is no recipe and no suite here"


def _start_twin(command: str) -> Callable[[Context], str]:
    return lambda context: f"harness {command} {quote(context.document or 'RECIPE.yaml')}"


def _nothing_to_open(context: Context) -> str | None:
    if context.screen == START:
        return _no_document(context)
    if context.screen == DIFF:
        return _nothing_compared(context) or (
            None if context.sample else "nothing turned: f lists the others"
        )
    if context.screen == SAMPLES:
        return _no_sample(context)
    if context.screen in (LIVE, TRAIN, EXPORT) or context.pane == "stages":
        return _no_sources(context)
    return _no_run(context)


def _open_twin(context: Context) -> str:
    if context.screen == START and context.kind == "suite":
        return f"harness eval {quote(context.document or 'SUITE')} --model {quote(context.model or 'MODEL')}"
    if context.screen == START:
        return _start_twin("release")(context)
    return f"harness show {_run(context)}"


def _compare_twin(context: Context) -> str:
    if context.comparison:
        return " ".join(["harness", *map(quote, context.comparison)])
    return f"harness compare {_run(context)} {_run(context)} --stage base --stage-b adapter"


def _cancel(context: Context) -> str:
    return f"harness cancel {_run(context)}"


def _screen_twin(context: Context) -> str | None:
    return twin_of_screen(context)


ACTIONS: tuple[Action, ...] = (
    Action(
        ("1",), "board", "Board", "Shows all runs, and the verdicts of the chosen one.",
        twin=lambda _: "harness runs", is_in_footer=False,
    ),
    Action(
        ("2",), "live", "Live", "Shows the steps, the numbers and the last events of the chosen run.",
        why_not=_no_run, twin=lambda c: f"harness attach {_run(c)}", is_in_footer=False,
    ),
    Action(
        ("3",), "samples", "Samples", "Lists the samples of the chosen run.",
        why_not=_no_sources, twin=_open_twin, is_in_footer=False,
    ),
    Action(
        ("4",), "diff", "Diff", "Compares the chosen run's stage with a baseline, item by item.",
        why_not=_no_sources, twin=_compare_twin, is_in_footer=False,
    ),
    Action(
        ("5",), "train", "Train", "Shows the training of the chosen run: curves, checkpoints, data.",
        why_not=_no_run, twin=lambda c: f"harness attach {_run(c)}", is_in_footer=False,
    ),
    Action(
        ("6",), "export", "Export", "Shows the files of the chosen run: size, fidelity, verdict, and which one ships.",
        why_not=_no_run, twin=lambda c: f"harness show {_run(c)}", is_in_footer=False,
    ),
    Action(
        ("0",), "start", "new job", "Lists recipes and suites, to start a job from.",
        twin=lambda _: "harness release recipes/demo.yaml",
    ),
    Action(
        ("enter",), "open", "open",
        "Goes one deeper: a run to its verdicts or its progress, a stage to its failing samples, a sample to its text. "
        "On the start screen it releases the recipe, or scores the suite.",
        why_not=_nothing_to_open, twin=_open_twin, is_next=True,
    ),
    Action(("escape",), "back", "back", "Goes one up, or takes the filter away.", is_in_footer=False),
    Action(("j", "down"), "down", "down", "The next line.", is_in_footer=False),
    Action(("k", "up"), "up", "up", "The line before.", is_in_footer=False),
    Action(("g", "home"), "first", "first", "The first line.", is_in_footer=False),
    Action(("G", "end"), "last", "last", "The last line.", is_in_footer=False),
    Action(("d", "pagedown"), "page_down", "page", "Half a screen down.", is_in_footer=False),
    Action(("u", "pageup"), "page_up", "page up", "Half a screen up.", is_in_footer=False),
    Action(("tab",), "pane", "pane", "Moves between the two lists.", (BOARD, DIFF), why_not=_no_run),
    Action(
        ("m",), "baseline", "baseline", "Takes this run as the baseline that the others are compared with.", (BOARD,),
        why_not=_no_sources, is_in_footer=False,
    ),
    Action(
        ("t",), "start_train", "train", "Starts the recipe up to the gate on the trained adapter.", (START,),
        why_not=_no_recipe, twin=_start_twin("train"),
    ),
    Action(
        ("e",), "start_export", "export", "Starts the recipe up to the gated quants.", (START,), why_not=_no_recipe,
        twin=_start_twin("export"),
    ),
    Action(
        ("c",), "check", "check", "Looks for problems in the document, without loading a model.", (START,),
        why_not=_no_document, twin=_start_twin("check"),
    ),
    Action(("m",), "model", "model", "Asks for the model that suites are scored with.", (START,)),
    Action(
        ("a",), "stage_a", "A's stage", "Shows another stage as A, the baseline.", (DIFF,), why_not=_nothing_compared,
    ),
    Action(
        ("b",), "stage_b", "B's stage", "Shows another stage as B, the candidate.", (DIFF,), why_not=_nothing_compared,
    ),
    Action(
        ("f",), "flips", "lost/gained", "Lists what was lost, what was gained, or both.", (DIFF,),
        why_not=_nothing_compared,
    ),
    Action(("s",), "next_suite", "suite", "Shows the next suite.", (DIFF,), why_not=_no_other_suite),
    Action(
        ("l", "right"), "next_rule", "rule", "Shows the bars of the next rule.", (BOARD,), why_not=_no_other_rule,
    ),
    Action(
        ("h", "left"), "previous_rule", "rule before", "Shows the bars of the rule before.", (BOARD,),
        why_not=_no_other_rule, is_in_footer=False,
    ),
    Action(
        ("f",), "failures", "failures only", "Lists failures only, or all samples again.", (SAMPLES,),
        why_not=_no_sources,
    ),
    Action(
        ("slash",), "filter", "filter",
        "Asks for words that a sample must hold; key=value asks for a slice, label=value for a gold label.", (SAMPLES,),
        why_not=_no_sources,
    ),
    Action(("n",), "next_failure", "next failure", "The next failing sample.", (SAMPLES,), why_not=_no_failures),
    Action(
        ("N",), "previous_failure", "failure before", "The failing sample before.", (SAMPLES,), why_not=_no_failures,
        is_in_footer=False,
    ),
    Action(("s",), "next_source", "stage", "Shows the next stage or suite.", (SAMPLES,), why_not=_no_other_source),
    Action(
        ("S",), "previous_source", "stage before", "Shows the stage or suite before.", (SAMPLES,),
        why_not=_no_other_source, is_in_footer=False,
    ),
    Action(
        ("J",), "read_down", "text down", "Shows the next lines of the sample's text.", (SAMPLES,),
        why_not=_no_sample, is_in_footer=False,
    ),
    Action(
        ("K",), "read_up", "text up", "Shows the lines before of the sample's text.", (SAMPLES,),
        why_not=_no_sample, is_in_footer=False,
    ),
    Action(("z",), "zoom", "zoom", "Gives the sample's text the whole screen.", (SAMPLES,), why_not=_no_sample),
    Action(
        ("x",), "cancel", "stop", "Stops the running job after its current batch; finished work is kept.",
        (BOARD, LIVE, TRAIN), why_not=_not_running, twin=_cancel, is_next=True,
    ),
    Action(
        ("X",), "cancel_now", "stop now", "Stops the running job at once; finished batches are kept.", (BOARD, LIVE),
        why_not=_not_running, twin=lambda c: f"{_cancel(c)} --now", is_in_footer=False,
    ),
    Action(
        ("r",), "resume", "resume", "Starts a run that was stopped, failed or died; it goes on where it was.",
        (BOARD, LIVE, TRAIN), why_not=_not_resumable, twin=lambda c: c.command or f"harness show {_run(c)}",
        is_next=True,
    ),
    Action(
        ("y",), "copy", "copy command", "Copies the command that shows the same as this screen, or the sample's name.",
        twin=_screen_twin, is_in_footer=False,
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


def twin_of_screen(context: Context) -> str:
    """The command that shows what the screen shows."""
    if context.screen == START:
        return _open_twin(context)
    if context.run is None or context.screen == BOARD:
        return "harness board --plain"
    if context.screen == DIFF:
        return _compare_twin(context)
    if context.screen == EXPORT:
        return f"harness show {_run(context)}"
    if context.screen in (LIVE, TRAIN):
        return f"harness attach {_run(context)}"
    sample = f" {quote(context.sample)}" if context.screen == SAMPLES and context.sample else ""
    return f"harness show {_run(context)}{sample}"


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
