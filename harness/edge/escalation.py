"""The heavier model behind a server, asked where the device is not sure; with a time limit, and never waited for twice.

After three failures in a row it is left alone for half a minute: a device whose network is gone must not make every
uncertain question wait.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from harness.errors import ModelError, RefusedError
from harness.models.base import Message
from harness.models.openai_reference import Endpoint, parse_endpoint, read_key
from harness.models.openai_reply import Written, read_chat
from harness.models.openai_wire import Patience, RequestFailedError, Wire

Escalation = Literal["answered", "timeout", "unreachable", "refused", "unread", "guard", "resting"]
FAILURES = 3
REST_S = 30.0


class Answered(NamedTuple):
    """What came of asking."""

    how: Escalation
    text: str | None
    written: Written | None = None


class ServerModel:
    """A model behind an OpenAI-compatible URL. All of it happens in one event loop."""

    def __init__(
        self, reference: str, *, limit_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Connects to nothing yet.

        Raises:
            ModelError: the reference names no endpoint, or its key is missing.
        """
        self.endpoint: Endpoint = parse_endpoint(reference)
        patience = Patience(attempts=2, total_s=limit_s, connect_s=limit_s / 2)
        self._wire = Wire(self.endpoint, read_key(self.endpoint), patience=patience)
        self._limit_s, self._clock = limit_s, clock
        self._model: str | None = self.endpoint.model
        self._failures, self._rests_until = 0, 0.0

    async def write(self, messages: Sequence[Message], max_new_tokens: int) -> Answered:
        """The server's answer to the conversation."""
        if self._clock() < self._rests_until:
            return Answered("resting", None)
        try:
            async with asyncio.timeout(self._limit_s):
                written = await self._written(messages, max_new_tokens)
        except TimeoutError:
            return self._failed("timeout")
        except RequestFailedError:
            return self._failed("refused")
        except ModelError:
            return self._failed("unreachable")
        self._failures = 0
        return Answered("answered", written.text, written)

    async def choose(self, messages: Sequence[Message], labels: Sequence[str]) -> Answered:
        """The label that the server names, spelled as the suite spells it."""
        listed = "\n".join(f"- {label}" for label in labels)
        rule = f"Answer with exactly one of these and nothing else:\n{listed}"
        found = await self.write(_with_rule(messages, rule), max(len(label) for label in labels) + 8)
        if found.text is None:
            return found
        label = named_label(found.text, labels)
        return found._replace(text=label, how="answered" if label else "unread")

    async def close(self) -> None:
        await self._wire.close()

    async def _written(self, messages: Sequence[Message], max_new_tokens: int) -> Written:
        if self._model is None:
            listed = (await self._wire.get("/models")).get("data")
            names = (
                [one.get("id") for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
            )
            if len(names) != 1:
                raise ModelError(f"{self.endpoint.url}: serves {len(names)} models; name one after #")
            self._model = str(names[0])
        turns = [{"role": turn.role, "content": turn.content} for turn in messages]
        body = {
            "model": self._model, "messages": turns, "max_tokens": max_new_tokens, "temperature": 0.0,
            "stream": False,
        }  # fmt: skip
        return read_chat(await self._wire.post("/chat/completions", body))

    def _failed(self, how: Escalation) -> Answered:
        self._failures += 1
        if self._failures >= FAILURES:
            self._rests_until, self._failures = self._clock() + REST_S, 0
        return Answered(how, None)


def require_allowed(endpoint: Endpoint, *, is_sensitive: bool) -> None:
    """Returns where the device may send questions to the endpoint.

    Raises:
        RefusedError: the recipe says that its data are sensitive, and the endpoint is on another machine.
    """
    if is_sensitive and not endpoint.is_local:
        raise RefusedError(
            f"{endpoint.url}: the recipe's data are sensitive, and escalating would send them to another machine",
            hint="leave --escalate out: what the device is not sure of goes to the review queue",
        )


def named_label(text: str, labels: Sequence[str]) -> str | None:
    """The one label that the text is, but for case, quotes and a full stop; None for anything else."""
    said = text.strip().strip("\"'`*.").strip().casefold()
    return next((label for label in labels if label.casefold() == said), None)


def _with_rule(messages: Sequence[Message], rule: str) -> tuple[Message, ...]:
    first = messages[0] if messages and messages[0].role == "system" else None
    if first is None:
        return (Message("system", rule), *messages)
    return (Message("system", f"{first.content}\n\n{rule}"), *messages[1:])
