"""Linear layers as oneDNN wants them: packed once, not at every call."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def pack_linear_layers(network: torch.nn.Module) -> int:
    """How many of a network's plain linear layers were packed in place; 0 where this torch or processor can't.

    The same arithmetic in the same precision. In float32, torch's own product goes through MKL, which on
    processors of other makers than its own runs at less than half of oneDNN's speed (two Zen 5 cores:
    160-190 against 440 GFLOP/s); in bfloat16, packing spares a reordering of the weights at each call.
    Weights that another module shares, such as a tied embedding, are kept beside the packed ones.
    """
    import torch

    if not _can_pack():
        return 0
    packed = 0
    for parent in list(network.modules()):
        for name, layer in list(parent.named_children()):
            is_plain = type(layer) is torch.nn.Linear or getattr(layer, "is_plain_linear", False)
            if is_plain and layer.weight.device.type == "cpu":
                setattr(parent, name, packed_linear()(layer.weight, layer.bias))
                packed += 1
    _trim()
    return packed


def _trim() -> None:
    """Gives the unpacked weights' memory back to the system, which glibc would keep."""
    import ctypes

    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


@lru_cache(maxsize=1)
def packed_linear() -> Any:
    """The class of packed layers: `(weight, bias)` → module."""
    import torch

    class PackedLinear(torch.nn.Linear):
        def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
            torch.nn.Module.__init__(self)  # a linear layer's own would make weights
            self.out_features, self.in_features = weight.shape
            self.register_parameter(
                "bias", None if bias is None else torch.nn.Parameter(bias.detach(), False)
            )
            self._packed = _ops()._reorder_linear_weight(weight.detach(), None)
            self._dtype = weight.dtype

        @property
        def weight(self) -> torch.Tensor:  # type: ignore[override]
            """(out, in), unpacked anew at each look."""
            plain: torch.Tensor = self._packed.to_dense()
            return plain

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return self._product(inputs, "none")

        def silu(self, inputs: torch.Tensor) -> torch.Tensor:
            """SiLU of the layer's output, without a pass of its own."""
            return self._product(inputs, "swish")

        def _product(self, inputs: torch.Tensor, after: str) -> torch.Tensor:
            found: torch.Tensor = _ops()._linear_pointwise(
                inputs.to(self._dtype), self._packed, self.bias, after, [], ""
            )
            return found

    return PackedLinear


def _ops() -> Any:
    import torch

    return torch.ops.mkldnn


@lru_cache(maxsize=1)
def _can_pack() -> bool:
    """True where the operators, which torch's compiler uses but nobody promises, give what a layer gives."""
    import torch

    weight, inputs = torch.randn(48, 32), torch.randn(2, 5, 32)
    try:
        found = packed_linear()(weight, None)(inputs)
    except (RuntimeError, AttributeError, TypeError):
        return False
    return bool(torch.allclose(found, torch.nn.functional.linear(inputs, weight), atol=1e-4))
