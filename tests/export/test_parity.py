"""What llama.cpp computes from the F16 file beside Transformers in float32, family by family, on 64 texts.

As it ships, llama.cpp rounds the input of each F16 product to 16 bits, which moves every logit a little. Where that
turns the most probable token, the two were a tie: nearer to each other in float32 than the rounding moves such a pair
of tokens at the positions where nothing turns. The same file with its weights widened to float32 is not rounded on the
way, and agrees everywhere: what ships has the right weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from harness.export.gguf import convert
from harness.export.native import Native
from harness.models.chat import load_chat
from harness.models.gguf_api import widen
from harness.models.load import resolve_base
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


Logits = Callable[[list[int]], NDArray[np.float32]]
"""Token ids → logits, shape (ids, vocabulary)."""


class Parity(NamedTuple):
    """How two ways of computing agree, over all positions of all texts."""

    mean_kl: float
    top1: float
    turned: float
    """The widest gap in float32 between the two tokens of a position where the most probable one turns; in logits."""
    moved: float
    """The most that the gap between the two most probable tokens is moved where neither turns."""
    typical: float
    """The median gap between the two most probable tokens."""


@pytest.mark.parametrize("model", [*REAL, "SmolLM2-135M itself"])
def test_each_family_computes_the_same_from_its_file(model: str, tmp_path: Path, native: Native) -> None:
    shipped, widened = both(model, tmp_path, native)

    assert shipped.mean_kl <= 1e-4
    assert shipped.turned <= shipped.moved <= shipped.typical / 10
    assert shipped.top1 >= 0.99
    assert widened.mean_kl <= 1e-6
    assert widened.top1 >= 0.999


def both(model: str, folder: Path, native: Native) -> tuple[Parity, Parity]:
    """The F16 file beside its checkpoint: as it ships, and with its weights widened."""
    checkpoint, texts = made(model, folder) if model in REAL else the_model_itself()
    file = convert(checkpoint, folder / "model.gguf", metadata={}).path
    widen(file, folder / "wide.gguf", threads=1)
    ours = in_torch(checkpoint)
    return (
        parity(ours, in_llama_cpp(native, file, "f16"), texts),
        parity(ours, in_llama_cpp(native, folder / "wide.gguf", "f32"), texts),
    )


def made(model: str, folder: Path) -> tuple[Path, list[list[int]]]:
    """A checkpoint of random weights, and texts of random tokens."""
    sizes: dict[str, Any] = {"dtype": "float16", "initializer_range": 0.05, "max_position_embeddings": 2048}
    rows = np.random.default_rng(17).integers(0, 300, (TEXTS, TEXT_TOK))
    return save_checkpoint(folder / "model", **sizes, **REAL[model]), rows.tolist()


def the_model_itself() -> tuple[Path, list[list[int]]]:
    """The embedded model, and pieces of this project's pages."""
    checkpoint = resolve_base("embedded:smollm2-135m")
    pages = "\n".join(page.read_text() for page in sorted(Path(__file__).parents[2].glob("docs/*.md")))
    ids = load_chat(checkpoint).encode(pages)
    starts = np.linspace(0, len(ids) - TEXT_TOK, TEXTS).astype(int)
    return checkpoint, [ids[start : start + TEXT_TOK] for start in starts]


def in_torch(checkpoint: Path) -> Logits:
    """By Transformers, in float32."""
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()

    def logits(ids: list[int]) -> NDArray[np.float32]:
        with torch.inference_mode():
            found: NDArray[np.float32] = model(torch.tensor([ids])).logits[0].numpy()
        return found

    return logits


def in_llama_cpp(native: Native, path: Path, cache: str) -> Logits:
    """By llama.cpp, in another process."""

    def logits(ids: list[int]) -> NDArray[np.float32]:
        reply = native.call("logits", ids=ids, first=0)
        return np.frombuffer(reply.payload, "<f4").reshape(reply.fields["shape"])

    native.call("open_gguf", path=str(path), threads=1, context_tok=TEXT_TOK, is_repacked=True, cache=cache)
    return logits


def parity(ours: Logits, theirs: Logits, texts: Iterable[list[int]]) -> Parity:
    parts = [_positions(ours(ids), theirs(ids)) for ids in texts]
    kl, gaps, moves, has_turned = (np.concatenate(part) for part in zip(*parts, strict=True))
    return Parity(
        float(kl.mean()),
        float(1.0 - has_turned.mean()),
        float(gaps[has_turned].max(initial=0.0)),
        float(moves[~has_turned].max()),
        float(np.median(gaps)),
    )


def _positions(ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> tuple[NDArray[Any], ...]:
    """By position: KL, the gap in float32 between two tokens, how far it is moved, whether the first of them turns.

    The two are the most probable token, and the one that takes its place or else comes second.
    """
    at = np.arange(len(ours))
    first, second = ours.argsort(axis=1)[:, :-3:-1].T
    has_turned = theirs.argmax(axis=1) != first
    other = np.where(has_turned, theirs.argmax(axis=1), second)
    gaps = (ours[at, first] - ours[at, other]).astype(np.float64)
    moves = np.abs((theirs[at, first] - theirs[at, other]) - gaps)
    return np.full(len(ours), mean_kl(ours, theirs)), gaps, moves, has_turned
