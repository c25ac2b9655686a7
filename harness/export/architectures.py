"""What differs between model families on the way to GGUF: hyperparameters and how weights are laid out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import ModelError
from harness.files import read_json

if TYPE_CHECKING:
    import numpy as np
    from gguf import GGUFWriter
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Shape:
    """The hyperparameters that a decoder's file must state."""

    blocks: int
    hidden: int
    feed_forward: int
    heads: int
    kv_heads: int
    head_dim: int
    context_tok: int
    vocabulary: int
    rms_epsilon: float
    rope_base: float
    is_tied: bool
    """The output matrix is the embedding."""
    window: Window | None = None
    """Where some layers attend to what is near alone."""


@dataclass(frozen=True, slots=True)
class Window:
    """Layers that see only the last tokens, with rotary settings of their own."""

    tok: int
    period: int
    """Every so many-th layer sees everything, the others the window."""
    rope_base: float


@dataclass(frozen=True, slots=True)
class Architecture:
    """One family of models."""

    name: str
    """As llama.cpp knows it."""
    is_permuted: bool = False
    """llama.cpp's rotary embedding pairs neighbours here, Transformers' pairs halves: rows of q and k move."""
    block_tensors: tuple[str, ...] = ()
    """Of each block, beyond the ones that all families share."""
    normalizers: tuple[str, ...] = ()
    """Text normalizers that llama.cpp skips and that change nothing for the text that this family sees."""
    norm_offset: float = 0.0
    """What Transformers adds to the weights of a norm when it runs; llama.cpp wants it in the file."""
    wants: Mapping[str, tuple[Any, ...]] = field(default_factory=lambda: _PLAIN)
    """Keys of `config.json` that llama.cpp does not read, and the values that it computes with."""
    is_windowed: bool = False


BLOCK_TENSORS = (
    "input_layernorm.weight", "self_attn.q_proj.weight", "self_attn.k_proj.weight", "self_attn.v_proj.weight",
    "self_attn.o_proj.weight", "post_attention_layernorm.weight", "mlp.gate_proj.weight",
    "mlp.up_proj.weight", "mlp.down_proj.weight",
)  # fmt: skip
ROPE_TYPES = ("default", "linear", "llama3", "yarn")
"""Kinds of rotary scaling that llama.cpp computes as Transformers does."""
_PLAIN: Mapping[str, tuple[Any, ...]] = {
    "hidden_act": ("silu", None),
    "partial_rotary_factor": (1, 1.0, None),
    "use_sliding_window": (False, None),
}
_GEMMA3: Mapping[str, tuple[Any, ...]] = {
    "hidden_activation": ("gelu_pytorch_tanh", None),
    "attention_bias": (False, None),
    "attn_logit_softcapping": (None,),
    "final_logit_softcapping": (None,),
    "use_bidirectional_attention": (False, None),
}
_FULL, _SLIDING = "full_attention", "sliding_attention"
_BIASES = ("self_attn.q_proj.bias", "self_attn.k_proj.bias", "self_attn.v_proj.bias")

ARCHITECTURES: Mapping[str, Architecture] = {
    "LlamaForCausalLM": Architecture("llama", is_permuted=True),
    "MistralForCausalLM": Architecture("llama", is_permuted=True),
    "Qwen2ForCausalLM": Architecture("qwen2", block_tensors=_BIASES, normalizers=("NFC",)),
    "Qwen3ForCausalLM": Architecture(
        "qwen3", block_tensors=("self_attn.q_norm.weight", "self_attn.k_norm.weight"), normalizers=("NFC",)
    ),
    "Gemma3ForCausalLM": Architecture(
        "gemma3",
        block_tensors=(
            "self_attn.q_norm.weight",
            "self_attn.k_norm.weight",
            "pre_feedforward_layernorm.weight",
            "post_feedforward_layernorm.weight",
        ),
        norm_offset=1.0,
        wants=_GEMMA3,
        is_windowed=True,
    ),
}


def read_config(checkpoint: Path) -> dict[str, Any]:
    """The checkpoint's `config.json`.

    Raises:
        DataError: it is missing or not strict JSON.
        ModelError: it is not an object.
    """
    config = read_json(checkpoint / "config.json")
    if not isinstance(config, dict):
        raise ModelError(f"{checkpoint / 'config.json'}: wanted an object, found {type(config).__name__}")
    return config


