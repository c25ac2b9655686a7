"""What any thread asks of the one thread that does it, and the pipe that wakes that one up."""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator

Call = Callable[[], None]


class Inbox:
    """Calls in their order. All but `post` is for the thread that makes them."""

    def __init__(self) -> None:
        """Nothing is in it."""
        self._lock = threading.Lock()
        self._calls: deque[Call] = deque()
        self._is_shut = False
        self.wake, self._write = os.pipe()
        """`wake` is readable where something came."""
        for pipe in (self.wake, self._write):
            os.set_blocking(pipe, False)

    def post(self, call: Call) -> bool:
        """Whether somebody will make the call: nobody does once it is shut."""
        with self._lock:
            if self._is_shut:
                return False
            self._calls.append(call)
            with contextlib.suppress(BlockingIOError):  # the pipe is full of wake-ups already
                os.write(self._write, b"\0")
            return True

    def take(self) -> Iterator[Call]:
        """All that came, one by one, with what comes meanwhile."""
        with contextlib.suppress(BlockingIOError):
            os.read(self.wake, 4096)
        while True:
            with self._lock:
                if not self._calls:
                    return
                call = self._calls.popleft()
            yield call

    def shut(self) -> list[Call]:
        """Takes nothing any more; what was posted and not taken."""
        with self._lock:
            self._is_shut = True
            left = list(self._calls)
            self._calls.clear()
        return left

    def close(self) -> None:
        """Closes the pipe, after `shut`."""
        for pipe in (self.wake, self._write):
            os.close(pipe)
