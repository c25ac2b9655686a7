"""What an answer must keep, who is asked where it does not, and what people get to see."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.edge.escalation import FAILURES, ServerModel, named_label, require_allowed
from harness.edge.guards import chat_guards, first_held, guards_of
from harness.errors import DataError, RefusedError
from harness.models.base import Message
from harness.models.openai_reference import parse_endpoint
from harness.specs.suite import Suite
from tests.edge.serving import ScriptedEngine, calibration, client_of, likely, shared_release, suite_document
from tests.models.openai_fake import Fake
from tests.models.openai_fake import served as openai_server

ASKED = {"input": "Either party may end this."}
CHAT = {"messages": [{"role": "user", "content": "Who pays?"}]}
UNSURE = likely("fee", 0.4)


def suite(**changes: Any) -> Suite:
    return Suite.model_validate(suite_document(**changes))


def test_the_suites_validators_are_the_guards_and_its_scorers_with_golds_are_not() -> None:
    found = guards_of(
        suite(task="generate", labels=[], scorers=["rouge_l", "pii_leak", {"name": "form", "banned": ["lawsuit"]},
                                                   {"name": "grounded", "key": "numbers", "names": False}])
    )  # fmt: skip

    assert [guard.name for guard in found] == ["pii_leak", "form", "numbers"]


@pytest.mark.parametrize(
    ("scorer", "context", "sound", "faulty"),
    [
        (
            "promises",
            "Refunds take 14 days.",
            "We will refund you in 14 days.",
            "We will send you a voucher.",
        ),
        ("attributes", "A red chair made of oak.", "A chair of oak, in red.", "A leather chair."),
        ("forbidden_claims", "The fund fell.", "The fund may rise.", "Returns are guaranteed."),
    ],
)
def test_what_needs_no_gold_is_held_to_on_the_device(
    scorer: str, context: str, sound: str, faulty: str
) -> None:
    guards = guards_of(suite(task="generate", labels=[], scorers=["rouge_l", scorer]))

    assert [guard.name for guard in guards] == [scorer]
    assert first_held(guards, sound, context=context) is None
    held = first_held(guards, faulty, context=context)
    assert held is not None
    assert held.guard == scorer


def test_terms_that_an_answer_names_must_be_sound_and_may_be_left_out() -> None:
    """Whether a term is missing is for golds to say; on the device nobody has them."""
    guards = guards_of(
        suite(task="extract", labels=[], generation={"fields": {"signed": "string", "fee": "string"}},
              scorers=["fields", {"name": "clause_terms", "date": "signed", "amount": "fee"}])
    )  # fmt: skip
    source = "Signed on 3 May 2021, for a fee of $5,000."

    def held(**terms: Any) -> str | None:
        found = first_held(guards, json.dumps(terms), parsed=terms, input_=source)
        return found.note if found else None

    assert held(signed="May 3, 2021", fee="$5,000") is None
    assert held(signed="May 3, 2021", fee=None) is None
    assert held(signed="2021-05-04", fee=None) == "not_in_source"
    assert held(signed="someday", fee="$5,000") == "no_date"


def test_a_chat_is_held_to_the_claims_that_a_suite_of_the_release_forbids() -> None:
    guards = chat_guards([suite(task="generate", labels=[], scorers=["rouge_l", "forbidden_claims"])])

    held = first_held(guards, "Buy now: returns are guaranteed.", input_="What is a bond?")

    assert held is not None
    assert held.guard == "claims"


@pytest.mark.parametrize(
    ("answer", "guard"),
    [
        ("Pay 30 dollars.", None),
        ("Pay 31 dollars.", "grounded"),
        ("Pay 30 dollars, see you in a LAWSUIT.", "form"),
        ("Write to bob@example.org about 30 dollars.", "pii_leak"),
    ],
)
def test_an_answer_is_held_back_by_the_first_guard_that_it_does_not_keep(
    answer: str, guard: str | None
) -> None:
    guards = guards_of(
        suite(task="generate", labels=[], scorers=["pii_leak", {"name": "form", "banned": ["lawsuit"]}, "grounded"])
    )  # fmt: skip

    held = first_held(guards, answer, input_="The fee is 30 dollars.")

    assert (held.guard if held else None) == guard


def test_quotes_must_stand_in_the_text(tmp_path: Path) -> None:
    guards = guards_of(suite(task="spans", labels=[]))

    assert first_held(guards, "x", parsed=[{"text": "a", "start": 3, "end": 4}]) is None
    held = first_held(guards, "x", parsed=[{"text": "a", "start": None, "end": None}])
    assert held is not None
    assert (held.guard, held.note) == ("quotes", "invented_quote")


@pytest.mark.parametrize(
    ("answer", "is_held"),
    [
        ('It says "the fee is due at once" there.', False),
        ('It says “the  fee is due at once”.', False),
        ('It says "the fee is never due at all".', True),
        ('The "fee" is due.', False),
    ],
)  # fmt: skip
def test_quotations_of_a_chat_must_stand_in_the_conversation(answer: str, is_held: bool) -> None:
    guards = chat_guards([], ["quotes"])

    assert (first_held(guards, answer, input_="Rule: the fee is due at once.") is not None) == is_held


def test_a_guard_that_can_not_be_run_holds_the_answer_back() -> None:
    # The pattern is no RE2: the scorer raises.
    guards = guards_of(suite(task="generate", labels=[], scorers=[{"name": "form", "matches": "(?=x)"}]))

    held = first_held(guards, "anything")

    assert held is not None
    assert held.note.startswith("could not be checked")


def test_chats_are_held_to_what_the_release_bans_everywhere_and_to_nothing_else() -> None:
    strict = suite(
        task="generate", labels=[], scorers=["pii_leak", {"name": "form", "banned": ["x"], "max_words": 3}]
    )
    (pii, banned) = chat_guards([strict])

    assert first_held([pii], "mail bob@example.org") is not None
    assert first_held([banned], "many more than three words") is None
    assert first_held([banned], "X marks it") is not None
    with pytest.raises(DataError, match="no such guard"):
        chat_guards([], ["everything"])


async def test_a_chat_that_a_guard_holds_back_is_not_said_streamed_or_not(tmp_path: Path) -> None:
    release = shared_release()
    engine = ScriptedEngine(lambda ask: "write to bob@example.org")
    guards = chat_guards([], ["pii"])
    async with client_of(release, engine, tmp_path / "home", guards=guards) as (client, _):
        whole = await client.post("/chat/completions", json=CHAT)
        stream = await client.post("/chat/completions", json={**CHAT, "stream": True})

    for reply in (whole, stream):
        assert (reply.headers["x-route"], reply.headers["x-guard"]) == ("review", "pii")
        assert "bob@example.org" not in reply.text
        assert "put aside for a person" in reply.text
    assert whole.json()["choices"][0]["finish_reason"] == "content_filter"
    assert '"finish_reason": "content_filter"' in stream.text


async def test_what_the_device_is_not_sure_of_is_asked_of_the_server(tmp_path: Path) -> None:
    release = shared_release(fitted=calibration(threshold=0.6))
    with openai_server(Fake("llama", models=("big",), answer=lambda body: " Term. ")) as fake:
        url = f"openai:{fake.url}#big"
        async with client_of(release, ScriptedEngine(logprobs=UNSURE), tmp_path / "home", escalate=url) as (
            client,
            _,
        ):
            reply = await client.post("/suites/clauses/answer", json=ASKED)

    body = reply.json()
    assert (body["label"], body["band"], body["route"]) == ("term", "escalate", "server")
    assert (body["confidence"], reply.headers["x-confidence"]) == (None, "unknown")
    assert reply.headers["x-escalation"] == "answered"
    asked = fake.bodies("/v1/chat/completions")[-1]["messages"]
    assert "- cap\n- fee\n- term" in asked[0]["content"]
    assert asked[0]["content"].startswith("Which clause?")


@pytest.mark.parametrize(("answer", "how"), [("I think it is term", "unread"), ("", "unread")])
async def test_a_server_that_names_no_label_is_not_believed(tmp_path: Path, answer: str, how: str) -> None:
    release = shared_release(fitted=calibration(threshold=0.6))
    with openai_server(Fake("llama", models=("big",), answer=lambda body: answer)) as fake:
        url = f"openai:{fake.url}#big"
        async with client_of(release, ScriptedEngine(logprobs=UNSURE), tmp_path / "home", escalate=url) as (
            client,
            _,
        ):
            reply = await client.post("/suites/clauses/answer", json=ASKED)

    body = reply.json()
    assert (body["label"], body["route"], body["escalation"]) == (None, "review", how)


async def test_a_server_that_is_not_there_is_said_and_then_left_alone(tmp_path: Path) -> None:
    release = shared_release(fitted=calibration(threshold=0.6))
    gone = "openai:http://127.0.0.1:9/v1#big"
    async with client_of(release, ScriptedEngine(logprobs=UNSURE), tmp_path / "home", escalate=gone) as (
        client,
        _,
    ):
        replies = [await client.post("/suites/clauses/answer", json=ASKED) for _ in range(FAILURES + 1)]

    how = [reply.headers["x-escalation"] for reply in replies]
    assert set(how[:FAILURES]) <= {"unreachable", "timeout"}
    assert how[FAILURES] == "resting"
    assert {reply.json()["band"] for reply in replies} == {"escalate"}
    assert {reply.json()["route"] for reply in replies} == {"review"}


async def test_a_server_rests_for_a_while_and_is_asked_again() -> None:
    now = [0.0]
    model = ServerModel("openai:http://127.0.0.1:9/v1#big", limit_s=1.0, clock=lambda: now[0])
    asked = [Message("user", "x")]

    for _ in range(FAILURES):
        assert (await model.write(asked, 4)).how in ("unreachable", "timeout")
    assert (await model.write(asked, 4)).how == "resting"
    now[0] = 31.0
    assert (await model.write(asked, 4)).how in ("unreachable", "timeout")
    await model.close()


def test_sensitive_questions_do_not_leave_the_machine() -> None:
    require_allowed(parse_endpoint("openai:http://127.0.0.1:1/v1"), is_sensitive=True)
    require_allowed(parse_endpoint("openai:https://elsewhere.example/v1"), is_sensitive=False)
    with pytest.raises(RefusedError, match="sensitive"):
        require_allowed(parse_endpoint("openai:https://elsewhere.example/v1"), is_sensitive=True)


@pytest.mark.parametrize(
    ("said", "label"),
    [("fee", "fee"), ("'Fee.'", "fee"), ("**CAP**", "cap"), ("fee or cap", None), ("", None), ("fees", None)],
)
def test_a_label_is_named_alone_or_not_at_all(said: str, label: str | None) -> None:
    assert named_label(said, ("cap", "fee")) == label


async def test_people_find_what_was_held_back_with_the_commands_that_they_know(tmp_path: Path) -> None:
    release = shared_release(fitted=calibration(threshold=0.6))
    home = tmp_path / "home"
    async with client_of(release, ScriptedEngine(logprobs=UNSURE), home) as (client, _):
        items = [
            (await client.post("/suites/clauses/answer", json={"input": f"clause {n}"})).json()["review"]
            for n in range(3)
        ]

    run = f"served-clauses-{release.digest[:8]}"
    judged = harness(home, "review", run, "--answer", items[1], "--judgement", "wrong", "--correction", "cap",
                     "--by", "ann", "--json", "--records", str(tmp_path / "out.jsonl"))  # fmt: skip
    assert judged["settled"] == {items[1]: "wrong"}
    assert [row for row in judged["agreement"] if row["a"] == "scorer" and row["n"]] == []
    (record,) = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert (record["input"], record["target"]) == ("clause 1", "cap")
    folder = home / "runs" / run
    kept = [folder / "asked.jsonl", *folder.rglob("samples.jsonl")]
    assert [oct(path.stat().st_mode & 0o777) for path in kept] == ["0o600", "0o600"]


async def test_a_queue_that_can_not_be_written_is_said_and_stops_no_answer(tmp_path: Path) -> None:
    release = shared_release(fitted=calibration(threshold=0.6))
    home = tmp_path / "home"
    home.mkdir()
    (home / "runs").write_text("a file where a folder should be")
    async with client_of(release, ScriptedEngine(logprobs=UNSURE), home) as (client, serving):
        reply = await client.post("/suites/clauses/answer", json=ASKED)
        lost = serving.metrics.read("review_lost_total")

    body = reply.json()
    assert (reply.status_code, body["review"], lost) == (200, None, 1)
    assert "put aside" not in body["note"]


def harness(home: Path, *arguments: str) -> Any:
    environment = {**os.environ, "HARNESS_HOME": str(home)}
    done = subprocess.run(
        [sys.executable, "-m", "harness", *arguments], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
