"""LoRA layers without casts: the base's product and the adapter's, with a backward written by hand."""

from __future__ import annotations

from types import MethodType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import nn


def make_lean(model: nn.Module) -> int:
    """The number of LoRA layers whose forward was replaced; the arithmetic is PEFT's up to rounding.

    PEFT casts the activations to the adapter's float32 and back. Casting the two small adapter matrices
    to the activations' dtype instead is several times cheaper. Layers with dropout and layers whose
    weight is packed keep PEFT's own forward.
    """
    import torch
    from peft.tuners.lora import Linear

    count = 0
    for module in model.modules():
        if not isinstance(module, Linear) or type(module.get_base_layer()) is not torch.nn.Linear:
            continue
        if isinstance(module.lora_dropout["default"], torch.nn.Identity):
            module.forward = MethodType(_forward, module)
            count += 1
    return count


def _forward(module: Any, x: torch.Tensor) -> torch.Tensor:
    base = module.base_layer
    a, b = module.lora_A["default"].weight, module.lora_B["default"].weight
    y: torch.Tensor = lora_linear()(x, base.weight, base.bias, a, b, module.scaling["default"])
    return y


def lora_linear() -> Any:
    """The differentiable product `x Wᵀ + bias + scale · (x Aᵀ) Bᵀ`, as a function of its six arguments."""
    global _APPLY
    if _APPLY is None:
        _APPLY = _define()
    return _APPLY


_APPLY: Any = None


def _define() -> Any:
    import torch

    class LoraLinear(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any, weight: Any, bias: Any, a: Any, b: Any, scale: float) -> Any:
            flat = x.reshape(-1, x.shape[-1])  # (tokens, in)
            a16, b16 = a.to(x.dtype), (b * scale).to(x.dtype)  # (rank, in), (out, rank)
            inner = flat @ a16.t()  # (tokens, rank)
            y = torch.nn.functional.linear(flat, weight, bias)
            y.addmm_(inner, b16.t())
            ctx.save_for_backward(flat, weight, a16, b16, inner)
            ctx.scale, ctx.in_shape = scale, x.shape
            return y.view(*x.shape[:-1], y.shape[-1])

        @staticmethod
        def backward(ctx: Any, grad: Any) -> Any:
            flat, weight, a16, b16, inner = ctx.saved_tensors
            dy = grad.reshape(-1, grad.shape[-1])  # (tokens, out)
            d_inner = dy @ b16  # (tokens, rank)
            dx = None
            if ctx.needs_input_grad[0]:
                dx = (dy @ weight).addmm_(d_inner, a16).view(ctx.in_shape)
            da = (d_inner.t() @ flat).float()
            db = (dy.t() @ inner).float() * ctx.scale
            return dx, None, None, da, db, None

    return LoraLinear.apply
