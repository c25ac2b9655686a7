"""Keys and values of the rows that are computed together, each row in a slot of its own, kept between calls."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

CAPACITY_MULTIPLE = 64


@lru_cache(maxsize=1)
def slot_cache() -> Any:
    """The class `SlotCache(slots, capacity_tok)`, as a cache that Transformers' networks take."""
    import torch
    from transformers import DynamicCache

    class SlotCache(DynamicCache):  # type: ignore[misc]
        """Buffers (slots, heads, columns, size) a layer. Padding goes to a last column that nobody sees."""

        def __init__(self, slots: int, capacity_tok: int) -> None:
            super().__init__()
            self.slots = slots
            self.capacity_tok = -(-capacity_tok // CAPACITY_MULTIPLE) * CAPACITY_MULTIPLE
            self._buffers: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
            self._prefix: Any = None
            self._filled = 0
            self._start = self._stop = self._span = 0
            self._rows = self._columns = torch.empty(0, dtype=torch.long)

        def hold(self, prefix: Any, rows: int) -> None:
            """Puts a prefix, a tuple of (keys, values) a layer of shape (1, heads, columns, size), before the
            first `rows` slots; what is there already is not written again."""
            if prefix is not self._prefix:
                self._prefix, self._filled = prefix, 0
            for layer, tensors in enumerate(prefix):
                if layer not in self._buffers:
                    self._allocate(layer, tensors[0])
                if self._filled < rows:
                    for buffer, tensor in zip(self._buffers[layer], tensors, strict=True):
                        buffer[self._filled : rows, :, : tensor.shape[2]] = tensor
            self._filled = max(self._filled, rows)

        def aim(self, start: int, columns: torch.Tensor, span: int) -> None:
            """Where the next tokens go: slots from `start` on, `columns` (rows, tokens), -1 for padding; they
            look at columns below `span`."""
            self._start, self._stop, self._span = start, start + len(columns), span
            self._rows = torch.arange(len(columns), device=columns.device)[:, None]
            self._columns = columns.where(columns >= 0, self.capacity_tok)

        def update(self, key_states: Any, value_states: Any, layer_idx: int, *_: Any, **__: Any) -> Any:
            """Writes (rows, heads, tokens, size); all that the rows may look at, as a view."""
            if layer_idx not in self._buffers:
                self._allocate(layer_idx, key_states)
            views = []
            for buffer, states in zip(self._buffers[layer_idx], (key_states, value_states), strict=True):
                rows = buffer[self._start : self._stop]
                rows[self._rows, :, self._columns] = states.transpose(1, 2)
                views.append(rows[:, :, : self._span])
            return views[0], views[1]

        def move(self, source: int, target: int) -> None:
            """Copies a slot over another."""
            for tensors in self._buffers.values():
                for buffer in tensors:
                    buffer[target] = buffer[source]

        def layers_of(self, slot: int, columns: int) -> tuple[tuple[torch.Tensor, torch.Tensor], ...]:
            """A copy of a slot's first columns, (1, heads, columns, size) a layer."""
            return tuple(
                (keys[slot : slot + 1, :, :columns].clone(), values[slot : slot + 1, :, :columns].clone())
                for _, (keys, values) in sorted(self._buffers.items())
            )

        def get_seq_length(self, layer_idx: int = 0) -> int:  # noqa: ARG002
            """Columns that the next tokens look at."""
            return self._span

        def _allocate(self, layer: int, like: torch.Tensor) -> None:
            shape = (self.slots, like.shape[1], self.capacity_tok + 1, like.shape[3])
            self._buffers[layer] = (like.new_zeros(shape), like.new_zeros(shape))

    return SlotCache
