"""A model behind a server: the right answer to the right request, or an error; never somebody else's."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.errors import ModelError
from harness.models.base import Answer, ChoiceRequest, GenerateRequest, Message, Prompt
from harness.models.openai import OpenAIModel
from harness.models.openai_reference import parse_endpoint
from harness.models.openai_wire import Patience
from tests.models import openai_fake as fake
from tests.models.openai_fake import Fake, served


class Naps:
    """Sleeps for no time, and remembers for how long it should have."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)
        await asyncio.sleep(0)


def opened(
    server: Fake, *, name: str = "tiny", settings: str = "", timeout_s: float | None = None, **more: Any
) -> OpenAIModel:
    endpoint = parse_endpoint(f"openai:{server.url}{settings}#{name}")
    if timeout_s is not None:
        endpoint = endpoint._replace(timeout_s=timeout_s)
    more.setdefault("sleep", Naps())
    return OpenAIModel(endpoint, **more)


@pytest.fixture
def server() -> Iterator[Fake]:
    with served(Fake()) as found:
        yield found


@pytest.fixture
def echoing() -> Iterator[Fake]:
    """Answers with what it was asked, so that an answer shows whose it is."""
    with served(Fake(answer=lambda body: body["messages"][-1]["content"])) as found:
        yield found


def prompt(text: str, **more: Any) -> Prompt:
    return Prompt((Message("user", text),), **more)


def writes(texts: Sequence[str], **more: Any) -> list[GenerateRequest]:
    return [GenerateRequest(f"id {at}", prompt(text), 500, **more) for at, text in enumerate(texts)]


def answers(model: OpenAIModel, requests: Sequence[Any]) -> list[Answer]:
    try:
        if isinstance(requests[0], ChoiceRequest):
            return list(model.score_choices(requests))
        return list(model.generate(requests))
    finally:
        model.close()


def one(model: OpenAIModel, request: Any) -> Answer:
    return answers(model, [request])[0]


# What is written.


def test_it_writes_what_the_server_writes_with_its_log_probabilities(server: Fake) -> None:
    asked = "after t\nabcd"
    ids = fake.render([{"role": "user", "content": asked}])
    written = [*map(ord, "abcd"), fake.END]
    model = opened(server)

    whole, cut = model.generate(
        [GenerateRequest("x", prompt(asked), 9), GenerateRequest("y", prompt(asked), 2)]
    )
    model.close()

    assert (whole.text, whole.error, whole.is_truncated) == ("abcd", None, False)
    assert sum(whole.token_logprobs) == pytest.approx(fake.sum_logprob(ids, written))
    assert (whole.prompt_tok, whole.output_tok) == (len(ids), 5)
    assert (cut.text, cut.output_tok, cut.is_truncated) == ("ab", 2, True)


def test_raw_text_goes_to_completions_without_a_template(server: Fake) -> None:
    answer = one(opened(server), GenerateRequest("x", Prompt((), text="xyxyxyx"), 4))

    (body,) = server.bodies("/v1/completions")
    assert body["prompt"] == "xyxyxyx"
    assert answer.text == "yxyx"
    assert len(answer.token_logprobs) == 4


def test_every_setting_reaches_the_server(server: Fake) -> None:
    one(opened(server), GenerateRequest("x", prompt("q"), 7, stop=("\n", "END"), temperature=0.7, seed=11))

    (body,) = server.bodies("/v1/chat/completions")
    assert body == {
        "model": "tiny", "messages": [{"role": "user", "content": "q"}], "max_tokens": 7, "temperature": 0.7,
        "seed": 11, "stop": ["\n", "END"], "stream": False, "logprobs": True, "top_logprobs": 1,
    }  # fmt: skip


def test_a_grammar_is_for_servers_that_keep_to_one() -> None:
    request = GenerateRequest("x", prompt("q"), 7, grammar='root ::= "a"')
    with served(Fake(style="llama")) as server:
        assert one(opened(server), request).error is None
        assert server.bodies("/v1/chat/completions")[0]["grammar"] == 'root ::= "a"'
    with served(Fake()) as server:
        assert "GBNF" in one(opened(server), request).error
        assert server.bodies("/v1/chat/completions") == []


