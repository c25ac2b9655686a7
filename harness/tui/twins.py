"""The command that does, or shows, the same: names in it are quoted, so that none can break out."""

from __future__ import annotations

from collections.abc import Callable
from shlex import quote

from harness.tui.context import (
    BOARD,
    DIFF,
    EXPORT,
    LIVE,
    MONITOR,
    PLAN,
    REVIEW,
    SAMPLES,
    START,
    TRAIN,
    Context,
)


def run(context: Context) -> str:
    return quote(context.run or "RUN")


def review_twin(word: str) -> Callable[[Context], str]:
    def twin(context: Context) -> str:
        words = ["--answer", context.sample or "SAMPLE", "--judgement", word]
        words += ["--why", context.why] if context.why else []
        words += ["--correction", context.correction] if context.correction else []
        return " ".join([review(context), *map(quote, words)])

    return twin


def review(context: Context) -> str:
    return f"harness review {run(context)} --stage {quote(context.stage or 'STAGE')}"


def start_twin(command: str) -> Callable[[Context], str]:
    return lambda context: f"harness {command} {quote(context.document or 'RECIPE.yaml')}"


def open_twin(context: Context) -> str:
    if context.screen == START and context.kind == "suite":
        return f"harness eval {quote(context.document or 'SUITE')} --model {quote(context.model or 'MODEL')}"
    if context.screen in (START, PLAN):
        return start_twin("release")(context)
    return f"harness show {run(context)}"


def compare_twin(context: Context) -> str:
    if context.comparison:
        return " ".join(["harness", *map(quote, context.comparison)])
    return f"harness compare {run(context)} {run(context)} --stage base --stage-b adapter"


def plan_twin(context: Context) -> str:
    words = [*(context.plan or ("plan", "DOMAIN")), "--out", context.plan_file or "RECIPE.yaml"]
    return " ".join(["harness", *map(quote, words)])


def cancel(context: Context) -> str:
    return f"harness cancel {run(context)}"


def steer(order: str) -> Callable[[Context], str]:
    return lambda context: f"harness steer {run(context)} {order}"


def screen_twin(context: Context) -> str | None:
    return twin_of_screen(context)


def twin_of_screen(context: Context) -> str:
    """The command that shows what the screen shows."""
    if context.screen == START:
        return open_twin(context)
    if context.screen == PLAN:
        return " ".join(["harness", *map(quote, context.plan or ("plan", "DOMAIN"))])
    if context.screen == MONITOR:
        return "harness monitor"
    if context.run is None or context.screen == BOARD:
        return "harness board --plain"
    if context.screen == DIFF:
        return compare_twin(context)
    if context.screen == REVIEW:
        return review(context)
    if context.screen == EXPORT:
        return f"harness show {run(context)}"
    if context.screen in (LIVE, TRAIN):
        return f"harness attach {run(context)}"
    sample = f" {quote(context.sample)}" if context.screen == SAMPLES and context.sample else ""
    return f"harness show {run(context)}{sample}"
