"""How many requests a server is sent at once: more while it keeps up, half when it does not."""

from __future__ import annotations

import asyncio

FIRST = 4


class Limiter:
    """Additive increase, multiplicative decrease, between 1 and `most`.

    As TCP finds its window (Chiu and Jain 1989): each success adds one until the first overload, and one a
    window after it; an overload halves. Requests that were under way together are one overload, not many.
    """

    def __init__(self, most: int) -> None:
        self.limit = float(min(FIRST, most))
        self._most = most
        self._active = 0
        self._overloads = 0
        self._changed = asyncio.Condition()

    async def enter(self) -> int:
        """Waits for a place; a ticket for `leave`."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._active < int(self.limit))
            self._active += 1
            return self._overloads

    async def leave(self, ticket: int, *, is_overloaded: bool) -> None:
        """Gives the place back, and says how it went."""
        async with self._changed:
            self._active -= 1
            if not is_overloaded:
                step = 1 / self.limit if self._overloads else 1.0
                self.limit = min(float(self._most), self.limit + step)
            elif ticket == self._overloads:
                self._overloads += 1
                self.limit = max(1.0, self.limit / 2)
            self._changed.notify_all()
