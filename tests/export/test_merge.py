from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from harness.errors import HarnessError, ModelError
from harness.export import merge as room
from harness.export.merge import merge
from tests.export.tiny_models import mean_kl, save_adapter, save_checkpoint, torch_logits

IDS = list(range(5, 45))
ADAPTERS: dict[str, dict[str, Any]] = {
    "plain": {},
    "rank stabilized": {"use_rslora": True},
    "patterns": {
        "rank_pattern": {"q_proj": 2, "layers.1.mlp.down_proj": 8},
        "alpha_pattern": {"layers.0.self_attn.k_proj": 32, "v_proj": 1},
    },
    "patterns, rank stabilized": {"use_rslora": True, "rank_pattern": {"q_proj": 9}},
    "all layers": {"target_modules": "all-linear"},
}


@pytest.mark.parametrize("kind", ADAPTERS)
def test_a_merge_equals_pefts_own_on_16_bit_weights(kind: str, llama: Path, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    adapter = save_adapter(llama, tmp_path / "adapter", **ADAPTERS[kind])

    report = merge(llama, adapter, tmp_path / "merged", onto="16bit")

    base: Any = AutoModelForCausalLM.from_pretrained(llama, dtype=torch.float32)
    wanted = PeftModel.from_pretrained(base, adapter).merge_and_unload().state_dict()
    found = load_file(report.path / "model.safetensors")
    assert report.merged > 0
    for name, weight in found.items():
        assert torch.allclose(weight.float(), wanted[name], rtol=2**-11, atol=1e-6), name
    assert mean_kl(torch_logits(llama, IDS, adapter), torch_logits(report.path, IDS)) < 1e-4


def test_the_merge_changes_the_model(llama: Path, tmp_path: Path) -> None:
    adapter = save_adapter(llama, tmp_path / "adapter")

    report = merge(llama, adapter, tmp_path / "merged", onto="16bit")

    assert mean_kl(torch_logits(llama, IDS), torch_logits(report.path, IDS)) > 1e-3


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_the_nf4_base_is_what_a_4_bit_linear_layer_multiplies_with(
    dtype: Any, llama: Path, tmp_path: Path
) -> None:
    import bitsandbytes as bnb

    adapter = save_adapter(llama, tmp_path / "adapter", std=0.0)

    report = merge(llama, adapter, tmp_path / "merged", onto="nf4", nf4_dtype=dtype)

    name = "model.layers.0.mlp.down_proj.weight"
    weight = load_file(llama / "model.safetensors")[name]
    layer = bnb.nn.Linear4bit(
        weight.shape[1], weight.shape[0], bias=False, compute_dtype=getattr(torch, dtype), quant_type="nf4",
        compress_statistics=True,
    )  # fmt: skip
    layer.weight = bnb.nn.Params4bit(
        weight.to(getattr(torch, dtype)), requires_grad=False, quant_type="nf4", compress_statistics=True
    )
    layer.support_avx512bf16_for_cpu = False
    layer.to("cpu")
    columns = layer(torch.eye(weight.shape[1], dtype=getattr(torch, dtype))).float().T
    found = load_file(report.path / "model.safetensors")[name]
    assert torch.equal(columns.half(), found)
    assert report.rounded == 14
    assert not torch.equal(found.float(), weight)


def test_embeddings_and_norms_keep_their_bytes(tmp_path: Path) -> None:
    base = save_checkpoint(tmp_path / "base", dtype="bfloat16", tie_word_embeddings=False)
    adapter = save_adapter(base, tmp_path / "adapter")

    for onto in ("16bit", "nf4"):
        report = merge(base, adapter, tmp_path / onto, onto=onto)
        before, after = (load_file(folder / "model.safetensors") for folder in (base, report.path))
        untouched = [name for name in before if "layers" not in name or before[name].dim() == 1]
        assert len(untouched) == 7
        assert all(torch.equal(before[name], after[name]) for name in untouched)
        assert {after[name].dtype for name in untouched} == {torch.bfloat16}


def test_f16_loses_less_than_bf16_would(tmp_path: Path) -> None:
    base = save_checkpoint(tmp_path / "base")
    adapter = save_adapter(base, tmp_path / "adapter")

    report = merge(base, adapter, tmp_path / "merged", onto="16bit")

    exact = load_file(base / "model.safetensors")["model.layers.0.self_attn.o_proj.weight"]
    in_bf16 = float((exact.bfloat16().float() - exact).square().mean().sqrt() / exact.square().mean().sqrt())
    assert 0 < report.storage_error_frac < in_bf16 / 4


def test_tokenizer_template_and_settings_come_along(llama: Path, tmp_path: Path) -> None:
    adapter = save_adapter(llama, tmp_path / "adapter")

    merged = merge(llama, adapter, tmp_path / "merged", onto="16bit").path

    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"):
        assert (merged / name).read_bytes() == (llama / name).read_bytes()
    assert json.loads((merged / "config.json").read_text())["dtype"] == "float16"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"use_dora": True}, "use_dora = True and its lengths don't agree"),
        ({"peft_type": "PROMPT_TUNING"}, "no GGUF can hold them"),
        ({"peft_type": "LOHA"}, "peft_type = LOHA"),
        ({"bias": "all"}, "bias = all"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out"),
        ({"r": 8}, "rank 8 on this base wants"),
    ],
)
def test_an_adapter_that_would_be_merged_wrongly_is_refused(
    change: dict[str, Any], said: str, llama: Path, tmp_path: Path
) -> None:
    adapter = save_adapter(llama, tmp_path / "adapter")
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))

    with pytest.raises(ModelError, match=said):
        merge(llama, adapter, tmp_path / "merged", onto="16bit")
    assert not (tmp_path / "merged").exists()


