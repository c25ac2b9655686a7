"""Who answers: the device where it is sure and its answer keeps every guard, else a server model, else a person."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from harness.data.records import Record
from harness.edge.asking import ask_engine
from harness.edge.bands import Weighed, weigh
from harness.edge.base import Ask, Done
from harness.edge.escalation import Answered, ServerModel
from harness.edge.guards import Guard, Held, first_held, guards_of, json_guard
from harness.edge.questions import Question
from harness.edge.review_queue import CHATS, ReviewQueue
from harness.edge.review_queue import Held as QueueItem
from harness.edge.switch import Post
from harness.edge.wire_openai import ApiError, Asked
from harness.evals.tasks import Reading, read
from harness.models.base import Answer, Message

Route = Literal["edge", "server", "review"]
Band = Literal["answer", "escalate", "abstain"]
NOT_ANSWERED = "This was not answered: {why}. It was put aside for a person to look at."
LOST = "This was not answered: {why}."


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a client is told, and what stands behind it."""

    text: str
    finish: str
    """As `wire_openai.FINISHED` knows it."""
    done: Done | None
    """The engine's own answer, given or not; None where it was not asked."""
    route: Route
    band: Band | None
    """None where neither a confidence nor a guard had a say."""
    reason: str | None = None
    guard: str | None = None
    escalation: str | None = None
    weighed: Weighed | None = None
    parsed: Any = None
    review: str | None = None
    """The item's id in the review queue."""

    @property
    def label(self) -> str | None:
        """The label that was given; None where the answer was held back."""
        return None if self.route == "review" else self.text


class Router:
    """Asks the engine of a post, and decides what becomes of its answer."""

    def __init__(
        self,
        *,
        server: ServerModel | None = None,
        queues: QueueOf | None = None,
        guards: Sequence[Guard] = (),
    ) -> None:
        self._server, self._queues, self.chat_guards = server, queues, tuple(guards)

    async def answer(self, post: Post, question: Question, record: Record, ask: Ask) -> Outcome:
        """The suite's question, answered by somebody or put aside.

        Raises:
            ApiError: the engine has no answer at all.
        """
        done = await ask_engine(post.engine, ask)
        reading = question.read(record, done)
        weighed = weigh(reading, question.calibration, record.slices)
        held = _held(question, record, reading) if weighed.is_sure and not question.is_scored else None
        text = reading.answer or ""
        if weighed.is_sure and held is None:
            return Outcome(text, done.finish, done, "edge", "answer", weighed=weighed, parsed=reading.parsed)
        reason = "guard" if held else weighed.reason
        here = Outcome(
            text, done.finish, done, "review", "abstain", reason, held.guard if held else None,
            weighed=weighed, parsed=reading.parsed,
        )  # fmt: skip
        if self._server is None:
            return self._put_aside(post, here, _question_item(question, record, here, reading))
        found = await self._ask_server(question, record, ask)
        here = replace(here, band="escalate", escalation=found.how)
        if found.text is None:
            return self._put_aside(post, here, _question_item(question, record, here, reading))
        told = read_escalated(question, record, found)
        if told.answer is None or _held(question, record, told) is not None:
            here = replace(here, escalation="unread" if told.answer is None else "guard")
            return self._put_aside(post, here, _question_item(question, record, here, reading))
        return replace(here, route="server", text=told.answer, finish="stop", parsed=told.parsed)

    async def chat(self, post: Post, ask: Ask, wanted: Asked) -> Outcome:
        """A free chat or completion, held to the guards before anybody sees it.

        Raises:
            ApiError: the engine has no answer at all.
        """
        done = await ask_engine(post.engine, ask)
        guards = self.guards_for(wanted)
        if not guards:
            return Outcome(done.text, done.finish, done, "edge", None)
        held = _chat_held(guards, wanted, done.text)
        if held is None:
            return Outcome(done.text, done.finish, done, "edge", "answer")
        here = Outcome(done.text, "held_back", done, "review", "abstain", "guard", held.guard)
        if self._server is not None and wanted.text is None:
            found = await self._server.write(wanted.messages, ask.max_new_tokens)
            here = replace(here, band="escalate", escalation=found.how)
            if found.text is not None and found.written is not None:
                if _chat_held(guards, wanted, found.text) is None:
                    finish = "length" if found.written.is_cut else "stop"
                    return replace(here, route="server", text=found.text, finish=finish)
                here = replace(here, escalation="guard")
        return self._put_aside(post, here, _chat_item(wanted, ask, here, held))

    def guards_for(self, wanted: Asked) -> tuple[Guard, ...]:
        """What the answer must keep; with any, it can't be streamed as it is written."""
        return (*self.chat_guards, *((json_guard(),) if wanted.is_json else ()))

    async def close(self) -> None:
        if self._server is not None:
            await self._server.close()

    async def _ask_server(self, question: Question, record: Record, ask: Ask) -> Answered:
        assert self._server is not None
        messages = ask.messages or (Message("user", ask.text or ""),)
        if question.is_scored:
            options = record.options if question.suite.task == "choice" else question.labels
            return await self._server.choose(messages, options)
        return await self._server.write(messages, ask.max_new_tokens)

    def _put_aside(self, post: Post, here: Outcome, item: QueueItem) -> Outcome:
        queue = self._queues.of(post) if self._queues is not None else None
        is_kept = queue is not None and queue.add(item)
        why = (
            f"the answer did not pass the guard {here.guard}"
            if here.guard
            else "the model is not sure enough"
        )
        text = (NOT_ANSWERED if is_kept else LOST).format(why=why)
        return replace(
            here, route="review", text=text, finish="held_back", review=item.id if is_kept else None
        )