def architecture_of(checkpoint: Path, config: Mapping[str, Any]) -> Architecture:
    """The family of a checkpoint.

    Raises:
        ModelError: no such family, quantized weights, or an option of it that llama.cpp would ignore.
    """
    name = str((config.get("architectures") or ["(none)"])[0])
    if name not in ARCHITECTURES:
        raise ModelError(
            f"{checkpoint / 'config.json'}: architectures[0] = {name}; "
            f"GGUF can be written for {', '.join(ARCHITECTURES)}"
        )
    if "quantization_config" in config:
        raise ModelError(
            f"{checkpoint / 'config.json'}: the weights are quantized; a GGUF is written from 16-bit weights"
        )
    _refuse_ignored(checkpoint, config, ARCHITECTURES[name])
    return ARCHITECTURES[name]


def _refuse_ignored(checkpoint: Path, config: Mapping[str, Any], family: Architecture) -> None:
    where = checkpoint / "config.json"
    for key, allowed in family.wants.items():
        if config.get(key) not in allowed:
            raise ModelError(f"{where}: {key} = {config[key]}; llama.cpp only has {allowed[0]} here")
    kind = rope_of(config)["rope_type"]
    if kind not in ROPE_TYPES:
        raise ModelError(f"{where}: rope_type = {kind}; wanted one of {', '.join(ROPE_TYPES)}")
    scalar, head_dim = config.get("query_pre_attn_scalar"), config.get("head_dim")
    if family.is_windowed and scalar != head_dim:
        raise ModelError(
            f"{where}: query_pre_attn_scalar = {scalar}; llama.cpp scales attention by head_dim = {head_dim}"
        )


