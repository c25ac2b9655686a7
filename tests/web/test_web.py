"""The browser's way in: nobody without the token, no other machine's name, no other site's page."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("textual_serve", reason="the extra `web` is not installed")

from aiohttp import ClientConnectorError, ClientSession, ClientWebSocketResponse, CookieJar, WSMsgType, web

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


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """What `harness web` prints, in a process of its own: it leaves the windows' processes to itself."""
    env = {**os.environ, "HARNESS_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-u", "-m", "harness", "web"]
    with subprocess.Popen(
        command, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as served:
        assert served.stdout is not None
        yield served.stdout.readline().strip()
        served.terminate()


async def _connected(client: ClientSession, url: str) -> ClientWebSocketResponse:
    """The socket, as soon as the server answers: it names its address before it does."""
    async with asyncio.timeout(30):
        while True:
            try:
                return await client.ws_connect(url)
            except ClientConnectorError:
                await asyncio.sleep(0.05)


async def test_with_the_token_the_socket_shows_the_board(address: str) -> None:
    place, _, shown_token = address.partition("/?token=")
    shown = b""
    async with ClientSession(headers={"Cookie": f"{COOKIE}={shown_token}"}) as client:
        socket = await _connected(client, f"{place}/ws?width=100&height=30")
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
