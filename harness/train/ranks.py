"""The processes that train one adapter together: each takes its share of every batch.

Adapters are small, so one sum over all their gradients a step is all that the processes tell each other.
The base is the same in each of them.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

if TYPE_CHECKING:
    from torch import nn

T = TypeVar("T")


class Ranks(NamedTuple):
    """Which of how many processes this one is."""

    rank: int = 0
    world: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes, tells and decides."""
        return self.rank == 0

    def share(self, rows: Sequence[T]) -> Sequence[T]:
        """This process's rows of a batch; neighbours in length go to different processes."""
        return rows[self.rank :: self.world]

    def sum_gradients(self, parameters: Sequence[nn.Parameter], loss: float) -> float:
        """The loss of all processes, whose gradients are added up in place."""
        if self.world == 1:
            return loss
        import torch
        from torch import distributed

        grads = [p.new_zeros(p.shape) if p.grad is None else p.grad for p in parameters]
        flat = torch.cat([*(grad.flatten() for grad in grads), grads[0].new_tensor([loss])])
        distributed.all_reduce(flat)
        pieces = torch.split(flat[:-1], [grad.numel() for grad in grads])
        for parameter, piece in zip(parameters, pieces, strict=True):
            parameter.grad = piece.view(parameter.shape).clone()
        return float(flat[-1])

    def shard(self, model: Any, adapters: Collection[nn.Parameter], device_type: str) -> None:
        """Leaves each process a part of every layer's frozen weights; a layer is whole while it computes (FSDP2).

        Adapters stay whole in each process.
        """
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        mesh = init_device_mesh(device_type, (self.world,))
        for layer in model.get_submodule(model.base_model_prefix).layers:
            fully_shard(layer, mesh=mesh, ignored_params=set(adapters))

    def agree(self, value: T) -> T:
        """The first process's value, in all of them."""
        if self.world == 1:
            return value
        from torch import distributed

        box: list[Any] = [value]
        distributed.broadcast_object_list(box, src=0)
        found: T = box[0]
        return found

    def gather(self, value: T) -> list[T]:
        """Every process's value, in the order of the ranks."""
        if self.world == 1:
            return [value]
        from torch import distributed

        found: list[Any] = [None] * self.world
        distributed.all_gather_object(found, value)
        return found


def join() -> Ranks:
    """Meets the other processes that `accelerate launch` started; alone where it did not."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Ranks()
    from accelerate import PartialState

    state = PartialState(cpu=os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes"))
    return Ranks(int(state.process_index), int(state.num_processes))
