"""The edge engine on a tiny random network: what it answers, and that it is what the evaluation's engine answers."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.edge.engine import EdgeEngine
from harness.errors import IntegrityError, ModelError
from harness.export.gguf import convert
from harness.files import sha256_file
from harness.models.base import ChoiceRequest, GenerateRequest, Message, Prompt
from harness.models.gguf import GgufModel
from tests.edge.conftest import Heard, ask, endless
from tests.export.tiny_models import save_checkpoint

LABELS = ("the", "then", "other", "o", "a longer label")


@pytest.fixture(scope="module")
def offline(gguf: Path) -> Iterator[GgufModel]:
    model = GgufModel(gguf, threads=1, exact=True)
    yield model
    model.close()


def prompt(text: str) -> Prompt:
    return Prompt((Message("system", "Be brief."), Message("user", text)))


def test_a_text_is_the_one_that_was_evaluated(engine: EdgeEngine, offline: GgufModel) -> None:
    texts = ["one", "two words", "th" * 40, "café — naïve"]
    requests = [GenerateRequest(text, prompt(text), 12) for text in texts]
    wanted = {answer.id: answer for answer in offline.generate(requests)}

    heard = [Heard(engine, ask(text, wants_logprobs=True)) for text in texts]

    for text, one in zip(texts, heard, strict=True):
        done = one.done()
        assert done.text == one.streamed() == wanted[text].text
        assert (done.prompt_tok, done.output_tok) == (wanted[text].prompt_tok, wanted[text].output_tok)
        assert done.token_logprobs == pytest.approx(wanted[text].token_logprobs, abs=0.02)
        assert done.token_texts is not None
        assert len(done.token_texts) == done.output_tok


def test_a_label_has_the_log_probability_that_was_evaluated(engine: EdgeEngine, offline: GgufModel) -> None:
    request = ChoiceRequest("labels", prompt("which"), LABELS)
    (wanted,) = offline.score_choices([request])

    done = Heard(engine, ask("which", labels=LABELS)).done()

    assert done.label_logprobs is not None
    assert list(done.label_logprobs) == list(LABELS)
    assert list(done.label_logprobs.values()) == pytest.approx(wanted.choice_logprobs, abs=0.05)
    assert (done.text, done.finish, done.output_tok) == (wanted.text, "stop", 0)


def test_a_tree_of_more_labels_than_sequences_is_scored_whole(engine: EdgeEngine, offline: GgufModel) -> None:
    labels = tuple(f"{first}{second} x" for first in "abcdefghijklmnop" for second in "abcdefghijklmnopqrst")
    (wanted,) = offline.score_choices([ChoiceRequest("many", prompt("which"), labels)])

    done = Heard(engine, ask("which", labels=labels)).done()

    assert done.label_logprobs is not None
    assert len(done.label_logprobs) == 320
    best = max(done.label_logprobs.values())
    for found, other in zip(done.label_logprobs.values(), wanted.choice_logprobs or (), strict=True):
        if other > best - 15:  # what is far below is followed no further, and its value is a bound
            assert found == pytest.approx(other, abs=0.03)


def test_sampled_text_follows_its_seed_as_the_evaluation_does(engine: EdgeEngine, offline: GgufModel) -> None:
    request = GenerateRequest("s", prompt("seeded"), 12, temperature=0.9, seed=5)
    (wanted,) = offline.generate([request])

    texts = [Heard(engine, ask("seeded", temperature=0.9, seed=seed)).done().text for seed in (5, 5, 6)]

    assert texts[0] == texts[1] == wanted.text
    assert texts[2] != texts[0]


def test_the_nucleus_of_one_token_is_the_greedy_text(engine: EdgeEngine) -> None:
    greedy = Heard(engine, ask("nucleus")).done().text

    assert Heard(engine, ask("nucleus", temperature=1.0, top_p=1e-6, seed=3)).done().text == greedy


def test_a_text_follows_its_grammar(engine: EdgeEngine) -> None:
    done = Heard(engine, ask("number", grammar='root ::= "n=" [0-9] [0-9] [0-9]', max_new_tokens=40)).done()

    assert re.fullmatch(r"n=\d{3}", done.text)
    assert done.finish == "stop"


def test_a_text_ends_before_its_stop_string_and_never_shows_a_part_of_it(engine: EdgeEngine) -> None:
    whole = Heard(engine, ask("stop", max_new_tokens=30)).done().text
    stop = whole[9:12]

    heard = Heard(engine, ask("stop", max_new_tokens=30, stop=(stop,)))

    assert heard.done().text == heard.streamed() == whole[: whole.find(stop)]
    assert heard.done().finish == "stop"


def test_many_requests_beside_each_other_get_the_answers_that_they_get_alone(engine: EdgeEngine) -> None:
    """Each is held to a text of its own, so that a mix-up of texts shows, and a mix-up of states in its numbers."""
    asks = [
        {
            "text": f"question {at} " * (1 + 3 * (at % 4)),
            "wants_logprobs": True,
            "temperature": 0.7 * (at % 2),
        }
        | ({"labels": LABELS} if at % 5 == 4 else {"grammar": f'root ::= "nonce {at * 7919}"'})
        for at in range(24)
    ]
    alone = [Heard(engine, ask(**options)).done() for options in asks]

    together = [Heard(engine, ask(**options)) for options in asks]

    for at, (one, other) in enumerate(zip(together, alone, strict=True)):
        done = one.done()
        numbers, wanted = (
            list((each.label_logprobs or {}).values()) or list(each.token_logprobs or ())
            for each in (done, other)
        )
        assert at % 5 == 4 or done.text == one.streamed() == f"nonce {at * 7919}"
        assert numbers == pytest.approx(wanted, abs=0.1)  # 16-bit rounding differs with what is beside it
        assert done.prompt_tok == other.prompt_tok


def test_a_long_prompt_does_not_keep_a_short_request_waiting(patient: EdgeEngine) -> None:
    long = Heard(patient, ask("w" * 20_000, max_new_tokens=1))
    short = Heard(patient, ask("short", max_new_tokens=1))

    short.done()

    assert not long.events
    patient.withdraw(long.id)
    assert long.done().finish == "cancelled"


def test_one_thread_tells_everything(engine: EdgeEngine) -> None:
    heard = [Heard(engine, ask(f"thread {at}")) for at in range(3)]
    for one in heard:
        one.done()

    assert len(set.union(*(one.threads for one in heard))) == 1


def test_time_that_runs_out_leaves_what_is_written(patient: EdgeEngine) -> None:
    heard = Heard(patient, endless("time", budget_ms=500.0))

    done = heard.done()

    assert done.finish == "budget"
    assert done.text == heard.streamed()


def test_a_withdrawn_request_ends_with_what_is_written(patient: EdgeEngine) -> None:
    request = endless("withdraw")
    heard = Heard(patient, request)
    heard.wait_for_text()

    patient.withdraw(request.id)
    patient.withdraw("nobody")

    done = heard.done()
    assert done.finish == "cancelled"
    assert done.output_tok > 0
    assert done.text == heard.streamed()


@pytest.mark.parametrize(
    ("options", "trouble", "says"),
    [
        ({"text": "x" * 600}, "too_long", "500"),
        ({"text": "x", "max_new_tokens": 10_000}, "too_long", "10,000"),
        ({"text": "x" * 400, "max_prompt_tok": 20}, "too_long", "20"),
        ({"text": "x", "grammar": "root ::= ("}, "bad_request", "grammar"),
        ({"text": "x", "max_new_tokens": 0}, "bad_request", "max_new_tokens"),
        ({"text": "x", "labels": ("a", "a")}, "bad_request", "twice"),
        ({"text": "x", "adapter": "tenant"}, "unknown_adapter", "tenant"),
    ],
)
def test_what_can_not_be_answered_is_refused_by_name(
    engine: EdgeEngine, options: dict[str, object], trouble: str, says: str
) -> None:
    failed = Heard(engine, ask(**options)).failed()  # type: ignore[arg-type]

    assert failed.trouble == trouble
    assert says in failed.text
    assert Heard(engine, ask("still here")).done().finish in ("stop", "length")


def test_a_prompt_is_cut_where_the_evaluation_cut(engine: EdgeEngine, offline: GgufModel) -> None:
    cut = Prompt((Message("system", "Be brief."), Message("user", "ab" * 200)), 60, "truncate")
    (wanted,) = offline.generate([GenerateRequest("cut", cut, 12)])

    done = Heard(engine, ask("ab" * 200, max_prompt_tok=60, over_length="truncate")).done()

    assert done.is_truncated
    assert (done.prompt_tok, done.text) == (wanted.prompt_tok, wanted.text)


def test_two_requests_of_one_id_are_never_mixed_up(patient: EdgeEngine) -> None:
    first = endless("same id")
    heard = Heard(patient, first)
    heard.wait_for_text()

    assert Heard(patient, first).failed().trouble == "bad_request"
    patient.withdraw(first.id)
    heard.done()


def test_more_than_may_wait_are_told_so_and_so_are_those_that_a_closed_engine_leaves(long_gguf: Path) -> None:
    engine = EdgeEngine(
        long_gguf, sha256_file(long_gguf), threads=1, slots=1, context_tok=2**16, max_waiting=2
    )
    heard = [Heard(engine, endless("first"))]
    heard[0].wait_for_text()
    heard += [Heard(engine, endless(f"{at}")) for at in range(5)]

    assert [one.failed().trouble for one in heard[3:]] == ["overloaded"] * 3
    heard.append(Heard(engine, endless("hurried", budget_ms=1.0)))
    assert heard[-1].failed().trouble == "overloaded"

    engine.close()
    engine.close()

    assert {one.failed().trouble for one in heard[:3]} == {"closed"}
    assert Heard(engine, ask("late")).failed().trouble == "closed"
    assert engine.health().state == "closed"
    assert engine.pid is None


def test_a_drained_engine_ends_what_it_began(gguf: Path, sha256: str) -> None:
    engine = EdgeEngine(gguf, sha256, threads=1, slots=2)
    heard = [Heard(engine, ask(f"{at}")) for at in range(5)]

    engine.close(drain_s=60.0)

    assert all(one.done().finish in ("stop", "length") for one in heard)


def test_health_says_how_it_is(engine: EdgeEngine, sha256: str) -> None:
    Heard(engine, ask("health")).done()
    found = engine.health()

    assert (found.state, found.running, found.waiting) == ("ready", 0, 0)
    assert found.served > 0
    assert found.memory_mb is None or found.memory_mb > 10
    assert (engine.digest, engine.context_tok, dict(engine.adapters)) == (sha256, 512, {})


def test_a_file_with_other_bytes_is_never_loaded(gguf: Path, sha256: str, tmp_path: Path) -> None:
    flipped = tmp_path / "flipped.gguf"
    data = bytearray(gguf.read_bytes())
    data[-100] ^= 1
    flipped.write_bytes(data)

    with pytest.raises(IntegrityError, match="bytes changed"):
        EdgeEngine(flipped, sha256, threads=1)


def test_an_8_bit_cache_answers_almost_alike_in_half_the_memory(tmp_path: Path) -> None:
    path = tmp_path / "wide.gguf"
    convert(save_checkpoint(tmp_path / "wide", head_dim=32), path, metadata={})
    found: list[list[float]] = []
    sizes: list[float] = []
    for kv in ("f16", "q8_0"):
        engine = EdgeEngine(path, sha256_file(path), threads=1, slots=2, kv=kv)  # type: ignore[arg-type]
        done = Heard(engine, ask("which", labels=LABELS)).done()
        found.append(list((done.label_logprobs or {}).values()))
        sizes.append(engine.facts["cache_mb"])
        engine.close()

    assert found[1] == pytest.approx(found[0], rel=0.1)
    assert found[1] != found[0]
    assert sizes[1] / sizes[0] == pytest.approx(34 / 64)


def test_an_8_bit_cache_is_refused_where_heads_do_not_fill_its_blocks(gguf: Path, sha256: str) -> None:
    with pytest.raises(ModelError, match="multiple of 32"):
        EdgeEngine(gguf, sha256, threads=1, kv="q8_0")


def test_an_engine_that_is_not_ready_in_time_is_ended(gguf: Path, sha256: str) -> None:
    began = time.monotonic()

    with pytest.raises(ModelError, match="not ready within"):
        EdgeEngine(gguf, sha256, threads=1, start_s=0.01)

    assert time.monotonic() - began < 30
