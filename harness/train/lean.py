"""LoRA layers, norms and gates with a backward written by hand: no casts, and little kept for it."""

from __future__ import annotations

from functools import cache
from types import MethodType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import nn


def make_lean(model: nn.Module) -> int:
    """The number of LoRA layers whose forward was replaced; the arithmetic is PEFT's up to rounding.

    PEFT casts the activations to the adapter's float32 and back. Casting the two small adapter matrices
    to the activations' dtype instead is several times cheaper. Layers with dropout, DoRA's, and layers
    whose weight is packed keep PEFT's own forward.
    """
    import torch
    from peft.tuners.lora import Linear

    count = 0
    for module in model.modules():
        if not isinstance(module, Linear) or type(module.get_base_layer()) is not torch.nn.Linear:
            continue
        if isinstance(module.lora_dropout["default"], torch.nn.Identity) and not module.lora_variant:
            module.forward = MethodType(_lora_forward, module)
            count += 1
    return count


def make_blocks_lean(model: nn.Module) -> None:
    """Norms and gated layers of the Llama family from now on keep only their inputs for the backward.

    The values are the model's own; what is kept is less than half, and there are fewer passes over it.
    """
    from transformers.activations import ACT2FN

    silu = type(ACT2FN["silu"])
    for module in model.modules():
        kind = type(module).__name__
        if kind.endswith("RMSNorm") and hasattr(module, "variance_epsilon"):
            module.forward = MethodType(_norm_forward, module)
        elif kind.endswith("MLP") and isinstance(getattr(module, "act_fn", None), silu):
            module.forward = MethodType(_gated_forward, module)


def _lora_forward(module: Any, x: torch.Tensor) -> torch.Tensor:
    base = module.base_layer
    if module.disable_adapters:
        bare: torch.Tensor = base(x)
        return bare
    a, b = module.lora_A["default"].weight, module.lora_B["default"].weight
    y: torch.Tensor = lora_linear()(x, base.weight, base.bias, a, b, module.scaling["default"])
    return y


def _norm_forward(module: Any, x: torch.Tensor) -> torch.Tensor:
    y: torch.Tensor = rms_norm()(x, module.weight, module.variance_epsilon)
    return y


def _gated_forward(module: Any, x: torch.Tensor) -> torch.Tensor:
    y: torch.Tensor = module.down_proj(gated_silu()(module.gate_proj(x), module.up_proj(x)))
    return y


@cache
def lora_linear() -> Any:
    """The differentiable product `x Wᵀ + bias + scale · (x Aᵀ) Bᵀ`, as a function of its six arguments."""
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


@cache
def rms_norm() -> Any:
    """The differentiable `weight · x / rms(x)`, in float32 inside; the weight gets no gradient."""
    import torch

    class RmsNorm(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any, weight: Any, epsilon: float) -> Any:
            wide = x.float()
            inverse = torch.rsqrt(wide.square().mean(-1, keepdim=True) + epsilon)
            ctx.save_for_backward(x, weight, inverse)
            return weight * wide.mul_(inverse).to(x.dtype) if wide is not x else weight * (x * inverse)

        @staticmethod
        def backward(ctx: Any, grad: Any) -> Any:
            x, weight, inverse = ctx.saved_tensors
            unit = x.float() * inverse
            wide = (grad * weight).float()
            dx = (wide - unit * (wide * unit).mean(-1, keepdim=True)) * inverse
            return dx.to(x.dtype), None, None

    return RmsNorm.apply


@cache
def gated_silu() -> Any:
    """The differentiable `silu(gate) · up`."""
    import torch
    from torch.nn.functional import silu

    class GatedSilu(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, gate: Any, up: Any) -> Any:
            ctx.save_for_backward(gate, up)
            return silu(gate).mul_(up)

        @staticmethod
        def backward(ctx: Any, grad: Any) -> Any:
            gate, up = ctx.saved_tensors
            d_up = silu(gate).mul_(grad)
            return torch.ops.aten.silu_backward(grad * up, gate), d_up

    return GatedSilu.apply
