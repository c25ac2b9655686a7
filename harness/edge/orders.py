"""What the engine's process was ordered and has not answered yet."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any

from harness.errors import ModelError
from harness.text import visible

Reply = Future[dict[str, Any]]


class Orders:
    """Who waits for which order."""

    def __init__(self, note: Callable[[str], None]) -> None:
        """Nobody waits; `note` hears what a person should know."""
        self._note = note
        self._replies: dict[int, Reply] = {}

    def __bool__(self) -> bool:
        """Somebody waits."""
        return bool(self._replies)

    def add(self, number: int, reply: Reply) -> None:
        """The order was sent."""
        self._replies[number] = reply

    def answer(self, frame: Mapping[str, Any]) -> None:
        """Hands an answer on."""
        reply = self._replies.pop(frame["order"], None)
        if frame["said"] == "refused":
            self._refuse(reply, visible(str(frame["text"])))
            return
        if frame.get("note"):
            self._note(visible(str(frame["note"])))
        if reply is not None:
            reply.set_result(dict(frame))

    def _refuse(self, reply: Reply | None, text: str) -> None:
        if reply is None:
            self._note(text)
        else:
            reply.set_exception(ModelError(text))

    def fail(self, why: str) -> None:
        """Nobody will answer any of them."""
        for reply in self._replies.values():
            reply.set_exception(ModelError(why))
        self._replies.clear()
