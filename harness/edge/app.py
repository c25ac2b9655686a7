"""The paths of the server: OpenAI's, the suites' own questions, health, metrics and the switch."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.edge.exchange import Exchange, Handle, outcome_headers
from harness.edge.metrics import CONTENT_TYPE
from harness.edge.route import Outcome, adapter_of, chat_ask
from harness.edge.serving import Serving, is_key
from harness.edge.switch import Switched, require_follows
from harness.edge.wire_openai import (
    ApiError,
    Asked,
    Named,
    model_list,
    read_body,
    read_chat,
    read_completion,
    reply,
)
from harness.errors import DataError, HarnessError

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp, Receive, Scope, Send

OPEN_PATHS = ("/health",)
ADMIN_BODY_BYTES = 65_536


def make_app(serving: Serving) -> ASGIApp:
    """The ASGI application; every path but /health wants the key, /admin one of its own."""
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.routing import Route

    paths = _Paths(serving)
    routes = [
        Route("/v1/chat/completions", paths.exchange("chat", paths.chat), methods=["POST"]),
        Route("/v1/completions", paths.exchange("completion", paths.completion), methods=["POST"]),
        Route("/v1/suites/{suite}/answer", paths.suite_answer, methods=["POST"]),
        Route("/v1/models", paths.models),
        Route("/v1/models/{name:path}", paths.model),
        Route("/v1/suites", paths.suites),
        Route("/health", paths.health),
        Route("/metrics", paths.metrics),
        Route("/admin/switch", paths.admin(paths.switch), methods=["POST"]),
        Route("/admin/rollback", paths.admin(paths.rollback), methods=["POST"]),
    ]
    app: Starlette = Starlette(
        routes=routes, exception_handlers={HTTPException: _no_such, ApiError: _told_error}
    )
    return _Guarded(app, serving)


class _Guarded:
    """Lets nobody past who has no key. No browser page of another origin is ever let in: there are no CORS headers."""

    def __init__(self, app: ASGIApp, serving: Serving) -> None:
        self._app, self._serving = app, serving

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in OPEN_PATHS:
            error = self._refusal(scope["path"], dict(scope["headers"]))
            if error is not None:
                await _error_response(error)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _refusal(self, path: str, headers: dict[bytes, bytes]) -> ApiError | None:
        is_admin = path.startswith("/admin")
        digest = self._serving.admin_digest if is_admin else self._serving.key_digest
        if digest is None:
            return ApiError(
                403, "/admin is closed: the server was started without an admin key", code="closed"
            )
        kind, _, said = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
        if kind.lower() == "bearer" and is_key(said.strip(), digest):
            return None
        return ApiError(401, "no or another API key", kind="authentication_error", code="invalid_api_key")


class _Paths:
    def __init__(self, serving: Serving) -> None:
        self._serving = serving

    def exchange(self, endpoint: str, handle: Handle) -> Callable[[Request], Awaitable[Response]]:
        async def made(request: Request) -> Any:  # noqa: ARG001 - starlette's signature
            return Exchange(self._serving, endpoint, handle)

        return made

    # Answers.

    async def chat(self, x: Exchange, body: dict[str, Any]) -> None:
        await self._answer(x, read_chat(body, self._serving.limits), is_chat=True)

    async def completion(self, x: Exchange, body: dict[str, Any]) -> None:
        await self._answer(x, read_completion(body, self._serving.limits), is_chat=False)

    async def _answer(self, x: Exchange, wanted: Asked, *, is_chat: bool) -> None:
        adapter, router = adapter_of(x.post, wanted.model), self._serving.router
        question = "\n".join(turn.content for turn in wanted.messages) or wanted.text or ""
        x.note(
            is_stream=wanted.is_stream, adapter=adapter, input=question,
            input_hash=self._serving.log.hashed(question),
        )  # fmt: skip
        ask = chat_ask(
            x.id, wanted, budget_ms=x.budget_ms(), adapter=adapter,
            default_tok=self._serving.limits.default_new_tok, context_tok=x.post.engine.context_tok,
        )  # fmt: skip
        named = Named.of(x.id, wanted.model or x.post.release.recipe, is_chat=is_chat)
        if wanted.is_stream and not router.guards_for(wanted):
            return await x.live_stream(ask, named, wanted)
        outcome = await router.chat(x.post, ask, wanted)
        x.note_outcome(outcome)
        if wanted.is_stream:
            return await x.outcome_stream(named, outcome)
        done = outcome.done if outcome.route == "edge" else None
        return await x.json(reply(named, outcome.text, outcome.finish, done), outcome_headers(outcome))

    async def suite_answer(self, request: Request) -> Any:
        name = request.path_params["suite"]

        async def handle(x: Exchange, body: dict[str, Any]) -> None:
            await self._suite(x, name, body)

        return Exchange(self._serving, "answer", handle)

    async def _suite(self, x: Exchange, name: str, body: dict[str, Any]) -> None:
        try:
            question = x.post.release.question(name)
        except DataError as error:
            raise ApiError(404, error.message, param="suite", code="suite_not_found") from None
        if why := question.why_not():
            raise ApiError(400, f"suite {name}: {why}", param="suite", code="unsupported_suite")
        record = question.record(x.id, body)
        slices = {key: str(value) for key, value in record.slices.items()}
        text = "\n".join(part for part in (record.context, record.input) if part)
        x.note(suite=name, slices=slices, input=text, input_hash=self._serving.log.hashed(text))
        ask = question.ask(record, budget_ms=x.budget_ms())
        outcome = await self._serving.router.answer(x.post, question, record, ask)
        x.note_outcome(outcome)
        x.note(label=outcome.label if question.is_scored else None)
        await x.json(answer_body(x.id, name, outcome, is_scored=question.is_scored), outcome_headers(outcome))

    # What is here.

    async def models(self, request: Request) -> Any:  # noqa: ARG002
        return _json(model_list(self._names(), self._serving.began))

    async def model(self, request: Request) -> Any:
        wanted = request.path_params["name"]
        listed = model_list([pair for pair in self._names() if pair[0] == wanted], self._serving.began)[
            "data"
        ]
        if not listed:
            return _error_response(ApiError(404, f"no model {wanted!r} here", code="model_not_found"))
        return _json(listed[0])

    async def suites(self, request: Request) -> Any:  # noqa: ARG002
        return _json(
            {"object": "list", "data": [_suite_entry(q) for q in self._serving.release.questions.values()]}
        )

    async def health(self, request: Request) -> Any:  # noqa: ARG002
        status, body = self._serving.health()
        return _json(body, status)

    async def metrics(self, request: Request) -> Any:  # noqa: ARG002
        from starlette.responses import Response

        return Response(self._serving.metrics_text(), media_type=CONTENT_TYPE)

    def _names(self) -> list[tuple[str, str]]:
        post = self._serving.switch.current
        return [(post.release.recipe, post.release.sha256), *post.engine.adapters.items()]

    # The switch.

    def admin(
        self, act: Callable[[dict[str, Any]], Awaitable[Switched]]
    ) -> Callable[[Request], Awaitable[Response]]:
        async def made(request: Request) -> Any:
            try:
                done = await act(read_body(await _small_body(request)))
            except HarnessError as error:
                message = f"{error.message}; {error.hint}" if error.hint else error.message
                return _error_response(ApiError(409, message, code="refused"))
            release = self._serving.release
            return _json({**done._asdict(), "recipe": release.recipe, "model": release.sha256})

        return made

    async def switch(self, body: dict[str, Any]) -> Switched:
        import asyncio

        path = body.get("release")
        if not isinstance(path, str) or self._serving.open_release is None:
            raise ApiError(400, "release: wanted the path of a release folder", param="release")
        try:
            release = await asyncio.to_thread(self._serving.open_release, Path(path))
            require_follows(release, self._serving.release)
        except HarnessError as error:
            self._serving.refuse(error.message)
            raise
        return await self._serving.change(release)

    async def rollback(self, body: dict[str, Any]) -> Switched:
        serving = self._serving
        if serving.roll_device_back is not None:
            return await serving.change(
                await serving.roll_device_back(str(body.get("reason", ""))), "rollback"
            )
        return serving.told(await serving.switch.rollback(), "rollback")


def answer_body(id_: str, suite: str, outcome: Outcome, *, is_scored: bool) -> dict[str, Any]:
    """The reply to a suite's question. What was held back is not in it."""
    weighed, is_given = outcome.weighed, outcome.route != "review"
    assert weighed is not None
    said = outcome.text if is_given else None
    own = {"label": said} if is_scored else {"answer": said, "parsed": outcome.parsed if is_given else None}
    is_own = outcome.route != "server"
    return {
        "id": id_, "suite": suite, **own, "confidence": weighed.confidence if is_own else None,
        "is_calibrated": weighed.is_calibrated and is_own,
        "set": list(weighed.set) if weighed.set is not None else None, "coverage": weighed.coverage,
        "precision": weighed.precision, "band": outcome.band, "route": outcome.route, "reason": outcome.reason,
        "guard": outcome.guard, "escalation": outcome.escalation, "review": outcome.review,
        "note": None if is_given else outcome.text,
    }  # fmt: skip


