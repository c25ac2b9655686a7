"""Choices scored by a server: from the prompt's own log-probabilities, or from the likeliest first tokens.

A server that gives neither gets an error for an answer: a chance-level score would look like a measurement.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from math import fsum
from typing import NamedTuple, Protocol, TypeVar

from harness.errors import ModelError
from harness.models.base import ChoiceRequest, Prompt
from harness.models.chat import split_spaces
from harness.models.openai_reply import Echo, read_chat, read_completion, read_echo
from harness.models.openai_tokens import RemoteTokens
from harness.models.openai_wire import MissingError, RequestFailedError, Wire
from harness.models.prompts import PromptTooLong

TOP = 20
"""Likeliest tokens that are asked for: what OpenAI and vLLM give at most."""
PROBE_TEXT = (
    "The first of May is a day in spring, and the first of June is a day in summer."
    " Water is wet, and fire is hot."
)
"""Every model expects some of its tokens and not their neighbours, so that a score of the wrong one shows."""
PROBE_PLACES = 48
PROBE_TELLING = 3
"""Places that must tell a token from the one before it, and as many from the one after it."""
PROBE_NATS = 0.25
"""By which two ways to one log-probability may differ: 16-bit sums do, another token's differs by more."""
T = TypeVar("T")


class Scores(NamedTuple):
    """Log-probabilities of one request's choices, in their order."""

    logprobs: tuple[float, ...]
    choice_tok: tuple[int, ...]
    prompt_tok: int
    is_endless: bool = False
    """The end of turn is not in them, though it was asked for."""


class Method(Protocol):
    """A way to score choices."""

    async def score(self, request: ChoiceRequest) -> Scores: ...


class ChoiceScorer:
    """Finds out once what the server can do, then scores by it."""

    def __init__(self, wire: Wire, model: str) -> None:
        self._wire = wire
        self._model = model
        self._found: Method | RequestFailedError | None = None
        self._finding = asyncio.Lock()

    async def score(self, request: ChoiceRequest) -> Scores:
        """The request's scores.

        Raises:
            RequestFailedError: there are none; the message says what the server lacks.
            ModelError: the server is away or refuses us.
        """
        if not request.choices:
            raise RequestFailedError("no choices to score")
        async with self._finding:
            if self._found is None:
                self._found = await self._find()
        if isinstance(self._found, RequestFailedError):
            raise RequestFailedError(str(self._found))
        return await self._found.score(request)

    async def _find(self) -> Method | RequestFailedError:
        tokens = RemoteTokens(self._wire, self._model)
        no_echo = await self._why_no_echo(tokens)
        if not no_echo:
            return ByEcho(self._wire, self._model, tokens)
        try:
            method = ByFirstToken(self._wire, self._model)
            await method.probe()
            return method
        except (RequestFailedError, MissingError) as error:
            return RequestFailedError(
                f"the server can't score choices: by completions with echo and logprobs, {no_echo};"
                f" by chat with top_logprobs, {error}"
            )

    async def _why_no_echo(self, tokens: RemoteTokens) -> str:
        if not await tokens.find():
            return "it has no /tokenize"
        try:
            return await why_wrong(self._wire, self._model, await tokens.text_ids(PROBE_TEXT, begins=True))
        except (RequestFailedError, MissingError) as error:
            return str(error)


class ByEcho:
    """log P of every choice's tokens after the prompt, exact: each sequence is read back with its logprobs."""

    def __init__(self, wire: Wire, model: str, tokens: RemoteTokens) -> None:
        self._wire = wire
        self._model = model
        self._tokens = tokens

    async def score(self, request: ChoiceRequest) -> Scores:
        begin, choices = await self._ids(request)
        check_budget(request.prompt, len(begin))
        if not begin:
            raise RequestFailedError(
                "the server puts no token before an empty text, so its first one has no score"
            )
        for at, ids in enumerate(choices):
            if not ids:
                raise RequestFailedError(f"choice {at + 1} has no tokens to score")
        scores = await together([self._sum(begin, ids) for ids in choices])
        return Scores(tuple(scores), tuple(map(len, choices)), len(begin))

    async def _ids(self, request: ChoiceRequest) -> tuple[list[int], list[list[int]]]:
        text = request.prompt.text
        if request.is_open and text is not None:
            return await self._open_text(text, request.choices)
        begin = (
            await self._tokens.chat_ids(request.prompt.messages)
            if text is None
            else await self._tokens.text_ids(text, begins=True)
        )
        end = [] if request.is_open else [await self._tokens.end_id()]
        found = await together([self._tokens.text_ids(choice, begins=False) for choice in request.choices])
        return begin, [[*ids, *end] for ids in found]

    async def _open_text(self, text: str, choices: Sequence[str]) -> tuple[list[int], list[list[int]]]:
        """Raw text and what follows it are encoded as one, and cut where the text's own ids end."""
        bare, spaces = split_spaces(text)
        begin = await self._tokens.text_ids(bare, begins=True)
        whole = await together([self._tokens.text_ids(bare + spaces + one, begins=True) for one in choices])
        return begin, [ids[len(begin) :] for ids in whole]

    async def _sum(self, begin: list[int], ids: list[int]) -> float:
        found = await read_back(self._wire, self._model, [*begin, *ids])
        values = found.logprobs[len(begin) : len(begin) + len(ids)]
        return fsum(value for value in values if value is not None)


