from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from harness.errors import DataError, IntegrityError, ModelError
from harness.models.nf4 import round_to_nf4
from harness.specs.recipe import Tune
from harness.train.adapters import adapter_metadata, check_base, load_adapter, save_adapter
from harness.train.batches import Encoded
from harness.train.methods import adapt, keep_packed_weights_in_place
from tests.train.conftest import build_base

CPU = torch.device("cpu")


def adapted(base: Path, **tune: Any) -> Any:
    return adapt(base, Tune(rank=4, **tune), device=CPU, dtype=torch.float32)


def filled(base: Path, **tune: Any) -> Any:
    model = adapted(base, **tune)
    for at, parameter in enumerate(model.parameters.values()):
        parameter.data = torch.full_like(parameter, 0.01 * (at + 1))
    return model


def test_only_adapters_are_trained_and_they_are_float32(base: Path) -> None:
    model = adapt(base, Tune(rank=4), device=CPU, dtype=torch.bfloat16)
    trained = [p for p in model.model.parameters() if p.requires_grad]

    assert {p.dtype for p in trained} == {torch.float32}
    assert len(trained) == len(model.parameters) == 2 * 7 * 2
    assert all(".lora_" in name for name in model.parameters)


def test_the_adapters_draw_depends_on_the_seed_alone(base: Path) -> None:
    torch.manual_seed(1)
    one = adapted(base, seed=3).parameters
    torch.manual_seed(2)
    again, other = adapted(base, seed=3).parameters, adapted(base, seed=4).parameters

    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


def test_qlora_computes_with_nf4_weights_and_lora_with_the_bases_own(base: Path) -> None:
    plain = load_file(base / "model.safetensors")["model.layers.0.mlp.up_proj.weight"]
    place = "model.layers.0.mlp.up_proj.base_layer.weight"
    qlora = dict(adapted(base, method="qlora").model.named_parameters())[place]
    lora = dict(adapted(base, method="lora").model.named_parameters())[place]

    assert torch.equal(lora, plain)
    assert torch.equal(qlora, round_to_nf4(plain))
    assert not torch.equal(qlora, plain)


def test_a_packed_layer_does_not_repack_itself_in_eval_mode() -> None:
    import bitsandbytes as bnb

    layer = bnb.nn.Linear4bit(64, 64, bias=False, quant_type="nf4", compute_dtype=torch.bfloat16).to("cpu")
    layer.support_avx512bf16_for_cpu = True  # as on a processor that has it
    keep_packed_weights_in_place(torch.nn.Sequential(layer))
    before = layer.weight.data.clone()
    with torch.no_grad():
        layer.eval()(torch.randn(3, 64, dtype=torch.bfloat16))

    assert torch.equal(layer.weight.data, before)


def test_an_unknown_target_names_the_key(base: Path) -> None:
    with pytest.raises(ModelError, match=r"tune\.targets = nowhere_proj"):
        adapted(base, targets=("nowhere_proj",))


def test_a_saved_adapter_comes_back_bit_for_bit(base: Path, tmp_path: Path) -> None:
    model = filled(base)
    save_adapter(model, tmp_path, base_identity="a" * 64, method="qlora")
    fresh = adapted(base)

    load_adapter(fresh, tmp_path, base_identity="a" * 64)

    assert all(torch.equal(fresh.parameters[name], p) for name, p in model.parameters.items())
    assert adapter_metadata(tmp_path)["method"] == "qlora"


def test_two_saves_of_the_same_adapter_are_the_same_bytes(base: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        save_adapter(filled(base), tmp_path / name, base_identity="a" * 64, method="lora")

    for file in ("adapter_model.safetensors", "adapter_config.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    assert str(tmp_path) not in (tmp_path / "one" / "adapter_config.json").read_text()


def test_peft_itself_reads_the_adapter_and_computes_the_same(base: Path, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = filled(base, method="lora")
    save_adapter(model, tmp_path, base_identity="a" * 64, method="lora")
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    theirs = PeftModel.from_pretrained(plain, tmp_path)
    ids = tuple(range(10, 40))
    row = Encoded("r", ids, 1, False, False, True, len(ids) - 1)
    states, targets = model.hidden_and_targets([row], pad_id=2)

    logits = theirs(torch.tensor([ids])).logits[0, :-1]
    assert targets.tolist() == list(ids[1:])
    torch.testing.assert_close(model.model.get_output_embeddings()(states), logits, rtol=1e-4, atol=1e-5)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (config["r"], config["base_model_name_or_path"]) == (4, None)


def test_an_adapter_of_another_base_is_refused(base: Path, tmp_path: Path) -> None:
    save_adapter(filled(base), tmp_path, base_identity="a" * 64, method="lora")

    with pytest.raises(IntegrityError, match="names aaaaaaaaaaaaaaaa… as its base, and this base is bbbb"):
        load_adapter(adapted(base), tmp_path, base_identity="b" * 64)
    with pytest.raises(IntegrityError, match="names aaaa"):
        check_base(tmp_path, "")


def test_an_adapter_of_another_rank_or_other_layers_is_refused(base: Path, tmp_path: Path) -> None:
    save_adapter(filled(base), tmp_path, base_identity="a" * 64, method="lora")

    with pytest.raises(DataError, match=r"has shape \(4, 64\), wanted \(8, 64\)"):
        load_adapter(adapt(base, Tune(rank=8), device=CPU), tmp_path, base_identity="a" * 64)
    with pytest.raises(DataError, match="tensors differ"):
        load_adapter(adapted(base, targets=("q_proj",)), tmp_path, base_identity="a" * 64)


@pytest.mark.parametrize("content", [b"", b"\x00" * 64, b"\xff" * 100])
def test_a_file_that_is_no_adapter_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "adapter_model.safetensors").write_bytes(content)

    with pytest.raises(IntegrityError):
        check_base(tmp_path, "a" * 64)


def test_a_folder_without_a_checkpoint_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=str(tmp_path)):
        adapted(tmp_path)


def test_another_base_really_is_another(tmp_path: Path) -> None:
    from harness.models.identity import checkpoint_identity

    one, two = build_base(tmp_path / "1"), build_base(tmp_path / "2", seed=1)

    assert checkpoint_identity(one).digest != checkpoint_identity(two).digest