def test_a_server_that_refuses_logprobs_is_asked_without() -> None:
    with served(Fake(style="plain", faults=[fake.status(400, "logprobs are not supported")])) as server:
        answer = one(opened(server), GenerateRequest("x", prompt("q"), 3))

    assert (answer.error, answer.token_logprobs) == (None, None)
    assert [("logprobs" in body) for body in server.bodies("/v1/chat/completions")] == [True, False]


def test_half_a_surrogate_pair_is_no_crash(server: Fake) -> None:
    assert one(opened(server), GenerateRequest("x", prompt("\ud800"), 3)).id == "x"


def test_a_prompt_over_its_budget_is_an_error_as_it_is_for_local_models(server: Fake) -> None:
    answer = one(opened(server), GenerateRequest("x", prompt("q" * 50, max_tokens=20), 3))

    assert answer.text is None
    assert "its budget is 20" in answer.error


# Whose answer it is.


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.sampled_from(["ok", "500", "429", "drop", "cut", "html", "twice", "half", "list"]), max_size=60
    )
)
def test_no_fault_gives_a_request_the_answer_of_another(echoing: Fake, faults: list[str]) -> None:
    kinds: dict[str, fake.Fault | None] = {
        "ok": None, "500": fake.status(500), "429": fake.status(429, Retry_After="0"), "drop": fake.dropped,
        "cut": fake.cut_text, "html": fake.html, "twice": fake.doubled, "half": fake.half_closed,
        "list": fake.raw(b"[]"),
    }  # fmt: skip
    echoing.faults = [kinds[name] for name in faults]
    texts = [f"question {at}" for at in range(40)]

    found = answers(opened(echoing, patience=Patience(attempts=100)), writes(texts))

    assert [answer.id for answer in found] == [f"id {at}" for at in range(40)]
    assert [answer.text for answer in found] == texts


def test_replies_in_reverse_order_find_their_requests(echoing: Fake) -> None:
    waiting: list[threading.Event] = []

    def last_first(handler: fake.Handler) -> None:
        mine = threading.Event()
        with echoing.lock:
            waiting.append(mine)
            if len(waiting) == 4:
                waiting[-1].set()
        assert mine.wait(30)
        handler.send(200, json.dumps(handler.document).encode())
        with echoing.lock:
            waiting.remove(mine)
            if waiting:
                waiting[-1].set()

    echoing.faults = [last_first] * 4
    texts = [f"question {at}" for at in range(4)]

    assert [answer.text for answer in answers(opened(echoing), writes(texts))] == texts


def test_a_reply_sent_twice_is_not_the_next_requests_reply(echoing: Fake) -> None:
    echoing.always = fake.doubled
    texts = [f"question {at}" for at in range(20)]

    found = answers(opened(echoing, settings="?concurrency=1"), writes(texts))

    assert [answer.text for answer in found] == texts


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda reply: reply["choices"].append(reply["choices"][0]), "2 choices"),
        (lambda reply: reply.update(choices=[]), "0 choices"),
        (lambda reply: reply.update(choices=None), "no choices"),
        (lambda reply: reply["choices"][0].update(index=1), "not the first"),
        (lambda reply: reply["choices"][0].update(message={"content": None}), "no text"),
        (lambda reply: reply["choices"][0].update(message="hello"), "no text"),
        (lambda reply: reply["choices"][0]["logprobs"]["content"][0].update(logprob=0.5), "over 0"),
        (lambda reply: reply["choices"][0]["logprobs"]["content"][0].update(logprob=None), "log-probability"),
        (lambda reply: reply["choices"][0]["logprobs"]["content"][0].update(logprob=True), "log-probability"),
        (lambda reply: reply["choices"][0]["logprobs"].update(content="x"), "not a list"),
    ],
)
def test_a_reply_that_says_something_else_is_an_error(server: Fake, change: Any, said: str) -> None:
    server.faults = [fake.changed(change)]

    answer = one(opened(server), GenerateRequest("x", prompt("q"), 3))

    assert answer.text is None
    assert said in answer.error


# What goes wrong.


