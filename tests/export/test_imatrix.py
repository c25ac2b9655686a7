from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from harness.errors import ModelError
from harness.export import imatrix, imatrix_eval
from harness.export.gguf import convert
from harness.export.imatrix import (
    ABI_HINT,
    Imatrix,
    collect_imatrix,
    collect_with_torch,
    read_imatrix,
    within,
    write_imatrix,
)
from harness.export.native import NativeCrash
from tests.export.tiny_models import save_checkpoint

pytestmark = pytest.mark.usefixtures("warm")
DRAW = np.random.default_rng(7)
TEXTS = [[int(token) for token in DRAW.integers(0, 300, length)] for length in (40, 7, 300, 1, 250, 90, 21)]
"""Short ones that share a batch, and ones that two batches share."""
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen2": {"family": "qwen2"},
    "qwen3": {"family": "qwen3"},
    "mistral": {"family": "mistral", "sliding_window": None},
}
PLACES = {
    "q_proj": "attn_q", "k_proj": "attn_k", "v_proj": "attn_v", "o_proj": "attn_output", "gate_proj": "ffn_gate",
    "up_proj": "ffn_up", "down_proj": "ffn_down",
}  # fmt: skip


@pytest.fixture(scope="module")
def seen(llama: Path, llama_gguf: Path) -> Imatrix:
    return collect_imatrix(llama_gguf, TEXTS, threads=1)


def by_definition(checkpoint: Path) -> dict[str, np.ndarray]:
    """Sums of squares of each linear layer's input, written down from the definition."""
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    found: dict[str, torch.Tensor] = {}

    def hook(name: str) -> Callable[..., None]:
        def add(_module: Any, args: tuple[torch.Tensor, ...], _out: torch.Tensor) -> None:
            found[name] = found.get(name, torch.zeros(())) + args[0][0].double().pow(2).sum(dim=0)

        return add

    for block, layer in enumerate(model.model.layers):
        for name, module in layer.named_modules():
            if isinstance(module, torch.nn.Linear):
                part = PLACES[name.rpartition(".")[2]]
                module.register_forward_hook(hook(f"blk.{block}.{part}.weight"))
    with torch.inference_mode():
        for text in TEXTS:
            model(torch.tensor([text]))
    return {name: value.numpy() for name, value in found.items()}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_matrix_is_the_sum_of_squares_of_each_layers_input(family: str, tmp_path: Path) -> None:
    checkpoint = save_checkpoint(tmp_path / "model", max_position_embeddings=512, **FAMILIES[family])
    path = convert(checkpoint, tmp_path / "model.gguf", metadata={}).path

    found = collect_imatrix(path, TEXTS, threads=1)

    wanted = by_definition(checkpoint)
    assert found.method == "llama.cpp"
    assert found.tokens == sum(map(len, TEXTS))
    assert found.sums.keys() == wanted.keys()
    for name, values in wanted.items():
        assert np.abs(found.sums[name] - values).sum() <= 0.01 * values.sum(), name


def test_hooks_on_the_checkpoint_see_the_same(llama: Path, seen: Imatrix) -> None:
    found = collect_with_torch(llama, TEXTS, threads=1)

    assert found.method == "torch"
    assert found.tokens == seen.tokens
    assert found.sums.keys() == seen.sums.keys()
    for name, values in found.sums.items():
        assert np.abs(seen.sums[name] - values).sum() <= 0.01 * values.sum(), name


def test_a_file_written_and_read_back_is_the_same_and_in_llama_cpps_format(
    seen: Imatrix, tmp_path: Path
) -> None:
    import gguf

    path = write_imatrix(seen, tmp_path / "imatrix.gguf", dataset="train")
    again = write_imatrix(seen, tmp_path / "again.gguf", dataset="train")

    found = read_imatrix(path)
    assert (found.tokens, found.method) == (seen.tokens, seen.method)
    assert all((found.sums[name] == values).all() for name, values in seen.sums.items())
    assert path.read_bytes() == again.read_bytes()
    reader = gguf.GGUFReader(path)
    assert reader.fields["general.type"].contents() == "imatrix"
    assert reader.fields["imatrix.datasets"].contents() == ["train"]
    assert reader.fields["imatrix.chunk_size"].contents() == 512
    shapes = {tensor.name: list(tensor.shape) for tensor in reader.tensors}
    assert shapes["blk.0.ffn_down.weight.in_sum2"] == [96, 1]
    assert shapes["blk.0.ffn_down.weight.counts"] == [1, 1]


def test_a_struct_that_is_laid_out_otherwise_is_noticed_before_a_number_is_believed(llama_gguf: Path) -> None:
    with pytest.raises(ModelError, match="the file says"):
        _see_with(llama_gguf, {"blk.0.attn_q.weight": (65, 64)})


@pytest.mark.parametrize("error", [NativeCrash("SIGSEGV"), ModelError("odd struct", hint=ABI_HINT)])
def test_where_llama_cpp_cannot_be_read_the_checkpoint_is_asked(
    error: ModelError, llama: Path, llama_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = imatrix._asked

    def refuse(native: Any, op: str, *rest: Any) -> Imatrix:
        if op == "imatrix":
            raise error
        return asked(native, op, *rest)

    monkeypatch.setattr(imatrix, "_asked", refuse)

    assert collect_imatrix(llama_gguf, TEXTS[:2], checkpoint=llama, threads=1).method == "torch"
    with pytest.raises(ModelError, match=error.message):
        collect_imatrix(llama_gguf, TEXTS[:2], threads=1)


def test_other_errors_are_told_and_not_worked_around(llama: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.gguf").write_bytes(b"GGUF")

    with pytest.raises(ModelError):
        collect_imatrix(tmp_path / "broken.gguf", TEXTS, checkpoint=llama, threads=1)


@pytest.mark.parametrize("texts", [[], [[]]])
def test_without_text_there_is_no_matrix(texts: list[list[int]], llama_gguf: Path) -> None:
    with pytest.raises(ModelError, match="no text"):
        collect_imatrix(llama_gguf, texts)


def test_texts_are_taken_in_their_order_until_the_budget_is_spent() -> None:
    assert within([[1, 2], [], [3, 4, 5], [6]], 4) == [[1, 2], [3, 4]]


@pytest.mark.parametrize("content", [b"", b"GGUF", b"no gguf at all, but long enough to be looked at"])
def test_a_file_that_is_no_matrix_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(content)

    with pytest.raises(ModelError, match=r"x\.gguf"):
        read_imatrix(tmp_path / "x.gguf")


def test_a_model_is_no_importance_matrix(llama_gguf: Path) -> None:
    with pytest.raises(ModelError, match=r"general\.type"):
        read_imatrix(llama_gguf)


def _see_with(path: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    collector = imatrix_eval.Collector(shapes)
    imatrix_eval._decode_all(lambda *_: None, str(path), [[1, 2, 3]], 1, collector)
