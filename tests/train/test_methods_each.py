from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.errors import IntegrityError, ModelError
from harness.models.nf4 import round_to_nf4
from harness.train.adapters import adapter_metadata, load_adapter, save_adapter
from harness.train.methods import parameter_groups
from tests.train.trained import METHODS, checkpoint_loss, encoded, fresh, loss_of, train, tuned


@pytest.mark.parametrize("name", METHODS)
def test_each_method_learns_saves_and_comes_back_bit_for_bit(
    name: str, base: Path, chat: Any, tmp_path: Path
) -> None:
    tune, rows = tuned(**METHODS[name]), encoded(chat)
    model = fresh(base, tune)
    losses = train(model, tune, rows)
    save_adapter(model, tmp_path, base_identity="a" * 64, method=tune.method)
    again = fresh(base, tune)

    load_adapter(again, tmp_path, base_identity="a" * 64)

    assert losses[-1] < losses[0] - 0.05
    assert all(torch.equal(again.parameters[key], p) for key, p in model.parameters.items())
    assert loss_of(again, rows) == loss_of(model, rows)
    assert adapter_metadata(tmp_path)["base_identity"] == "a" * 64


@pytest.mark.parametrize("name", METHODS)
def test_no_method_takes_what_was_trained_on_another_base(name: str, base: Path, tmp_path: Path) -> None:
    tune = tuned(**METHODS[name])
    save_adapter(fresh(base, tune), tmp_path, base_identity="a" * 64, method=tune.method)

    with pytest.raises(IntegrityError, match="names aaaa"):
        load_adapter(fresh(base, tune), tmp_path, base_identity="b" * 64)


@pytest.mark.parametrize("name", [name for name in METHODS if "nf4" not in name and name != "qlora"])
def test_before_training_each_method_answers_as_the_base_does(name: str, base: Path, chat: Any) -> None:
    rows, tune = encoded(chat), tuned(**METHODS[name])
    model = fresh(base, tune)
    if name == "prompt":
        with model.reference() as bare:
            assert loss_of(bare, rows) == pytest.approx(checkpoint_loss(base, rows), rel=1e-5)
    else:
        assert loss_of(model, rows) == pytest.approx(checkpoint_loss(base, rows), rel=1e-5)


@pytest.mark.parametrize("name", ["qlora", "lora, rank stabilized", "dora", "ia3", "prompt"])
def test_with_its_adapters_off_a_trained_model_is_the_base_again(name: str, base: Path, chat: Any) -> None:
    tune, rows = tuned(**METHODS[name]), encoded(chat)
    model = fresh(base, tune)
    before = loss_of(model, rows)
    train(model, tune, rows, steps=3)
    after = loss_of(model, rows)

    with model.reference() as reference:
        off = loss_of(reference, rows)

    if name != "prompt":
        assert off == pytest.approx(before, rel=1e-6)
    assert off != after
    assert loss_of(model, rows) == after
    assert all(p.requires_grad for p in model.parameters.values())


@pytest.mark.parametrize("name", ["full", "pissa"])
def test_a_method_that_changes_the_base_has_no_reference(name: str, base: Path) -> None:
    with pytest.raises(ModelError, match="no reference"), fresh(base, tuned(**METHODS[name])).reference():
        pass


def test_only_b_gets_the_other_learning_rate_of_lora_plus(base: Path) -> None:
    tune = tuned(method="lora", b_rate_ratio=16.0)
    model = fresh(base, tune)

    slow, fast = parameter_groups(model, tune)

    names = {id(p): name for name, p in model.parameters.items()}
    assert {names[id(p)].split(".")[-2] for p in fast["params"]} == {"lora_B"}
    assert {names[id(p)].split(".")[-2] for p in slow["params"]} == {"lora_A"}
    assert (slow["rate_ratio"], fast["rate_ratio"]) == (1.0, 16.0)
    assert len(parameter_groups(model, tuned(method="lora"))) == 1


def test_rslora_scales_by_the_root_of_the_rank(base: Path) -> None:
    model = fresh(base, tuned(method="lora", rslora=True)).model
    layers = [module for module in model.modules() if hasattr(module, "lora_A")]

    assert {layer.scaling["default"] for layer in layers} == {8.0 / 4**0.5}


