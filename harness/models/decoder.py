"""The decoder of plain architectures with fewer passes over memory: on a processor those cost as much as products.

Transformers' own modules write five tensors to rotate one and three to normalise one. The weights, the order of
layers and the arithmetic here are the same; `plain_decoder` checks the outcome against theirs before it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.models.attention import ARCHITECTURES, attention, grouped_mask
from harness.models.linear import packed_linear
from harness.models.slots import slot_cache

if TYPE_CHECKING:
    import torch

PROBE_TOK = 24
PROBE_STEP = 1009
"""Between the probe's ids: the first of a vocabulary are special ones, on whose states rounding shows most."""
TOLERANCE = {"float32": 1e-4, "bfloat16": 5e-2}
"""Norm of the difference from Transformers' hidden states on the probe, as a share of their own norm."""


class PlainDecoder:
    """Token ids → last hidden states, for Llama, Mistral, Qwen 2 and Qwen 3."""

    def __init__(self, network: Any) -> None:
        self._model = network.get_decoder()

    def __call__(
        self, *, input_ids: Any, position_ids: Any, attention_mask: Any, past_key_values: Any, **_: Any
    ) -> torch.Tensor:
        """(rows, tokens, size); the mask as `grouped_mask` makes it."""
        states: torch.Tensor = self._model.embed_tokens(input_ids)
        rotation = self._rotation(states, position_ids)
        for layer in self._model.layers:
            mixed = _attend(layer, states, rotation, attention_mask, past_key_values)
            states = mixed.add_(states)
            states = _feed_forward(layer, states).add_(states)
        last: torch.Tensor = normalised(self._model.norm, states)
        return last

    def _rotation(self, states: Any, position_ids: Any) -> tuple[Any, Any]:
        """Cosines and sines of the first half of a head, which the second repeats: (rows, tokens, 1, half)."""
        cos, sin = self._model.rotary_emb(states, position_ids=position_ids)
        half = cos.shape[-1] // 2
        return cos[:, :, None, :half], sin[:, :, None, :half]


def _attend(layer: Any, states: Any, rotation: tuple[Any, Any], mask: Any, cache: Any) -> Any:
    module = layer.self_attn
    shape = (*states.shape[:2], -1, module.head_dim)
    inputs = normalised(layer.input_layernorm, states)
    query, key = module.q_proj(inputs).view(shape), module.k_proj(inputs).view(shape)
    value = module.v_proj(inputs).view(shape)  # (rows, tokens, heads, size)
    if hasattr(module, "q_norm"):
        query, key = module.q_norm(query), module.k_norm(key)
    query, key = rotated(query, *rotation), rotated(key, *rotation)
    keys, values = cache.update(key.transpose(1, 2), value.transpose(1, 2), module.layer_idx)
    mixed, _ = attention(module, query.transpose(1, 2), keys, values, mask, scaling=module.scaling)
    return module.o_proj(mixed.flatten(2))


def _feed_forward(layer: Any, states: Any) -> Any:
    inputs = normalised(layer.post_attention_layernorm, states)
    gate = layer.mlp.gate_proj.silu(inputs)
    return layer.mlp.down_proj(gate.mul_(layer.mlp.up_proj(inputs)))


def normalised(norm: Any, states: Any) -> Any:
    """RMSNorm in float32, cast before its weight as Transformers does."""
    import torch

    wide = states.float()
    length = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
    scale = (length.square_() / states.shape[-1]).add_(norm.variance_epsilon).rsqrt_()
    return (wide * scale).to(states.dtype).mul_(norm.weight)


def rotated(states: Any, cos: Any, sin: Any) -> Any:
    """Rotary position embedding of (rows, tokens, heads, size), halves as partners."""
    import torch

    half = states.shape[-1] // 2
    left, right = states[..., :half], states[..., half:]
    found = torch.empty_like(states)
    torch.mul(left, cos, out=found[..., :half]).addcmul_(right, sin, value=-1)
    torch.mul(right, cos, out=found[..., half:]).addcmul_(left, sin)
    return found


def plain_decoder(network: Any, groups: int, dtype: str) -> PlainDecoder | None:
    """The faster decoder; None where the network is not of the plain kind, or a probe comes out otherwise."""
    import torch

    layers = getattr(network.get_decoder(), "layers", ())
    kinds = {type(getattr(getattr(layer, "mlp", None), "gate_proj", None)) for layer in layers}
    plain = network.config.model_type in ARCHITECTURES and network.config.hidden_act == "silu"
    if not plain or groups == 1 or kinds != {packed_linear()}:
        return None
    ids = (torch.arange(1, PROBE_TOK + 1)[None] * PROBE_STEP) % network.config.vocab_size
    cache = slot_cache()(1, PROBE_TOK)
    cache.aim(0, torch.arange(PROBE_TOK)[None], PROBE_TOK)
    sees = torch.ones(1, PROBE_TOK, PROBE_TOK, dtype=torch.bool).tril()
    decoder = PlainDecoder(network)
    try:
        with torch.inference_mode():
            wanted = network.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
            found = decoder(
                input_ids=ids, position_ids=torch.arange(PROBE_TOK)[None], past_key_values=cache,
                attention_mask=grouped_mask(sees, groups, getattr(torch, dtype)),
            )  # fmt: skip
    except (RuntimeError, AttributeError, TypeError):
        return None
    far = (found.float() - wanted.float()).norm() / wanted.float().norm()
    return decoder if bool(far <= TOLERANCE[dtype]) else None