def shape_of(checkpoint: Path, config: Mapping[str, Any]) -> Shape:
    """The hyperparameters of a checkpoint.

    Raises:
        ModelError: a key is missing or no number.
    """
    try:
        heads, hidden = int(config["num_attention_heads"]), int(config["hidden_size"])
        layered = _window_of(config)
        is_cut = layered is None and config.get("use_sliding_window", True)
        window = config.get("sliding_window") if is_cut else None
        context = int(config["max_position_embeddings"])
        return Shape(
            blocks=int(config["num_hidden_layers"]),
            hidden=hidden,
            feed_forward=int(config["intermediate_size"]),
            heads=heads,
            kv_heads=int(config.get("num_key_value_heads") or heads),
            head_dim=int(config.get("head_dim") or hidden // heads),
            # Past the window llama.cpp would attend to everything, which the model never saw.
            context_tok=min(context, int(window)) if window else context,
            vocabulary=int(config["vocab_size"]),
            rms_epsilon=float(config["rms_norm_eps"]),
            rope_base=float(rope_of(config).get("rope_theta", 10000.0)),
            is_tied=bool(config.get("tie_word_embeddings", layered is not None)),
            window=layered,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{checkpoint / 'config.json'}: {error} is missing or no number") from error


def _window_of(config: Mapping[str, Any]) -> Window | None:
    """The window of a family that mixes both kinds of layers; None for all others.

    Raises:
        ModelError: the kinds alternate in a way that one period can't say.
    """
    name = str((config.get("architectures") or ["(none)"])[0])
    family = ARCHITECTURES.get(name)
    if family is None or not family.is_windowed:
        return None
    kinds = config.get("layer_types") or []
    period = (kinds.index(_FULL) + 1) if _FULL in kinds else int(config.get("sliding_window_pattern", 6))
    wanted = [_FULL if (at + 1) % period == 0 else _SLIDING for at in range(len(kinds))]
    if kinds != wanted:
        raise ModelError(f"layer_types of {name} have no period: {', '.join(kinds)}")
    sliding = dict(config.get("rope_parameters") or {}).get(_SLIDING) or {}
    base = sliding.get("rope_theta", config.get("rope_local_base_freq", 10000.0))
    if sliding.get("rope_type", "default") != "default":
        raise ModelError(
            f"rope_type = {sliding['rope_type']} of {_SLIDING}; llama.cpp only has default there"
        )
    return Window(int(config["sliding_window"]), period, float(base))


def rope_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """The rotary settings, from `rope_parameters` or from the older `rope_theta` and `rope_scaling`.

    Where kinds of layers have their own, those of the layers that see everything.
    """
    parameters = dict(config.get("rope_parameters") or {})
    parameters = dict(parameters.get(_FULL) or {}) if _FULL in parameters else parameters
    found = dict(config.get("rope_scaling") or {}) | parameters
    found.setdefault("rope_type", found.pop("type", None) or "default")
    if "rope_theta" not in found and config.get("rope_theta") is not None:
        found["rope_theta"] = config["rope_theta"]
    return found


def write_shape(writer: GGUFWriter, shape: Shape) -> None:
    """States the hyperparameters in the file."""
    writer.add_context_length(shape.context_tok)
    writer.add_embedding_length(shape.hidden)
    writer.add_block_count(shape.blocks)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_key_length(shape.head_dim)
    writer.add_value_length(shape.head_dim)
    writer.add_layer_norm_rms_eps(shape.rms_epsilon)
    writer.add_vocab_size(shape.vocabulary)
    writer.add_rope_dimension_count(shape.head_dim)
    writer.add_rope_freq_base(shape.rope_base)
    if shape.window:
        writer.add_sliding_window(shape.window.tok)
        writer.add_sliding_window_pattern(shape.window.period)
        writer.add_rope_freq_base_swa(shape.window.rope_base)


def write_rope_scaling(writer: GGUFWriter, rope: Mapping[str, Any]) -> None:
    """States linear or YaRN scaling; the llama-3 kind becomes a tensor, see `rope_factors`."""
    import gguf

    kind = rope["rope_type"]
    if kind in ("linear", "yarn"):
        writer.add_rope_scaling_type(gguf.RopeScalingType(kind))
        writer.add_rope_scaling_factor(float(rope["factor"]))
    if kind == "yarn":
        writer.add_rope_scaling_orig_ctx_len(int(rope["original_max_position_embeddings"]))


def rope_factors(rope: Mapping[str, Any], head_dim: int) -> NDArray[np.float32] | None:
    """What llama-3 scaling divides each frequency by, shape (head_dim / 2,); None for other kinds.

    High frequencies stay, low ones are stretched by `factor`, those between are blended.
    """
    import numpy as np

    if rope["rope_type"] != "llama3":
        return None
    factor, trained_tok = float(rope["factor"]), float(rope["original_max_position_embeddings"])
    low, high = float(rope["low_freq_factor"]), float(rope["high_freq_factor"])
    frequencies = 1.0 / float(rope["rope_theta"]) ** (np.arange(0, head_dim, 2, dtype=np.float64) / head_dim)
    turns = trained_tok * frequencies / (2 * math.pi)
    blend = (turns - low) / (high - low)
    between = 1.0 / ((1.0 - blend) / factor + blend)
    return np.where(turns > high, 1.0, np.where(turns < low, factor, between)).astype(np.float32)


def permute_rows(weight: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Rows of q or k in llama.cpp's order: in each head, halves (a, b) become pairs a0 b0 a1 b1 …

    Shape (heads * head_dim, …) in and out. Without it a model still talks, but its attention is wrong.
    """
    pairs = weight.shape[0] // heads // 2
    return weight.reshape(heads, 2, pairs, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)


def layout(
    architecture: Architecture, shape: Shape, name: str
) -> Callable[[NDArray[np.float32]], NDArray[np.float32]] | None:
    """How the tensor called `name` is laid out for llama.cpp; None when it stays as it is."""
    if family_offset := architecture.norm_offset * name.endswith("norm.weight"):
        return lambda weight: weight + weight.dtype.type(family_offset)
    if not architecture.is_permuted:
        return None
    if name.endswith((".q_proj.weight", ".q_proj.bias")):
        return lambda weight: permute_rows(weight, shape.heads)
    if name.endswith((".k_proj.weight", ".k_proj.bias")):
        return lambda weight: permute_rows(weight, shape.kv_heads)
    return None
