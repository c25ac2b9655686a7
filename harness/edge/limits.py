"""What the server takes, and how much of it at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from harness.edge.wire_openai import ApiError


@dataclass(frozen=True, slots=True)
class Limits:
    """The server's limits; what is over one is refused with an error that names it."""

    body_bytes: int = 2**20
    body_s: float = 10.0
    """For a request's body to arrive."""
    messages: int = 256
    new_tok: int = 1024
    """Most tokens that a request may ask for."""
    default_new_tok: int = 256
    running: int = 8
    """Requests that the engine answers at once."""
    waiting: int = 56
    request_s: float = 60.0
    """From acceptance to the end of the answer; what is written by then is the answer."""
    escalation_s: float = 10.0
    """For the server model to answer."""


class Admission:
    """Counts the requests under way; refuses what is too much before anything is spent on it."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.under_way = 0
        self.is_draining = False

    @contextmanager
    def place(self) -> Iterator[None]:
        """A place for one request.

        Raises:
            ApiError: 429 where all are taken, 503 while the server ends.
        """
        if self.is_draining:
            raise ApiError(503, "the server is shutting down", code="shutting_down")
        if self.under_way >= self._most:
            why = f"{self.under_way} requests are under way, the most that this server takes"
            raise ApiError(429, why, kind="rate_limit_error", code="overloaded")
        self.under_way += 1
        try:
            yield
        finally:
            self.under_way -= 1
