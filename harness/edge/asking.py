"""The engine, seen from an event loop: what it tells from its own thread arrives here in order."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType

from harness.edge.base import Ask, Done, Engine, Event, Failed
from harness.edge.wire_openai import ApiError

_STATUS: Mapping[str, tuple[int, str]] = {
    "bad_request": (400, "invalid_value"),
    "too_long": (400, "context_length_exceeded"),
    "unknown_adapter": (404, "model_not_found"),
    "overloaded": (429, "overloaded"),
    "crashed": (500, "engine_crashed"),
    "closed": (503, "shutting_down"),
}


class AtEngine:
    """One request at the engine. Leaving the block before its end withdraws it."""

    def __init__(self, engine: Engine, ask: Ask) -> None:
        self._engine, self._ask = engine, ask
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._has_ended = False

    async def __aenter__(self) -> AtEngine:
        loop = asyncio.get_running_loop()

        def tell(event: Event) -> None:
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(self._events.put_nowait, event)

        self._engine.submit(self._ask, tell)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if not self._has_ended:
            self._engine.withdraw(self._ask.id)

    async def next(self) -> Event:
        """What happens next; after a Done or Failed nothing does."""
        event = await self._events.get()
        self._has_ended = not_a_piece(event)
        return event

    async def end(self) -> Done:
        """The whole answer.

        Raises:
            ApiError: there is none, and why.
        """
        while True:
            event = await self.next()
            if isinstance(event, Failed):
                raise failure(event)
            if isinstance(event, Done):
                return event


async def ask_engine(engine: Engine, ask: Ask) -> Done:
    """The answer; cancelling withdraws the request.

    Raises:
        ApiError: there is none, and why.
    """
    async with AtEngine(engine, ask) as asked:
        return await asked.end()


def not_a_piece(event: Event) -> bool:
    """Whether the request is over."""
    return isinstance(event, Done | Failed)


def failure(event: Failed) -> ApiError:
    """What a client is told where the engine has no answer."""
    status, code = _STATUS[event.trouble]
    kind = "rate_limit_error" if status == 429 else ""
    return ApiError(status, event.text, kind=kind, code=code)
