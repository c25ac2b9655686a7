"""How many threads a small step goes through: as many as were fastest lately, on this machine, beside what else runs.

Threads meet after every operation of the network, some hundred times a step. Where a step is short that takes longer
than a second thread saves, and where other programs have the cores, one thread that waits for another waits long:
measured with SmolLM2 on 2 cores, two threads that sleep while they wait are 2.5 times slower than one alone, two that
spin are as fast as one or faster while the cores are free and 20 times slower beside two busy programs. Nobody knows
that beforehand, so it is measured as the steps go.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

SMALL_ROWS = 16
"""A step of more rows goes through all threads: what they save is worth the meetings."""
SOONEST_STEPS, LATEST_STEPS = 32, 512
"""Steps between two trials of another number of threads: doubled each time that the trial was in vain."""
SHOCK = 2.0
"""A step that takes so many times what was expected makes the next one a trial,"""
CALM_STEPS = 8
"""unless there was one just now."""
WEIGHT = 0.3
"""Of the last step in what is expected of the next one."""


class Choice(NamedTuple):
    """What a step goes through."""

    rows: int
    threads: int


@dataclass(slots=True)
class Size:
    """What is known of steps of about so many rows: expected seconds a row by number of threads."""

    expected: dict[int, float] = field(default_factory=dict)
    since_trial: int = 0
    interval: int = SOONEST_STEPS
    tried: int = 0
    is_shocked: bool = False

    @property
    def best(self) -> int:
        """The number of threads of which the least is expected."""
        return min(self.expected, key=lambda threads: self.expected[threads])


class Pace:
    """The choices, and what came of them."""

    def __init__(self, threads: int) -> None:
        """Chooses among 1, 2, 4 and so on, `threads` at most."""
        self._all = threads
        self._counts = [1 << at for at in range(threads.bit_length()) if 1 << at < threads] + [threads]
        self._sizes: dict[int, Size] = {}

    def choose(self, rows: int) -> Choice:
        """For a step of so many rows."""
        if rows > SMALL_ROWS or self._all == 1:
            return Choice(rows, self._all)
        size = self._size(rows)
        unknown = [count for count in self._counts if count not in size.expected]
        if unknown:
            return Choice(rows, unknown[0])
        size.since_trial += 1
        is_soon = size.is_shocked and size.since_trial > CALM_STEPS
        return Choice(rows, self._trial(size) if is_soon or size.since_trial > size.interval else size.best)

    def took(self, choice: Choice, seconds: float) -> None:
        """What came of a choice."""
        if choice.rows > SMALL_ROWS or self._all == 1:
            return
        size, seconds_a_row = self._size(choice.rows), seconds / choice.rows
        before = size.expected.get(choice.threads)
        if before is None:
            size.expected[choice.threads] = seconds_a_row
            return
        best = size.best
        size.is_shocked = choice.threads == best and seconds_a_row > SHOCK * before
        size.expected[choice.threads] = before + WEIGHT * (seconds_a_row - before)
        if size.best != best:
            size.interval = SOONEST_STEPS
        elif choice.threads != best:
            size.interval = min(2 * size.interval, LATEST_STEPS)

    def _trial(self, size: Size) -> int:
        size.since_trial, size.is_shocked = 0, False
        others = [count for count in self._counts if count != size.best]
        size.tried += 1
        return others[size.tried % len(others)]

    def _size(self, rows: int) -> Size:
        return self._sizes.setdefault((rows - 1).bit_length(), Size())
