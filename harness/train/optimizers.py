"""AdamW in float32, or with its state in 8 bits where memory is a GPU's; its state by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from harness.specs.recipe import Tune

if TYPE_CHECKING:
    import torch
    from torch import nn

NUMBER = "#"
"""Marks a state that is a plain number in the optimizer, and a tensor on disk."""


def optimizer_kind(tune: Tune, device_type: str) -> str:
    """`auto` spelled out: paged 8-bit AdamW on CUDA, where a peak must not end the run; else AdamW."""
    if tune.optimizer != "auto":
        return tune.optimizer
    return "paged_adamw_8bit" if device_type == "cuda" else "adamw"


def make_optimizer(groups: list[dict[str, Any]], tune: Tune, device_type: str) -> torch.optim.Optimizer:
    """The optimizer over the groups of trainable tensors."""
    import torch

    kind = optimizer_kind(tune, device_type)
    if kind == "adamw":
        return torch.optim.AdamW(groups, lr=tune.learning_rate, weight_decay=tune.weight_decay, fused=True)
    from bitsandbytes import optim

    make = optim.PagedAdamW8bit if kind == "paged_adamw_8bit" else optim.AdamW8bit
    found: torch.optim.Optimizer = make(groups, lr=tune.learning_rate, weight_decay=tune.weight_decay)
    return found


def optimizer_state(
    optimizer: torch.optim.Optimizer, parameters: Mapping[str, nn.Parameter]
) -> dict[str, torch.Tensor]:
    """The optimizer's tensors by `kind/parameter`; empty before the first step."""
    import torch

    found = {}
    for name, parameter in parameters.items():
        for kind, value in optimizer.state.get(parameter, {}).items():
            if isinstance(value, torch.Tensor):
                found[f"{kind}/{name}"] = value.detach().cpu().clone().contiguous()
            else:
                found[f"{NUMBER}{kind}/{name}"] = torch.tensor(value)
    return found


def set_optimizer_state(
    optimizer: torch.optim.Optimizer,
    parameters: Mapping[str, nn.Parameter],
    tensors_by_name: Mapping[str, torch.Tensor],
) -> None:
    """Puts back what `optimizer_state` gave; parameters without tensors start afresh."""
    optimizer.state.clear()
    for key, value in tensors_by_name.items():
        kind, _, name = key.partition("/")
        parameter: Any = parameters[name]
        if kind.startswith(NUMBER):
            optimizer.state[parameter][kind.removeprefix(NUMBER)] = value.item()
        else:
            place = value.device if kind == "step" and parameter.device.type == "cpu" else parameter.device
            optimizer.state[parameter][kind] = value.to(place)