def test_it_tries_again_as_long_as_it_is_worth_it(server: Fake) -> None:
    server.faults = [fake.status(500), fake.status(503), fake.dropped, fake.cut_text]
    naps = Naps()

    answer = one(opened(server, sleep=naps), GenerateRequest("x", prompt("q"), 3))

    assert answer.error is None
    assert len(naps.seconds) == 4
    assert naps.seconds[0] < naps.seconds[3]


def test_retry_after_is_respected(server: Fake) -> None:
    server.faults = [fake.status(429, Retry_After="17")]
    naps = Naps()

    one(opened(server, sleep=naps), GenerateRequest("x", prompt("q"), 3))

    assert 17 <= naps.seconds[0] <= 18


def test_a_server_that_asks_to_wait_for_an_hour_stops_the_run(server: Fake) -> None:
    server.always = fake.status(429, "come back later", Retry_After="3600")

    with pytest.raises(ModelError, match=r"asks to wait 3,600 s: come back later"):
        one(opened(server), GenerateRequest("x", prompt("q"), 3))


@pytest.mark.parametrize("code", [429, 503])
def test_a_server_that_stays_overloaded_stops_the_run_instead_of_failing_every_item(
    server: Fake, code: int
) -> None:
    server.always = fake.status(code, "no room")

    with pytest.raises(ModelError, match=f"HTTP {code}: no room, at attempt 6") as caught:
        answers(opened(server), writes(["a", "b"]))

    assert "goes on where it was" in caught.value.hint


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (fake.status(500, "index out of range"), "HTTP 500: index out of range, at attempt 3"),
        (fake.status(400, "context of 8 tokens exceeded"), "HTTP 400: context of 8 tokens exceeded"),
        (fake.html, "the reply is no JSON (text/html"),
        (fake.raw(b'{"choices": NaN}'), "NaN is not a number"),
        (fake.raw(b'{"choices": [], "choices": []}'), "duplicate key"),
        (fake.raw(b"[1]"), "wanted an object"),
        (fake.raw(b'{"error": {"message": "model crashed"}}'), "model crashed"),
        (fake.dropped, "the connection ended"),
        (fake.half_closed, "the connection ended"),
        (fake.cut_text, "the reply is no JSON"),
        (fake.raw(b"\xff\xfe"), "the reply is no JSON"),
        (fake.raw(b'{"a":' * 100_000), "the reply is no JSON"),
    ],
)
def test_what_concerns_one_request_is_its_answer(server: Fake, fault: fake.Fault, said: str) -> None:
    model = opened(server, patience=Patience(attempts=3))
    model._gives_logprobs = True
    server.always = fault

    answer = one(model, GenerateRequest("x", prompt("q"), 3))

    assert answer.text is None
    assert said in answer.error


def test_a_silent_server_is_waited_for_so_long(server: Fake) -> None:
    model = opened(server, timeout_s=0.05, patience=Patience(attempts=2))
    server.always = fake.silent

    answer = one(model, GenerateRequest("x", prompt("q"), 3))

    assert answer.error == "no answer within 0.05 s, at attempt 2"


def test_all_attempts_together_have_an_end(server: Fake) -> None:
    model = opened(server, timeout_s=0.05, patience=Patience(attempts=1000, total_s=0.12))
    server.always = fake.silent

    answer = one(model, GenerateRequest("x", prompt("q"), 3))

    assert answer.error.startswith("no answer within 0.05 s, at attempt ")
    assert int(answer.error.split()[-1]) <= 3


