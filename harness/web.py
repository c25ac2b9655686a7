"""The terminal program in a browser on this machine, for whoever has the token of this start."""

from __future__ import annotations

import hmac
import secrets
import shlex
import socket
import sys
from typing import TYPE_CHECKING, Any

from harness.errors import DataError

if TYPE_CHECKING:
    from aiohttp import web

HOST = "127.0.0.1"
COOKIE = "harness_token"
OWN_HOSTS = ("127.0.0.1", "localhost")


def command(*, ascii_only: bool = False) -> str:
    """What each browser window runs: a process of its own, as in a terminal."""
    words = [sys.executable, "-P", "-m", "harness", "board"]
    return shlex.join(words + (["--ascii"] if ascii_only else []))


def free_port() -> int:
    """A port of the loopback that nobody listens on."""
    with socket.socket() as found:
        found.bind((HOST, 0))
        return int(found.getsockname()[1])


def make_server(port: int, *, token: str | None = None, ascii_only: bool = False) -> Any:
    """A `textual_serve` server that answers on the loopback, and only who shows the token.

    textual-serve has no authentication of its own, and a page of any site can ask a port of this machine:
    so the token is asked for on every path, the Host header must name this machine (a name that is made
    to point here is refused), and a web socket must come from the server's own page.

    Raises:
        DataError: textual-serve is not installed.
    """
    try:
        from textual_serve.server import Server
    except ImportError as error:
        hint = "pip install 'dragongate[web]'"
        raise DataError("the browser needs the extra `web`", hint=hint) from error

    class TokenServer(Server):
        """Refuses whoever has not shown the token."""

        def __init__(self) -> None:
            super().__init__(command(ascii_only=ascii_only), host=HOST, port=port, title="harness")
            self.token = token or secrets.token_urlsafe(32)

        @property
        def url(self) -> str:
            """What is opened in the browser; the token is taken over into a cookie at once."""
            return f"http://{HOST}:{port}/?token={self.token}"

        async def _make_app(self) -> web.Application:
            app = await super()._make_app()
            app.middlewares.append(guard(self.token, port))
            return app

        async def on_startup(self, app: web.Application) -> None:
            """Says nothing: whoever started the server has been told the address."""

        def initialize_logging(self) -> None:
            """Leaves logging alone: requests hold the token."""

    return TokenServer()


def guard(token: str, port: int) -> Any:
    """The middleware that lets a request through, turns the token into a cookie, or refuses."""
    from aiohttp import web

    @web.middleware
    async def middleware(request: web.Request, handler: Any) -> web.StreamResponse:
        if not _is_own(request.host, port) or not _is_own_origin(request.headers.get("Origin"), port):
            raise web.HTTPForbidden(text="this address is not the one that harness was started for\n")
        if _is_token(request.query.get("token"), token):
            answer = web.HTTPSeeOther(request.path)
            answer.set_cookie(COOKIE, token, httponly=True, samesite="Strict")
            raise answer
        if not _is_token(request.cookies.get(COOKIE), token):
            raise web.HTTPUnauthorized(
                text="open the address that `harness web` printed: it holds the token\n"
            )
        response: web.StreamResponse = await handler(request)
        return response

    return middleware


def _is_token(shown: str | None, token: str) -> bool:
    return shown is not None and hmac.compare_digest(shown.encode(), token.encode())


def _is_own(host: str | None, port: int) -> bool:
    return host in {f"{name}:{port}" for name in OWN_HOSTS}


def _is_own_origin(origin: str | None, port: int) -> bool:
    return origin is None or origin in {f"http://{name}:{port}" for name in OWN_HOSTS}


def serve(port: int, *, ascii_only: bool, say: Any) -> None:
    """Serves until ctrl+c; `say` is given the address with its token. Jobs keep running."""
    server = make_server(port or free_port(), ascii_only=ascii_only)
    say(server.url)
    server.serve()
