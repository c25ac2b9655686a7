"""What an edge engine is asked and what it tells: the one Protocol between the engine and all that stands before it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from harness.models.base import Message

Finish = Literal["stop", "length", "budget", "cancelled"]
"""The model ended its turn; `max_new_tokens` were written; the request's time ran out; somebody withdrew it."""
Trouble = Literal["bad_request", "too_long", "overloaded", "crashed", "closed", "unknown_adapter"]
"""Why there is no answer. `crashed`: native code died twice on this request; after one death it is asked again."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One request. `messages`, or raw `text` without a chat template."""

    id: str
    messages: tuple[Message, ...] = ()
    text: str | None = None
    labels: tuple[str, ...] = ()
    """The answer is one of these, by log-probability, each with its end of turn; nothing is sampled."""
    grammar: str | None = None
    """GBNF that the text follows."""
    max_new_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ()
    adapter: str = ""
    """Name of a loaded LoRA adapter; empty for the release's own weights."""
    budget_ms: float | None = None
    """From acceptance to the last token: what is written by then is the answer, with `finish` `budget`."""
    wants_logprobs: bool = False
    max_prompt_tok: int | None = None
    """Budget of the prompt in tokens; over it, `over_length` decides, as `harness.models.prompts.fit` does: the device
    must cut where the evaluation cut. None is `context_tok` less `max_new_tokens`."""
    over_length: str = "error"
    """`error` and `skip` are `too_long`; `truncate` and `truncate_left` cut."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Text that was just written; whole characters only."""

    text: str


@dataclass(frozen=True, slots=True)
class Done:
    """The end of an answer. Unknown is None, never zero."""

    text: str
    finish: Finish
    prompt_tok: int
    cached_tok: int
    """Of them, those whose state was at hand."""
    output_tok: int
    first_ms: float | None
    """From acceptance to the first token or, for labels, to the answer."""
    total_ms: float
    label_logprobs: Mapping[str, float] | None = None
    """Natural log of P(label + end of turn | prompt), of every label."""
    token_logprobs: tuple[float, ...] | None = None
    token_texts: tuple[str, ...] | None = None
    """What each of those tokens writes; a token that holds part of a character has replacement characters."""
    attempts: int = 1
    """2 where the engine's process died under the request and it was asked again."""
    is_truncated: bool = False
    """The prompt was over its budget and was cut."""


@dataclass(frozen=True, slots=True)
class Failed:
    """No answer, and why. It is told, never dropped."""

    trouble: Trouble
    text: str


Event = Piece | Done | Failed
Tell = Callable[[Event], None]
"""Called from the engine's own thread, in order; the last call is a Done or a Failed, exactly once."""


@dataclass(frozen=True, slots=True)
class Health:
    """How the engine is now."""

    state: Literal["loading", "ready", "restarting", "failed", "closed"]
    running: int
    waiting: int
    restarts: int
    memory_mb: float | None
    """Resident memory of the engine's process."""
    served: int


class Engine(Protocol):
    """Something that answers on the device."""

    @property
    def digest(self) -> str:
        """sha256 hex of the file that answers."""

    @property
    def context_tok(self) -> int:
        """Tokens that one request may take, prompt and answer together."""

    @property
    def adapters(self) -> Mapping[str, str]:
        """Loaded LoRA adapters: name to sha256 hex of the file."""

    def submit(self, ask: Ask, tell: Tell) -> None:
        """Takes the request and returns at once; all that happens to it is told."""

    def withdraw(self, ask_id: str) -> None:
        """Ends the request soon, with `finish` `cancelled`. An id that is not there is no error."""

    def health(self) -> Health:
        """Never blocks."""

    def close(self, drain_s: float = 0.0) -> None:
        """Lets what runs end for so long, fails the rest as `closed`, and ends the process. Twice is fine."""
