"""Scores and texts of a GGUF file, against the checkpoint that it was made from."""

from __future__ import annotations

import math
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.errors import IntegrityError, ModelError
from harness.models import gguf_probe
from harness.models.base import ChoiceRequest, GenerateRequest, Message, Prompt
from harness.models.continuation import logprobs_of
from harness.models.gguf import GgufModel
from harness.models.gguf_following import _fitting
from harness.models.identity import digest_of

TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=20)
LOOSE = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def tiny_gguf(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from harness.export.gguf import convert

    out = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    convert(tiny, out, metadata={}, pre="gpt-2")
    return out


@pytest.fixture(scope="module")
def model(tiny_gguf: Path) -> Iterator[GgufModel]:
    opened = GgufModel(tiny_gguf, threads=1)
    yield opened
    opened.close()
    opened.close()


@pytest.fixture(scope="module")
def halved(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint with weights that F16 can hold, so that the file has the very same ones."""
    import shutil

    from safetensors.torch import load_file, save_file

    folder = tmp_path_factory.mktemp("halved") / "tiny"
    shutil.copytree(tiny, folder)
    weights = load_file(folder / "model.safetensors")
    rounded = {name: value.half().float() for name, value in weights.items()}
    save_file(rounded, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def precise(halved: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GgufModel]:
    from harness.export.gguf import convert

    out = tmp_path_factory.mktemp("precise") / "tiny.gguf"
    convert(halved, out, metadata={}, pre="gpt-2")
    opened = GgufModel(out, threads=1, widened=True, exact=True)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def float32(halved: Path) -> Any:
    from harness.models.transformers import TransformersModel

    return TransformersModel(halved, dtype="float32", device="cpu", threads=1, exact=True)


def ask(text: str, **limits: Any) -> Prompt:
    return Prompt((Message("system", "Be brief."), Message("user", text)), **limits)


@LOOSE
@given(
    texts=st.lists(TEXT, min_size=1, max_size=5),
    choices=st.lists(TEXT, min_size=1, max_size=6).map(lambda found: [*found, found[0] + "x", "é🙂", ""]),
)
def test_choices_score_as_in_the_checkpoint_token_by_token(
    texts: list[str], choices: list[str], model: GgufModel, tiny_model: Any, naive: Any
) -> None:
    model._exact = True
    requests = [ChoiceRequest(str(i), ask(text), tuple(choices)) for i, text in enumerate(texts)]
    model.plan(requests)

    answers = list(model.score_choices(requests))

    for request, answer in zip(requests, answers, strict=True):
        ids = tiny_model.token_ids(request.prompt)
        assert (answer.error, answer.id) == (None, request.id)
        assert model.token_ids(request.prompt) == ids
        for choice, found in zip(choices, answer.choice_logprobs or (), strict=True):
            answer_ids = tiny_model.chat.answer_ids(choice)
            slack = 0.02 * len(answer_ids)  # its matrices and its cache are in 16 bits
            assert found == pytest.approx(naive(ids, answer_ids), abs=slack)


@LOOSE
@given(
    texts=st.lists(TEXT, min_size=1, max_size=5),
    choices=st.lists(TEXT, min_size=1, max_size=6).map(lambda found: [*found, found[0] + "x", "é🙂", ""]),
    is_open=st.booleans(),
    is_raw=st.booleans(),
)
def test_widened_weights_score_as_the_checkpoint_in_float32(
    texts: list[str], choices: list[str], is_open: bool, is_raw: bool, precise: GgufModel, float32: Any
) -> None:
    found = [choice for choice in choices if choice] if is_open else choices
    prompts = [Prompt((), text=text) if is_raw else ask(text) for text in texts]
    requests = [ChoiceRequest(str(at), prompt, tuple(found), is_open) for at, prompt in enumerate(prompts)]
    precise.plan(requests)
    float32.plan(requests)

    answers = list(precise.score_choices(requests))
    wanted = list(float32.score_choices(requests))

    for answer, other in zip(answers, wanted, strict=True):
        assert (answer.error, answer.choice_tok) == (other.error, other.choice_tok)
        assert answer.prompt_digest == other.prompt_digest
        assert answer.choice_logprobs == pytest.approx(other.choice_logprobs, abs=5e-3)


def test_more_branches_than_llama_has_sequences_are_followed_in_turns(model: GgufModel, naive: Any) -> None:
    model._exact = True
    letters = "abcdefghi"
    choices = tuple(
        a + b + c + end for a in letters for b in letters for c in letters for end in ("", "x", "y")
    )
    request = ChoiceRequest("a", ask("x"), choices)

    (answer,) = model.score_choices([request])

    ids = model.token_ids(request.prompt)
    assert answer.choice_logprobs is not None
    for at in (0, 1, 2, 1000, 2185, 2186):
        wanted = naive(ids, model.chat.answer_ids(choices[at]))
        assert answer.choice_logprobs[at] == pytest.approx(wanted, abs=0.05)


def test_batches_of_a_plan_score_as_one_request_at_a_time(precise: GgufModel) -> None:
    model = precise
    requests = [ChoiceRequest(str(i), ask("clause " * i), ("yes", "no", "not sure")) for i in range(20)]
    plan = model.plan(requests)

    found = {
        i: answer
        for batch in plan
        for i, answer in zip(batch, model.score_choices([requests[i] for i in batch]), strict=True)
    }

    assert sorted(found) == list(range(20))
    assert len(plan) > 1
    for i, request in enumerate(requests):
        (alone,) = model.score_choices([request])
        assert found[i].choice_logprobs == pytest.approx(alone.choice_logprobs, abs=1e-4)


def test_a_resumed_run_scores_the_remaining_batches_bit_by_bit_alike(tiny_gguf: Path) -> None:
    requests = [ChoiceRequest(str(i), ask("clause " * i), ("yes", "no", "not sure")) for i in range(20)]

    def run(skip: int) -> list[Any]:
        opened = GgufModel(tiny_gguf, threads=1, budget_tok=256)
        batches = opened.plan(requests)[skip:]
        found = [
            answer.choice_logprobs
            for batch in batches
            for answer in opened.score_choices([requests[i] for i in batch])
        ]
        opened.close()
        return found

    whole, resumed = run(0), run(2)

    assert resumed
    assert whole[-len(resumed) :] == resumed


def test_parallel_text_is_the_text_of_the_checkpoint(model: GgufModel, tiny_model: Any) -> None:
    requests = [GenerateRequest(str(i), ask("word " * i), 10) for i in range(5)]

    found = list(model.generate(requests))
    wanted = list(tiny_model.generate(requests))

    assert [answer.text for answer in found] == [answer.text for answer in wanted]
    for one, other in zip(found, wanted, strict=True):
        assert one.token_logprobs == pytest.approx(other.token_logprobs, abs=0.05)
        assert one.prompt_digest == other.prompt_digest


def test_what_a_request_holds_never_raises(model: GgufModel) -> None:
    long, none, beyond, fine = model.score_choices(
        [
            ChoiceRequest("long", ask("x" * 200, max_tokens=50), ("a",)),
            ChoiceRequest("none", ask("x"), ()),
            ChoiceRequest("beyond", ask("x" * 600), ("a",)),
            ChoiceRequest("fine", ask("x"), ("a", "b")),
        ]
    )

    assert "its budget is 50" in str(long.error)
    assert none.error == "no choices to score"
    assert "over the model's 512" in str(beyond.error)
    assert fine.error is None


def test_a_failed_decode_is_an_error_and_the_next_request_is_answered(
    model: GgufModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness.models.gguf_api import Context

    request = ChoiceRequest("a", ask("x"), ("yes", "no"))
    (before,) = model.score_choices([request])
    with monkeypatch.context() as broken:

        def fail(*_: Any) -> None:
            raise RuntimeError("no room")

        broken.setattr(Context, "decode", fail)
        (failed,) = model.score_choices([request])

    (after,) = model.score_choices([request])

    assert failed.error == "RuntimeError: no room"
    assert after.choice_logprobs == before.choice_logprobs


def test_the_promised_digest_is_checked(tiny_gguf: Path) -> None:
    with pytest.raises(IntegrityError, match="wanted 0000"):
        GgufModel(tiny_gguf, threads=1, sha256="0" * 64)

    GgufModel(tiny_gguf, threads=1, sha256=digest_of(tiny_gguf)).close()


@pytest.mark.parametrize("keep", [0, 10, 1000])
def test_a_torn_file_is_refused(tiny_gguf: Path, tmp_path: Path, keep: int) -> None:
    torn = tmp_path / "torn.gguf"
    torn.write_bytes(tiny_gguf.read_bytes()[:keep])

    with pytest.raises(ModelError, match=r"torn\.gguf"):
        GgufModel(torn, threads=1)


def test_log_probabilities_are_the_float64_softmax() -> None:
    import numpy as np

    logits = np.random.default_rng(0).normal(0, 20, 5000).astype(np.float32)
    exact = logits.astype(np.float64)
    wanted = exact - (exact.max() + math.log(np.exp(exact - exact.max()).sum()))

    assert logprobs_of(logits, [0, 17, 4999]) == pytest.approx(list(wanted[[0, 17, 4999]]), abs=1e-6)


@given(st.lists(st.integers(1, 400), min_size=1, max_size=40), st.integers(1, 255))
def test_a_decode_always_takes_some_chains_and_never_more_than_there_are_sequences(
    lengths: list[int], sequences: int
) -> None:
    size = _fitting(lengths, sequences)

    assert 1 <= size <= max(1, min(len(lengths), sequences))
    assert size == 1 or sum(lengths[:size]) <= 256


def test_amx_is_read_off_the_processor(tmp_path: Path) -> None:
    with_amx, without = tmp_path / "a", tmp_path / "b"
    with_amx.write_text("processor: 0\nflags\t\t: fpu avx512f amx_bf16 amx_tile amx_int8\n")
    without.write_text("processor: 0\nflags\t\t: fpu avx512f\nmodel: amx_int8\n")

    assert gguf_probe.has_amx(with_amx)
    assert not gguf_probe.has_amx(without)
    assert not gguf_probe.has_amx(tmp_path / "missing")


def test_a_crash_of_the_first_decode_turns_the_extra_buffers_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(command: list[str], **_: Any) -> subprocess.CompletedProcess[bytes]:
        return subprocess.CompletedProcess(command, -signal.SIGSEGV)

    monkeypatch.setattr(gguf_probe, "has_amx", lambda: True)
    monkeypatch.setattr(gguf_probe.subprocess, "run", crash)
    path = tmp_path / "quantized.gguf"

    assert gguf_probe.needs_plain_buffers(path, is_quantized=True)
    assert not gguf_probe.needs_plain_buffers(path, is_quantized=False)
    monkeypatch.setattr(gguf_probe, "has_amx", lambda: False)
    assert not gguf_probe.needs_plain_buffers(path, is_quantized=True)


def test_the_probe_tells_a_good_file_from_a_bad_one(tiny_gguf: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(b"GGUF" + b"\xff" * 60)

    assert gguf_probe.survives(tiny_gguf)
    assert not gguf_probe.survives(bad)


def test_importing_the_models_loads_no_heavy_library() -> None:
    code = (
        "import sys, harness.models.load, harness.models.gguf, harness.models.transformers, harness.models.chat;"
        "print(sorted({'torch', 'transformers', 'llama_cpp', 'numpy', 'jinja2', 'peft'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"
