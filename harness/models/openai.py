"""Any OpenAI-compatible endpoint as a Model: vLLM, llama-server, Ollama, or a service."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from harness.errors import ModelError
from harness.files import canonical_json
from harness.models.base import Answer, ChoiceRequest, GenerateRequest, Identity, Prompt, Requests
from harness.models.openai_choices import ChoiceScorer, check_budget
from harness.models.openai_reference import OPENAI_HOST, Endpoint, parse_endpoint, read_key
from harness.models.openai_reply import Written, read_chat, read_completion
from harness.models.openai_server import Server, examine, remote_identity
from harness.models.openai_wire import Patience, RejectedError, RequestFailedError, Sleep, Wire
from harness.models.prompts import prompt_digest

BATCH = 32
"""Requests of a batch, at most: enough to keep a server busy, few enough that a batch is soon finished."""
BATCH_OUTPUT_TOK = 2048
"""Tokens that a batch may write: about a second of a server that writes a few thousand a second."""
BATCH_CHOICES = 128
RECHECK_S = 5.0
"""After which the server is asked again what it is, before its answers count."""
T = TypeVar("T")
Request = TypeVar("Request", ChoiceRequest, GenerateRequest)


class OpenAIModel:
    """A model behind a server. One event loop in the caller's thread; no thread of its own.

    What concerns one request (a refusal, a timeout, a reply that can't be read) is an answer with an error.
    What concerns all of them (nobody answers, a wrong key, no such model, a server that stays overloaded)
    raises ModelError: the run stops with its finished batches kept, and is resumed when the server is there.
    """

    def __init__(
        self, endpoint: Endpoint, *, patience: Patience | None = None, sleep: Sleep = asyncio.sleep
    ) -> None:
        """Asks the server what it is.

        Raises:
            ModelError: it does not answer, refuses the key, or has no such model.
        """
        self._wire = Wire(endpoint, read_key(endpoint), patience=patience or Patience(), sleep=sleep)
        self._runner = asyncio.Runner()
        self._is_closed = False
        try:
            self.server: Server = self._run(examine(self._wire))
        except BaseException:
            self.close()
            raise
        self._seen_at = time.monotonic()
        self.identity: Identity = remote_identity(self.server, endpoint)
        self._scorer = ChoiceScorer(self._wire, self.server.model)
        self._gives_logprobs: bool | None = None
        self._limit_name = "max_completion_tokens" if endpoint.host == OPENAI_HOST else "max_tokens"

    @classmethod
    def from_reference(cls, reference: str) -> OpenAIModel:
        """The model that `openai:URL#NAME` names.

        Raises:
            ModelError: the reference is wrong, or its server can't be used.
        """
        return cls(parse_endpoint(reference))

    def plan(self, requests: Requests) -> list[list[int]]:
        """Indices of the requests in batches, in their order: prompts that begin alike stay together.

        Depends on the requests alone, not on the server, which may be another size when a run is resumed.
        """
        batches: list[list[int]] = []
        room = 0.0
        for index in range(len(requests)):
            share = _share(requests[index])
            if not batches or room < share:
                batches.append([])
                room = 1.0
            batches[-1].append(index)
            room -= share
        return batches

    def score_choices(self, requests: Sequence[ChoiceRequest]) -> Iterator[Answer]:
        """One answer a request, in their order, as soon as it and all before it are there.

        Raises:
            ModelError: the server can't be used any more.
        """
        return self._answers(requests, self._scored)

    def generate(self, requests: Sequence[GenerateRequest]) -> Iterator[Answer]:
        """One answer a request, in their order, as soon as it and all before it are there.

        Raises:
            ModelError: the server can't be used any more.
        """
        return self._answers(requests, self._written)

    def token_ids(self, prompt: Prompt) -> list[int]:
        """The UTF-8 bytes of the conversation or text: which tokens the server feeds is not known here."""
        spelled = (
            [[turn.role, turn.content] for turn in prompt.messages]
            if prompt.text is None
            else {"text": prompt.text}
        )
        return list(canonical_json(spelled).encode("utf-8", "surrogatepass"))

    def close(self) -> None:
        """Closes the connections and the loop."""
        if not self._is_closed:
            self._is_closed = True
            self._runner.run(self._wire.close())
            self._runner.close()

    def _run(self, job: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(job)

    def _answers(
        self, requests: Sequence[Request], ask: Callable[[Request], Awaitable[Answer]]
    ) -> Iterator[Answer]:
        for batch in self.plan(requests):
            yield from self._batch([requests[index] for index in batch], ask)

    def _batch(
        self, requests: Sequence[Request], ask: Callable[[Request], Awaitable[Answer]]
    ) -> Iterator[Answer]:
        if self._is_closed:
            raise RuntimeError("the model is closed")
        tasks = self._run(_begun([self._one(request, ask) for request in requests]))
        try:
            for task in tasks:
                answer = self._run(_ended(task))
                if self._wire.had_trouble or time.monotonic() - self._seen_at > RECHECK_S:
                    self._check_same()
                # In a batch no request has a time of its own: they wait for one another.
                yield answer if len(requests) == 1 else replace(answer, latency_ms=None)
        finally:
            if not self._is_closed:
                self._run(_stopped(tasks))

    def _check_same(self) -> None:
        """Raises where the server was exchanged: what it has just answered is not this model's."""
        self._wire.had_trouble = False
        found = remote_identity(self._run(examine(self._wire)), self._wire.endpoint)
        self._seen_at = time.monotonic()
        if found != self.identity:
            raise ModelError(
                f"{self._wire.endpoint.url} serves something else than at the beginning of this run",
                hint="the same command begins anew with what is served now",
            )

    async def _one(self, request: Request, ask: Callable[[Request], Awaitable[Answer]]) -> Answer:
        began = time.perf_counter()
        try:
            answer = await ask(request)
        except RequestFailedError as error:
            answer = Answer(request.id, error=str(error))
        elapsed_ms = (time.perf_counter() - began) * 1e3
        return replace(answer, prompt_digest=self._digest(request.prompt), latency_ms=elapsed_ms)

    async def _scored(self, request: ChoiceRequest) -> Answer:
        found = await self._scorer.score(request)
        best = request.choices[found.logprobs.index(max(found.logprobs))]
        return Answer(
            request.id, text=best, choice_logprobs=found.logprobs, choice_tok=found.choice_tok,
            prompt_tok=found.prompt_tok, extra={"without_end": 1.0} if found.is_endless else {},
        )  # fmt: skip

    async def _written(self, request: GenerateRequest) -> Answer:
        found = await self._text(request)
        check_budget(request.prompt, found.prompt_tok)
        return Answer(
            request.id, text=found.text, token_logprobs=found.token_logprobs, prompt_tok=found.prompt_tok,
            output_tok=found.output_tok, is_truncated=found.is_cut,
        )  # fmt: skip

    async def _text(self, request: GenerateRequest) -> Written:
        body = self._body(request)
        is_chat = request.prompt.text is None
        path, read = ("/chat/completions", read_chat) if is_chat else ("/completions", read_completion)
        wanted = {"logprobs": True, "top_logprobs": 1} if is_chat else {"logprobs": 1}
        if self._gives_logprobs is not False:
            try:
                found = read(await self._wire.post(path, {**body, **wanted}))
                self._gives_logprobs = True
                return found
            except RejectedError:
                if self._gives_logprobs:
                    raise
        found = read(await self._wire.post(path, body))  # taken without logprobs, the server has none to give
        self._gives_logprobs = self._gives_logprobs or False
        return found

    def _body(self, request: GenerateRequest) -> dict[str, Any]:
        prompt = request.prompt
        body: dict[str, Any] = {
            "model": self.server.model, self._limit_name: request.max_new_tokens,
            "temperature": request.temperature, "seed": request.seed, "stream": False,
        }  # fmt: skip
        if prompt.text is None:
            body["messages"] = [{"role": turn.role, "content": turn.content} for turn in prompt.messages]
        else:
            body["prompt"] = prompt.text
        if request.stop:
            body["stop"] = list(request.stop)
        if request.grammar is not None:
            if self.server.engine != "llama-server":
                raise RequestFailedError("this server can't be held to a GBNF grammar; llama-server can")
            body["grammar"] = request.grammar
        return body

    def _digest(self, prompt: Prompt) -> str:
        return prompt_digest(self.token_ids(prompt))


async def _begun(jobs: Sequence[Coroutine[Any, Any, Answer]]) -> list[asyncio.Task[Answer]]:
    return [asyncio.create_task(job) for job in jobs]


async def _ended(task: asyncio.Task[Answer]) -> Answer:
    return await task


async def _stopped(tasks: Sequence[asyncio.Task[Answer]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _share(request: ChoiceRequest | GenerateRequest) -> float:
    """What a request takes of its batch."""
    if isinstance(request, ChoiceRequest):
        return max(1 / BATCH, len(request.choices) / BATCH_CHOICES)
    return max(1 / BATCH, request.max_new_tokens / BATCH_OUTPUT_TOK)
