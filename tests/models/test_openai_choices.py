"""Choices scored by a server: what the textbook gives, or an error that names what the server lacks."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from harness.errors import ModelError
from harness.models.base import Answer, ChoiceRequest, Message, Prompt
from harness.models.openai import OpenAIModel
from harness.models.openai_reference import parse_endpoint
from tests.models import openai_fake as fake
from tests.models.openai_fake import Fake, served, sum_logprob


async def no_nap(_: float) -> None:
    await asyncio.sleep(0)


def score(server: Fake, *requests: ChoiceRequest) -> list[Answer]:
    model = OpenAIModel(parse_endpoint(f"openai:{server.url}#tiny"), sleep=no_nap)
    try:
        return list(model.score_choices(requests))
    finally:
        model.close()


@pytest.fixture
def server() -> Iterator[Fake]:
    with served(Fake()) as found:
        yield found


CHAT = Prompt((Message("user", "is it yes or no? yes"),))
LABELS = ("yes", "no", "yesterday", "")


def ids_of(text: str) -> list[int]:
    return [*map(ord, text)]


def test_choices_of_a_conversation_count_the_end_of_turn(server: Fake) -> None:
    begin = fake.render([{"role": "user", "content": CHAT.messages[0].content}])
    (answer,) = score(server, ChoiceRequest("x", CHAT, LABELS))

    wanted = [sum_logprob(begin, [*ids_of(label), fake.END]) for label in LABELS]
    assert answer.error is None
    assert answer.choice_logprobs == pytest.approx(wanted)
    assert answer.text == LABELS[wanted.index(max(wanted))]
    assert answer.choice_tok == (4, 3, 10, 1)
    assert answer.prompt_tok == len(begin)
    assert answer.extra == {}


def test_open_choices_of_raw_text_are_encoded_with_it(server: Fake) -> None:
    request = ChoiceRequest("x", Prompt((), text="red blue red  "), ("blue", "green"), is_open=True)
    (answer,) = score(server, request)

    begin = [fake.START, *ids_of("red blue red")]
    assert answer.choice_logprobs == pytest.approx(
        [sum_logprob(begin, ids_of("  " + x)) for x in ("blue", "green")]
    )
    assert answer.choice_tok == (6, 7)


def test_a_whole_texts_log_probability_begins_at_its_first_token(server: Fake) -> None:
    (answer,) = score(server, ChoiceRequest("x", Prompt((), text=""), ("abcabc",), is_open=True))

    assert answer.choice_logprobs == pytest.approx([sum_logprob([fake.START], ids_of("abcabc"))])


def test_every_choice_gets_its_own_score_in_any_order_of_replies(server: Fake) -> None:
    requests = [ChoiceRequest(f"id {at}", Prompt((Message("user", f"{at} yes"),)), LABELS) for at in range(6)]
    server.faults = [
        fake.status(500) if at % 3 == 1 else fake.doubled if at % 3 else None for at in range(40)
    ]

    for at, answer in enumerate(score(server, *requests)):
        begin = fake.render([{"role": "user", "content": f"{at} yes"}])
        wanted = [sum_logprob(begin, [*ids_of(label), fake.END]) for label in LABELS]
        assert answer.choice_logprobs == pytest.approx(wanted)


@pytest.mark.parametrize("shift", [1, -1])
def test_an_echo_that_is_off_by_one_is_found_out_and_not_used(server: Fake, shift: int) -> None:
    # The likeliest tokens that the fake names are the one it expects, and ids that 7 divides.
    server.echo_shift = shift
    request = ChoiceRequest("x", Prompt((Message("user", "t\ny yes t"),)), ("y", "\x07"))

    (answer,) = score(server, request)

    begin = fake.render([{"role": "user", "content": "t\ny yes t"}])
    first = fake.next_logprobs(begin)
    assert answer.error is None
    assert answer.choice_logprobs == pytest.approx([first[ord("y")], first[7]])
    assert answer.extra == {"without_end": 1.0}, "taken from the first token instead, and said so"


@pytest.mark.parametrize("style", ["llama", "ollama"])
def test_single_tokens_are_scored_from_the_likeliest_ones(style: str) -> None:
    # Of the equally unlikely, the fake puts ids that 7 divides first, so that the label is among the 20.
    with served(Fake(style=style)) as server:
        prompt = Prompt((Message("user", "t\nA"),))
        (answer,) = score(server, ChoiceRequest("x", prompt, ("A", "\x07"), is_open=True))

    first = fake.next_logprobs(fake.render([{"role": "user", "content": "t\nA"}]))
    assert answer.choice_logprobs == pytest.approx([first[ord("A")], first[7]])
    assert answer.choice_tok == (1, 1)
    assert answer.extra == {}


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (("A", "yes"), "'yes' is not among the 20 likeliest first tokens"),
        (("A", "AB"), "the first token can't tell 'A' from 'AB'"),
        (("A", "\x06"), "is not among the 20 likeliest"),
    ],
)
def test_what_the_first_token_cant_tell_is_no_score(labels: tuple[str, ...], said: str) -> None:
    with served(Fake(style="llama")) as server:
        (answer,) = score(server, ChoiceRequest("x", Prompt((Message("user", "t\nA"),)), labels))

    assert answer.choice_logprobs is None
    assert said in answer.error


def test_a_server_that_can_do_neither_is_told_apart_by_what_it_lacks() -> None:
    with served(Fake(style="plain")) as server:
        first, second = score(server, ChoiceRequest("x", CHAT, LABELS), ChoiceRequest("y", CHAT, LABELS))

    assert first.error == second.error
    assert "echo and logprobs, it has no /tokenize" in first.error
    assert "chat with top_logprobs, it leaves top_logprobs out" in first.error
    assert len(server.bodies("/v1/chat/completions")) == 1, "asked once, not for every item"


def test_an_echo_without_the_prompt_is_not_taken_for_one(server: Fake) -> None:
    """As llama-server answers: the log-probabilities of what it wrote, and none of the prompt."""

    def only_written(handler: fake.Handler) -> None:
        if (
            "echo" in handler.document["choices"][0].get("text", "")
            or "logprobs" in handler.document["choices"][0]
        ):
            found = handler.document["choices"][0]["logprobs"]
            if "tokens" in found:
                found.update({name: values[-1:] for name, values in found.items()})
        fake.changed(lambda _: None)(handler)

    server.always = only_written
    (answer,) = score(server, ChoiceRequest("x", CHAT, ("several", "tokens")))

    assert answer.choice_logprobs is None
    assert "no log-probabilities of whole choices" in answer.error


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (ChoiceRequest("x", CHAT, ()), "no choices to score"),
        (ChoiceRequest("x", CHAT, ("a", ""), is_open=True), "choice 2 has no tokens"),
        (ChoiceRequest("x", Prompt(CHAT.messages, max_tokens=9), ("a",)), "its budget is 9"),
    ],
)
def test_a_request_that_cant_be_scored_is_an_error_beside_answers(
    server: Fake, request_: Any, said: str
) -> None:
    wrong, right = score(server, request_, ChoiceRequest("y", CHAT, ("a",)))

    assert said in wrong.error
    assert right.error is None


def test_a_server_that_dies_while_it_is_examined_stops_the_run(server: Fake) -> None:
    server.always = fake.status(503, "loading model")

    with pytest.raises(ModelError, match="loading model"):
        score(server, ChoiceRequest("x", CHAT, LABELS))
