"""What Transformers and GGUF models share: prompts in, batches planned, scores and texts out as answers."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from math import isfinite
from typing import Generic, NamedTuple, TypeVar

from harness.errors import HarnessError, ModelError
from harness.models.base import Answer, ChoiceRequest, GenerateRequest, Identity, Prompt
from harness.models.batching import in_order, plan_batches
from harness.models.chat import Chat
from harness.models.prompts import Fitted, common_prefix, prompt_digest
from harness.models.trie import Search, Trie, build_trie

MEMO_PROMPTS = 8192
"""Fitted prompts that are kept, so that planning and answering tokenize once."""

Request = TypeVar("Request", bound=ChoiceRequest | GenerateRequest)
Row = TypeVar("Row")
Found = TypeVar("Found")


class ChoiceRow(NamedTuple):
    """A prompt and the tree of its choices."""

    ids: list[int]
    trie: Trie


class GenerateRow(NamedTuple):
    """A prompt to continue."""

    ids: list[int]
    request: GenerateRequest


class Generated(NamedTuple):
    """A continuation, the end of turn included where it was reached."""

    ids: list[int]
    logprobs: list[float]
    text: str
    is_finished: bool
    """It ended by itself or by a stop string, not by `max_new_tokens`."""


class AnsweringModel(ABC):
    """A Model for which only the network is missing."""

    chat: Chat
    context_tok: int
    """Longest sequence, prompt and answer together."""

    def __init__(self, identity: Identity, *, budget_tok: int, max_items: int) -> None:
        self.identity = identity
        self._budget_tok = budget_tok
        self._max_items = max_items
        self._fitted = lru_cache(maxsize=MEMO_PROMPTS)(self._fit)
        self._trie = lru_cache(maxsize=64)(self._build_trie)

    @abstractmethod
    def _score_rows(self, rows: Sequence[ChoiceRow]) -> list[Search]:
        """The finished searches, one a row. May raise RuntimeError when the library gives up."""

    @abstractmethod
    def _generate_rows(self, rows: Sequence[GenerateRow]) -> list[Generated]:
        """The continuations, one a row. May raise RuntimeError when the library gives up."""

    @abstractmethod
    def _set_prefix(self, ids: list[int]) -> None:
        """Computes what later prompts begin with, so that they need not."""

    @abstractmethod
    def close(self) -> None:
        """Gives memory back."""

    def token_ids(self, prompt: Prompt) -> list[int]:
        """The prompt's ids as they would be fed.

        Raises:
            PromptTooLong: it is over its budget and may not be cut.
        """
        found = self._fitted(prompt)
        if isinstance(found, HarnessError):
            raise found
        return list(found.ids)

    def plan(self, requests: Sequence[ChoiceRequest] | Sequence[GenerateRequest]) -> list[list[int]]:
        """Indices of the requests that are answered together, in the order of execution.

        Depends on the requests alone. Also sets the prefix that the prompts share, which is computed once;
        so plan all requests, also on a resumed run, then answer batch by batch.
        """
        fitted = [self._fitted(request.prompt) for request in requests]
        rows = [found.ids for found in fitted if isinstance(found, Fitted)]
        shared = common_prefix(rows)
        self._set_prefix(shared[: min((len(row) for row in rows), default=1) - 1])
        return self._batches(requests)

    def score_choices(self, requests: Sequence[ChoiceRequest]) -> Iterator[Answer]:
        """One answer a request, in their order; computed batch by batch as they are asked for."""
        return in_order(requests, self._batches(requests), self._score_batch)

    def generate(self, requests: Sequence[GenerateRequest]) -> Iterator[Answer]:
        """One answer a request, in their order; computed batch by batch as they are asked for."""
        return in_order(requests, self._batches(requests), self._generate_batch)

    def _batches(self, requests: Sequence[ChoiceRequest] | Sequence[GenerateRequest]) -> list[list[int]]:
        fitted = [self._fitted(request.prompt) for request in requests]
        lengths = [len(found.ids) if isinstance(found, Fitted) else 0 for found in fitted]
        return plan_batches(lengths, budget_tok=self._budget_tok, max_items=self._max_items)

    def _fit(self, prompt: Prompt) -> Fitted | HarnessError:
        try:
            return self.chat.fit(prompt)
        except HarnessError as error:
            return error

    def _build_trie(self, choices: tuple[str, ...]) -> Trie:
        return build_trie([self.chat.encode(choice) for choice in choices], self.chat.end_id)

    def _score_batch(self, requests: list[ChoiceRequest]) -> list[Answer]:
        job = _Job(requests, self._choice_row, self._score_rows, self._choice_answer)
        return job.answers()

    def _generate_batch(self, requests: list[GenerateRequest]) -> list[Answer]:
        job = _Job(requests, self._generate_row, self._generate_rows, self._generated_answer)
        return job.answers()

    def _choice_row(self, request: ChoiceRequest) -> ChoiceRow:
        if not request.choices:
            raise ModelError("no choices to score")
        ids = self.token_ids(request.prompt)
        trie = self._trie(request.choices)
        self._check_room(len(ids), max(trie.depths))
        return ChoiceRow(ids, trie)

    def _generate_row(self, request: GenerateRequest) -> GenerateRow:
        ids = self.token_ids(request.prompt)
        self._check_room(len(ids), request.max_new_tokens)
        return GenerateRow(ids, request)

    def _check_room(self, prompt_tok: int, answer_tok: int) -> None:
        if prompt_tok == 0:
            raise ModelError("the prompt is empty")
        if prompt_tok + answer_tok > self.context_tok:
            raise ModelError(
                f"{prompt_tok:,} prompt tokens and {answer_tok:,} for the answer are over the model's"
                f" {self.context_tok:,}"
            )

    def _choice_answer(self, request: ChoiceRequest, row: ChoiceRow, search: Search) -> Answer:
        scores = search.logprobs()
        if search.is_broken or not all(isfinite(score) for score in scores):
            return _failed(request.id, "the model's logits are not finite")
        return Answer(
            id=request.id,
            text=request.choices[scores.index(max(scores))],
            choice_logprobs=scores,
            prompt_tok=len(row.ids),
            is_truncated=self._is_truncated(request.prompt),
            prompt_digest=prompt_digest(row.ids),
        )

    def _generated_answer(self, request: GenerateRequest, row: GenerateRow, found: Generated) -> Answer:
        if not all(isfinite(value) for value in found.logprobs):
            return _failed(request.id, "the model's logits are not finite")
        return Answer(
            id=request.id,
            text=found.text,
            token_logprobs=tuple(found.logprobs),
            prompt_tok=len(row.ids),
            output_tok=len(found.ids),
            is_truncated=self._is_truncated(request.prompt) or not found.is_finished,
            prompt_digest=prompt_digest(row.ids),
        )

    def _is_truncated(self, prompt: Prompt) -> bool:
        found = self._fitted(prompt)
        return isinstance(found, Fitted) and found.is_truncated


class _Job(Generic[Request, Row, Found]):
    """One batch: requests → rows → what the network found → answers. Whatever fails is an answer too."""

    def __init__(
        self,
        requests: Sequence[Request],
        to_row: Callable[[Request], Row],
        compute: Callable[[Sequence[Row]], list[Found]],
        to_answer: Callable[[Request, Row, Found], Answer],
    ) -> None:
        self._requests = requests
        self._to_row = to_row
        self._compute = compute
        self._to_answer = to_answer

    def answers(self) -> list[Answer]:
        """One answer a request, in their order."""
        began = time.perf_counter()
        answers: list[Answer | None] = []
        rows: list[tuple[int, Row]] = []
        for index, request in enumerate(self._requests):
            try:
                rows.append((index, self._to_row(request)))
                answers.append(None)
            except HarnessError as error:
                answers.append(_failed(request.id, error.message))
        for (index, row), found in zip(rows, self._computed([row for _, row in rows]), strict=True):
            answers[index] = self._answer(self._requests[index], row, found)
        return _timed([answer for answer in answers if answer], (time.perf_counter() - began) * 1e3)

    def _computed(self, rows: list[Row]) -> list[Found | RuntimeError]:
        if not rows:
            return []
        try:
            return [*self._compute(rows)]
        except RuntimeError as error:  # torch's out-of-memory among them: alone, most still have room
            if len(rows) == 1:
                return [error]
        return [one for row in rows for one in self._computed([row])]

    def _answer(self, request: Request, row: Row, found: Found | RuntimeError) -> Answer:
        if isinstance(found, RuntimeError):
            return _failed(request.id, f"{type(found).__name__}: {found}")
        return self._to_answer(request, row, found)


def _failed(request_id: str, why: str) -> Answer:
    return Answer(id=request_id, error=why)


def _timed(answers: list[Answer], elapsed_ms: float) -> list[Answer]:
    """With its latency where a request was answered alone: in a batch, no request has one of its own."""
    from dataclasses import replace

    if len(answers) == 1:
        return [replace(answers[0], latency_ms=elapsed_ms)]
    return answers
