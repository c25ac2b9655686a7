"""Products, norms, gates and rotations with a backward written by hand: no casts of activations, and little kept."""

from __future__ import annotations

from functools import cache
from typing import Any


@cache
def lora_products() -> Any:
    """The differentiable products `x W_iᵀ + bias_i + scale_i · (x A_iᵀ) B_iᵀ` of one x, as a tuple.

    A function of x, the scales as a tuple, and (W, bias, A, B) of each layer, one after the other. Layers that
    read the same x share the product with all A, and their gradients of x are added up where they arise.
    """
    import torch

    class LoraProducts(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any, scales: tuple[float, ...], *layers: Any) -> Any:
            flat = x.reshape(-1, x.shape[-1])  # (tokens, in)
            weights, biases, a, b = (layers[part::4] for part in range(4))
            a16 = torch.cat(a).to(x.dtype)  # (ranks, in)
            b16 = [(one * scale).to(x.dtype) for one, scale in zip(b, scales, strict=True)]  # (out, rank)
            inner = flat @ a16.t()  # (tokens, ranks)
            ranks = [len(one) for one in a]
            products = []
            for weight, bias, part, one in zip(weights, biases, inner.split(ranks, 1), b16, strict=True):
                # The adapter's part first: added to a product that is rounded, most of a small change is lost.
                y = part @ one.t() if bias is None else torch.addmm(bias, part, one.t())
                products.append(y.addmm_(flat, weight.t()).view(*x.shape[:-1], -1))
            ctx.save_for_backward(flat, inner, a16, *weights, *b16)
            ctx.scales, ctx.ranks, ctx.in_shape = scales, ranks, x.shape
            return tuple(products)

        @staticmethod
        def backward(ctx: Any, *grads: Any) -> Any:
            flat, inner, a16, *saved = ctx.saved_tensors
            weights, b16 = saved[: len(grads)], saved[len(grads) :]
            dy = [grad.reshape(-1, grad.shape[-1]) for grad in grads]  # (tokens, out)
            d_inner = torch.cat([one @ b for one, b in zip(dy, b16, strict=True)], dim=1)  # (tokens, ranks)
            dx = None
            if ctx.needs_input_grad[0]:
                dx = d_inner @ a16
                for one, weight in zip(dy, weights, strict=True):
                    dx.addmm_(one, weight)
                dx = dx.view(ctx.in_shape)
            da = (d_inner.t() @ flat).float().split(ctx.ranks)
            parts = zip(dy, inner.split(ctx.ranks, 1), ctx.scales, strict=True)
            # Its transpose is the faster product: the wide factor is read in its own order.
            db = [(part.t() @ one).t().float() * scale for one, part, scale in parts]
            return dx, None, *(grad for both in zip(da, db, strict=True) for grad in (None, None, *both))

    return LoraProducts.apply


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


@cache
def rotation() -> Any:
    """The differentiable rotary embedding `x cos + rotate_half(x) sin` (Su et al., 2021).

    A function of x (tokens, heads, size) and cos, sin (tokens, 1, size), whose two halves are the same.
    """
    import torch

    def rotated(x: Any, cos: Any, sin: Any) -> Any:
        half = x.shape[-1] // 2
        signed = torch.cat([-sin[..., :half], sin[..., half:]], dim=-1)
        return (x * cos).addcmul_(x.roll(half, -1), signed)

    class Rotation(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any, cos: Any, sin: Any) -> Any:
            ctx.save_for_backward(cos, sin)
            return rotated(x, cos, sin)

        @staticmethod
        def backward(ctx: Any, grad: Any) -> Any:
            cos, sin = ctx.saved_tensors
            return rotated(grad, cos, -sin), None, None

    return Rotation.apply
