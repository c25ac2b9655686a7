"""How far a stage is from its parent: the same token ids, and how much the next-token distributions moved."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.export.divergence import DEFAULT_MAX_TOK, Divergence, Reference, divergence
from harness.export.forward import Source
from harness.export.parity import Item, Parity, compare_ids, read_conversations


@dataclass(frozen=True, slots=True)
class Fidelity:
    """Both measures of one step of the chain."""

    divergence: Divergence
    parity: Parity
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """One flat document; `token_parity` says whether parity holds."""
        numbers = asdict(self.divergence) | {"parity": asdict(self.parity), "seconds": round(self.seconds, 3)}
        return numbers | {"token_parity": self.parity.holds}


def compare(
    parent: Source | Path,
    child: Source | Path,
    items: Sequence[Item],
    *,
    threads: int = 2,
    max_tok: int = DEFAULT_MAX_TOK,
) -> Fidelity:
    """Token parity on all items, and the divergence on the first ones, up to `max_tok` positions.

    All native code runs in child processes.

    Raises:
        ModelError: a stage can't be loaded, no item fits its budget, or the stages differ in vocabulary.
    """
    started = time.monotonic()
    parent, child = _source(parent), _source(child)
    before, now = read_conversations(parent, items), read_conversations(child, items)
    texts = [ids for ids in before.ids if ids is not None]
    return Fidelity(
        divergence(parent, child, texts, threads=threads, max_tok=max_tok),
        compare_ids(before, now, items),
        time.monotonic() - started,
    )


def compare_with(
    reference: Reference, child: Path, items: Sequence[Item], *, threads: int = 2, cache: str = "f16"
) -> Fidelity:
    """As `compare`, with a parent whose answers lie on disk already; `cache` is the type of keys and values.

    Raises:
        ModelError: the child can't be loaded, or differs from the parent in vocabulary.
    """
    started = time.monotonic()
    now = read_conversations(Source(child), items)
    return Fidelity(
        reference.divergence(Source(child, cache=cache), threads=threads),
        compare_ids(reference.conversations, now, items),
        time.monotonic() - started,
    )


def _source(stage: Source | Path) -> Source:
    return stage if isinstance(stage, Source) else Source(stage)
