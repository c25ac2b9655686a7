"""What llama.cpp computes from the F16 file beside Transformers in float32, family by family, on 64 texts.

As it ships, llama.cpp rounds the input of each F16 product to 16 bits. Mean KL is held to 1e-4 with that rounding in
place. Whether the most probable token is the same is decided, on random weights, by ties closer than that rounding, so
the 99.9 % are asked of the same file with its weights widened to float32: what remains is the file's own error.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from harness.export.gguf import convert
from harness.export.native import Native
from harness.models.gguf_api import widen
from tests.export.tiny_models import mean_kl, save_checkpoint

pytestmark = pytest.mark.slow

TEXTS, TEXT_TOK = 64, 40
REAL: dict[str, dict[str, Any]] = {
    # heads, their size, what they share and the rotary settings are the real ones; depth and vocabulary are not
    "SmolLM2-135M": {
        "hidden_size": 576, "intermediate_size": 1536, "num_attention_heads": 9, "num_key_value_heads": 3,
        "head_dim": 64, "rope_parameters": {"rope_type": "default", "rope_theta": 100000.0},
    },
    "TinyLlama-1.1B": {
        "hidden_size": 512, "intermediate_size": 1408, "num_attention_heads": 8, "num_key_value_heads": 1,
        "head_dim": 64, "tie_word_embeddings": False, "tokenizer": "sentencepiece",
    },
    "Llama-3.2-1B": {
        "hidden_size": 512, "intermediate_size": 2048, "num_attention_heads": 8, "num_key_value_heads": 2,
        "head_dim": 64, "tokenizer": "llama-bpe",
        "rope_parameters": {
            "rope_type": "llama3", "rope_theta": 500000.0, "factor": 32.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
        },
    },
    "Mistral-7B": {
        "family": "mistral", "hidden_size": 512, "intermediate_size": 1792, "num_attention_heads": 4,
        "num_key_value_heads": 1, "head_dim": 128, "tie_word_embeddings": False, "sliding_window": None,
    },
    "Qwen2.5-0.5B": {
        "family": "qwen2", "hidden_size": 448, "intermediate_size": 1216, "num_attention_heads": 7,
        "num_key_value_heads": 1, "head_dim": 64, "tokenizer": "qwen2",
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
    },
    "Qwen3-0.6B": {
        "family": "qwen3", "hidden_size": 512, "intermediate_size": 1536, "num_attention_heads": 8,
        "num_key_value_heads": 4, "head_dim": 128, "tokenizer": "qwen2",
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
    },
    "Gemma-3-270M": {
        "family": "gemma3", "hidden_size": 640, "intermediate_size": 2048, "num_attention_heads": 4,
        "num_key_value_heads": 1, "head_dim": 256, "query_pre_attn_scalar": 256, "num_hidden_layers": 6,
        "sliding_window": 24, "tokenizer": "gemma",
    },
}  # fmt: skip


class Parity(NamedTuple):
    mean_kl: float
    top1: float


@pytest.mark.parametrize("model", REAL)
def test_each_family_computes_the_same_from_its_file(model: str, tmp_path: Path, native: Native) -> None:
    checkpoint = save_checkpoint(
        tmp_path / "model",
        dtype="float16",
        initializer_range=0.05,
        max_position_embeddings=2048,
        **REAL[model],
    )
    file = convert(checkpoint, tmp_path / "model.gguf", metadata={}).path
    wide = tmp_path / "wide.gguf"
    widen(file, wide, threads=1)
    texts = [
        [int(token) for token in row] for row in np.random.default_rng(17).integers(0, 300, (TEXTS, TEXT_TOK))
    ]
    ours = _torch(checkpoint, texts)

    shipped = parity(ours, _llama(native, file, texts, "f16"))
    widened = parity(ours, _llama(native, wide, texts, "f32"))

    assert shipped.mean_kl <= 1e-4
    assert shipped.top1 >= 0.99
    assert widened.mean_kl <= 1e-6
    assert widened.top1 >= 0.999


def _torch(checkpoint: Path, texts: list[list[int]]) -> NDArray[np.float32]:
    """Logits in float32, shape (texts * tokens, vocabulary)."""
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    with torch.inference_mode():
        found: NDArray[np.float32] = model(torch.tensor(texts)).logits.flatten(0, 1).numpy()
    return found


def _llama(native: Native, path: Path, texts: list[list[int]], cache: str) -> NDArray[np.float32]:
    native.call("open_gguf", path=str(path), threads=1, context_tok=TEXT_TOK, is_repacked=True, cache=cache)
    rows = []
    for ids in texts:
        reply = native.call("logits", ids=ids, first=0)
        rows.append(np.frombuffer(reply.payload, "<f4").reshape(reply.fields["shape"]))
    return np.concatenate(rows)


def parity(ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> Parity:
    return Parity(mean_kl(ours, theirs), float((ours.argmax(1) == theirs.argmax(1)).mean()))