class QueueOf:
    """The review queue of each release that is served."""

    def __init__(self, home: Any) -> None:
        self._home = home
        self._queues: dict[str, ReviewQueue] = {}

    def of(self, post: Post) -> ReviewQueue:
        release = post.release
        if release.digest not in self._queues:
            self._queues[release.digest] = ReviewQueue(self._home, release)
        return self._queues[release.digest]


def read_escalated(question: Question, record: Record, found: Answered) -> Reading:
    """What the server model's answer says; a label was found already."""
    if question.is_scored:
        return Reading(found.text)
    answer = Answer(record.id, text=found.text)
    return read(question.suite, record, question.labels, answer)


def chat_ask(
    id_: str, wanted: Asked, *, budget_ms: float | None, adapter: str, default_tok: int, context_tok: int
) -> Ask:
    """What the engine is asked for a chat or a completion; half of a small context is left for the prompt."""
    most = wanted.max_new_tokens or max(1, min(default_tok, context_tok // 2))
    return Ask(
        id=id_, messages=wanted.messages, text=wanted.text, grammar=wanted.grammar, max_new_tokens=most,
        temperature=wanted.temperature, top_p=wanted.top_p,
        seed=wanted.seed, stop=wanted.stop, adapter=adapter, budget_ms=budget_ms,
        wants_logprobs=wanted.wants_logprobs,
    )  # fmt: skip


def adapter_of(post: Post, model: str | None) -> str:
    """The adapter that a client means by `model`; empty for the release's own weights.

    Raises:
        ApiError: 404, nothing here has the name.
    """
    own = (None, "", post.release.recipe, post.release.model.name)
    if model in own:
        return ""
    if model in post.engine.adapters:
        return str(model)
    known = ", ".join([post.release.recipe, *post.engine.adapters])
    raise ApiError(
        404, f"no model {model!r} here: {known}", param="model", code="model_not_found",
        kind="invalid_request_error",
    )  # fmt: skip


def _held(question: Question, record: Record, reading: Reading) -> Held | None:
    if question.is_scored:
        return None  # one of the suite's own labels: there is nothing in it to be held back
    return first_held(
        guards_of(question.suite), reading.answer or "", parsed=reading.parsed, input_=record.input,
        context=record.context, meta=record.raw,
    )  # fmt: skip


def _chat_held(guards: Sequence[Guard], wanted: Asked, text: str) -> Held | None:
    said = [turn.content for turn in wanted.messages if turn.role != "assistant"]
    return first_held(guards, text, input_="\n".join(said) or wanted.text or "")


def _question_item(question: Question, record: Record, here: Outcome, reading: Reading) -> QueueItem:
    shown = "\n\n".join(part for part in (record.context, record.input) if part)
    return QueueItem(
        record.id, question.suite.suite, shown, reading.answer, here.reason or "", reading.confidence,
        reading.label_probs, record.slices,
    )  # fmt: skip


def _chat_item(wanted: Asked, ask: Ask, here: Outcome, held: Held) -> QueueItem:
    shown = "\n\n".join(f"{turn.role}:\n{turn.content}" for turn in wanted.messages) or (wanted.text or "")
    return QueueItem(ask.id, CHATS, shown, here.text, f"{held.guard}: {held.note}")
