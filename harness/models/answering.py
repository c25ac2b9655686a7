"""What Transformers and GGUF models share: prompts in, batches planned, scores and texts out as answers."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from math import isfinite
from typing import Generic, NamedTuple, TypeVar

from harness.errors import HarnessError, ModelError
from harness.models.base import Answer, ChoiceRequest, GenerateRequest, Identity, Prompt
from harness.models.batching import in_order, plan_batches
from harness.models.chat import Chat, split_spaces
from harness.models.prefixes import Ids, Shared, shared_prefixes
from harness.models.prompts import Fitted, prompt_digest
from harness.models.trie import Search, Trie, build_trie
from harness.models.windows import rolling_windows

MEMO_PROMPTS = 8192
"""Prompts and rows that are kept, so that planning and answering tokenize once."""
SMALL_TRIE = 64
"""A tree of no more nodes is always followed to its ends: leaving out a few saves next to nothing."""

Request = TypeVar("Request", bound=ChoiceRequest | GenerateRequest)
Row = TypeVar("Row", bound="ChoiceRow | GenerateRow")
Found = TypeVar("Found")


class ChoiceRow(NamedTuple):
    """A prompt and the tree of its choices; or one window of a text that is longer than the context."""

    ids: list[int]
    trie: Trie
    choice: int | None = None
    """The choice that this window is a part of; None where the tree holds all choices."""


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
    has_grammars: bool = False
    """It can be held to a grammar while it writes."""
    keeps_prefixes: bool = False
    """It keeps several prefixes at a time; otherwise only the one that all prompts share is set."""

    def __init__(self, identity: Identity, *, budget_tok: int, max_items: int) -> None:
        self.identity = identity
        self._budget_tok = budget_tok
        self._max_items = max_items
        self._fitted = lru_cache(maxsize=MEMO_PROMPTS)(self._fit)
        self._trie = lru_cache(maxsize=64)(self._build_trie)
        self._choice_rows = lru_cache(maxsize=MEMO_PROMPTS)(self._build_choice_rows)
        self._shared = Shared([], {}, {(): 0})
        self._prefix_of: dict[Prompt, Ids] = {}

    @abstractmethod
    def _score_rows(self, rows: Sequence[ChoiceRow]) -> list[Search]:
        """The finished searches, one a row. May raise RuntimeError when the library gives up."""

    @abstractmethod
    def _generate_rows(self, rows: Sequence[GenerateRow]) -> list[Generated]:
        """The continuations, one a row. May raise RuntimeError when the library gives up."""

    @abstractmethod
    def _set_prefix(self, ids: list[int]) -> None:
        """Computes what the rows of the next calls begin with, so that they need not.

        Called before the rows of each prefix, with neighbours in the tree of prefixes one after the other:
        whoever keeps several need compute each only once. Every row is longer than it.
        """

    @abstractmethod
    def close(self) -> None:
        """Gives memory back."""

    def forget(self) -> None:
        """Drops what is kept of prompts and choices; answers stay the same."""
        for memo in (self._fitted, self._trie, self._choice_rows):
            memo.cache_clear()
        self._shared = Shared([], {}, {(): 0})
        self._prefix_of = {}

    def token_ids(self, prompt: Prompt) -> list[int]:
        """The prompt's ids as they would be fed.

        Raises:
            PromptTooLong: it is over its budget and may not be cut.
        """
        return list(self._fit_or_raise(prompt).ids)

    def plan(self, requests: Sequence[ChoiceRequest] | Sequence[GenerateRequest]) -> list[list[int]]:
        """Indices of the requests that are answered together, in the order of execution.

        Depends on the requests alone. Also finds the beginnings that prompts share, which are computed
        once; so plan all requests, also on a resumed run, then answer batch by batch.
        """
        self._share([_asked(request) for request in requests])
        return self._batches(requests)

    def score_choices(self, requests: Sequence[ChoiceRequest]) -> Iterator[Answer]:
        """One answer a request, in their order; computed batch by batch as they are asked for."""
        return in_order(requests, self._batches(requests), self._score_batch)

    def generate(self, requests: Sequence[GenerateRequest]) -> Iterator[Answer]:
        """One answer a request, in their order; computed batch by batch as they are asked for."""
        return in_order(requests, self._batches(requests), self._generate_batch)

    def _share(self, prompts: list[Prompt]) -> None:
        fitted = [(prompt, self._fitted(prompt)) for prompt in prompts]
        known = [(prompt, found.ids) for prompt, found in fitted if isinstance(found, Fitted)]
        self._shared = shared_prefixes([ids for _, ids in known], is_nested=self.keeps_prefixes)
        self._prefix_of = dict(zip((prompt for prompt, _ in known), self._shared.prefixes, strict=True))

    def _batches(self, requests: Sequence[ChoiceRequest] | Sequence[GenerateRequest]) -> list[list[int]]:
        prefixes = [self._prefix_of.get(_asked(request), ()) for request in requests]
        return plan_batches(
            [self._new_tok(requests[at], len(prefixes[at])) for at in range(len(requests))],
            budget_tok=self._budget_tok,
            max_items=self._max_items,
            groups=[self._shared.order[ids] for ids in prefixes],
        )

    def _new_tok(self, request: ChoiceRequest | GenerateRequest, shared_tok: int) -> int:
        """Tokens that a request feeds beyond its prefix, as far as is known before; 0 for one that fails."""
        found = self._fitted(_asked(request))
        if not isinstance(found, Fitted):
            return 0
        own = len(found.ids) - shared_tok
        if isinstance(request, GenerateRequest):
            return own
        rows = self._choice_rows(request)
        if isinstance(rows, HarnessError):
            return 0
        if rows[0].choice is not None:
            return sum(len(row.ids) + len(row.trie.scored) - 1 for row in rows)
        trie = rows[0].trie
        return own + (len(trie.scored) - 1 if trie.is_exact else 0)

    def _fit(self, prompt: Prompt) -> Fitted | HarnessError:
        try:
            return self.chat.fit(prompt)
        except HarnessError as error:
            return error

    def _fit_or_raise(self, prompt: Prompt) -> Fitted:
        found = self._fitted(prompt)
        if isinstance(found, HarnessError):
            raise found
        return found

    def _build_trie(self, choices: tuple[str, ...]) -> Trie:
        tree = build_trie([self.chat.encode(choice) for choice in choices], self.chat.end_id)
        return tree if len(tree.tokens) > SMALL_TRIE else replace(tree, is_exact=True)

    def _score_batch(self, requests: list[ChoiceRequest]) -> list[Answer]:
        return _Job(requests, self._rows_of, self._scored, self._choice_answer).answers()

    def _generate_batch(self, requests: list[GenerateRequest]) -> list[Answer]:
        return _Job(requests, self._generate_row, self._generated, self._generated_answer).answers()

    def _scored(self, rows: Sequence[ChoiceRow]) -> list[Search]:
        return self._by_prefix(rows, self._score_rows)

    def _generated(self, rows: Sequence[GenerateRow]) -> list[Generated]:
        return self._by_prefix(rows, self._generate_rows)

    def _by_prefix(self, rows: Sequence[Row], compute: Callable[[Sequence[Row]], list[Found]]) -> list[Found]:
        found: dict[int, Found] = {}
        groups: dict[Ids, list[int]] = {}
        for at, row in enumerate(rows):
            groups.setdefault(self._prefix_in(row.ids), []).append(at)
        for prefix in sorted(groups, key=lambda ids: self._shared.order[ids]):
            self._set_prefix(list(prefix))
            places = groups[prefix]
            found.update(zip(places, compute([rows[at] for at in places]), strict=True))
        return [found[at] for at in range(len(rows))]

    def _prefix_in(self, ids: list[int]) -> Ids:
        """The longest known prefix of the ids that leaves at least one of them."""
        lengths = sorted({len(one) for one in self._shared.order if len(one) < len(ids)}, reverse=True)
        return next(one for length in lengths if (one := tuple(ids[:length])) in self._shared.order)

    def _rows_of(self, request: ChoiceRequest) -> list[ChoiceRow]:
        found = self._choice_rows(request)
        if isinstance(found, HarnessError):
            raise found
        return found

    def _build_choice_rows(self, request: ChoiceRequest) -> list[ChoiceRow] | HarnessError:
        try:
            if not request.choices:
                raise ModelError("no choices to score")
            return self._open_rows(request) if request.is_open else [self._closed_row(request)]
        except HarnessError as error:
            return error

    def _closed_row(self, request: ChoiceRequest) -> ChoiceRow:
        ids = self.token_ids(request.prompt)
        trie = self._trie(request.choices)
        self._check_room(len(ids), max(trie.depths))
        return ChoiceRow(ids, trie)

    def _open_rows(self, request: ChoiceRequest) -> list[ChoiceRow]:
        fitted = self._fit_or_raise(_asked(request))
        choices = [self._open_ids(request, fitted, choice) for choice in request.choices]
        for at, ids in enumerate(choices):
            if not ids:
                raise ModelError(f"choice {at + 1} has no tokens to score")
        longest = max(map(len, choices))
        if request.prompt.text == "" and len(fitted.ids) + longest - 1 > self.context_tok:
            return self._rolling_rows(choices, fitted.ids[-1])
        self._check_room(len(fitted.ids), longest - 1)
        return [ChoiceRow(fitted.ids, build_trie(choices, None))]

    def _open_ids(self, request: ChoiceRequest, fitted: Fitted, choice: str) -> list[int]:
        if request.prompt.text is None:
            return self.chat.encode(choice)
        spaces = split_spaces(request.prompt.text)[1]
        return self.chat.continuation_ids(fitted.text or "", spaces + choice)

    def _rolling_rows(self, choices: list[list[int]], start_id: int) -> list[ChoiceRow]:
        return [
            ChoiceRow(window.context, build_trie([window.scored], None), at)
            for at, ids in enumerate(choices)
            for window in rolling_windows(ids, start_id, self.context_tok)
        ]

    def _generate_row(self, request: GenerateRequest) -> list[GenerateRow]:
        if request.grammar is not None and not self.has_grammars:
            raise ModelError(
                "this model can't be held to a grammar",
                hint="run the suite on the GGUF, or leave the grammar out of it",
            )
        ids = self.token_ids(request.prompt)
        self._check_room(len(ids), request.max_new_tokens)
        return [GenerateRow(ids, request)]

    def _check_room(self, prompt_tok: int, answer_tok: int) -> None:
        if prompt_tok == 0:
            raise ModelError("the prompt is empty")
        if prompt_tok + answer_tok > self.context_tok:
            raise ModelError(
                f"{prompt_tok:,} prompt tokens and {answer_tok:,} for the answer are over the model's"
                f" {self.context_tok:,}"
            )

    def _choice_answer(self, request: ChoiceRequest, rows: list[ChoiceRow], found: list[Search]) -> Answer:
        scores, tokens = _summed(len(request.choices), rows, found)
        if any(search.is_broken for search in found) or not all(isfinite(score) for score in scores):
            return _failed(request.id, "the model's logits are not finite")
        ids = rows[0].ids if rows[0].choice is None else self.token_ids(_asked(request))
        return Answer(
            id=request.id,
            text=request.choices[scores.index(max(scores))],
            choice_logprobs=tuple(scores),
            choice_tok=tuple(tokens),
            prompt_tok=len(ids),
            is_truncated=self._is_truncated(_asked(request)),
            prompt_digest=prompt_digest(ids),
        )

    def _generated_answer(
        self, request: GenerateRequest, rows: list[GenerateRow], found: list[Generated]
    ) -> Answer:
        (row,), (written,) = rows, found
        if not all(isfinite(value) for value in written.logprobs):
            return _failed(request.id, "the model's logits are not finite")
        return Answer(
            id=request.id,
            text=written.text,
            token_logprobs=tuple(written.logprobs),
            prompt_tok=len(row.ids),
            output_tok=len(written.ids),
            is_truncated=self._is_truncated(request.prompt) or not written.is_finished,
            prompt_digest=prompt_digest(row.ids),
        )

    def _is_truncated(self, prompt: Prompt) -> bool:
        found = self._fitted(prompt)
        return isinstance(found, Fitted) and found.is_truncated


def _asked(request: ChoiceRequest | GenerateRequest) -> Prompt:
    """The prompt as it is fed: before open choices, raw text gives its trailing whitespace to them."""
    prompt = request.prompt
    if isinstance(request, GenerateRequest) or not request.is_open or prompt.text is None:
        return prompt
    bare = split_spaces(prompt.text)[0]
    return prompt if bare == prompt.text else replace(prompt, text=bare)


def _summed(count: int, rows: Sequence[ChoiceRow], found: Sequence[Search]) -> tuple[list[float], list[int]]:
    """Each choice's log-probability and its tokens; over all its windows where it has several."""
    if rows[0].choice is None:
        return list(found[0].logprobs()), rows[0].trie.scored_tok()
    scores, tokens = [0.0] * count, [0] * count
    for row, search in zip(rows, found, strict=True):
        assert row.choice is not None
        scores[row.choice] += search.logprobs()[0]
        tokens[row.choice] += row.trie.scored_tok()[0]
    return scores, tokens


