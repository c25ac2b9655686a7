"""What a client sees of the server: answers, streams, errors, limits, keys, and facts in headers."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from harness.edge.base import Failed
from harness.edge.limits import Limits
from harness.edge.served import Release, open_release
from harness.errors import RefusedError
from tests.edge.serving import ADMIN, KEY, NOBODY, ScriptedEngine, client_of, make_release, shared_release
from tests.export.releases import flip

CHAT = {"messages": [{"role": "user", "content": "nonce 17"}]}


@pytest.fixture
def release() -> Release:
    return shared_release()


def events(text: str) -> list[Any]:
    lines = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


def log_lines(home: Path) -> list[dict[str, Any]]:
    path = home / "serving" / "clauses" / "requests.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


async def test_a_chat_is_answered_in_openais_form_with_its_facts_in_headers(
    release: Release, tmp_path: Path
) -> None:
    async with client_of(release, ScriptedEngine(), tmp_path) as (client, _):
        reply = await client.post("/chat/completions", json={**CHAT, "model": "clauses", "max_tokens": 8})

    body = reply.json()
    assert (reply.status_code, body["object"]) == (200, "chat.completion")
    assert body["choices"][0]["message"] == {
        "role": "assistant",
        "content": "echo nonce 17",
        "refusal": None,
    }
    assert body["choices"][0]["finish_reason"] == "stop"
    assert body["usage"]["prompt_tokens"] == 7
    assert body["usage"]["prompt_tokens_details"] == {"cached_tokens": 3}
    assert body["usage"]["total_tokens"] == 10
    assert reply.headers["x-model-digest"] == release.sha256
    assert reply.headers["x-release"] == release.digest
    assert (reply.headers["x-route"], reply.headers["x-confidence"]) == ("edge", "unknown")
    assert "access-control-allow-origin" not in reply.headers


async def test_a_stream_gives_the_pieces_in_order_then_usage_then_done(
    release: Release, tmp_path: Path
) -> None:
    asked = {**CHAT, "stream": True, "stream_options": {"include_usage": True}, "logprobs": True}
    async with client_of(release, ScriptedEngine(), tmp_path) as (client, _):
        reply = await client.post("/chat/completions", json=asked)

    *chunks, last = events(reply.text)
    assert last == "[DONE]"
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    pieces = [chunk["choices"][0]["delta"].get("content") for chunk in chunks[1:-2]]
    assert pieces == ["echo", " nonce", " 17"]
    assert chunks[-2]["choices"][0]["finish_reason"] == "stop"
    tokens = chunks[-2]["choices"][0]["logprobs"]["content"]
    assert [token["token"] for token in tokens] == pieces
    assert chunks[-1]["usage"]["completion_tokens"] == 3
    assert len({chunk["id"] for chunk in chunks}) == 1


async def test_a_completion_is_raw_text(release: Release, tmp_path: Path) -> None:
    engine = ScriptedEngine()
    async with client_of(release, engine, tmp_path) as (client, _):
        reply = await client.post("/completions", json={"prompt": "once", "logprobs": 1, "stop": "\n"})

    (choice,) = reply.json()["choices"]
    assert choice["text"] == "echo once"
    assert choice["logprobs"] == {
        "tokens": ["echo", " once"], "token_logprobs": [-0.5, -0.5], "top_logprobs": None, "text_offset": [0, 4],
    }  # fmt: skip
    assert (engine.asked[0].text, engine.asked[0].messages, engine.asked[0].stop) == ("once", (), ("\n",))


async def test_the_engine_is_asked_what_the_client_said(release: Release, tmp_path: Path) -> None:
    engine = ScriptedEngine(adapters={"tenant-a": "a" * 64})
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}}
    async with client_of(release, engine, tmp_path) as (client, _):
        reply = await client.post(
            "/chat/completions",
            json={
                "model": "tenant-a", "max_completion_tokens": 5, "temperature": 0.5, "top_p": 0.9, "seed": 3,
                "stop": ["END"], "messages": [{"role": "developer", "content": "Be brief."}, {"role": "user",
                "content": [{"type": "text", "text": "Hello"}]}],
                "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}},
            },
        )  # fmt: skip

    (ask,) = engine.asked
    assert ask.messages == (("system", "Be brief."), ("user", "Hello"))
    assert (ask.max_new_tokens, ask.temperature, ask.top_p, ask.seed) == (5, 0.5, 0.9, 3)
    assert (ask.stop, ask.adapter) == (("END",), "tenant-a")
    assert ask.grammar is not None
    assert '"\\"n\\"" colon integer' in ask.grammar
    assert ask.budget_ms is not None
    assert 0 < ask.budget_ms <= 60_000
    # The scripted engine knows no grammar, and text that is no JSON is not passed on as JSON.
    assert reply.headers["x-guard"] == "schema"
    assert reply.json()["choices"][0]["finish_reason"] == "content_filter"


@pytest.mark.parametrize(
    ("change", "status", "param"),
    [
        ({"messages": []}, 400, "messages"),
        ({"messages": [{"role": "robot", "content": "x"}]}, 400, "messages[0]"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400, "messages[0]"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, 400, "messages"),
        ({"max_tokens": 0}, 400, "max_tokens"),
        ({"max_tokens": 10**9}, 400, "max_tokens"),
        ({"max_tokens": True}, 400, "max_tokens"),
        ({"temperature": "hot"}, 400, "temperature"),
        ({"temperature": 9}, 400, "temperature"),
        ({"n": 2}, 400, "n"),
        ({"tools": []}, 400, "tools"),
        ({"stop": [""]}, 400, "stop"),
        ({"stop": ["a"] * 9}, 400, "stop"),
        ({"stream": 1}, 400, "stream"),
        ({"grammar": "root ::= root"}, 400, "grammar"),
        ({"response_format": {"type": "xml"}}, 400, "response_format"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "string", "pattern": "a"}}}},
            400,
            "response_format.json_schema",
        ),
        ({"model": "gpt-9"}, 404, "model"),
    ],
)  # fmt: skip
async def test_a_wrong_argument_is_named_and_the_engine_is_not_asked(
    release: Release, tmp_path: Path, change: dict[str, Any], status: int, param: str
) -> None:
    engine = ScriptedEngine()
    async with client_of(release, engine, tmp_path) as (client, _):
        reply = await client.post("/chat/completions", json={**CHAT, **change})

    error = reply.json()["error"]
    assert (reply.status_code, error["param"]) == (status, param)
    assert set(error) == {"message", "type", "param", "code"}
    assert engine.asked == []


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"{", "invalid_json"),
        (b"[]", "invalid_json"),
        (b'{"messages": [], "messages": []}', "invalid_json"),
        (b'{"temperature": NaN}', "invalid_json"),
        (b"\xff", "invalid_json"),
        (b"[" * 100_000, "invalid_json"),
        (b"", "invalid_json"),
    ],
)
async def test_a_body_that_is_no_strict_json_is_refused(
    release: Release, tmp_path: Path, content: bytes, code: str
) -> None:
    async with client_of(release, ScriptedEngine(), tmp_path) as (client, _):
        reply = await client.post(
            "/chat/completions", content=content, headers={"content-type": "application/json"}
        )

    assert (reply.status_code, reply.json()["error"]["code"]) == (400, code)


async def test_a_large_body_is_refused_with_and_without_a_length(release: Release, tmp_path: Path) -> None:
    async def parts() -> Any:
        for _ in range(64):
            yield b" " * 1024

    json_type = {"content-type": "application/json"}
    limits = Limits(body_bytes=10_000)
    async with client_of(release, ScriptedEngine(), tmp_path, limits=limits) as (client, _):
        told = await client.post("/chat/completions", content=b" " * 20_000, headers=json_type)
        streamed = await client.post("/chat/completions", content=parts(), headers=json_type)

    assert (told.status_code, streamed.status_code) == (413, 413)
    assert told.headers["connection"] == "close"


async def test_what_a_page_of_another_origin_can_send_without_asking_is_refused(
    release: Release, tmp_path: Path
) -> None:
    async with client_of(release, ScriptedEngine(), tmp_path) as (client, _):
        reply = await client.post(
            "/chat/completions", content=json.dumps(CHAT), headers={"content-type": "text/plain"}
        )
        preflight = await client.options("/chat/completions", headers={"origin": "https://elsewhere"})

    assert reply.status_code == 415
    assert preflight.status_code == 405
    assert not [name for name in preflight.headers if name.startswith("access-control")]


async def test_nobody_comes_in_without_the_key(release: Release, tmp_path: Path) -> None:
    paths = ["/models", "/suites", "/nothing"]
    async with client_of(release, ScriptedEngine(), tmp_path, key=None) as (client, _):
        codes = [(await client.get(path)).status_code for path in paths]
        wrong = await client.post(
            "/chat/completions", json=CHAT, headers={"authorization": f"Bearer {KEY[:-1]}x"}
        )
        basic = await client.get("/models", headers={"authorization": f"Basic {KEY}"})
        metrics = await client.get("http://edge/metrics")
        health = await client.get("http://edge/health")

    assert codes == [401, 401, 401]
    assert (wrong.status_code, basic.status_code, metrics.status_code) == (401, 401, 401)
    assert wrong.json()["error"]["code"] == "invalid_api_key"
    assert (health.status_code, health.json()) == (200, {"status": "ok"})


async def test_the_api_key_does_not_open_the_admin_paths(release: Release, tmp_path: Path) -> None:
    async with client_of(release, ScriptedEngine(), tmp_path) as (client, serving):
        own = await client.post("http://edge/admin/rollback")
        other = await client.get("/models", headers={"authorization": f"Bearer {ADMIN}"})
        serving.admin_digest = None
        closed = await client.post("http://edge/admin/rollback", headers={"authorization": f"Bearer {ADMIN}"})

    assert (own.status_code, other.status_code, closed.status_code) == (401, 401, 403)


@pytest.mark.parametrize(
    ("trouble", "status", "code"),
    [
        ("too_long", 400, "context_length_exceeded"),
        ("overloaded", 429, "overloaded"),
        ("crashed", 500, "engine_crashed"),
        ("closed", 503, "shutting_down"),
    ],
)
@pytest.mark.parametrize("is_stream", [False, True])
async def test_an_engine_without_an_answer_is_an_error_that_says_so(
    release: Release, tmp_path: Path, trouble: Any, status: int, code: str, is_stream: bool
) -> None:
    engine = ScriptedEngine(trouble=lambda ask: Failed(trouble, "why"))
    async with client_of(release, engine, tmp_path) as (client, _):
        reply = await client.post("/chat/completions", json={**CHAT, "stream": is_stream})

    assert (reply.status_code, reply.json()["error"]["code"]) == (status, code)
    assert reply.json()["error"]["message"] == "why"
    assert [line["error"] for line in log_lines(tmp_path)] == [code]


async def test_what_is_too_much_at_once_is_refused_and_what_was_accepted_is_answered(
    release: Release, tmp_path: Path
) -> None:
    engine = ScriptedEngine()
    engine.gate.clear()
    async with client_of(release, engine, tmp_path, limits=Limits(running=2, waiting=1)) as (client, _):
        accepted = [asyncio.create_task(client.post("/chat/completions", json=CHAT)) for _ in range(3)]
        await asyncio.to_thread(engine.await_asked, 3)
        refused = await client.post("/chat/completions", json=CHAT)
        engine.gate.set()
        codes = [reply.status_code for reply in await asyncio.gather(*accepted)]
        again = await client.post("/chat/completions", json=CHAT)

    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
    assert refused.json()["error"]["type"] == "rate_limit_error"
    assert codes == [200, 200, 200]
    assert again.status_code == 200


async def test_what_is_served_is_listed(release: Release, tmp_path: Path) -> None:
    engine = ScriptedEngine(adapters={"tenant-a": "a" * 64})
    async with client_of(release, engine, tmp_path) as (client, _):
        models = (await client.get("/models")).json()["data"]
        one = await client.get("/models/tenant-a")
        none = await client.get("/models/other")
        suites = (await client.get("/suites")).json()["data"]

    assert [(model["id"], model["digest"]) for model in models] == [
        ("clauses", release.sha256),
        ("tenant-a", "a" * 64),
    ]
    assert one.json()["id"] == "tenant-a"
    assert (none.status_code, none.json()["error"]["code"]) == (404, "model_not_found")
    assert (suites[0]["id"], suites[0]["labels"]) == ("clauses", ["cap", "fee", "term"])


async def test_metrics_count_what_happened(release: Release, tmp_path: Path) -> None:
    async with client_of(release, ScriptedEngine(), tmp_path) as (client, _):
        await client.post("/chat/completions", json=CHAT)
        await client.post("/chat/completions", json={"messages": 1})
        text = (await client.get("http://edge/metrics")).text

    assert 'harness_requests_total{endpoint="chat",status="200"} 1' in text
    assert 'harness_requests_total{endpoint="chat",status="400"} 1' in text
    assert 'harness_request_seconds_bucket{le="+Inf"} 2' in text
    assert "harness_engine_ready 1" in text
    assert f'model="{release.sha256}"' in text


async def test_the_log_has_ids_hashes_and_counts_and_no_text(release: Release, tmp_path: Path) -> None:
    async with client_of(release, ScriptedEngine(), tmp_path) as (client, _):
        reply = await client.post("/chat/completions", json=CHAT)
        await client.post("/chat/completions", json=CHAT)

    first, second = log_lines(tmp_path)
    assert first["id"] == reply.headers["x-request-id"]
    assert (first["status"], first["route"], first["finish"], first["prompt_tok"]) == (200, "edge", "stop", 7)
    assert first["input_hash"] == second["input_hash"]
    assert first["release"] == release.digest
    assert "nonce" not in json.dumps([first, second])


async def test_texts_are_logged_only_where_asked_and_then_masked(release: Release, tmp_path: Path) -> None:
    chat = {"messages": [{"role": "user", "content": "write to ann@acme-mail.com please"}]}
    async with client_of(release, ScriptedEngine(), tmp_path, has_text=True) as (client, _):
        await client.post("/chat/completions", json=chat)

    (line,) = log_lines(tmp_path)
    assert line["input"] == "write to [email] please"
    assert line["answer"] == "echo write to [email] please"


def test_a_release_with_a_flipped_byte_is_refused_by_name(tmp_path: Path) -> None:
    release = make_release(tmp_path)
    flip(release.model, release.model.stat().st_size // 2)

    with pytest.raises(RefusedError, match="digests"):
        open_release(release.folder, NOBODY)
