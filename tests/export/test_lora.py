from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.errors import IntegrityError, ModelError
from harness.export import architectures
from harness.export.divergence import Divergence, divergence
from harness.export.forward import Source
from harness.export.gguf import convert
from harness.export.lora import write_lora_gguf
from harness.export.merge import merge
from tests.export.tiny_models import save_adapter, save_checkpoint

pytestmark = pytest.mark.usefixtures("warm")
TEXTS = [[int(token) for token in np.random.default_rng(5).integers(0, 300, 60)] for _ in range(3)]
ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "every layer": {"target_modules": ALL},
    "rank-stabilised": {"use_rslora": True, "r": 8},
    "own ranks and alphas": {
        "target_modules": ALL, "rank_pattern": {"q_proj": 2, "layers.1.mlp.down_proj": 8},
        "alpha_pattern": {"k_proj": 32, "q_proj": 1}, "use_rslora": True,
    },
}  # fmt: skip


def distance(base_gguf: Path, lora: Path, merged_gguf: Path) -> Divergence:
    """From the merged model's file to the base's with the adapter laid over it."""
    return divergence(Source(merged_gguf), Source(base_gguf, adapter=lora), TEXTS, threads=1)


def merged_file(base: Path, adapter: Path, folder: Path) -> Path:
    checkpoint = merge(base, adapter, folder / "merged", onto="16bit").path
    return convert(checkpoint, folder / "merged.gguf", metadata={}).path


@pytest.mark.parametrize("kind", KINDS)
def test_the_adapter_over_its_base_is_the_merged_model(
    kind: str, llama: Path, llama_gguf: Path, tmp_path: Path
) -> None:
    adapter = save_adapter(llama, tmp_path / "adapter", **KINDS[kind])
    wanted = merged_file(llama, adapter, tmp_path)

    report = write_lora_gguf(adapter, llama, tmp_path / "lora.gguf")

    assert report.architecture == "llama"
    found = distance(llama_gguf, report.path, wanted)
    apart = divergence(Source(wanted), Source(llama_gguf), TEXTS, threads=1)
    assert found.mean_kl <= 1e-4 < 100 * found.mean_kl < apart.mean_kl  # the adapter does something


@pytest.mark.parametrize("family", ["qwen2", "qwen3"])
def test_families_whose_rows_stay_are_served_too(family: str, tmp_path: Path) -> None:
    base = save_checkpoint(tmp_path / "base", family=family)
    adapter = save_adapter(base, tmp_path / "adapter", target_modules=ALL)
    wanted = merged_file(base, adapter, tmp_path)
    file = convert(base, tmp_path / "base.gguf", metadata={}).path

    lora = write_lora_gguf(adapter, base, tmp_path / "lora.gguf").path

    assert distance(file, lora, wanted).mean_kl <= 1e-4


def test_a_forgotten_permutation_of_b_is_caught(
    llama: Path, llama_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = save_adapter(llama, tmp_path / "adapter", std=0.3)
    wanted = merged_file(llama, adapter, tmp_path)
    right = write_lora_gguf(adapter, llama, tmp_path / "right.gguf").path
    monkeypatch.setattr(architectures, "permute_rows", lambda weight, heads: weight)

    wrong = write_lora_gguf(adapter, llama, tmp_path / "wrong.gguf").path

    assert distance(llama_gguf, right, wanted).mean_kl <= 1e-4
    assert distance(llama_gguf, wrong, wanted).mean_kl > 0.1


def test_a_forgotten_scale_is_caught(llama: Path, llama_gguf: Path, tmp_path: Path) -> None:
    """Two adapters that differ in nothing but rank-stabilised scaling are two different models."""
    adapter = save_adapter(llama, tmp_path / "adapter", std=0.3, use_rslora=True, r=16)
    wanted = merged_file(llama, adapter, tmp_path)
    settings = adapter / "adapter_config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "use_rslora": False}))

    wrong = write_lora_gguf(adapter, llama, tmp_path / "wrong.gguf").path

    assert distance(llama_gguf, wrong, wanted).mean_kl > 0.1


def test_the_file_says_what_it_is_and_the_same_adapter_gives_the_same_bytes(
    llama: Path, tmp_path: Path
) -> None:
    import gguf

    adapter = save_adapter(llama, tmp_path / "adapter")

    path = write_lora_gguf(adapter, llama, tmp_path / "lora.gguf").path
    again = write_lora_gguf(adapter, llama, tmp_path / "again.gguf").path

    fields = gguf.GGUFReader(path).fields
    said = {key: fields[key].contents() for key in ("general.type", "general.architecture", "adapter.type")}
    assert said == {"general.type": "adapter", "general.architecture": "llama", "adapter.type": "lora"}
    assert fields["adapter.lora.alpha"].contents() == 4.0
    assert path.read_bytes() == again.read_bytes()


def test_dora_is_refused_until_it_is_merged(llama: Path, tmp_path: Path) -> None:
    adapter = save_adapter(llama, tmp_path / "adapter", use_dora=True)

    with pytest.raises(ModelError, match="DoRA") as caught:
        write_lora_gguf(adapter, llama, tmp_path / "lora.gguf")
    assert "merge" in caught.value.hint
    assert not (tmp_path / "lora.gguf").exists()


def test_an_adapter_of_another_base_is_refused(llama: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    adapter = save_adapter(llama, tmp_path / "adapter")
    weights = adapter / "adapter_model.safetensors"
    save_file(load_file(weights), weights, metadata={"base_identity": "0" * 64})

    with pytest.raises(IntegrityError, match="names 0000"):
        write_lora_gguf(adapter, llama, tmp_path / "lora.gguf")


def test_an_adapter_that_does_not_fit_is_refused(llama: Path, tmp_path: Path) -> None:
    other = save_checkpoint(tmp_path / "other", intermediate_size=128)
    adapter = save_adapter(other, tmp_path / "adapter")

    with pytest.raises(ModelError, match="down_proj"):
        write_lora_gguf(adapter, llama, tmp_path / "lora.gguf")


def test_llama_cpp_refuses_an_adapter_that_is_none(llama_gguf: Path, tmp_path: Path) -> None:
    (tmp_path / "no.gguf").write_bytes(llama_gguf.read_bytes())

    with pytest.raises(ModelError, match=r"no\.gguf"):
        divergence(Source(llama_gguf), Source(llama_gguf, adapter=tmp_path / "no.gguf"), TEXTS, threads=1)