class _Job(Generic[Request, Row, Found]):
    """One batch: requests → rows → what the network found → answers. Whatever fails is an answer too."""

    def __init__(
        self,
        requests: Sequence[Request],
        to_rows: Callable[[Request], list[Row]],
        compute: Callable[[Sequence[Row]], list[Found]],
        to_answer: Callable[[Request, list[Row], list[Found]], Answer],
    ) -> None:
        self._requests = requests
        self._to_rows = to_rows
        self._compute = compute
        self._to_answer = to_answer

    def answers(self) -> list[Answer]:
        """One answer a request, in their order."""
        began = time.perf_counter()
        rows: dict[int, list[Row]] = {}
        answers: dict[int, Answer] = {}
        for index, request in enumerate(self._requests):
            try:
                rows[index] = self._to_rows(request)
            except HarnessError as error:
                answers[index] = _failed(request.id, error.message)
        found = iter(self._computed([row for ones in rows.values() for row in ones]))
        for index, ones in rows.items():
            answers[index] = self._answer(self._requests[index], ones, [next(found) for _ in ones])
        ordered = [answers[index] for index in range(len(self._requests))]
        return _timed(ordered, (time.perf_counter() - began) * 1e3)

    def _computed(self, rows: list[Row]) -> list[Found | RuntimeError]:
        if not rows:
            return []
        try:
            return [*self._compute(rows)]
        except RuntimeError as error:  # the library's: alone, most rows still have room
            if len(rows) == 1:
                return [error]
        half = len(rows) // 2
        return [*self._computed(rows[:half]), *self._computed(rows[half:])]

    def _answer(self, request: Request, rows: list[Row], found: list[Found | RuntimeError]) -> Answer:
        fine: list[Found] = []
        for one in found:
            if isinstance(one, RuntimeError):
                return _failed(request.id, f"{type(one).__name__}: {one}")
            fine.append(one)
        return self._to_answer(request, rows, fine)


def _failed(request_id: str, why: str) -> Answer:
    return Answer(id=request_id, error=why)


def _timed(answers: list[Answer], elapsed_ms: float) -> list[Answer]:
    """With its latency where a request was answered alone: in a batch, no request has one of its own."""
    if len(answers) == 1:
        return [replace(answers[0], latency_ms=elapsed_ms)]
    return answers