def test_pissa_begins_at_the_principal_components_and_nf4_rounds_the_rest(base: Path) -> None:
    from safetensors.torch import load_file

    weight = load_file(base / "model.safetensors")["model.layers.0.mlp.up_proj.weight"]
    left, values, right = torch.linalg.svd(weight.double(), full_matrices=False)
    principal = (left[:, :4] * values[:4]) @ right[:4]

    model = fresh(base, tuned(init="pissa"))

    layer = model.model.get_submodule("model.layers.0.mlp.up_proj")
    product = layer.scaling["default"] * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
    torch.testing.assert_close(product.double(), principal, rtol=0, atol=1e-5)
    rest = (weight.double() - principal).float()
    # A weight on the border between two NF4 values may fall to either side of it.
    same = torch.isclose(layer.base_layer.weight, round_to_nf4(rest), rtol=0.01, atol=1e-5)
    assert same.float().mean() > 0.98
    error = (layer.base_layer.weight + product - weight).norm()
    assert error < (round_to_nf4(weight) - weight).norm()


def test_pissa_is_saved_as_a_plain_lora_of_the_whole_base(base: Path, chat: Any, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    tune, rows = tuned(**METHODS["pissa, rank stabilized"]), encoded(chat)
    model = fresh(base, tune)
    train(model, tune, rows, steps=3)
    save_adapter(model, tmp_path, base_identity="a" * 64, method="lora")

    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    PeftModel.from_pretrained(plain, tmp_path).merge_and_unload().save_pretrained(tmp_path / "merged")

    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (config["r"], config["init_lora_weights"]) == (8, True)
    assert checkpoint_loss(tmp_path / "merged", rows) == pytest.approx(loss_of(model, rows), rel=1e-5)


def test_pissa_does_not_resume_from_another_start(base: Path, tmp_path: Path) -> None:
    save_adapter(fresh(base, tuned(init="pissa")), tmp_path / "nf4", base_identity="a" * 64, method="qlora")
    save_adapter(fresh(base, tuned()), tmp_path / "plain", base_identity="a" * 64, method="qlora")

    with pytest.raises(IntegrityError, match="other principal components"):
        load_adapter(fresh(base, tuned(init="pissa", alpha=4.0)), tmp_path / "nf4", base_identity="a" * 64)
    with pytest.raises(IntegrityError, match="was not trained with init pissa"):
        load_adapter(fresh(base, tuned(init="pissa")), tmp_path / "plain", base_identity="a" * 64)
    with pytest.raises(IntegrityError, match="was trained with init pissa"):
        load_adapter(fresh(base, tuned(rank=8)), tmp_path / "nf4", base_identity="a" * 64)


@pytest.mark.parametrize("name", ["dora", "ia3", "prompt"])
def test_peft_itself_reads_each_kind_and_computes_the_same(
    name: str, base: Path, chat: Any, tmp_path: Path
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    tune, rows = tuned(**METHODS[name]), encoded(chat, 1)
    model = fresh(base, tune)
    train(model, tune, rows, steps=3)
    save_adapter(model, tmp_path, base_identity="a" * 64, method=tune.method)
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)

    theirs = PeftModel.from_pretrained(plain, tmp_path).eval()

    ids = torch.tensor([rows[0].ids])
    labels = ids.clone()
    labels[:, : rows[0].supervised_from] = -100
    with torch.no_grad():
        loss = float(theirs(input_ids=ids, labels=labels).loss)
    assert loss == pytest.approx(loss_of(model, rows), rel=1e-4)


@pytest.mark.parametrize("name", [name for name in METHODS if name != "prompt"])
def test_the_gate_scores_the_very_model_that_was_trained(
    name: str, base: Path, chat: Any, tmp_path: Path
) -> None:
    from harness.models.network import load_network

    tune, rows = tuned(**METHODS[name]), encoded(chat, 4)
    model = fresh(base, tune)
    before = loss_of(model, rows)
    train(model, tune, rows, steps=4)
    trained = loss_of(model, rows)
    save_adapter(model, tmp_path, base_identity="a" * 64, method=tune.method)

    reference, adapter = (tmp_path, None) if tune.method == "full" else (base, tmp_path)
    network: Any = load_network(reference, adapter=adapter, nf4=tune.is_nf4, dtype="float32", device="cpu")

    total = 0.0
    for row in rows:
        labels = torch.tensor([row.ids])
        labels[:, : row.supervised_from] = -100
        with torch.no_grad():
            total += (
                float(network(input_ids=torch.tensor([row.ids]), labels=labels).loss) * row.supervised_tok
            )
    found = total / sum(row.supervised_tok for row in rows)
    # The gate reads the base in bfloat16 before it rounds to NF4; this test trains from float32.
    close = abs(before - trained) / 5 if tune.is_nf4 else 1e-4
    assert found == pytest.approx(trained, abs=close)
