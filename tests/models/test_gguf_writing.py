"""Free answers of a GGUF: side by side, one after another, and held to a grammar."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.models import gguf_constraint, gguf_writing
from harness.models.base import GenerateRequest, Message, Prompt
from harness.models.gguf import GgufModel
from harness.models.gguf_api import Cache, Context
from harness.models.gguf_constraint import GrammarConstraint
from harness.models.gguf_writing import UNKNOWN_MEMORY_BYTES, Job, free_memory_bytes, plan_cache
from harness.models.grammar import Field, json_list_of, json_object, one_of

LABEL = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=8)
LOOSE = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def model(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GgufModel]:
    from harness.export.gguf import convert

    out = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    convert(tiny, out, metadata={}, pre="gpt-2")
    opened = GgufModel(out, threads=1, widened=True)
    yield opened
    opened.close()


def ask(text: str) -> Prompt:
    return Prompt((Message("system", "Be brief."), Message("user", text)))


def written(model: GgufModel, *requests: GenerateRequest) -> list[Any]:
    model.plan(requests)
    answers = list(model.generate(requests))
    assert [answer.id for answer in answers] == [request.id for request in requests]
    return answers


@pytest.mark.parametrize("places", [1, 3, 64])
def test_a_text_does_not_depend_on_how_many_are_written_beside_it(
    places: int, model: GgufModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = [
        GenerateRequest(str(i), ask("word " * (i % 7)), 1 + 5 * i % 23, temperature=i % 2 * 0.8, seed=i)
        for i in range(14)
    ]
    alone = [written(model, request)[0] for request in requests]
    monkeypatch.setattr(gguf_writing, "MAX_PLACES", places)

    together = written(model, *requests)

    assert [answer.text for answer in together] == [answer.text for answer in alone]
    for one, other in zip(together, alone, strict=True):
        assert one.token_logprobs == pytest.approx(other.token_logprobs, abs=1e-4)


def test_a_place_is_taken_again_by_the_very_next_decode(
    model: GgufModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    decodes: list[int] = []
    decode = Context.decode

    def counted(self: Context, feeds: Any) -> Any:
        decodes.append(sum(feed.is_scored for feed in feeds))
        return decode(self, feeds)

    monkeypatch.setattr(gguf_writing, "MAX_PLACES", 2)
    monkeypatch.setattr(Context, "decode", counted)
    lengths = [9, 3, 3, 3]
    model._drop_context()

    written(model, *(GenerateRequest(str(i), ask("x"), n) for i, n in enumerate(lengths)))

    assert [count for count in decodes if count] == [2] * 9


def test_a_batch_is_larger_than_the_places_that_are_taken_in_turns(model: GgufModel) -> None:
    requests = [GenerateRequest(str(i), ask("word " * 20), 5) for i in range(70)]

    assert [len(batch) for batch in model.plan(requests)] == [64, 6]


def test_a_sampled_text_depends_on_its_seed_alone(model: GgufModel) -> None:
    one, same, other = written(
        model,
        *(GenerateRequest(str(i), ask("x"), 12, temperature=1.0, seed=s) for i, s in enumerate((5, 5, 6))),
    )

    assert one.text == same.text != other.text


def test_a_stop_string_ends_the_text_before_itself(model: GgufModel) -> None:
    (whole,) = written(model, GenerateRequest("a", ask("x"), 20))
    stop = whole.text[5:7]

    (cut,) = written(model, GenerateRequest("a", ask("x"), 20, stop=(stop, "\0never")))

    assert cut.text == whole.text[: whole.text.index(stop)]
    assert not cut.is_truncated
    assert whole.is_truncated


def test_no_token_is_written_where_none_may_be(model: GgufModel) -> None:
    (answer,) = written(model, GenerateRequest("a", ask("x"), 0))

    assert (answer.text, answer.output_tok, answer.error) == ("", 0, None)


def test_raw_text_goes_on_without_a_template(model: GgufModel) -> None:
    (answer,) = written(model, GenerateRequest("a", Prompt((), text="once"), 5))

    assert answer.error is None
    assert answer.prompt_tok == len("once")


@LOOSE
@given(labels=st.lists(LABEL, min_size=1, max_size=6), temperature=st.sampled_from([0.0, 1.0]))
def test_an_answer_is_one_of_the_labels(labels: list[str], temperature: float, model: GgufModel) -> None:
    (answer,) = written(
        model, GenerateRequest("a", ask("x"), 60, temperature=temperature, grammar=one_of(labels))
    )

    assert answer.error is None
    assert answer.text in labels
    assert not answer.is_truncated


@LOOSE
@given(labels=st.lists(LABEL, min_size=1, max_size=5))
def test_an_answer_is_a_json_list_of_labels(labels: list[str], model: GgufModel) -> None:
    (answer,) = written(
        model, GenerateRequest("a", ask("x"), 120, temperature=1.0, grammar=json_list_of(labels))
    )

    assert answer.error is None
    if not answer.is_truncated:
        assert set(json.loads(answer.text)) <= set(labels)


@LOOSE
@given(
    names=st.lists(LABEL, min_size=1, max_size=3, unique=True), labels=st.lists(LABEL, min_size=1, max_size=3)
)
def test_an_answer_is_a_json_object_with_the_fields(
    names: list[str], labels: list[str], model: GgufModel
) -> None:
    fields = [
        Field(name, "string" if at else "number", tuple(labels) if at else (), is_nullable=at > 1)
        for at, name in enumerate(names)
    ]

    (answer,) = written(
        model, GenerateRequest("a", ask("x"), 200, temperature=0.7, grammar=json_object(fields))
    )

    assert answer.error is None
    if not answer.is_truncated:
        found = json.loads(answer.text)
        assert list(found) == names
        assert isinstance(found[names[0]], int | float)
        assert all(found[name] in {*labels, None} for name in names[1:])


def test_free_strings_in_an_object_are_json(model: GgufModel) -> None:
    fields = [
        Field("who", "string"),
        Field("n", "integer"),
        Field("is_paid", "boolean"),
        Field("all", is_list=True),
    ]
    requests = [
        GenerateRequest(str(seed), ask("x"), 400, temperature=1.0, seed=seed, grammar=json_object(fields))
        for seed in range(8)
    ]

    answers = [answer for answer in written(model, *requests) if not answer.is_truncated]

    for answer in answers:
        found = json.loads(answer.text)
        assert re.fullmatch(r"-?\d+", str(found["n"]))
        assert isinstance(found["who"], str)
        assert isinstance(found["is_paid"], bool)
        assert all(isinstance(one, str) for one in found["all"])


def test_log_probabilities_under_a_grammar_are_those_of_the_model(model: GgufModel, naive: Any) -> None:
    label = "Governing Law"  # no two of its letters are one token

    (answer,) = written(model, GenerateRequest("a", ask("x"), 20, grammar=one_of([label])))

    wanted = naive(model.token_ids(ask("x")), model.chat.answer_ids(label))
    assert answer.output_tok == len(label) + 1
    assert sum(answer.token_logprobs) == pytest.approx(wanted, abs=0.05)


@pytest.mark.parametrize(
    "grammar",
    [
        "",
        'root ::= "a',
        'root ::= [a',
        "root ::= other",
        'other ::= "a"',
        "root ::= root",
        'root ::= a "x"\na ::= root | "y"',
        'root ::= a root | "x"\na ::= b\nb ::= "y" |',
        "root ::= " + "(" * 5000 + '"a"' + ")" * 5000,
        'root ::= "a"{1000000}',
        'root ::= (((("a"{999}){999}){999}){999})',
        'root ::= "a"{5,2}',
        'root ::= "\\q"',
        'root ::= "\\x00"',
        'root ::= "\0"',
        'root ::= "\ud800"',
        "root ::= <[3]>",
        "root ::= [b-a]",
        'root ::= *',
        'root ::= "a" )',
        'root ::= "a"\nroot ::= "b"',
        'root ::= s\ns ::= "a" s "b" | "a" s "c" | "a"',
        "\n".join(f"r{i} ::= r{i + 1} | r{i + 1}" for i in range(60)) + '\nr60 ::= "a"\nroot ::= r0',
        "x" * 100_000,
    ],
)  # fmt: skip
def test_a_hostile_grammar_is_an_error_and_the_others_are_answered(grammar: str, model: GgufModel) -> None:
    bad, fine = written(
        model,
        GenerateRequest("bad", ask("x"), 5, grammar=grammar),
        GenerateRequest("fine", ask("x"), 5, grammar=one_of(["a"])),
    )

    assert bad.error
    assert (fine.error, fine.text) == (None, "a")


def test_a_grammar_that_the_vocabulary_cannot_follow_is_an_error(
    model: GgufModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(GrammarConstraint, "_allowed", lambda _, tokens: tokens < 0)

    bad, fine = written(
        model,
        GenerateRequest("bad", ask("x"), 5, grammar=one_of(["a"])),
        GenerateRequest("fine", ask("x"), 5),
    )

    assert "no token of the vocabulary continues" in bad.error
    assert fine.error is None


def test_a_grammar_that_takes_too_long_is_an_error(model: GgufModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf_constraint, "PATIENCE_S", -1.0)

    (answer,) = written(model, GenerateRequest("a", ask("x"), 5, grammar=one_of(["a"])))

    assert "is it ambiguous?" in answer.error


def test_a_special_token_is_not_read_as_its_name(model: GgufModel) -> None:
    (answer,) = written(model, GenerateRequest("a", ask("x"), 40, grammar='root ::= "<|im_start|>"'))

    assert answer.text == "<|im_start|>"
    assert answer.output_tok == len("<|im_start|>") + 1


def test_an_empty_text_is_allowed_where_the_grammar_allows_it(model: GgufModel) -> None:
    (answer,) = written(model, GenerateRequest("a", ask("x"), 5, grammar='root ::= ""'))

    assert (answer.error, answer.text, answer.output_tok) == (None, "", 1)


@given(
    lengths=st.lists(st.integers(1, 5000), min_size=1, max_size=100),
    cell_bytes=st.integers(1, 2**20),
    free_bytes=st.integers(0, 2**36),
)
def test_a_cache_holds_the_longest_and_stays_within_its_share(
    lengths: list[int], cell_bytes: int, free_bytes: int
) -> None:
    jobs = [Job([0] * length, None, 10) for length in lengths]  # type: ignore[arg-type]

    cache = plan_cache(jobs, cell_bytes, free_bytes)

    assert cache.cells >= max(lengths) + 10
    assert 2 <= cache.sequences <= min(len(jobs), 32) + 1
    assert cache.sequences == 2 or cache.cells * cache.sequences * cell_bytes <= free_bytes / 4
    assert cache == Cache(cache.cells, cache.sequences, is_apart=True)


def test_free_memory_is_read_off_the_system(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:  10 kB\nMemAvailable:    7 kB\n")

    assert free_memory_bytes(meminfo) == 7 * 1024
    assert free_memory_bytes(tmp_path / "missing") == UNKNOWN_MEMORY_BYTES
