"""Releases exchanged under load: no request is dropped, and going back takes no loading."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx2
import pytest

from harness.edge.base import Failed
from harness.edge.served import Release
from harness.edge.switch import Switch
from harness.errors import ModelError
from tests.edge.serving import ADMIN, ScriptedEngine, client_of, echo, shared_release

AS_ADMIN = {"authorization": f"Bearer {ADMIN}"}


def older() -> Release:
    return shared_release(sequence=1_001, size=41)


def newer() -> Release:
    return shared_release(sequence=1_002, size=42)


def engine_of(release: Release) -> ScriptedEngine:
    """Says which release it is."""
    return ScriptedEngine(lambda ask: f"{release.order.sequence} {echo(ask)}", digest=release.sha256)


async def ask(client: httpx2.AsyncClient, text: str) -> tuple[int, str, str]:
    body = {"messages": [{"role": "user", "content": text}]}
    reply = await client.post("/chat/completions", json=body)
    said = reply.json()
    content = said["choices"][0]["message"]["content"] if reply.status_code == 200 else said["error"]["code"]
    return reply.status_code, content, reply.headers["x-release"]


async def test_no_request_is_dropped_and_no_answer_is_another_ones_while_releases_change(
    tmp_path: Path,
) -> None:
    async with client_of(older(), engine_of(older()), tmp_path, open_engine=engine_of) as (client, serving):
        answers: list[tuple[str, tuple[int, str, str]]] = []

        async def ask_on(name: str) -> None:
            for n in range(12):
                nonce = f"{name}-{n}"
                answers.append((nonce, await ask(client, nonce)))

        async def change() -> None:
            for release in (newer(), older(), newer()):
                await asyncio.sleep(0)
                await serving.change(release)

        await asyncio.gather(*(ask_on(f"client{n}") for n in range(8)), change())
        last = await ask(client, "last")

    sequences = {older().digest: 1_001, newer().digest: 1_002}
    assert len(answers) == 96
    for nonce, (status, content, release) in answers:
        assert (status, content) == (200, f"{sequences[release]} echo {nonce}")
    assert last == (200, "1002 echo last", newer().digest)


async def test_a_request_under_way_ends_on_the_engine_that_took_it(tmp_path: Path) -> None:
    first = engine_of(older())
    first.gate.clear()
    async with client_of(older(), first, tmp_path, open_engine=engine_of) as (client, serving):
        under_way = asyncio.create_task(ask(client, "early"))
        await asyncio.to_thread(first.await_asked, 1)
        await serving.change(newer())
        late = await ask(client, "late")
        assert not first.is_closed
        first.gate.set()
        early = await under_way

    assert early == (200, "1001 echo early", older().digest)
    assert late == (200, "1002 echo late", newer().digest)


async def test_going_back_opens_no_engine(tmp_path: Path) -> None:
    opened: list[str] = []

    def open_engine(release: Release) -> ScriptedEngine:
        opened.append(release.digest)
        return engine_of(release)

    async with client_of(older(), engine_of(older()), tmp_path, open_engine=open_engine) as (client, serving):
        await serving.change(newer())
        reply = await client.post("http://edge/admin/rollback", headers=AS_ADMIN)
        back = await ask(client, "x")

    assert opened == [newer().digest]
    assert (reply.json()["release"], reply.json()["was_warm"]) == (older().digest, True)
    assert back == (200, "1001 echo x", older().digest)
    assert reply.json()["ms"] < 1_000
    log = [
        json.loads(line) for line in (tmp_path / "serving/clauses/requests.jsonl").read_text().splitlines()
    ]
    assert [line["event"] for line in log] == ["switch", "rollback", "request"]
    assert log[1]["before"] == newer().digest


async def test_an_engine_that_does_not_answer_changes_nothing(tmp_path: Path) -> None:
    broken = ScriptedEngine(trouble=lambda ask: Failed("crashed", "the process died twice"))
    async with client_of(older(), engine_of(older()), tmp_path, open_engine=lambda _: broken) as (
        client,
        serving,
    ):
        with pytest.raises(ModelError, match="died twice"):
            await serving.change(newer())
        still = await ask(client, "x")
        refused = serving.metrics.read("switches_total", outcome="refused")

    assert still == (200, "1001 echo x", older().digest)
    assert broken.is_closed
    assert refused == 1


@pytest.mark.parametrize(
    ("release", "why"),
    [
        (lambda: shared_release(sequence=1_000, size=40), "not shown to be newer"),
        (lambda: shared_release(sequence=1_005, recipe={"recipe": "other"}), "of other"),
    ],
)
async def test_an_older_release_or_another_recipes_is_refused_over_the_wire(
    tmp_path: Path, release: Any, why: str
) -> None:
    async with client_of(older(), engine_of(older()), tmp_path, open_engine=engine_of) as (client, serving):
        body = {"release": str(release().folder)}
        reply = await client.post("http://edge/admin/switch", json=body, headers=AS_ADMIN)
        none = await client.post(
            "http://edge/admin/switch", json={"release": str(tmp_path / "no")}, headers=AS_ADMIN
        )
        now = serving.release.digest

    assert (reply.status_code, none.status_code) == (409, 409)
    assert why in reply.json()["error"]["message"]
    assert now == older().digest


async def test_a_newer_release_is_taken_over_the_wire(tmp_path: Path) -> None:
    async with client_of(older(), engine_of(older()), tmp_path, open_engine=engine_of) as (client, _):
        body = {"release": str(newer().folder)}
        reply = await client.post("http://edge/admin/switch", json=body, headers=AS_ADMIN)

    assert (reply.status_code, reply.json()["release"]) == (200, newer().digest)


async def test_the_engine_before_is_kept_for_a_while_and_then_closed() -> None:
    first = engine_of(older())
    switch = Switch(older(), first, engine_of, kept_warm_s=0.0)

    await switch.to(newer())
    while switch.before is not None or not first.is_closed:
        await asyncio.sleep(0.001)
    await switch.close(0.0)

    assert switch.current.release == newer()


async def test_a_third_release_closes_the_first_one_after_its_last_request(tmp_path: Path) -> None:
    third = shared_release(sequence=1_003, size=43)
    first = engine_of(older())
    first.gate.clear()
    async with client_of(older(), first, tmp_path, open_engine=engine_of) as (client, serving):
        under_way = asyncio.create_task(ask(client, "early"))
        await asyncio.to_thread(first.await_asked, 1)
        await serving.change(newer())
        await serving.change(third)
        assert not first.is_closed
        first.gate.set()
        early = await under_way
        while not first.is_closed:
            await asyncio.sleep(0.001)

    assert early == (200, "1001 echo early", older().digest)


async def test_two_orders_at_once_are_done_one_after_the_other() -> None:
    third = shared_release(sequence=1_003, size=43)
    switch = Switch(older(), engine_of(older()), engine_of)

    await asyncio.gather(switch.to(newer()), switch.to(third))

    assert switch.current.release.digest == third.digest
    assert switch.before is not None
    assert switch.before.release.digest == newer().digest
    await switch.close(0.0)
