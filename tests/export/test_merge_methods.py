"""What each method trained, merged, computes what it computed; what is quantized again does not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from harness.errors import IntegrityError, ModelError
from harness.export.merge import merge
from harness.models.chat import load_chat
from harness.models.identity import checkpoint_identity
from harness.train.adapters import save_adapter
from tests.train.conftest import build_base
from tests.train.trained import METHODS, checkpoint_loss, encoded, fresh, loss_of, train, tuned

MERGED = [name for name in METHODS if name != "prompt"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def rows(base: Path) -> Any:
    return encoded(load_chat(base))


def save(model: Any, base: Path, folder: Path) -> Path:
    identity = checkpoint_identity(base).digest
    save_adapter(model, folder, base_identity=identity, method=model.method)
    return folder


@pytest.mark.parametrize("name", MERGED)
def test_a_merge_of_each_method_computes_what_was_trained(
    name: str, base: Path, rows: Any, tmp_path: Path
) -> None:
    tune = tuned(**METHODS[name])
    model = fresh(base, tune)
    before = loss_of(model, rows)
    train(model, tune, rows, steps=6)
    trained = loss_of(model, rows)
    adapter = save(model, base, tmp_path / "adapter")

    onto = "nf4" if tune.is_nf4 else "16bit"
    report = merge(base, adapter, tmp_path / "merged", onto=onto, nf4_dtype="float32")

    # F16 keeps 11 bits of each weight.
    assert checkpoint_loss(report.path, rows) == pytest.approx(trained, abs=abs(before - trained) / 20)
    assert trained < before - 0.03
    assert report.merged > 0


class Losses(NamedTuple):
    base: float
    trained: float
    onto_16bit: float
    onto_nf4: float
    quantized_again: float


@pytest.fixture(scope="module")
def table(base: Path, rows: Any, tmp_path_factory: pytest.TempPathFactory) -> Losses:
    """One small QLoRA run, its two merges, and PEFT's merge into 4-bit layers, which quantizes again."""
    folder = tmp_path_factory.mktemp("table")
    # Small steps: a change below NF4's own steps is what quantizing again takes away.
    tune = tuned(alpha=4.0, learning_rate=2e-3)
    model = fresh(base, tune)
    before = loss_of(model, rows)
    train(model, tune, rows, steps=10)
    adapter = save(model, base, folder / "adapter")
    ways = {
        onto: merge(base, adapter, folder / onto, onto=onto, nf4_dtype="float32").path
        for onto in ("16bit", "nf4")
    }
    return Losses(
        before,
        loss_of(model, rows),
        checkpoint_loss(ways["16bit"], rows),
        checkpoint_loss(ways["nf4"], rows),
        requantized_loss(base, adapter, rows),
    )


