"""The weights that QLoRA computes with: NF4 with double quantization, dequantized once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

BLOCK = 64
"""Weights a scale, bitsandbytes' default."""


def round_to_nf4(weight: Tensor) -> Tensor:
    """The weight after NF4 quantization and back, same shape and dtype.

    The result is what `Linear4bit` multiplies with. Kept in 16 bits, the arithmetic is the same and no
    call has to dequantize again; there is also no module left that could repack itself in place on a
    processor with AVX512-BF16.
    """
    from bitsandbytes import functional

    packed, state = functional.quantize_4bit(
        weight.detach().contiguous(), blocksize=BLOCK, compress_statistics=True, quant_type="nf4"
    )
    rounded: Tensor = functional.dequantize_4bit(packed, state)
    return rounded.to(weight.dtype).reshape(weight.shape)


def linear_layers(model: nn.Module) -> dict[str, Any]:
    """The layers that 4-bit loading replaces, by name: all linear ones but the output head."""
    from torch import nn

    head = model.get_output_embeddings()  # type: ignore[operator]
    return {
        name: layer
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear) and layer is not head
    }


def apply_nf4(model: nn.Module, *, exact: Mapping[str, Tensor] | None = None) -> int:
    """How many linear layers now hold NF4-rounded weights. Call it before adapters are added.

    `exact` holds, by layer, a part of the weight that is left as it is while the rest is rounded.
    """
    import torch

    layers = linear_layers(model)
    with torch.no_grad():
        for name, layer in layers.items():
            part = (exact or {}).get(name)
            if part is None:
                layer.weight.copy_(round_to_nf4(layer.weight))
            else:
                rest = (layer.weight.float() - part).to(layer.weight.dtype)
                layer.weight.copy_(round_to_nf4(rest).float() + part)
    return len(layers)
