"""References to endpoints, keys that stay secret, and what a server's word is worth."""

from __future__ import annotations

import asyncio
import json
import logging
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import HarnessError, ModelError
from harness.models.base import GenerateRequest, Message, Prompt
from harness.models.cache import is_worth_keeping
from harness.models.identity import is_by_content
from harness.models.load import open_model, resolve_base
from harness.models.openai import OpenAIModel
from harness.models.openai_limiter import Limiter
from harness.models.openai_reference import parse_endpoint, read_key
from harness.models.openai_wire import Patience, retry_after_s
from tests.models import openai_fake as fake
from tests.models.openai_fake import Fake, served

KEY = "sk-very-secret-0123456789"


def test_a_reference_names_address_model_and_settings() -> None:
    found = parse_endpoint(
        "openai:https://host:8443/openai/v1/?pin=v%202&key=MY_KEY&concurrency=8&timeout_s=30#a/b:7b"
    )

    assert found == ("https://host:8443/openai/v1", "a/b:7b", "v 2", "MY_KEY", 8, 30)
    assert (found.root, found.host) == ("https://host:8443/openai", "host")
    assert parse_endpoint("openai:http://[::1]:80/v1").is_local
    assert not found.is_local


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("openai:", "no http:// or https:// address"),
        ("openai:gpt", "no http:// or https:// address"),
        ("openai:ftp://host/v1#m", "no http:// or https:// address"),
        ("openai:http:///v1#m", "no http:// or https:// address"),
        ("openai:http://host:99999/v1#m", "Port out of range"),
        ("openai:http://host/v1?colour=red#m", "settings after ? are pin, key, concurrency, timeout_s"),
        ("openai:http://host/v1?pin=a&pin=b#m", "each once"),
        ("openai:http://host/v1?concurrency=0#m", "wanted a whole number from 1 to 256"),
        ("openai:http://host/v1?timeout_s=1e9#m", "wanted a whole number"),
        ("openai:http://[::1/v1#m", "Invalid IPv6"),
    ],
)
def test_a_wrong_reference_says_what_is_wanted(reference: str, said: str) -> None:
    with pytest.raises(ModelError) as caught:
        parse_endpoint(reference)

    assert said in caught.value.message


@pytest.mark.parametrize(
    "reference",
    [
        f"openai:https://user:{KEY}@host/v1#m",
        f"openai:https://{KEY}@host/v1#m",
        f"openai:https://host/v1?key={KEY}#m",
    ],
)
def test_a_key_in_a_reference_is_refused_and_not_repeated(reference: str) -> None:
    with pytest.raises(ModelError) as caught:
        parse_endpoint(reference)

    assert KEY not in caught.value.message + caught.value.hint


@given(st.text(max_size=40))
def test_no_reference_raises_anything_else(text: str) -> None:
    for reference in (f"openai:{text}", f"openai:http://{text}"):
        try:
            parse_endpoint(reference)
        except HarnessError:
            continue


