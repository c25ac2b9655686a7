from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.errors import DataError, ModelError
from harness.export import architectures
from harness.export.gguf import convert
from harness.export.native import Native
from tests.export.tiny_models import gguf_logits, mean_kl, save_checkpoint, torch_logits

IDS = [int(value) for value in np.random.default_rng(3).integers(0, 300, 48)]
LLAMA3_ROPE = {
    "rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 64,
}  # fmt: skip
GEMMA3: dict[str, Any] = {
    "family": "gemma3", "tokenizer": "gemma", "num_hidden_layers": 7, "sliding_window": 16, "query_pre_attn_scalar": 16,
    "initializer_range": 0.1,
}  # fmt: skip
"""Six layers that see 16 tokens or, the sixth, everything; texts are longer than the window."""
GEMMA3_STRETCHED = {
    "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
}
VARIANTS: dict[str, dict[str, Any]] = {
    "llama 2": {"tie_word_embeddings": False, "num_key_value_heads": 4},
    "llama 3": {"rope_parameters": LLAMA3_ROPE, "tie_word_embeddings": False},
    "smollm2": {},
    "stretched": {"rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0}},
    "yarn": {
        "rope_parameters": {
            "rope_type": "yarn",
            "rope_theta": 10000.0,
            "factor": 4.0,
            "original_max_position_embeddings": 64,
        }
    },
    "biased": {"attention_bias": True},
    "wide heads": {"head_dim": 32},
    "mistral": {"family": "mistral", "sliding_window": None},
    "qwen2": {"family": "qwen2"},
    "qwen3": {"family": "qwen3"},
    "gemma3": GEMMA3,
    "gemma3 of another period": {
        **GEMMA3,
        "num_hidden_layers": 4,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
    },
    "gemma3, stretched": {**GEMMA3, "rope_parameters": GEMMA3_STRETCHED},
}


@pytest.fixture(scope="module")
def gemma3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(tmp_path_factory.mktemp("gemma3"), **GEMMA3)


@pytest.mark.parametrize("variant", VARIANTS)
def test_llama_cpp_computes_what_transformers_computes(variant: str, tmp_path: Path, native: Native) -> None:
    checkpoint = save_checkpoint(tmp_path / "model", **VARIANTS[variant])

    report = convert(checkpoint, tmp_path / "model.gguf", metadata={})

    ours, theirs = torch_logits(checkpoint, IDS), gguf_logits(native, report.path, IDS)
    assert mean_kl(ours, theirs) < 1e-4
    assert (ours.argmax(1) == theirs.argmax(1)).mean() > 0.9  # random weights leave near ties


def test_a_forgotten_permutation_of_q_and_k_is_far_away(
    llama: Path, tmp_path: Path, native: Native, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(architectures, "permute_rows", lambda weight, heads: weight)

    report = convert(llama, tmp_path / "wrong.gguf", metadata={})

    assert mean_kl(torch_logits(llama, IDS), gguf_logits(native, report.path, IDS)) > 0.1


@pytest.mark.parametrize(
    ("mistake", "change"),
    [
        ("norms without their one", {"norm_offset": 0.0}),
        ("a window that is not stated", {"is_windowed": False}),
    ],
)
def test_a_forgotten_trait_of_gemma3_is_far_away(
    mistake: str, change: dict[str, Any], tmp_path: Path, native: Native, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = save_checkpoint(tmp_path / "model", **GEMMA3)
    family = architectures.ARCHITECTURES["Gemma3ForCausalLM"]
    wrong = {**architectures.ARCHITECTURES, "Gemma3ForCausalLM": replace(family, **change)}
    monkeypatch.setattr(architectures, "ARCHITECTURES", wrong)

    path = convert(checkpoint, tmp_path / "wrong.gguf", metadata={}).path

    assert mean_kl(torch_logits(checkpoint, IDS), gguf_logits(native, path, IDS)) > 1e-2, mistake


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"query_pre_attn_scalar": 24}, "query_pre_attn_scalar = 24"),
        ({"final_logit_softcapping": 30.0}, "final_logit_softcapping = 30"),
        ({"hidden_activation": "gelu"}, "hidden_activation = gelu"),
        ({"use_bidirectional_attention": True}, "use_bidirectional_attention"),
        ({"layer_types": ["full_attention", "sliding_attention"] * 3 + ["full_attention"]}, "no period"),
        ({"architectures": ["Gemma3ForConditionalGeneration"]}, "Gemma3ForConditionalGeneration"),
    ],
)
def test_what_llama_cpp_would_compute_otherwise_of_gemma3_is_refused(
    change: dict[str, Any], said: str, gemma3: Path, tmp_path: Path
) -> None:
    checkpoint = _edited(gemma3, tmp_path / "model", change)

    with pytest.raises(ModelError, match=said):
        convert(checkpoint, tmp_path / "model.gguf", metadata={})


def test_permuted_rows_pair_the_halves_of_each_head() -> None:
    weight = np.arange(16, dtype=np.float32)[:, None]

    rows = architectures.permute_rows(weight, heads=2)[:, 0]

    assert rows.tolist() == [0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15]


def test_llama_3_factors_keep_high_frequencies_and_stretch_low_ones() -> None:
    factors = architectures.rope_factors(LLAMA3_ROPE, head_dim=16)

    assert factors is not None
    assert factors[0] == 1.0
    assert factors[-1] == 8.0
    assert (np.diff(factors) >= 0).all()


