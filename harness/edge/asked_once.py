"""`harness ask`: one question to a verified release, without a server."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import dataclass
from typing import Any

from harness.edge.app import answer_body
from harness.edge.guards import chat_guards
from harness.edge.route import Outcome, Router, chat_ask
from harness.edge.served import Release
from harness.edge.switch import OpenEngine, Post
from harness.edge.wire_openai import ApiError, Asked
from harness.errors import ModelError
from harness.models.base import Message


@dataclass(frozen=True, slots=True)
class Said:
    """What came of the question."""

    text: str
    is_given: bool
    """False where it was held back: `text` then says why."""
    document: dict[str, Any]


def ask_once(
    release: Release, open_engine: OpenEngine, text: str, *, suite: str | None = None, context: str = "",
    slices: dict[str, str] | None = None, system: str = "", max_new_tokens: int = 256,
) -> Said:  # fmt: skip
    """The release's answer to the question of a suite, or to a chat of one turn.

    Raises:
        DataError: no such suite.
        ModelError: the engine has no answer.
    """
    question = release.question(suite) if suite is not None else None
    engine = open_engine(release)
    try:
        if question is None:
            return asyncio.run(_chat(Post(release, engine), text, system, max_new_tokens))
        body = {"input": text, **({"context": context} if context else {}), "slices": slices or {}}
        return asyncio.run(_question(Post(release, engine), suite or "", body))
    except ApiError as error:
        raise ModelError(error.message) from None
    finally:
        engine.close()


async def _question(post: Post, suite: str, body: dict[str, Any]) -> Said:
    question, id_ = post.release.question(suite), uuid.uuid4().hex
    if why := question.why_not():
        raise ModelError(f"suite {suite}: {why}")
    record = question.record(id_, body)
    outcome = await Router().answer(post, question, record, question.ask(record, budget_ms=None))
    document = answer_body(id_, suite, outcome, is_scored=question.is_scored)
    return Said(outcome.text, outcome.route == "edge", {**document, **_facts(post, outcome)})


async def _chat(post: Post, text: str, system: str, max_new_tokens: int) -> Said:
    turns = (*((Message("system", system),) if system else ()), Message("user", text))
    wanted = Asked(model=None, messages=turns)
    suites = [question.suite for question in post.release.questions.values()]
    ask = chat_ask(
        uuid.uuid4().hex, wanted, budget_ms=None, adapter="", default_tok=max_new_tokens,
        context_tok=post.engine.context_tok,
    )  # fmt: skip
    outcome = await Router(guards=chat_guards(suites)).chat(post, ask, wanted)
    is_given = outcome.route == "edge"
    document = {"answer": outcome.text if is_given else None, "note": None if is_given else outcome.text,
                "route": outcome.route, "guard": outcome.guard, "finish": outcome.finish}  # fmt: skip
    return Said(outcome.text, is_given, {**document, **_facts(post, outcome)})


def _facts(post: Post, outcome: Outcome) -> dict[str, Any]:
    done = outcome.done
    numbers = {} if done is None else {
        "prompt_tok": done.prompt_tok, "output_tok": done.output_tok, "first_ms": done.first_ms,
        "total_ms": done.total_ms, "is_truncated": done.is_truncated,
    }  # fmt: skip
    return {**post.release.source(), "recipe": post.release.recipe, **numbers}
