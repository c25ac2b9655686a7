"""A checkpoint folder → a torch module ready to answer."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from harness.errors import ModelError
from harness.models.quiet import quiet_transformers

if TYPE_CHECKING:
    import torch

Dtype = Literal["bfloat16", "float32"]

FLOAT_HEAD_BYTES = 2**30
"""Largest output head that is kept in float32 beside a bfloat16 body."""


def usable_threads() -> int:
    """Processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def default_dtype(device: str) -> Dtype:
    """bfloat16 where the processor multiplies it natively, float32 elsewhere."""
    import torch

    if device != "cpu" or torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return "bfloat16"
    return "float32"


def default_device() -> str:
    """`cuda` when there is one, else `cpu`."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def load_network(
    folder: Path, *, adapter: Path | None, nf4: bool, dtype: Dtype, device: str
) -> torch.nn.Module:
    """The network in evaluation mode on the device.

    Weights are read in bfloat16, rounded to NF4 when asked, and only then widened to `dtype`.

    Raises:
        ModelError: the checkpoint or the adapter can't be read, or its layers are of a kind that shared
            prefixes don't work with.
    """
    import torch

    network = _base(folder, torch.bfloat16 if nf4 or dtype == "bfloat16" else torch.float32)
    _check_layers(folder, network.config)
    if nf4:
        from harness.models.nf4 import apply_nf4
        from harness.models.principal import principal_parts

        apply_nf4(network, exact=principal_parts(adapter) if adapter is not None else None)
    network = network.to(getattr(torch, dtype))
    if dtype == "bfloat16":
        _widen_head(network)
    if adapter is not None:
        network = _with_adapter(network, adapter)
    ready: torch.nn.Module = network.to(device).eval().requires_grad_(False)
    return ready


def _base(folder: Path, dtype: torch.dtype) -> Any:
    quiet_transformers()
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    try:
        return AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            attn_implementation="sdpa",
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
        )
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"{folder}: can't be loaded: {error}") from error


def _check_layers(folder: Path, config: Any) -> None:
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    unknown = kinds - {"full_attention", "sliding_attention"}
    if unknown:
        raise ModelError(f"{folder}: layers of kind {', '.join(sorted(unknown))} are not supported")


def _widen_head(network: Any) -> None:
    """Computes the logits in float32: in bfloat16 a logit of 20 is known to 0.06 only, and choices tie."""
    import torch

    head = network.get_output_embeddings()
    if head is None or head.weight.numel() * 4 > FLOAT_HEAD_BYTES:
        return

    class FloatHead(torch.nn.Module):
        is_plain_linear = True

        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(head.weight.detach().float(), requires_grad=False)
            bias = getattr(head, "bias", None)
            self.bias = (
                None if bias is None else torch.nn.Parameter(bias.detach().float(), requires_grad=False)
            )

        def forward(self, hidden: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.linear(hidden.float(), self.weight, self.bias)

    network.set_output_embeddings(FloatHead())


def _with_adapter(network: Any, adapter: Path) -> Any:
    import torch
    from peft import PeftModel
    from safetensors import SafetensorError

    try:
        adapted: Any = PeftModel.from_pretrained(network, str(adapter), autocast_adapter_dtype=False)
    except (OSError, ValueError, KeyError, RuntimeError, TypeError, SafetensorError) as error:
        raise ModelError(f"{adapter}: the adapter can't be applied: {error}") from error
    found = [value for name, value in adapted.named_parameters() if ".lora_" in name or ".ia3_l." in name]
    if not found:
        raise ModelError(f"{adapter}: no LoRA or IA3 weights in it")
    if not all(bool(torch.isfinite(value).all()) for value in found):
        raise ModelError(f"{adapter}: some of its weights are not finite")
    return adapted.get_base_model()  # the network itself, its linear layers now with adapters
