"""Layers of a model on their way through training: forwards that compute the same and keep less for the backward."""

from __future__ import annotations

from collections.abc import Sequence
from types import MethodType
from typing import TYPE_CHECKING, Any

from harness.train.backward import gated_silu, lora_products, rms_norm, rotation

if TYPE_CHECKING:
    import torch
    from torch import nn

ROTARY = ("LlamaAttention", "MistralAttention", "Qwen2Attention")
"""Attention that rotates what its products give, with nothing in between."""


def make_lean(model: nn.Module) -> int:
    """The number of LoRA layers whose forward was replaced; the arithmetic is PEFT's up to rounding.

    PEFT casts the activations to the adapter's float32 and back. Casting the two small adapter matrices
    to the activations' dtype instead is several times cheaper. Layers with dropout, DoRA's, and layers
    whose weight is packed keep PEFT's own forward.
    """
    count = 0
    for module in model.modules():
        if _is_plain(module):
            module.forward = MethodType(_lora_forward, module)
            count += 1
    return count


def make_blocks_lean(model: nn.Module) -> None:
    """Norms, gated layers and attention of the Llama family from now on keep only their inputs for the backward.

    The values are the model's own up to rounding; there are fewer passes over them, and layers that read the same
    input go through their adapters together. Attention must be `packed.attention`.
    """
    from transformers.activations import ACT2FN

    silu = type(ACT2FN["silu"])
    for module in model.modules():
        kind = type(module).__name__
        if kind.endswith("RMSNorm") and hasattr(module, "variance_epsilon"):
            module.forward = MethodType(_norm_forward, module)
        elif kind.endswith("MLP") and isinstance(getattr(module, "act_fn", None), silu):
            module.forward = MethodType(_gated_forward, module)
        elif kind in ROTARY:
            module.forward = MethodType(_attention_forward, module)


def _is_plain(module: Any) -> bool:
    """Whether the module is a LoRA layer that does nothing but the two products."""
    import torch
    from peft.tuners.lora import Linear

    return (
        isinstance(module, Linear)
        and type(module.get_base_layer()) is torch.nn.Linear
        and isinstance(module.lora_dropout["default"], torch.nn.Identity)
        and not module.lora_variant
    )


def _lora_forward(module: Any, x: torch.Tensor) -> torch.Tensor:
    return _together(x, (module,))[0]


def _together(x: torch.Tensor, modules: Sequence[Any]) -> Sequence[torch.Tensor]:
    """What each of the layers makes of x: in one go where all are lean and their adapters on."""
    if not all(_is_lean(module) for module in modules):
        return [module(x) for module in modules]
    if any(module.disable_adapters for module in modules):
        return [module.base_layer(x) for module in modules]
    scales = tuple(module.scaling["default"] for module in modules)
    layers = [
        (m.base_layer.weight, m.base_layer.bias, m.lora_A["default"].weight, m.lora_B["default"].weight)
        for m in modules
    ]
    products: Sequence[torch.Tensor] = lora_products()(
        x, scales, *(part for layer in layers for part in layer)
    )
    return products


def _is_lean(module: Any) -> bool:
    return getattr(vars(module).get("forward"), "__func__", None) is _lora_forward


def _norm_forward(module: Any, x: torch.Tensor) -> torch.Tensor:
    y: torch.Tensor = rms_norm()(x, module.weight, module.variance_epsilon)
    return y


def _gated_forward(module: Any, x: torch.Tensor) -> torch.Tensor:
    gate, up = _together(x, (module.gate_proj, module.up_proj))
    y: torch.Tensor = module.down_proj(gated_silu()(gate, up))
    return y


def _attention_forward(
    module: Any, hidden_states: torch.Tensor, position_embeddings: Any, **kwargs: Any
) -> tuple[torch.Tensor, None]:
    """As Transformers calls it; one sequence, (1, tokens, width)."""
    from harness.train.packed import row_attention

    products = _together(hidden_states, (module.q_proj, module.k_proj, module.v_proj))
    q, k, v = (product.view(hidden_states.shape[1], -1, module.head_dim) for product in products)
    cos, sin = (part.view(len(q), 1, -1) for part in position_embeddings)
    turn = rotation()
    out = row_attention()(turn(q, cos, sin), turn(k, cos, sin), v, module.scaling, kwargs["layout"])
    return module.o_proj(out.view(hidden_states.shape[0], len(q), -1)), None
