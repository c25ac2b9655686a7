"""Which groups of tensors a quantization hurts most, and better types for those, within a budget of bytes.

Each group is rounded alone, all else left in 16 bits, and the divergence from the 16-bit file is what that group
costs. Costs are taken to add up, which holds where they are small; the file with the better types is measured as a
whole before it is kept.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from harness.export.quantize import Override, TensorPlan, quantize, sizes_with

BETTER = "q6_k"
"""What the groups that hurt most get; llama.cpp takes q8_0 where rows are no multiple of 256."""
_MATRIX = re.compile(r"^blk\.(\d+)\.(\w+)\.weight$")


class Group(NamedTuple):
    """Matrices of one kind in a run of blocks."""

    name: str
    """Such as `attn_v 0-9`."""
    pattern: str
    """A regular expression of their names."""


class Cost(NamedTuple):
    """What rounding one group alone does."""

    group: Group
    mean_kl: float
    """From the 16-bit file, in nats a token."""


def groups_of(table: Sequence[TensorPlan], wanted: int) -> list[Group]:
    """About `wanted` groups, at least one a kind of matrix: each kind, cut into runs of blocks of equal length."""
    found = [match for row in table if row.before != row.after and (match := _MATRIX.match(row.name))]
    kinds = sorted({match[2] for match in found})
    blocks = sorted({int(match[1]) for match in found})
    if not kinds:
        return []
    runs = min(len(blocks), max(1, wanted // len(kinds)))
    bounds = [len(blocks) * at // runs for at in range(runs + 1)]
    cut = [blocks[low:high] for low, high in itertools.pairwise(bounds)]
    return [_group(kind, run) for kind in kinds for run in cut]


def _group(kind: str, blocks: Sequence[int]) -> Group:
    numbers = "|".join(map(str, blocks))
    return Group(f"{kind} {blocks[0]}-{blocks[-1]}", rf"^blk\.({numbers})\.{re.escape(kind)}\.weight$")


def scan(
    source: Path,
    quant: str,
    groups: Sequence[Group],
    measure: Callable[[Path], float],
    scratch: Path,
    *,
    imatrix: Path | None = None,
    threads: int = 2,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[Cost]:
    """The cost of each group in this quant, in their order; `measure` gives a file's mean KL from `source`.

    `scratch` is written once a group and removed at the end.

    Raises:
        ModelError: llama.cpp refuses the source, or can't load what it wrote.
    """
    costs: list[Cost] = []
    try:
        for done, group in enumerate(groups, start=1):
            rest = Override(f"^(?!{group.pattern.removeprefix('^')}).*$", "f16")
            quantize(source, scratch, quant, imatrix=imatrix, overrides=[rest], threads=threads)
            costs.append(Cost(group, measure(scratch)))
            if on_progress:
                on_progress(done, len(groups))
    finally:
        scratch.unlink(missing_ok=True)
    return costs


def better_types(
    source: Path,
    quant: str,
    costs: Sequence[Cost],
    *,
    budget_frac: float,
    imatrix: Path | None = None,
    threads: int = 2,
) -> list[Override]:
    """Better types for the groups that cost most for each byte that they would gain, within the budget.

    `budget_frac` is the share of the file's size that all of them may add together.

    Raises:
        ModelError: llama.cpp refuses the source.
    """

    overrides = [Override(cost.group.pattern, BETTER) for cost in costs]
    choices = [[], *([override] for override in overrides)]
    plain, *sizes = sizes_with(source, quant, choices, imatrix=imatrix, threads=threads)
    gains = [
        (cost.mean_kl / (size - plain), size - plain, override)
        for cost, size, override in zip(costs, sizes, overrides, strict=True)
        if size > plain and cost.mean_kl > 0
    ]
    chosen: list[Override] = []
    room = int(plain * budget_frac)
    for _, added, override in sorted(gains, key=lambda gain: -gain[0]):
        if added <= room:
            chosen.append(override)
            room -= added
    return chosen
