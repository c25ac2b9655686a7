"""The one Protocol that every model meets, and what goes in and out of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol


class Identity(NamedTuple):
    """What a model is, by content: never a name."""

    digest: str
    """sha256 hex of the parts below, in a fixed order."""
    kind: str
    """`scripted`, `transformers`, `gguf` or `openai`."""
    weights: str
    adapter: str
    tokenizer: str
    template: str
    quantization: str
    """Each a sha256 hex or a short description; empty where there is none."""


class Message(NamedTuple):
    """One turn of a conversation."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """A rendered conversation that ends where the answer begins."""

    messages: tuple[Message, ...]
    max_tokens: int | None = None
    """Budget for the prompt in tokens; over it, `over_length` decides."""
    over_length: str = "error"
    """`error`, `skip`, `truncate` (the longest user turn loses its middle, never its ends) or
    `truncate_left` (the longest user turn, or the raw text, loses its beginning)."""
    text: str | None = None
    """Raw text instead of a conversation: no chat template, as base models and multiple choice in the
    style of lm-evaluation-harness want it. `messages` is then empty. May be "" for a whole text's
    own log-probability."""


@dataclass(frozen=True, slots=True)
class ChoiceRequest:
    """A prompt and the answers to score after it."""

    id: str
    prompt: Prompt
    choices: tuple[str, ...]
    is_open: bool = False
    """Score the choices as text that may go on: log P(choice | prompt), without the end of turn."""


@dataclass(frozen=True, slots=True)
class GenerateRequest:
    """A prompt to answer freely."""

    id: str
    prompt: Prompt
    max_new_tokens: int
    stop: tuple[str, ...] = ()
    temperature: float = 0.0
    seed: int = 0
    grammar: str | None = None
    """GBNF that the text must follow, where the model can be held to one; others refuse the request."""


Request = ChoiceRequest | GenerateRequest
Requests = Sequence[ChoiceRequest] | Sequence[GenerateRequest]
"""Of one kind."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model made of one request. Unknown is None, never zero."""

    id: str
    text: str | None = None
    """The generated text; for choices, the best one."""
    choice_logprobs: tuple[float, ...] | None = None
    """log P(choice + end of turn | prompt), natural log, one per choice and in their order; without the
    end where the request `is_open`."""
    choice_tok: tuple[int, ...] | None = None
    """Tokens that each choice's log-probability sums over."""
    token_logprobs: tuple[float, ...] | None = None
    """Of the generated tokens."""
    prompt_tok: int = 0
    output_tok: int = 0
    is_truncated: bool = False
    """The prompt was over its budget and lost its middle, or the output hit `max_new_tokens`."""
    prompt_digest: str = ""
    """sha256 hex of the token ids that were fed, as little-endian int32: the same at each stage or
    the stages did not see the same prompt."""
    latency_ms: float | None = None
    error: str | None = None
    """Why there is no answer. An error is an outcome: it stays in the denominator."""
    extra: dict[str, float] = field(default_factory=dict)


class Model(Protocol):
    """Something that answers."""

    @property
    def identity(self) -> Identity:
        """What it is, by content."""

    def plan(self, requests: Requests) -> list[list[int]]:
        """Index lists, one a batch, in the order of execution; the same for the same requests.

        Batches are what is committed and resumed: each goes through one call of `score_choices` or `generate`.
        """

    def score_choices(self, requests: Sequence[ChoiceRequest]) -> Iterator[Answer]:
        """One answer a request, in their order. Nothing a request holds can raise: an error is an answer."""

    def generate(self, requests: Sequence[GenerateRequest]) -> Iterator[Answer]:
        """One answer a request, in their order, as `score_choices`."""

    def token_ids(self, prompt: Prompt) -> list[int]:
        """The ids that would be fed for the prompt: template, special tokens and truncation applied."""

    def close(self) -> None:
        """Gives memory and processes back. Calling it twice is fine."""