def test_an_adapter_of_another_base_is_refused(llama: Path, tmp_path: Path) -> None:
    other = save_checkpoint(tmp_path / "other", hidden_size=32)
    adapter = save_adapter(other, tmp_path / "adapter")

    with pytest.raises(ModelError, match="on this base wants"):
        merge(llama, adapter, tmp_path / "merged", onto="16bit")


@pytest.mark.parametrize("part", ["lora_A", "lora_B"])
def test_half_an_adapter_is_refused(part: str, llama: Path, tmp_path: Path) -> None:
    adapter = save_adapter(llama, tmp_path / "adapter")
    _edit_tensors(adapter, lambda tensors: tensors.pop(next(name for name in tensors if part in name)))

    with pytest.raises(ModelError, match="without its partner"):
        merge(llama, adapter, tmp_path / "merged", onto="16bit")


def test_a_tensor_that_is_no_factor_is_refused(llama: Path, tmp_path: Path) -> None:
    adapter = save_adapter(llama, tmp_path / "adapter")
    _edit_tensors(
        adapter, lambda tensors: tensors.update({"base_model.model.lm_head.weight": torch.ones(2, 2)})
    )

    with pytest.raises(ModelError, match=r"lm_head\.weight is no LoRA factor"):
        merge(llama, adapter, tmp_path / "merged", onto="16bit")


@pytest.mark.parametrize("value", [float("nan"), 1e9])
def test_a_broken_adapter_is_refused_and_the_earlier_merge_stays(
    value: float, llama: Path, tmp_path: Path
) -> None:
    good = save_adapter(llama, tmp_path / "good")
    merged = merge(llama, good, tmp_path / "merged", onto="16bit").path
    before = (merged / "model.safetensors").read_bytes()
    adapter = save_adapter(llama, tmp_path / "adapter")
    _edit_tensors(adapter, lambda tensors: [tensor.fill_(value) for tensor in tensors.values()])

    with pytest.raises(ModelError, match="not finite or beyond F16"):
        merge(llama, adapter, merged, onto="16bit")
    assert (merged / "model.safetensors").read_bytes() == before


def test_a_merge_that_dies_midway_leaves_nothing(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = save_adapter(llama, tmp_path / "adapter")
    monkeypatch.setattr(room, "_copy_documents", _stop)

    with pytest.raises(KeyboardInterrupt):
        merge(llama, adapter, tmp_path / "merged", onto="16bit")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter"]


def test_an_adapter_without_files_is_named(llama: Path, tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match=r"adapter_config\.json"):
        merge(llama, tmp_path / "absent", tmp_path / "merged", onto="16bit")


def test_progress_counts_every_tensor(llama: Path, tmp_path: Path) -> None:
    adapter, seen = save_adapter(llama, tmp_path / "adapter"), []

    merge(llama, adapter, tmp_path / "merged", onto="nf4", on_progress=lambda *at: seen.append(at))

    total = len(load_file(llama / "model.safetensors"))
    assert seen == [(done, total) for done in range(1, total + 1)]


def test_merged_values_are_the_formula_in_float32(llama: Path, tmp_path: Path) -> None:
    adapter = save_adapter(llama, tmp_path / "adapter", r=4, lora_alpha=12)

    merged = load_file(merge(llama, adapter, tmp_path / "merged", onto="16bit").path / "model.safetensors")

    name = "layers.1.self_attn.v_proj"
    factors = load_file(adapter / "adapter_model.safetensors")
    a, b = (factors[f"base_model.model.model.{name}.lora_{part}.weight"].numpy() for part in "AB")
    base = load_file(llama / "model.safetensors")[f"model.{name}.weight"].numpy()
    wanted = (base.astype(np.float64) + 3.0 * (b.astype(np.float64) @ a.astype(np.float64))).astype(
        np.float16
    )
    assert np.allclose(merged[f"model.{name}.weight"].numpy(), wanted, rtol=2**-10, atol=1e-6)


def _edit_tensors(adapter: Path, edit: Any) -> None:
    path = adapter / "adapter_model.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    edit(tensors)
    save_file(tensors, path)


def _stop(*_: object) -> None:
    raise KeyboardInterrupt


def test_the_base_is_left_as_it_was(llama: Path, tmp_path: Path) -> None:
    adapter = save_adapter(llama, tmp_path / "adapter")
    base = tmp_path / "base"
    shutil.copytree(llama, base)
    before = {path.name: path.read_bytes() for path in base.iterdir()}

    merge(base, adapter, tmp_path / "merged", onto="nf4")

    assert {path.name: path.read_bytes() for path in base.iterdir()} == before
