"""Scores and texts of a Transformers checkpoint, against the textbook computation."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.errors import ModelError
from harness.models.base import ChoiceRequest, GenerateRequest, Message, Prompt
from harness.models.transformers import TransformersModel
from harness.models.trie import PRUNE_NATS

TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=0, max_size=24)
LOOSE = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def ask(text: str, **limits: Any) -> Prompt:
    return Prompt((Message("system", "Be brief."), Message("user", text)), **limits)


@LOOSE
@given(
    texts=st.lists(TEXT, min_size=1, max_size=5),
    choices=st.lists(TEXT, min_size=1, max_size=6).flatmap(
        lambda found: st.just([*found, found[0] + "x", found[0] + "xy", "é🙂", ""])
    ),
)
def test_choices_score_as_one_by_one(
    texts: list[str], choices: list[str], tiny_model: Any, naive: Any
) -> None:
    tiny_model._exact = True
    requests = [ChoiceRequest(str(i), ask(text), tuple(choices)) for i, text in enumerate(texts)]
    tiny_model.plan(requests)

    answers = list(tiny_model.score_choices(requests))

    for request, answer in zip(requests, answers, strict=True):
        assert (answer.error, answer.id) == (None, request.id)
        ids = tiny_model.token_ids(request.prompt)
        for choice, found in zip(choices, answer.choice_logprobs, strict=True):
            assert found == pytest.approx(naive(ids, tiny_model.chat.answer_ids(choice)), abs=1e-4)


@LOOSE
@given(text=TEXT, choices=st.lists(TEXT, min_size=2, max_size=8, unique=True))
def test_pruning_moves_no_probability_by_a_millionth(
    text: str, choices: list[str], tiny_model: Any, naive: Any
) -> None:
    tiny_model._exact = False
    request = ChoiceRequest("a", ask(text), tuple(choices))

    (answer,) = tiny_model.score_choices([request])

    ids = tiny_model.token_ids(request.prompt)
    exact = [naive(ids, tiny_model.chat.answer_ids(choice)) for choice in choices]
    for found, wanted in zip(softmax(answer.choice_logprobs), softmax(exact), strict=True):
        assert found == pytest.approx(wanted, abs=1e-6 + 1e-4 * wanted)
    for found, wanted in zip(answer.choice_logprobs, exact, strict=True):
        assert found >= wanted - 1e-4
        assert found <= max(wanted, max(exact) - PRUNE_NATS) + 1e-3 or found <= max(exact)


def softmax(values: Any) -> list[float]:
    top = max(values)
    weights = [math.exp(value - top) for value in values]
    return [weight / sum(weights) for weight in weights]


def test_batches_of_a_plan_score_as_one_request_at_a_time(tiny_model: Any) -> None:
    tiny_model._exact = True
    requests = [ChoiceRequest(str(i), ask("clause " * i), ("yes", "no", "not sure")) for i in range(9)]
    plan = tiny_model.plan(requests)

    found = {i: a for batch in plan for i, a in zip(batch, score(tiny_model, requests, batch), strict=True)}

    assert sorted(found) == list(range(9))
    for i, request in enumerate(requests):
        (alone,) = tiny_model.score_choices([request])
        assert found[i].choice_logprobs == pytest.approx(alone.choice_logprobs, abs=1e-4)
        assert found[i].prompt_digest == alone.prompt_digest
        assert alone.latency_ms is not None


def score(model: Any, requests: list[ChoiceRequest], batch: list[int]) -> list[Any]:
    return list(model.score_choices([requests[i] for i in batch]))


def test_what_a_request_holds_never_raises(tiny_model: Any) -> None:
    requests = [
        ChoiceRequest("long", ask("x" * 200, max_tokens=50), ("a",)),
        ChoiceRequest("cut", ask("x" * 200, max_tokens=100, over_length="truncate"), ("a", "b")),
        ChoiceRequest("none", ask("x"), ()),
        ChoiceRequest("beyond", ask("x" * 600), ("a",)),
        ChoiceRequest("fine", ask("x"), ("a", "b")),
    ]

    long, cut, none, beyond, fine = tiny_model.score_choices(requests)

    assert "its budget is 50" in long.error
    assert (cut.error, cut.is_truncated, cut.prompt_tok) == (None, True, 100)
    assert none.error == "no choices to score"
    assert "over the model's 512" in beyond.error
    assert (fine.error, fine.is_truncated) == (None, False)


def test_logits_that_are_not_finite_are_an_error_never_a_score(tiny: Path) -> None:
    import torch

    model = TransformersModel(tiny, dtype="float32", device="cpu", threads=1)
    with torch.no_grad():
        model._network.model.norm.weight[0] = float("nan")

    (scored,) = model.score_choices([ChoiceRequest("a", ask("x"), ("yes", "no"))])
    (written,) = model.generate([GenerateRequest("b", ask("x"), 3)])

    assert scored.error == written.error == "the model's logits are not finite"
    assert scored.choice_logprobs is written.text is None


def test_greedy_text_is_what_one_by_one_generation_gives(tiny_model: Any) -> None:
    import torch

    requests = [GenerateRequest(str(i), ask("word " * i), 12) for i in range(5)]

    answers = list(tiny_model.generate(requests))

    for request, answer in zip(requests, answers, strict=True):
        ids = tiny_model.token_ids(request.prompt)
        written: list[int] = []
        logprobs: list[float] = []
        while len(written) < 12 and written[-1:] != [tiny_model.chat.end_id]:
            logits = tiny_model._network(torch.tensor([ids + written])).logits[0, -1].double()
            written.append(int(logits.argmax()))
            logprobs.append(float(logits.log_softmax(-1)[written[-1]]))
        assert answer.text == tiny_model.chat.decode(written)
        assert answer.token_logprobs == pytest.approx(logprobs, abs=1e-4)
        assert answer.output_tok == len(written)
        assert answer.is_truncated is (written[-1] != tiny_model.chat.end_id)


def test_a_stop_string_ends_the_text_and_is_not_in_it(tiny_model: Any) -> None:
    (whole,) = tiny_model.generate([GenerateRequest("a", ask("x"), 12)])
    stop = whole.text[3:5]

    (cut,) = tiny_model.generate([GenerateRequest("a", ask("x"), 12, stop=(stop,))])

    assert cut.text == whole.text[: whole.text.find(stop)]
    assert not cut.is_truncated


def test_sampling_depends_on_the_seed_and_not_on_the_company(tiny_model: Any) -> None:
    one = GenerateRequest("a", ask("x"), 8, temperature=1.0, seed=3)
    other = GenerateRequest("b", ask("something else"), 8, temperature=1.0, seed=4)

    (alone,) = tiny_model.generate([one])
    together, _ = tiny_model.generate([one, other])
    (reseeded,) = tiny_model.generate([GenerateRequest("a", ask("x"), 8, temperature=1.0, seed=5)])

    assert alone.text == together.text
    assert alone.text != reseeded.text


def test_an_adapter_changes_scores_as_its_merge_does(tiny: Path, tmp_path: Path) -> None:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(1)
    base = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32)
    tuned = get_peft_model(base, LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "down_proj"]))
    for name, value in tuned.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(value, std=0.2)
    tuned.save_pretrained(tmp_path / "adapter")
    shutil.copytree(tiny, tmp_path / "merged")
    tuned.merge_and_unload().save_pretrained(tmp_path / "merged")
    request = ChoiceRequest("a", ask("x"), ("yes", "no"))
    options: Any = {"dtype": "float32", "device": "cpu", "threads": 1, "exact": True}

    models = [
        TransformersModel(tiny, **options),
        TransformersModel(tiny, adapter=tmp_path / "adapter", **options),
        TransformersModel(tmp_path / "merged", **options),
    ]

    plain, adapted, merged = [next(model.score_choices([request])).choice_logprobs for model in models]
    assert adapted == pytest.approx(merged, abs=1e-3)
    assert adapted != pytest.approx(plain, abs=1e-1)
    assert len({model.identity.digest for model in models}) == 3


def test_nf4_computes_with_exactly_the_weights_of_a_4_bit_layer(tiny: Path) -> None:
    import torch
    from bitsandbytes.nn import Linear4bit, Params4bit

    from harness.models.nf4 import linear_layers, round_to_nf4

    weight = (torch.randn(96, 64) * 0.05).bfloat16()
    layer = Linear4bit(64, 96, bias=False, compute_dtype=torch.bfloat16, quant_type="nf4")
    layer.weight = Params4bit(weight.clone(), requires_grad=False, quant_type="nf4", compress_statistics=True)
    layer.to("cpu")
    layer.support_avx512bf16_for_cpu = False
    inputs = torch.randn(3, 64, dtype=torch.bfloat16)

    assert torch.equal(layer(inputs), torch.nn.functional.linear(inputs, round_to_nf4(weight)))

    model = TransformersModel(tiny, nf4=True, device="cpu", threads=1)
    plain = TransformersModel(tiny, device="cpu", threads=1)
    names = set(linear_layers(plain._network))
    assert "lm_head" not in names
    assert len(names) == 14
    assert model.identity.digest != plain.identity.digest
    name = "model.layers.0.mlp.up_proj"
    rounded = round_to_nf4(plain._network.get_submodule(name).weight.bfloat16())
    assert torch.equal(model._network.get_submodule(name).weight.bfloat16(), rounded)


@pytest.mark.parametrize("breakage", ["weights", "config", "pickle", "adapter"])
def test_what_cannot_be_loaded_says_which_folder(tiny: Path, tmp_path: Path, breakage: str) -> None:
    folder = Path(shutil.copytree(tiny, tmp_path / "broken"))
    if breakage == "weights":
        (folder / "model.safetensors").write_bytes(b"not safetensors")
    if breakage == "config":
        (folder / "config.json").unlink()
    if breakage == "pickle":
        (folder / "model.safetensors").rename(folder / "pytorch_model.bin")

    with pytest.raises(ModelError, match="broken"):
        TransformersModel(folder, adapter=folder if breakage == "adapter" else None, threads=1)


def test_a_network_that_caps_its_logits_is_read_through_its_own_logits(tiny: Path) -> None:
    import torch

    from harness.models.readout import Places, Readout

    model = TransformersModel(tiny, dtype="float32", device="cpu", threads=1)
    network = model._network
    original = network.forward

    def capped(*args: Any, **kwargs: Any) -> Any:
        found = original(*args, **kwargs)
        found.logits = 0.5 * torch.tanh(found.logits)
        return found

    assert Readout(network, "cpu")._is_plain
    network.forward = capped
    readout = Readout(network, "cpu")
    ids = torch.tensor([[1, 2, 3]])
    with torch.inference_mode():
        logits = readout.logits(readout.states(Places([0, 0], [2, 0]), input_ids=ids, use_cache=False))
        wanted = network(ids).logits[0, [2, 0]]
    assert not readout._is_plain
    assert torch.allclose(logits, wanted, atol=1e-4)