def test_a_body_without_an_end_is_left(server: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.models.openai_wire.MAX_BODY_BYTES", 2**21)
    model = opened(server)
    server.always = fake.endless

    assert one(model, GenerateRequest("x", prompt("q"), 3)).error == "the reply is over 2,097,152 bytes"


def test_a_server_that_goes_away_stops_the_run() -> None:
    with served(Fake()) as server:
        model = opened(server)
    with pytest.raises(ModelError, match="nobody answers there"):
        one(model, GenerateRequest("x", prompt("q"), 3))


def test_another_model_behind_the_same_address_is_noticed() -> None:
    with served(Fake(style="llama")) as server:
        model = opened(server)
        server.build = "b7000"
        server.faults = [fake.dropped]

        with pytest.raises(ModelError, match="serves something else"):
            one(model, GenerateRequest("x", prompt("q"), 3))


# Opening.


def test_nobody_there_is_said_at_once() -> None:
    with served(Fake()) as server:
        pass

    with pytest.raises(ModelError, match="nobody answers there") as caught:
        opened(server)

    assert "start the server" in caught.value.hint


def test_a_model_that_is_not_served_is_named_beside_those_that_are(server: Fake) -> None:
    server.models = ("small", "large")

    with pytest.raises(ModelError, match="no model 'tiny'") as caught:
        opened(server)

    assert "'small', 'large'" in caught.value.hint


def test_a_name_may_be_left_out_where_there_is_one_model_only(server: Fake) -> None:
    assert one(opened(server, name=""), GenerateRequest("x", prompt("q"), 3)).error is None
    server.models = ("a", "b")

    with pytest.raises(ModelError, match="2 models, and no name after #"):
        opened(server, name="")


def test_a_place_that_is_no_endpoint_says_what_is_usual() -> None:
    with served(Fake()) as server:
        server.url = server.url.removesuffix("/v1") + "/v2"
        with pytest.raises(ModelError, match="HTTP 404") as caught:
            opened(server, name="")

    assert "/v1" in caught.value.hint


def test_redirects_are_not_followed(server: Fake) -> None:
    model = opened(server)
    server.always = lambda handler: handler.send(307, b"", Location="http://example.com/")

    with pytest.raises(ModelError, match="HTTP 307: redirects"):
        one(model, GenerateRequest("x", prompt("q"), 3))


# Plans, and what is left behind.


@given(st.lists(st.integers(1, 9000), max_size=80))
def test_a_plan_holds_every_request_once_in_order_and_plans_its_batches_alike(lengths: list[int]) -> None:
    requests = [GenerateRequest(str(at), prompt("q"), most) for at, most in enumerate(lengths)]
    plan = OpenAIModel.plan(None, requests)  # type: ignore[arg-type]

    assert [index for batch in plan for index in batch] == list(range(len(lengths)))
    for batch in plan:
        some = [requests[index] for index in batch]
        assert OpenAIModel.plan(None, some) == [list(range(len(some)))]  # type: ignore[arg-type]
        assert len(some) == 1 or sum(one.max_new_tokens for one in some) <= 2048


def test_answers_come_before_the_slowest_of_their_batch(echoing: Fake) -> None:
    def slow_for_d(handler: fake.Handler) -> None:
        is_slow = handler.document["choices"][0]["message"]["content"] == "d"
        (fake.silent if is_slow else fake.changed(lambda _: None))(handler)

    echoing.always = slow_for_d
    model = opened(echoing)
    found = model.generate(writes(["a", "b", "c", "d"]))

    assert [next(found).text for _ in range(3)] == ["a", "b", "c"]
    found.close()
    assert [answer.text for answer in model.generate(writes(["e"]))] == ["e"]
    model.close()
    assert not echoing.released.is_set(), "nobody waited for d"


def test_closing_leaves_no_thread_loop_or_connection(server: Fake) -> None:
    before = set(threading.enumerate())
    model = opened(server)
    list(model.generate(writes(["a", "b"])))
    model.close()
    model.close()

    left = [thread for thread in set(threading.enumerate()) - before if "process_request" not in thread.name]
    assert left == []
    with pytest.raises(RuntimeError, match="closed"):
        list(model.generate(writes(["a"])))


def test_a_request_answered_alone_has_a_time_and_others_have_none(server: Fake) -> None:
    model = opened(server)
    alone = list(model.generate(writes(["a"])))
    both = list(model.generate(writes(["a", "b"])))
    model.close()

    assert alone[0].latency_ms > 0
    assert [answer.latency_ms for answer in both] == [None, None]


def test_prompts_have_the_digest_of_their_bytes(server: Fake) -> None:
    model = opened(server)
    found = list(model.generate(writes(["a", "b", "a"])))
    texts = {
        bytes(model.token_ids(one))
        for one in (prompt("a"), Prompt((), text="a"), Prompt((Message("system", "a"),)))
    }
    model.close()

    assert found[0].prompt_digest == found[2].prompt_digest != found[1].prompt_digest
    assert len(texts) == 3
