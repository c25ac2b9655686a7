"""Why an action can't be done now, or None when it can."""

from __future__ import annotations

from collections.abc import Callable

from harness.jobs.store import RunState
from harness.tui.context import DIFF, EXPORT, LIVE, PLAN, REVIEW, SAMPLES, START, TRAIN, Context


def writing(reason: Callable[[Context], str | None]) -> Callable[[Context], str | None]:
    """The reason of an action that writes into the home: first of all, that it can't be written."""
    return lambda context: read_only(context) or reason(context)


def read_only(context: Context) -> str | None:
    return "this home can only be read from here" if context.is_read_only else None


def no_run(context: Context) -> str | None:
    return None if context.run else "there is no run yet: harness demo starts one"


def not_running(context: Context) -> str | None:
    if context.state is RunState.RUNNING:
        return None
    return no_run(context) or "it is not running"


def not_resumable(context: Context) -> str | None:
    if context.run is None:
        return no_run(context)
    if context.state is RunState.RUNNING:
        return "it runs already"
    if context.state is RunState.DONE:
        return "it is done"
    return None


def not_training(context: Context) -> str | None:
    return not_running(context) or (None if context.is_training else "it does not train now")


def not_paused(context: Context) -> str | None:
    return not_training(context) or (None if context.is_paused else "training is not paused")


def paused_already(context: Context) -> str | None:
    return not_training(context) or ("training is paused: c goes on" if context.is_paused else None)


def no_train_gates(context: Context) -> str | None:
    return not_training(context) or (
        None if context.has_train_gates else "the recipe has no tune.gates: no checkpoint is scored"
    )


def no_sources(context: Context) -> str | None:
    return no_run(context) or (None if context.n_sources else "the run has no finished samples yet")


def no_other_source(context: Context) -> str | None:
    return no_sources(context) or (
        None if context.n_sources > 1 else "this run has samples of one stage only"
    )


def no_other_rule(context: Context) -> str | None:
    return no_run(context) or (None if context.n_rules > 1 else "there is no other rule to show yet")


def no_failures(context: Context) -> str | None:
    return no_sources(context) or (None if context.n_failures else "no failing sample is in this list")


def no_sample(context: Context) -> str | None:
    return no_sources(context) or (None if context.sample else "the list is empty: f or / change the filter")


def no_filter(context: Context) -> str | None:
    return None if context.has_filter or context.is_failures_only else "no filter is set"


def nothing_compared(context: Context) -> str | None:
    return no_run(context) or (
        None if context.comparison else "two stages with samples are needed: m on the board marks a baseline"
    )


def no_other_suite(context: Context) -> str | None:
    return nothing_compared(context) or (None if context.n_suites > 1 else "the two have one suite in common")


def no_recipe(context: Context) -> str | None:
    return None if context.kind == "recipe" else "the cursor is on no recipe"


def written_already(context: Context) -> str | None:
    return f"{context.document} is there already: enter starts it" if context.document else None


def no_document(context: Context) -> str | None:
    return None if context.document else "there is no recipe and no suite here"


def nothing_to_judge(context: Context) -> str | None:
    return no_sources(context) or (None if context.sample else "no answer is left in this queue")


def nothing_said(context: Context) -> str | None:
    return nothing_to_judge(context) or (None if context.has_said else "you have judged nothing here yet")


def nothing_disputed(context: Context) -> str | None:
    if context.n_disputed:
        return None
    return no_sources(context) or "no two reviewers disagree"


def nothing_to_open(context: Context) -> str | None:
    if context.screen == PLAN:
        return read_only(context) or (None if context.document else "w writes the recipe first")
    if context.screen == START:
        return read_only(context) or no_document(context)
    if context.screen == REVIEW:
        return nothing_to_judge(context)
    if context.screen == DIFF:
        return nothing_compared(context) or (None if context.sample else "nothing turned: f lists the others")
    if context.screen == SAMPLES:
        return no_sample(context)
    if context.screen in (LIVE, TRAIN, EXPORT) or context.pane == "stages":
        return no_sources(context)
    return no_run(context)
