"""How much is computed at once: what memory allows, and less after it was not enough."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

CPU_TOK = 512
"""Padded tokens a pass on a processor: more computes no faster, and its activations leave the caches."""
CUDA_TOK = 16_384
STATE_COPIES = 24
"""Hidden states, of the width that the feed-forward layers have, alive in one layer of a pass."""
FREE_FRAC = 0.3
"""Share of CUDA's free memory that activations may plan with, and keys and values as much again."""
CPU_CACHE_BYTES = 2**30
"""Keys and values on a processor, a batch."""
CPU_SLOTS = 16
CUDA_SLOTS = 128
"""Answers that are written side by side."""

Item = TypeVar("Item")
Found = TypeVar("Found")


class Room:
    """Cuts work into passes that fit; halves them when memory runs out, and says so once."""

    def __init__(self, config: Any, dtype: str, device: str, on_note: Callable[[str], None]) -> None:
        is_cpu = device == "cpu"
        self.pass_tok = CPU_TOK if is_cpu else _cuda_tok(config, dtype)
        self.cache_tok = _cache_tok(config, dtype, is_cpu=is_cpu)
        """Tokens, prefixes and padding among them, whose keys and values are held."""
        self.slots = CPU_SLOTS if is_cpu else CUDA_SLOTS
        self._on_note = on_note
        self._has_told = False

    def fill(
        self,
        items: Sequence[Item],
        costs_tok: Sequence[int],
        compute: Callable[[Sequence[Item]], list[Found]],
        *,
        shared_tok: int = 0,
    ) -> list[Found]:
        """What `compute` finds for all items, in their order, computed in passes of alike items.

        Each item costs so many tokens, and holds `shared_tok` more that cost nothing.

        Raises:
            RuntimeError: memory is too short for a single item, or the library gives up.
        """
        order = sorted(range(len(items)), key=lambda at: costs_tok[at])
        found: dict[int, Found] = {}
        while len(found) < len(order):
            left = order[len(found) :]
            part = left[: self._count([costs_tok[at] for at in left], shared_tok)]
            try:
                found.update(zip(part, compute([items[at] for at in part]), strict=True))
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) or len(part) == 1:
                    raise
                self.halve(len(part), len(part) * costs_tok[part[-1]])
        return [found[at] for at in range(len(items))]

    def _count(self, costs_tok: list[int], shared_tok: int) -> int:
        """How many of the costs, which ascend, fit into one pass when padded to the largest; at least one."""
        fits = [
            at
            for at, cost in enumerate(costs_tok, start=1)
            if at * cost <= self.pass_tok and at * (cost + shared_tok) <= self.cache_tok
        ]
        return max(fits, default=1)

    def ranges(self, costs_tok: Sequence[int]) -> list[slice]:
        """Neighbours that fit into one pass when padded to the largest; none that cost nothing."""
        found: list[slice] = []
        start = largest = 0
        for at, cost in enumerate(costs_tok):
            if at > start and (at - start + 1) * max(largest, cost) > self.pass_tok:
                found.append(slice(start, at))
                start, largest = at, 0
            largest = max(largest, cost)
        found.append(slice(start, len(costs_tok)))
        return [part for part in found if any(costs_tok[part])]

    def halve(self, items: int, used_tok: int) -> None:
        """Half of what was too much, from now on."""
        self.pass_tok = max(1, min(self.pass_tok, used_tok) // 2)
        self.cache_tok = max(1, self.cache_tok // 2)
        self.slots = max(1, min(self.slots, items) // 2)
        _give_back()
        if not self._has_told:
            self._has_told = True
            self._on_note(
                f"memory was short for {items} prompts at once: going on with smaller batches, which is slower"
                " and changes no answer"
            )


def is_out_of_memory(error: BaseException) -> bool:
    """True for what torch raises when an allocation fails, on a processor or on CUDA."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text


def _give_back() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _cuda_tok(config: Any, dtype: str) -> int:
    """Tokens whose activations fit into the memory that is free."""
    import torch

    free_bytes, _ = torch.cuda.mem_get_info()
    width = getattr(config, "intermediate_size", None) or 4 * config.hidden_size
    return int(min(CUDA_TOK, max(256, FREE_FRAC * free_bytes / (STATE_COPIES * width * _bytes(dtype)))))


def _cache_tok(config: Any, dtype: str, *, is_cpu: bool) -> int:
    import torch

    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    each_bytes = 2 * config.num_hidden_layers * heads * size * _bytes(dtype)
    room_bytes = CPU_CACHE_BYTES if is_cpu else FREE_FRAC * torch.cuda.mem_get_info()[0]
    return max(256, int(room_bytes / each_bytes))


def _bytes(dtype: str) -> int:
    return 2 if dtype == "bfloat16" else 4
