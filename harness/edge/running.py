"""A request in work: its tokens, how far they went through the network, and what a step found for it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from harness.edge.base import Ask, Finish, Trouble
from harness.edge.labelling import Labelling, Wave
from harness.edge.writing import Writing


@dataclass(slots=True, eq=False)
class Running:
    """One request in work."""

    number: int
    ask: Ask
    ids: list[int]
    """The prompt's, and those of an answer that another process began."""
    prompt_tok: int
    is_truncated: bool
    work: Writing | Labelling
    deadline: float | None
    """On the monotonic clock, in seconds."""
    sequence: int = -1
    fed: int = 0
    """Tokens of prompt and answer whose state is in the sequence."""
    cached_tok: int = 0
    told: int = 0
    """Tokens of the answer that were told."""
    wave: Wave | None = None
    leaves: list[int] = field(default_factory=list)

    @property
    def left_tok(self) -> int:
        """Tokens of the prompt that are still to be fed."""
        return max(0, len(self.ids) - self.fed)

    @property
    def room_tok(self) -> int:
        """Cells that it may come to take."""
        if isinstance(self.work, Labelling):
            return len(self.ids) + self.work.room_tok
        return self.prompt_tok + self.ask.max_new_tokens


class Told(NamedTuple):
    """What a step found for one request: text, its end, or its trouble."""

    run: Running
    text: str = ""
    finish: Finish | None = None
    trouble: Trouble | None = None
    why: str = ""


def fair_shares(runs: list[Running], budget_tok: int) -> list[tuple[Running, int]]:
    """How many tokens of its prompt each may feed: equal shares, and what one does not need goes to the others."""
    shares: list[tuple[Running, int]] = []
    left = budget_tok
    ordered = sorted(runs, key=lambda run: run.left_tok)
    for at, run in enumerate(ordered):
        share = min(run.left_tok, left // (len(ordered) - at))
        if share:
            shares.append((run, share))
            left -= share
    return shares
