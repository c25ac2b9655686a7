"""The browser's way in: nobody without the token, no other machine's name, no other site's page."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("textual_serve", reason="the extra `web` is not installed")

from aiohttp import ClientSession, CookieJar, WSMsgType, web

from harness.web import COOKIE, HOST, command, free_port, make_server

TOKEN = "a-token-of-this-test"


@pytest.fixture
async def port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[int]:
    """A server at work, with an empty home."""
    monkeypatch.setenv("HARNESS_HOME", str(tmp_path / "home"))
    found = free_port()
    runner = web.AppRunner(await make_server(found, token=TOKEN)._make_app())
    await runner.setup()
    await web.TCPSite(runner, HOST, found).start()
    yield found
    await runner.cleanup()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    await asyncio.gather(*others, return_exceptions=True)  # the windows' processes end in tasks of their own


async def _get(port: int, path: str, **more: Any) -> tuple[int, str, dict[str, str]]:
    async with (
        ClientSession(cookie_jar=CookieJar(unsafe=True)) as client,
        client.get(f"http://{HOST}:{port}{path}", allow_redirects=False, **more) as answer,
    ):
        return answer.status, await answer.text(), {name: one.value for name, one in answer.cookies.items()}


@pytest.mark.parametrize(
    "path", ["/", "/ws", "/static/js/textual.js", "/download/x", "/?token=", "/?token=wrong"]
)
async def test_without_the_token_everything_is_refused(path: str, port: int) -> None:
    status, text, cookies = await _get(port, path)
    assert status == 401
    assert TOKEN not in text
    assert not cookies


async def test_the_token_becomes_a_cookie_and_leaves_the_address(port: int) -> None:
    status, _, cookies = await _get(port, f"/?token={TOKEN}")
    assert status == 303
    assert cookies == {COOKIE: TOKEN}
    status, text, _ = await _get(port, "/", cookies=cookies)
    assert status == 200
    assert TOKEN not in text


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "evil.example:80"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
    ],
)
async def test_another_name_or_another_sites_page_is_refused_even_with_the_token(
    headers: dict[str, str], port: int
) -> None:
    status, _, _ = await _get(port, "/", headers=headers, cookies={COOKIE: TOKEN})
    assert status == 403


async def test_a_page_of_another_site_gets_no_socket(port: int) -> None:
    async with ClientSession(cookies={COOKIE: TOKEN}, cookie_jar=None) as client:
        with pytest.raises(Exception, match="403"):
            await client.ws_connect(
                f"http://{HOST}:{port}/ws",
                origin="http://evil.example",
                headers={"Cookie": f"{COOKIE}={TOKEN}"},
            )


async def test_with_the_token_the_socket_shows_the_board(port: int) -> None:
    shown = b""
    async with ClientSession() as client:
        socket = await client.ws_connect(
            f"http://{HOST}:{port}/ws?width=100&height=30", headers={"Cookie": f"{COOKIE}={TOKEN}"}
        )
        async with asyncio.timeout(60):
            async for message in socket:
                if message.type is WSMsgType.BINARY:
                    shown += message.data
                if b"No runs yet" in shown:
                    break
        await socket.close()
    assert b"No runs yet" in shown


def test_the_server_answers_on_the_loopback_alone() -> None:
    server = make_server(free_port())
    assert server.host == "127.0.0.1"
    assert len(server.token) >= 40
    assert make_server(free_port()).token != server.token
    assert " board" in command()
