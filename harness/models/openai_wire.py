"""One request in, one JSON object out: limits, retries, deadlines, and nothing of the key in any text.

httpx2 rather than openai's client, which stands on it: a body is bounded while it is read, a reply is strict
JSON or an error, and no header comes from the environment.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from harness import __version__
from harness.errors import DataError, ModelError
from harness.files import parse_json
from harness.models.openai_limiter import Limiter
from harness.models.openai_reference import Endpoint

if TYPE_CHECKING:
    import httpx2
    from tenacity import RetryCallState

MAX_BODY_BYTES = 16 * 2**20
SAID_CHARS = 300
"""Of what a server says about a mistake."""
SECRET_CHARS = 16
"""Shorter keys are placeholders such as EMPTY, and words that an answer may well hold."""
FIND_ATTEMPTS = 3
AGAIN = (408, 409, 425, 429, 500, 502, 503, 504, 529)
AWAY = (429, 502, 503, 529)
"""What says that the server can't serve anybody now; the others may be about one request."""
Sleep = Callable[[float], Awaitable[None]]


class Patience(NamedTuple):
    """How long a request is worth waiting for."""

    attempts: int = 6
    total_s: float = 600.0
    """All attempts and the waits between them; not the wait for a place among the requests under way."""
    connect_s: float = 10.0
    longest_wait_s: float = 60.0
    """A server that asks for more is not there."""


class RequestFailedError(Exception):
    """This one request has no answer; why, in words."""


class RejectedError(RequestFailedError):
    """The server does not take the request as it is."""


class MissingError(ModelError):
    """The server has no such endpoint or model."""


class _AgainError(Exception):
    """Worth another attempt."""

    def __init__(self, why: str, *, is_away: bool = False, wait_s: float | None = None) -> None:
        super().__init__(why)
        self.is_away = is_away
        self.wait_s = wait_s