def test_the_same_checkpoint_gives_the_same_bytes(llama: Path, llama_gguf: Path, tmp_path: Path) -> None:
    again = convert(llama, tmp_path / "again.gguf", metadata={"base": "tiny"})

    assert again.path.read_bytes() == llama_gguf.read_bytes()


def test_matrices_are_f16_vectors_f32_and_lineage_is_inside(llama_gguf: Path) -> None:
    import gguf

    reader = gguf.GGUFReader(llama_gguf)

    assert {tensor.tensor_type.name for tensor in reader.tensors if len(tensor.shape) == 2} == {"F16"}
    assert {tensor.tensor_type.name for tensor in reader.tensors if len(tensor.shape) == 1} == {"F32"}
    assert reader.fields["dragongate.base"].contents() == "tiny"
    assert "output.weight" not in {tensor.name for tensor in reader.tensors}


def test_weights_in_shards_and_in_bfloat16_are_read(tmp_path: Path, native: Native) -> None:
    checkpoint = save_checkpoint(tmp_path / "model", dtype="bfloat16")
    whole = convert(checkpoint, tmp_path / "whole.gguf", metadata={}).path.read_bytes()
    _split(checkpoint)

    parts = convert(checkpoint, tmp_path / "parts.gguf", metadata={})

    assert parts.path.read_bytes() == whole
    assert mean_kl(torch_logits(checkpoint, IDS), gguf_logits(native, parts.path, IDS)) < 1e-4


def test_progress_counts_every_tensor(llama: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []

    report = convert(llama, tmp_path / "model.gguf", metadata={}, on_progress=lambda *at: seen.append(at))

    assert seen == [(done, report.tensors) for done in range(1, report.tensors + 1)]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"architectures": ["GPT2LMHeadModel"]}, "GPT2LMHeadModel"),
        ({"architectures": None}, "none"),
        ({"hidden_act": "gelu"}, "hidden_act = gelu"),
        ({"quantization_config": {"load_in_4bit": True}}, "quantized"),
        ({"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1.0}}, "rope_type = dynamic"),
        ({"num_hidden_layers": 3}, "model.layers.2."),
        ({"num_hidden_layers": "many"}, "no number"),
        ({"vocab_size": 9999}, "vocab_size = 9,999"),
        ({"vocab_size": 100}, "no embedding"),
        ({"tie_word_embeddings": False}, "lm_head.weight"),
    ],
)
def test_what_llama_cpp_would_compute_otherwise_is_refused_by_name(
    change: dict[str, Any], said: str, llama: Path, tmp_path: Path
) -> None:
    checkpoint = _edited(llama, tmp_path / "model", change)

    with pytest.raises(ModelError, match=said):
        convert(checkpoint, tmp_path / "model.gguf", metadata={})
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_pickled_weights_are_refused(llama: Path, tmp_path: Path) -> None:
    checkpoint = _edited(llama, tmp_path / "model", {})
    (checkpoint / "model.safetensors").rename(checkpoint / "pytorch_model.bin")

    with pytest.raises(ModelError, match=r"no model\.safetensors"):
        convert(checkpoint, tmp_path / "model.gguf", metadata={})


@pytest.mark.parametrize("keep", [3, 100, 5000, -1])
def test_weights_that_are_cut_short_are_refused(keep: int, llama: Path, tmp_path: Path) -> None:
    checkpoint = _edited(llama, tmp_path / "model", {})
    weights = checkpoint / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:keep])

    with pytest.raises((ModelError, DataError), match=r"model\.safetensors"):
        convert(checkpoint, tmp_path / "model.gguf", metadata={})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e6])
def test_a_weight_that_f16_cannot_hold_is_refused_and_the_earlier_file_stays(
    value: float, llama: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    checkpoint, out = _edited(llama, tmp_path / "model", {}), tmp_path / "model.gguf"
    out.write_bytes(b"earlier")
    tensors = load_file(checkpoint / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"][3, 3] = value
    save_file(tensors, checkpoint / "model.safetensors")

    with pytest.raises(ModelError, match=r"blk\.1\.ffn_up\.weight"):
        convert(checkpoint, out, metadata={})
    assert out.read_bytes() == b"earlier"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "model.gguf"]


def test_a_shard_outside_the_folder_is_refused(llama: Path, tmp_path: Path) -> None:
    checkpoint = _edited(llama, tmp_path / "model", {})
    (checkpoint / "model.safetensors").rename(tmp_path / "elsewhere.safetensors")
    index = {"weight_map": {"model.norm.weight": "../elsewhere.safetensors"}}
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps(index))

    with pytest.raises(ModelError, match="not a file of this folder"):
        convert(checkpoint, tmp_path / "model.gguf", metadata={})


def _edited(source: Path, folder: Path, change: dict[str, Any]) -> Path:
    import shutil

    shutil.copytree(source, folder)
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    return folder


def _split(checkpoint: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(checkpoint / "model.safetensors")
    names = sorted(tensors)
    halves = {"model-1.safetensors": names[::2], "model-2.safetensors": names[1::2]}
    for file, members in halves.items():
        save_file({name: tensors[name] for name in members}, checkpoint / file)
    weight_map = {name: file for file, members in halves.items() for name in members}
    (checkpoint / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": weight_map})
    )
    (checkpoint / "model.safetensors").unlink()
