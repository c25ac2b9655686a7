"""A request from its acceptance to its end, as the engine keeps it: enough to ask it again where it was."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.edge.base import Ask, Done, Finish, Tell


@dataclass(slots=True, eq=False)
class Job:
    """One request. A process that takes it over goes on after the tokens that are here."""

    number: int
    ask: Ask
    tell: Tell
    accepted: float
    attempts: int = 0
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    first: float | None = None
    prompt_tok: int = 0
    cached_tok: int = 0
    is_truncated: bool = False
    deaths: int = 0
    """Of the process, while this request was in it and may have been why."""
    is_withdrawn: bool = False
    """The process was told to end it; where it dies first, nobody asks it again."""

    def left_ms(self) -> float | None:
        """What is left of its time."""
        if self.ask.budget_ms is None:
            return None
        return self.ask.budget_ms - (time.monotonic() - self.accepted) * 1e3

    def take(self, frame: Mapping[str, Any]) -> None:
        """What a process told of it."""
        self.cached_tok = int(frame["cached_tok"])
        self.ids += frame.get("ids", ())
        self.logprobs += frame.get("logprobs", ())
        self.texts += frame.get("texts", ())
        if frame.get("text"):
            self.told.append(frame["text"])
        if self.first is None and (self.ids or frame.get("labels")):
            self.first = time.monotonic()

    def done(self, finish: Finish, labels: Sequence[float] | None = None) -> Done:
        """The answer as it is now; `labels` are their log-probabilities, where it was to be one of them."""
        now = time.monotonic()
        logprobs = None if labels is None else dict(zip(self.ask.labels, labels, strict=True))
        best = max(logprobs, key=lambda label: logprobs[label]) if logprobs else None
        wants = self.ask.wants_logprobs and not self.ask.labels
        return Done(
            text="".join(self.told) if best is None else best,
            finish=finish,
            prompt_tok=self.prompt_tok,
            cached_tok=self.cached_tok,
            output_tok=len(self.ids),
            first_ms=None if self.first is None else (self.first - self.accepted) * 1e3,
            total_ms=(now - self.accepted) * 1e3,
            label_logprobs=logprobs,
            token_logprobs=tuple(self.logprobs) if wants else None,
            token_texts=tuple(self.texts) if wants else None,
            attempts=max(1, self.attempts),
            is_truncated=self.is_truncated,
        )
