"""The official client of OpenAI's API takes what the server says: chats, streams, models, errors."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from harness.edge.base import Failed
from harness.edge.limits import Limits
from tests.edge.serving import KEY, ScriptedEngine, client_of, listening, shared_release

openai = pytest.importorskip("openai")
ASKED: Any = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "nonce 17"}]


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Any]:
    engine = ScriptedEngine(
        trouble=lambda ask: Failed("too_long", "too many tokens") if "long" in str(ask.messages) else None
    )
    async with (
        client_of(shared_release(), engine, tmp_path, limits=Limits(body_bytes=20_000)) as (_, serving),
        listening(serving) as url,
        openai.AsyncOpenAI(base_url=url, api_key=KEY, max_retries=0) as found,
    ):
        yield found


async def test_a_chat(client: Any) -> None:
    found = await client.chat.completions.create(
        model="clauses", messages=ASKED, max_completion_tokens=8, temperature=0, seed=1, logprobs=True
    )

    assert found.choices[0].message.content == "echo nonce 17"
    assert found.choices[0].finish_reason == "stop"
    assert found.usage.total_tokens == 10
    assert [token.token for token in found.choices[0].logprobs.content] == ["echo", " nonce", " 17"]


async def test_a_stream(client: Any) -> None:
    stream = await client.chat.completions.create(
        model="clauses", messages=ASKED, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]

    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == "echo nonce 17"
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert chunks[-1].usage.prompt_tokens == 7


async def test_a_completion_and_its_stream(client: Any) -> None:
    whole = await client.completions.create(model="clauses", prompt="once", max_tokens=4)
    stream = await client.completions.create(model="clauses", prompt="once", stream=True)

    assert whole.choices[0].text == "echo once"
    assert "".join([chunk.choices[0].text async for chunk in stream]) == "echo once"


async def test_the_models(client: Any) -> None:
    listed = [model.id async for model in client.models.list()]
    one = await client.models.retrieve("clauses")

    assert listed == ["clauses"]
    assert one.object == "model"


async def test_the_facts_are_in_the_headers(client: Any) -> None:
    raw = await client.chat.completions.with_raw_response.create(model="clauses", messages=ASKED)

    assert raw.headers["x-model-digest"] == shared_release().sha256
    assert raw.headers["x-route"] == "edge"


async def test_structured_answers_are_asked_for_as_the_client_asks(client: Any) -> None:
    schema = {
        "type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False,
    }  # fmt: skip
    form = {"type": "json_schema", "json_schema": {"name": "n", "strict": True, "schema": schema}}

    found = await client.chat.completions.create(model="clauses", messages=ASKED, response_format=form)

    assert found.choices[0].finish_reason == "content_filter"  # the scripted engine writes no JSON


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"model": "gpt-9"}, "NotFoundError"),
        ({"temperature": 7}, "BadRequestError"),
        ({"messages": [{"role": "user", "content": "long"}]}, "BadRequestError"),
        ({"messages": [{"role": "user", "content": "x" * 30_000}]}, "APIStatusError"),
    ],
)
async def test_errors_are_the_clients_own(client: Any, change: dict[str, Any], error: str) -> None:
    with pytest.raises(getattr(openai, error)) as found:
        await client.chat.completions.create(**{"model": "clauses", "messages": ASKED, **change})

    assert found.value.body["message"]


async def test_a_wrong_key_is_an_authentication_error(client: Any) -> None:
    with pytest.raises(openai.AuthenticationError):
        await client.with_options(api_key="wrong").models.list()