def requantized_loss(base: Path, adapter: Path, rows: Any) -> float:
    """The loss after PEFT's `merge_and_unload` on a base in 4 bits."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    from harness.train.methods import keep_packed_weights_in_place

    four_bits = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32,
    )
    model: Any = AutoModelForCausalLM.from_pretrained(
        base, dtype=torch.float32, quantization_config=four_bits, device_map={"": "cpu"}
    )
    keep_packed_weights_in_place(model)
    merged = PeftModel.from_pretrained(model, adapter).merge_and_unload().eval()
    keep_packed_weights_in_place(merged)
    total = 0.0
    for row in rows:
        ids = torch.tensor([row.ids])
        labels = ids.clone()
        labels[:, : row.supervised_from] = -100
        with torch.no_grad():
            total += float(merged(input_ids=ids, labels=labels).loss) * row.supervised_tok
    return total / sum(row.supervised_tok for row in rows)


def test_merged_into_the_dequantized_base_it_is_the_trained_model(table: Losses) -> None:
    gain = table.base - table.trained

    assert gain > 0.02
    assert table.onto_nf4 == pytest.approx(table.trained, abs=gain / 50)


def test_merged_into_16_bits_it_keeps_the_gain_on_another_base(table: Losses) -> None:
    gain = table.base - table.trained

    assert table.onto_16bit < table.base - gain / 2
    assert abs(table.onto_16bit - table.trained) > abs(table.onto_nf4 - table.trained)


def test_quantized_again_it_is_not_what_was_trained(table: Losses) -> None:
    again, kept = (abs(loss - table.trained) for loss in (table.quantized_again, table.onto_nf4))

    assert again > 10 * kept


def test_nothing_here_quantizes_a_merge_again(base: Path, rows: Any, tmp_path: Path) -> None:
    adapter = save(fresh(base, tuned()), base, tmp_path / "adapter")
    quantized = tmp_path / "quantized"
    shutil.copytree(base, quantized)
    config = json.loads((quantized / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (quantized / "config.json").write_text(json.dumps(config))

    with pytest.raises(ModelError, match="would round away what was trained"):
        merge(quantized, adapter, tmp_path / "merged", onto="16bit")
    with pytest.raises(ValueError, match="wanted 16bit or nf4"):
        merge(base, adapter, tmp_path / "merged", onto="4bit")  # type: ignore[arg-type]
    for onto in ("16bit", "nf4"):
        merged = merge(base, adapter, tmp_path / onto, onto=onto).path
        assert "quantization_config" not in json.loads((merged / "config.json").read_text())


def test_virtual_tokens_are_refused(base: Path, tmp_path: Path) -> None:
    adapter = save(fresh(base, tuned(method="prompt")), base, tmp_path / "adapter")

    with pytest.raises(ModelError, match="virtual tokens are no weights"):
        merge(base, adapter, tmp_path / "merged", onto="16bit")


def test_there_is_no_nf4_base_under_weights_that_were_all_trained(base: Path, tmp_path: Path) -> None:
    whole = save(fresh(base, tuned(method="full")), base, tmp_path / "whole")

    with pytest.raises(ModelError, match="no NF4 base under them"):
        merge(base, whole, tmp_path / "merged", onto="nf4")


@pytest.mark.parametrize("name", ["qlora", "ia3", "full"])
def test_nothing_is_merged_onto_another_base(name: str, base: Path, tmp_path: Path) -> None:
    adapter = save(fresh(base, tuned(**METHODS[name])), base, tmp_path / "adapter")
    other = build_base(tmp_path / "other", seed=3)

    with pytest.raises(IntegrityError, match="as its base, and"):
        merge(other, adapter, tmp_path / "merged", onto="16bit")


@pytest.mark.parametrize("name", ["dora", "ia3"])
def test_pefts_own_merge_on_16_bits_is_the_same(name: str, base: Path, rows: Any, tmp_path: Path) -> None:
    from peft import PeftModel
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    tune = tuned(**METHODS[name])
    model = fresh(base, tune)
    train(model, tune, rows, steps=4)
    adapter = save(model, base, tmp_path / "adapter")

    found = load_file(merge(base, adapter, tmp_path / "merged", onto="16bit").path / "model.safetensors")

    plain: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    wanted = PeftModel.from_pretrained(plain, adapter).merge_and_unload().state_dict()
    for key, weight in found.items():
        assert torch.allclose(weight.float(), wanted[key], rtol=2**-11, atol=1e-5), key


def test_a_scaled_layer_scales_its_bias(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    from tests.export.tiny_models import save_checkpoint

    qwen = save_checkpoint(tmp_path / "qwen", family="qwen2")
    model = fresh(qwen, tuned(method="ia3"))
    with torch.no_grad():
        for parameter in model.parameters.values():
            parameter.mul_(3.0)
    adapter = save(model, qwen, tmp_path / "adapter")

    merged = load_file(merge(qwen, adapter, tmp_path / "merged", onto="16bit").path / "model.safetensors")

    before = load_file(qwen / "model.safetensors")
    for name, factor in {"k_proj.bias": 3.0, "v_proj.bias": 3.0, "q_proj.bias": 1.0}.items():
        key = f"model.layers.0.self_attn.{name}"
        torch.testing.assert_close(merged[key].float(), factor * before[key], rtol=1e-3, atol=1e-5)