def test_keys_go_where_they_belong(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HARNESS_API_KEY", "OPENAI_API_KEY", "MINE"):
        monkeypatch.delenv(name, raising=False)
    assert read_key(parse_endpoint("openai:https://host/v1#m")) is None
    monkeypatch.setenv("OPENAI_API_KEY", "for openai alone")
    assert read_key(parse_endpoint("openai:https://host/v1#m")) is None
    with pytest.raises(ModelError, match="header"):
        read_key(parse_endpoint("openai:https://api.openai.com/v1#m"))
    monkeypatch.setenv("HARNESS_API_KEY", KEY)
    assert read_key(parse_endpoint("openai:https://host/v1#m")) == KEY
    for near in ("127.0.0.1", "localhost", "10.1.2.3", "gpu-box", "[::1]"):
        assert read_key(parse_endpoint(f"openai:http://{near}/v1#m")) == KEY
    with pytest.raises(ModelError, match="unencrypted"):
        read_key(parse_endpoint("openai:http://example.com/v1#m"))
    with pytest.raises(ModelError, match=r"\$MINE is not set"):
        read_key(parse_endpoint("openai:https://host/v1?key=MINE#m"))


def test_the_key_is_sent_and_is_in_no_text(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The server repeats it wherever it can: in what it writes, in complaints, in other replies."""
    monkeypatch.setenv("HARNESS_API_KEY", KEY)
    caplog.set_level(logging.INFO)
    said: list[Any] = []
    with served(Fake(key=KEY, answer=lambda _: f"you sent Bearer {KEY}")) as server:
        model = OpenAIModel(parse_endpoint(f"openai:{server.url}#tiny"), patience=Patience(attempts=1))
        server.faults = [
            None,
            fake.status(400, f"bad key {KEY}"),
            fake.status(500, KEY),
            fake.raw(KEY.encode()),
        ]
        server.faults += [fake.raw(b"{}", Content_Type=KEY), fake.raw(json.dumps({"error": KEY}).encode())]
        model._gives_logprobs = True
        for _ in range(6):
            said += model.generate([GenerateRequest("x", Prompt((Message("user", "q"),)), 99)])
        said += [vars(model), repr(model), model.identity]
        server.key = "another"
        with pytest.raises(ModelError) as caught:
            list(model.generate([GenerateRequest("x", Prompt((Message("user", "q"),)), 99)]))
        said += [caught.value.message, caught.value.hint]
        model.close()

    assert server.headers[0]["Authorization"] == f"Bearer {KEY}"
    assert "you sent Bearer [key]" in str(said[0].text)
    assert [answer.error is None for answer in said[:6]] == [True] + [False] * 5
    assert "HTTP 401: Incorrect API key provided: [key]" in caught.value.message
    assert "HARNESS_API_KEY" in caught.value.hint
    assert KEY not in repr(said) + caplog.text


def test_a_placeholder_for_a_key_may_stand_in_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_API_KEY", "EMPTY")
    with served(Fake(answer=lambda _: "EMPTY")) as server:
        model = OpenAIModel(parse_endpoint(f"openai:{server.url}#tiny"))
        (answer,) = model.generate([GenerateRequest("x", Prompt((Message("user", "q"),)), 99)])
        model.close()

    assert answer.text == "EMPTY"


# Identity.


def identity_at(server: Fake, settings: str = "") -> Any:
    model = open_model(f"openai:{server.url}{settings}#tiny")
    model.close()
    return model.identity


def test_the_same_server_has_the_same_identity_each_time() -> None:
    for style in ("vllm", "llama", "ollama", "plain"):
        with served(Fake(style=style)) as server:
            assert identity_at(server) == identity_at(server), style


def test_what_a_server_reports_is_no_content_and_is_not_kept() -> None:
    for style in ("vllm", "llama", "plain"):
        with served(Fake(style=style)) as server:
            found = identity_at(server)
        assert found.kind == "openai"
        assert found.weights.startswith(f"reported:tiny at {server.url}")
        assert not is_by_content(found)
        assert not is_worth_keeping(found)


def test_a_pin_lets_answers_be_kept_until_the_server_reports_something_else() -> None:
    with served(Fake(style="llama")) as server:
        plain, pinned = identity_at(server), identity_at(server, "?pin=v1")
        server.build = "b7000"
        later = identity_at(server, "?pin=v1")

    assert is_worth_keeping(pinned)
    assert not is_by_content(pinned)
    assert len({plain.digest, pinned.digest, later.digest}) == 3


def test_ollama_states_a_digest_of_the_content() -> None:
    with served(Fake(style="ollama")) as server:
        found = identity_at(server)

    assert found.weights == "sha256:" + "d" * 64
    assert found.quantization == "Q4_K_M ollama 0.12"
    assert is_worth_keeping(found)
    assert not is_by_content(found), "it is still the server's word"


def test_an_endpoint_is_no_base_to_train_or_release() -> None:
    with pytest.raises(ModelError, match="no checkpoint"):
        resolve_base("openai:http://127.0.0.1:1/v1#m")
    with pytest.raises(ModelError, match="needs a Transformers checkpoint"):
        open_model("openai:http://127.0.0.1:1/v1#m", adapter=Path("x"))


# How many at once, and how long to wait.


async def rush(limiter: Limiter, outcomes: list[bool]) -> list[float]:
    found = []
    for is_overloaded in outcomes:
        await limiter.leave(await limiter.enter(), is_overloaded=is_overloaded)
        found.append(limiter.limit)
    return found


async def test_the_limit_grows_by_one_then_halves_then_grows_slowly() -> None:
    limiter = Limiter(32)

    assert await rush(limiter, [False] * 4 + [True, False]) == [5, 6, 7, 8, 4, 4.25]


@given(st.integers(1, 64), st.lists(st.booleans(), max_size=200))
async def test_the_limit_stays_between_one_and_the_most(most: int, outcomes: list[bool]) -> None:
    assert all(1 <= limit <= most for limit in await rush(Limiter(most), outcomes))


async def test_an_overload_of_many_requests_halves_once() -> None:
    limiter = Limiter(32)
    await rush(limiter, [False] * 12)
    tickets = [await limiter.enter() for _ in range(16)]

    for ticket in tickets:
        await limiter.leave(ticket, is_overloaded=True)

    assert limiter.limit == 8


async def test_no_more_are_under_way_than_the_limit() -> None:
    limiter, active, most = Limiter(3), 0, 0

    async def work() -> None:
        nonlocal active, most
        ticket = await limiter.enter()
        active += 1
        most = max(most, active)
        await asyncio.sleep(0)
        active -= 1
        await limiter.leave(ticket, is_overloaded=False)

    await asyncio.gather(*[work() for _ in range(30)])

    assert most == 3


def test_retry_after_is_seconds_or_a_date() -> None:
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=50), usegmt=True)
    past = format_datetime(datetime.now(UTC) - timedelta(days=1), usegmt=True)

    assert retry_after_s("2.5") == 2.5
    assert 45 < (retry_after_s(soon) or 0) <= 50
    assert [retry_after_s(text) for text in (past, "-3")] == [0, 0]
    assert [retry_after_s(text) for text in (None, "", "soon", "nan", "inf", "1e999")] == [None] * 6
