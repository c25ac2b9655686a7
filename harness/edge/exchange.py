"""One request on its way: read within limits, answered or failed exactly once, and put down in the log."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Mapping, MutableMapping
from dataclasses import replace
from typing import Any

from harness.edge.asking import AtEngine, failure
from harness.edge.base import Ask, Done, Failed, Piece
from harness.edge.requests_log import RequestLine
from harness.edge.route import Outcome
from harness.edge.serving import Serving
from harness.edge.switch import Post
from harness.edge.wire_openai import ApiError, Asked, Named, chat_logprobs, chunk, read_body, usage_chunk

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Handle = Callable[["Exchange", dict[str, Any]], Coroutine[Any, Any, None]]
GONE = 499
"""Status of a request whose client went away, as nginx has it."""
GRACE_S = 5.0
"""Beyond the limits on answering, before a request is given up as lost."""


class ClientGoneError(Exception):
    """Nobody waits for the answer any more."""


class Exchange:
    """An ASGI application for one request."""

    def __init__(self, serving: Serving, endpoint: str, handle: Handle) -> None:
        self.serving, self._handle = serving, handle
        self.id = uuid.uuid4().hex
        self.line = RequestLine(self.id, endpoint, 0)
        self.post: Post = serving.switch.current
        self._began = time.perf_counter()
        self._has_begun = False
        """The status is sent: what goes wrong now can only be told in the stream."""

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        self._headers = {key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]}
        self._send = send
        status, error = GONE, "client_gone"
        try:
            with self.serving.admission.place(), self.serving.switch.post() as post:
                self.post = post
                await self._answered(receive)
            status, error = self.line.status, ""
        except ClientGoneError:
            pass
        except ApiError as told:
            status, error = told.status, told.code or told.kind
            await self._fail(told)
        except Exception:
            status, error = 500, "internal_error"
            await self._fail(ApiError(500, "a defect of this server", code=error))
            raise
        finally:
            self._log(status, error or None)

    def note(self, **fields: Any) -> None:
        """Adds to what the log will say."""
        self.line = replace(self.line, **fields)

    def elapsed_ms(self) -> float:
        """Since the request came."""
        return round((time.perf_counter() - self._began) * 1e3, 3)

    def budget_ms(self) -> float:
        """What is left of the time that an answer may take."""
        return max(1.0, self.serving.limits.request_s * 1e3 - self.elapsed_ms())

    async def _answered(self, receive: Receive) -> None:
        body = read_body(await self._body(receive))
        gone = asyncio.create_task(_gone(receive))
        work = asyncio.create_task(self._handle(self, body))
        limits = self.serving.limits
        limit_s = limits.request_s + limits.escalation_s + GRACE_S
        try:
            await asyncio.wait({gone, work}, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                work.result()
            elif gone.done():
                raise ClientGoneError
            else:
                raise ApiError(504, f"no answer within {limit_s:g} s", code="timeout")
        finally:
            for task in (gone, work):
                task.cancel()
            await asyncio.gather(gone, work, return_exceptions=True)

    async def _body(self, receive: Receive) -> bytes:
        limits = self.serving.limits
        kind = self._headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise ApiError(
                415, f"content-type {kind or 'missing'}: wanted application/json", code="media_type"
            )
        length = self._headers.get("content-length", "")
        if length.isdigit() and int(length) > limits.body_bytes:
            raise self._too_large()
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(limits.body_s):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ClientGoneError
                    part: bytes = message.get("body", b"")
                    size += len(part)
                    if size > limits.body_bytes:
                        raise self._too_large()
                    parts.append(part)
                    if not message.get("more_body", False):
                        return b"".join(parts)
        except TimeoutError:
            raise ApiError(408, f"no whole body within {limits.body_s:g} s", code="timeout") from None

    def _too_large(self) -> ApiError:
        most = self.serving.limits.body_bytes
        return ApiError(413, f"the body is over {most:,} bytes", code="body_too_large")

    # What is sent.

    async def json(self, body: Mapping[str, Any], headers: Mapping[str, str], *, status: int = 200) -> None:
        """The whole reply."""
        data = json.dumps(body, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace")
        self.note(status=status)
        await self._start(status, "application/json", {"content-length": str(len(data)), **headers})
        await self._send({"type": "http.response.body", "body": data})

    async def outcome_stream(self, named: Named, outcome: Outcome) -> None:
        """An answer that was held until its guards had seen it, in the form of a stream."""
        await self._start_stream(outcome_headers(outcome))
        await self._event(chunk(named, outcome.text, is_first=True))
        await self._event(chunk(named, None, finish=outcome.finish))
        await self._end_stream()

    async def live_stream(self, ask: Ask, named: Named, wanted: Asked) -> None:
        """The engine's answer as it is written.

        Raises:
            ApiError: the engine failed, before the first word or after it.
        """
        async with AtEngine(self.post.engine, ask) as asked:
            while True:
                event = await asked.next()
                if isinstance(event, Failed):
                    raise failure(event)
                if not self._has_begun:
                    await self._start_stream({"x-route": "edge", "x-confidence": "unknown"})
                    await self._event(chunk(named, "", is_first=True))
                if isinstance(event, Done):
                    return await self._live_end(event, named, wanted)
                assert isinstance(event, Piece)
                if self.line.first_ms is None:
                    self.note(first_ms=self.elapsed_ms())
                await self._event(chunk(named, event.text))

    async def _live_end(self, done: Done, named: Named, wanted: Asked) -> None:
        self.note_done(done)
        self.note(route="edge", answer=done.text, answer_hash=self.serving.log.hashed(done.text))
        logprobs = chat_logprobs(done) if named.is_chat else None
        await self._event(chunk(named, None, finish=done.finish, logprobs=logprobs))
        if wanted.wants_usage:
            await self._event(usage_chunk(named, done))
        await self._end_stream()

    async def _start_stream(self, headers: Mapping[str, str]) -> None:
        self.note(status=200)
        await self._start(200, "text/event-stream; charset=utf-8", headers)

    async def _start(self, status: int, kind: str, headers: Mapping[str, str]) -> None:
        release = self.post.release
        facts = {
            "content-type": kind, "cache-control": "no-store", "x-content-type-options": "nosniff",
            "x-request-id": self.id, "x-model-digest": release.sha256, "x-release": release.digest, **headers,
        }  # fmt: skip
        pairs = [(key.encode("latin-1"), text.encode("latin-1", "replace")) for key, text in facts.items()]
        self._has_begun = True
        await self._send({"type": "http.response.start", "status": status, "headers": pairs})

    async def _event(self, data: Mapping[str, Any]) -> None:
        text = json.dumps(data, ensure_ascii=False, allow_nan=False)
        await self._send(_body_part(f"data: {text}\n\n".encode("utf-8", "replace"), has_more=True))

    async def _end_stream(self) -> None:
        await self._send(_body_part(b"data: [DONE]\n\n", has_more=False))

    async def _fail(self, error: ApiError) -> None:
        if self._has_begun:  # without [DONE], so that no client takes what it has for the whole
            text = json.dumps(error.body())
            await self._send(_body_part(f"data: {text}\n\n".encode(), has_more=False))
            return
        headers = {"retry-after": "1"} if error.status in (429, 503) else {}
        # A body that was not read to its end can't be followed by another request on this connection.
        closing = {"connection": "close"} if error.status in (408, 413) else {}
        await self.json(error.body(), {**headers, **closing}, status=error.status)

    # What is put down.

    def note_done(self, done: Done) -> None:
        """What the engine told of its answer."""
        first_ms = self.line.first_ms if self.line.first_ms is not None else done.first_ms
        self.note(
            finish=done.finish, prompt_tok=done.prompt_tok, cached_tok=done.cached_tok,
            output_tok=done.output_tok, attempts=done.attempts, first_ms=first_ms,
        )  # fmt: skip

    def note_outcome(self, outcome: Outcome) -> None:
        """Who answered, and why."""
        if outcome.done is not None:
            self.note_done(outcome.done)
        weighed = outcome.weighed
        self.note(
            route=outcome.route, band=outcome.band, reason=outcome.reason, guard=outcome.guard,
            escalation=outcome.escalation, answer=outcome.text,
            answer_hash=self.serving.log.hashed(outcome.text),
            confidence=weighed.confidence if weighed else None,
            set_size=len(weighed.set) if weighed and weighed.set is not None else None,
        )  # fmt: skip
        if outcome.route == "review" and outcome.review is None:
            self.serving.metrics.count("review_lost_total")

    def _log(self, status: int, error: str | None) -> None:
        line, metrics = self.line, self.serving.metrics
        self.note(status=status, error=error, total_ms=self.elapsed_ms())
        self.serving.log.request(self.line, self.post.release.source())
        metrics.count("requests_total", endpoint=line.endpoint, status=str(status))
        if line.route:
            metrics.count("routes_total", route=line.route)
        if line.guard:
            metrics.count("guards_total", guard=line.guard)
        if line.escalation:
            metrics.count("escalations_total", outcome=line.escalation)
        for name, tok in (
            ("prompt", line.prompt_tok),
            ("cached", line.cached_tok),
            ("output", line.output_tok),
        ):
            metrics.count(f"{name}_tokens_total", tok or 0)
        metrics.observe("request_seconds", self.elapsed_ms() / 1e3)
        if line.first_ms is not None:
            metrics.observe("first_token_seconds", line.first_ms / 1e3)


def outcome_headers(outcome: Outcome) -> dict[str, str]:
    """The facts of an answer, for headers; a confidence that nobody measured is `unknown`."""
    weighed = outcome.weighed if outcome.route != "server" else None
    known = weighed is not None and weighed.confidence is not None
    facts = {
        "x-route": outcome.route, "x-band": outcome.band, "x-reason": outcome.reason, "x-guard": outcome.guard,
        "x-escalation": outcome.escalation, "x-review": outcome.review,
        "x-confidence": f"{weighed.confidence:.4f}" if known and weighed else "unknown",
    }  # fmt: skip
    return {key: value for key, value in facts.items() if value is not None}


def _body_part(data: bytes, *, has_more: bool) -> MutableMapping[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": has_more}


async def _gone(receive: Receive) -> None:
    """Returns when the client went away."""
    while (await receive())["type"] != "http.disconnect":
        pass