class ByFirstToken:
    """log P(choice is the first token), where every choice is one token among the likeliest ones."""

    def __init__(self, wire: Wire, model: str) -> None:
        self._wire = wire
        self._model = model

    async def probe(self) -> None:
        """Returns where the server gives its likeliest tokens."""
        body = {
            "messages": [{"role": "user", "content": "Say yes or no."}],
            "logprobs": True,
            "top_logprobs": TOP,
        }
        if read_chat(await self._post("/chat/completions", body)).top is None:
            raise RequestFailedError("it leaves top_logprobs out")

    async def score(self, request: ChoiceRequest) -> Scores:
        text = request.prompt.text
        if text is None:
            turns = [{"role": turn.role, "content": turn.content} for turn in request.prompt.messages]
            body = {"messages": turns, "logprobs": True, "top_logprobs": TOP}
            found = read_chat(await self._post("/chat/completions", body))
        else:
            found = read_completion(await self._post("/completions", {"prompt": text, "logprobs": TOP}))
        check_budget(request.prompt, found.prompt_tok)
        scores = self._looked_up(request.choices, found.top or {})
        return Scores(scores, (1,) * len(scores), found.prompt_tok, is_endless=not request.is_open)

    def _looked_up(self, choices: tuple[str, ...], top: dict[str, float]) -> tuple[float, ...]:
        for choice in choices:
            longer = [other for other in choices if other != choice and other.startswith(choice)]
            if longer:
                raise RequestFailedError(
                    f"the first token can't tell {choice!r} from {longer[0]!r},"
                    " and the server gives no log-probabilities of whole choices"
                )
            if choice not in top:
                raise RequestFailedError(
                    f"{choice!r} is not among the {len(top)} likeliest first tokens: it may be several tokens,"
                    " and the server gives no log-probabilities of whole choices"
                )
        return tuple(top[choice] for choice in choices)

    async def _post(self, path: str, body: dict[str, object]) -> dict[str, object]:
        return await self._wire.post(
            path, {"model": self._model, "max_tokens": 1, "temperature": 0.0, "seed": 0, **body}
        )


async def read_back(wire: Wire, model: str, ids: list[int]) -> Echo:
    """The ids' log-probabilities. One token is written after them: vLLM can't write none."""
    body = {
        "model": model, "prompt": ids, "max_tokens": 1, "temperature": 0.0, "seed": 0, "logprobs": 1, "echo": True,
    }  # fmt: skip
    return read_echo(await wire.post("/completions", body), len(ids))


async def why_wrong(wire: Wire, model: str, ids: list[int]) -> str:
    """Why the server's echo can't be trusted; empty where it agrees with what is written token by token.

    Some servers give the log-probability of the neighbouring token, and score at chance without an error.
    """
    echo = await read_back(wire, model, ids)
    places = range(max(1, len(ids) - PROBE_PLACES), len(ids))
    tops = await together([_likeliest(wire, model, ids[:place]) for place in places])
    telling_before = telling_after = 0
    for place, top in zip(places, tops, strict=True):
        wanted, found = top.get(echo.tokens[place]), echo.logprobs[place]
        if wanted is None or found is None:
            continue
        if abs(wanted - found) > PROBE_NATS:
            return (
                f"its log-probabilities are wrong ({found:.2f} for a token that it writes with {wanted:.2f})"
            )
        telling_before += _is_far(echo.logprobs[place - 1], found)
        telling_after += place + 1 < len(ids) and _is_far(echo.logprobs[place + 1], found)
    is_checked = min(telling_before, telling_after) >= PROBE_TELLING
    return "" if is_checked else "its log-probabilities can't be checked"


async def _likeliest(wire: Wire, model: str, ids: list[int]) -> dict[str, float]:
    body = {"model": model, "prompt": ids, "max_tokens": 1, "temperature": 0.0, "seed": 0, "logprobs": 5}
    return read_completion(await wire.post("/completions", body)).top or {}


def _is_far(neighbour: float | None, found: float) -> bool:
    return neighbour is not None and abs(neighbour - found) > 2 * PROBE_NATS


async def together(jobs: Sequence[Awaitable[T]]) -> list[T]:
    """The results in their order. The first failure ends the others, and is raised as it is."""

    async def one(job: Awaitable[T]) -> T:
        return await job

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(job)) for job in jobs]
    except BaseExceptionGroup as failures:
        raise _first(failures) from None
    return [task.result() for task in tasks]


def _first(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    """What stops the run before what only one request met."""
    return min(failures.exceptions, key=lambda failure: not isinstance(failure, ModelError))


def check_budget(prompt: Prompt, found_tok: int) -> None:
    if prompt.max_tokens is not None and found_tok > prompt.max_tokens:
        why = ", and what a server renders can't be cut here"
        raise RequestFailedError(PromptTooLong(found_tok, prompt.max_tokens, why=why).message)