class Wire:
    """The connections to one server. All of it happens in one event loop."""

    def __init__(
        self, endpoint: Endpoint, key: str | None, *, patience: Patience, sleep: Sleep = asyncio.sleep
    ) -> None:
        self.endpoint = endpoint
        self.limiter = Limiter(endpoint.concurrency)
        self.had_trouble = False
        """A connection failed: what answers next may be another server."""
        self._key = key
        self._patience = patience
        self._sleep = sleep
        self._client: httpx2.AsyncClient | None = None

    async def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """The reply to a request below the endpoint, or below its root where the path begins with `root:`.

        Raises:
            RequestFailedError: this request has no answer.
            ModelError: the server is not there, refuses us, or has no such model: no request has an answer.
        """
        return await self._ask("POST", path, body)

    async def get(self, path: str) -> dict[str, Any]:
        """As `post`."""
        return await self._ask("GET", path, None)

    async def find(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any] | None:
        """What an endpoint that few servers have says; None where it is not there or says anything else."""
        method = "POST" if body is not None else "GET"
        for attempt in range(FIND_ATTEMPTS):
            try:
                return await self._once(method, path, body, _Clock())
            except _AgainError as error:
                if not error.is_away:
                    return None
                await self._sleep(float(attempt))
            except (RequestFailedError, ModelError):
                return None
        return None

    async def close(self) -> None:
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    async def _ask(self, method: str, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        from tenacity import AsyncRetrying, retry_if_exception_type

        clock = _Clock()

        def is_enough(state: RetryCallState) -> bool:
            is_late = clock.spent_s + state.idle_for >= self._patience.total_s
            return is_late or state.attempt_number >= self._patience.attempts

        retrying = AsyncRetrying(
            retry=retry_if_exception_type(_AgainError), stop=is_enough, wait=_wait_s, sleep=self._sleep,
            reraise=True,
        )  # fmt: skip
        try:
            found: dict[str, Any] = await retrying(self._once, method, path, body, clock)
            return found
        except _AgainError as error:
            tries = retrying.statistics["attempt_number"]
            why = f"{error}, at attempt {tries}" if tries > 1 else str(error)
            if error.is_away:
                hint = "start the server, or wait; the same command goes on where it was"
                raise ModelError(f"{self.endpoint.url}: {why}", hint=hint) from None
            raise RequestFailedError(why) from None

    async def _once(
        self, method: str, path: str, body: dict[str, Any] | None, clock: _Clock
    ) -> dict[str, Any]:
        ticket = await self.limiter.enter()
        is_overloaded, began = True, time.monotonic()
        try:
            reply = await self._exchange(method, path, body)
            is_overloaded = reply.status in AGAIN
        finally:
            clock.spent_s += time.monotonic() - began
            await self.limiter.leave(ticket, is_overloaded=is_overloaded)
        return self._judged(reply)

    async def _exchange(self, method: str, path: str, body: dict[str, Any] | None) -> _Reply:
        import httpx2

        limit_s = self.endpoint.timeout_s
        data = None if body is None else json.dumps(body).encode()  # ASCII: half a surrogate pair is no crash
        try:
            async with asyncio.timeout(limit_s):  # httpx2's own limits are met by a byte now and then
                async with self._opened().stream(method, self._place(path), content=data) as response:
                    found = self._without_key(await _bounded(response))
                    return _Reply(response.status_code, dict(response.headers), found)
        except (TimeoutError, httpx2.ReadTimeout, httpx2.WriteTimeout):
            raise _AgainError(f"no answer within {limit_s:g} s") from None
        except httpx2.InvalidURL as error:
            raise ModelError(f"{self.endpoint.url}: {error}") from None
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.ProxyError) as error:
            self.had_trouble = True
            raise _AgainError(f"nobody answers there ({self._said(str(error))})", is_away=True) from None
        except httpx2.TransportError as error:
            self.had_trouble = True
            why = self._said(str(error)) or type(error).__name__
            raise _AgainError(f"the connection ended within the reply ({why})") from None
        except httpx2.HTTPError as error:
            raise _AgainError(f"not a reply that can be read ({self._said(str(error))})") from None

    def _judged(self, reply: _Reply) -> dict[str, Any]:
        if reply.status == 200:
            return self._parsed(reply)
        where, said = self.endpoint.url, self._complaint(reply)
        if reply.status in (401, 403):
            hint = f"put the right key into ${self.endpoint.key_name}"
            raise ModelError(f"{where}: HTTP {reply.status}: {said}", hint=hint)
        if reply.status in (404, 405, 501):
            raise MissingError(
                f"{where}: HTTP {reply.status}: {said}", hint="most servers want /v1 at the end"
            )
        if 300 <= reply.status < 400:
            raise ModelError(f"{where}: HTTP {reply.status}: redirects, and a key must not follow")
        if reply.status in AGAIN:
            wait_s = retry_after_s(reply.headers.get("retry-after"))
            is_away = reply.status in AWAY
            if wait_s is not None and wait_s > self._patience.longest_wait_s:
                raise ModelError(f"{where}: HTTP {reply.status}: asks to wait {wait_s:,.0f} s: {said}")
            raise _AgainError(f"HTTP {reply.status}: {said}", is_away=is_away, wait_s=wait_s)
        raise RejectedError(f"HTTP {reply.status}: {said}")

    def _parsed(self, reply: _Reply) -> dict[str, Any]:
        try:
            value = parse_json(reply.body, name="the reply")
        except DataError as error:
            kind = reply.headers.get("content-type", "no type")
            raise _AgainError(
                f"the reply is no JSON ({self._said(kind)}: {self._said(error.message)})"
            ) from None
        if not isinstance(value, dict):
            raise _AgainError(f"the reply is a JSON {type(value).__name__}, wanted an object")
        if "error" in value and "choices" not in value:  # gateways that answer 200 to everything
            raise RequestFailedError(self._complaint(reply))
        return value

    def _complaint(self, reply: _Reply) -> str:
        text = reply.body.decode("utf-8", "replace")
        with suppress(ValueError, RecursionError):
            value = json.loads(text)
            for key in ("error", "message", "detail"):
                value = value.get(key, value) if isinstance(value, dict) else value
            text = value if isinstance(value, str) else json.dumps(value)
        return self._said(" ".join(text.split())) or "nothing more is said"

    def _said(self, text: str) -> str:
        """What may be shown and kept: servers repeat the key that they refuse."""
        hidden = text.replace(self._key, "[key]") if self._key else text
        return hidden[:SAID_CHARS]

    def _without_key(self, body: bytes) -> bytes:
        """A server that repeats a secret, in a complaint or in an answer, must not get it into a run folder."""
        if self._key and len(self._key) >= SECRET_CHARS:
            return body.replace(self._key.encode(), b"[key]")
        return body

    def _place(self, path: str) -> str:
        if path.startswith("root:"):
            return self.endpoint.root + path.removeprefix("root:")
        return self.endpoint.url + path

    def _opened(self) -> httpx2.AsyncClient:
        import httpx2

        if self._client is None:
            most = self.endpoint.concurrency
            headers = {"User-Agent": f"harness/{__version__}", "Accept-Encoding": "identity"}
            headers["Content-Type"] = "application/json"
            if self._key:
                headers["Authorization"] = f"Bearer {self._key}"
            self._client = httpx2.AsyncClient(
                headers=headers,
                timeout=httpx2.Timeout(self.endpoint.timeout_s, connect=self._patience.connect_s, pool=None),
                # One connection a request: what a server sends too much on one would be read as the next reply.
                limits=httpx2.Limits(max_connections=most, max_keepalive_connections=0),
                trust_env=not self.endpoint.is_local,  # a proxy has no business between this machine and itself
            )
        return self._client


class _Clock:
    """How long a request has been under way."""

    spent_s = 0.0


class _Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


async def _bounded(response: httpx2.Response) -> bytes:
    parts, size = [], 0
    async for part in response.aiter_bytes():
        size += len(part)
        if size > MAX_BODY_BYTES:
            raise RequestFailedError(f"the reply is over {MAX_BODY_BYTES:,} bytes")
        parts.append(part)
    return b"".join(parts)


def retry_after_s(value: str | None) -> float | None:
    """The seconds that a Retry-After header asks for, which holds seconds or a date; None for anything else."""
    if value is None:
        return None
    with suppress(ValueError):
        return max(0.0, float(value)) if float(value) < float("inf") else None
    with suppress(ValueError, TypeError):
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    return None


def _wait_s(state: RetryCallState) -> float:
    from tenacity import wait_exponential, wait_random

    wait_s = float((wait_exponential(multiplier=0.5, max=30.0) + wait_random(0.0, 0.5))(state))
    error = state.outcome.exception() if state.outcome else None
    asked_s = error.wait_s if isinstance(error, _AgainError) else None
    return wait_s if asked_s is None else asked_s + min(wait_s, 1.0)  # not all at the same moment