def _suite_entry(question: Any) -> dict[str, Any]:
    suite, calibration = question.suite, question.calibration
    return {
        "id": suite.suite, "task": suite.task, "description": suite.description, "labels": list(question.labels),
        "slices": list(suite.slices), "is_calibrated": calibration is not None,
        "promises": [
            {"precision": fit.precision, "threshold": fit.threshold, "share_answered": fit.coverage}
            for fit in (calibration.abstention if calibration else ()) if fit.found
        ],
        "why_not": question.why_not() or None,
    }  # fmt: skip


async def _small_body(request: Request) -> bytes:
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > ADMIN_BODY_BYTES:
            raise ApiError(413, f"the body is over {ADMIN_BODY_BYTES:,} bytes", code="body_too_large")
        parts.append(part)
    return b"".join(parts) or b"{}"


def _json(body: Any, status: int = 200) -> Any:
    from starlette.responses import Response

    text = json.dumps(body, ensure_ascii=False, allow_nan=False)
    headers = {"cache-control": "no-store", "x-content-type-options": "nosniff"}
    return Response(text, status, headers, "application/json")


def _error_response(error: ApiError) -> Any:
    response = _json(error.body(), error.status)
    if error.status == 401:
        response.headers["www-authenticate"] = "Bearer"
    return response


async def _told_error(request: Request, error: Exception) -> Any:  # noqa: ARG001
    assert isinstance(error, ApiError)
    return _error_response(error)


async def _no_such(request: Request, error: Exception) -> Any:
    status = getattr(error, "status_code", 500)
    what = "no such path" if status == 404 else f"not with {request.method}" if status == 405 else "refused"
    return _error_response(ApiError(status, f"{request.url.path}: {what}", code="not_found"))
