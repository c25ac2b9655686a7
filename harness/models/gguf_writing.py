"""Many answers written side by side, a sequence each; whoever ends makes room for the next at once."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from heapq import heappop, heappush
from pathlib import Path
from typing import NamedTuple

from harness.models.continuation import Continuation
from harness.models.gguf_api import Cache, Context, Feed
from harness.models.gguf_scoring import Prefixes, decoded

MAX_PLACES = 32
"""Answers written at a time: on processors, more of them no longer go through the network faster."""
CELL_STEP = 256
"""llama.cpp rounds a sequence's cells up to this."""
CACHE_FRAC = 0.25
"""Share of the memory that is free now which the cache may take."""
UNKNOWN_MEMORY_BYTES = 2**32
"""Taken for free where the system does not say."""


class Job(NamedTuple):
    """A prompt and the answer that grows after it."""

    ids: list[int]
    answer: Continuation
    max_new_tok: int


def plan_cache(jobs: Sequence[Job], cell_bytes: int, free_bytes: int) -> Cache:
    """A cache with as many places as the jobs can use and memory has room for, at least one."""
    longest = max(len(job.ids) + job.max_new_tok for job in jobs)
    cells = -(-longest // CELL_STEP) * CELL_STEP
    fitting = int(free_bytes * CACHE_FRAC) // max(cells * cell_bytes, 1) - 1  # one is the prefix's
    places = max(1, min(len(jobs), MAX_PLACES, fitting))
    return Cache(cells, sequences=places + 1, is_apart=True)


def free_memory_bytes(meminfo: Path = Path("/proc/meminfo")) -> int:
    """Memory that this machine could give now without swapping."""
    try:
        lines = meminfo.read_text(encoding="ascii", errors="replace").splitlines()
        found = next(line for line in lines if line.startswith("MemAvailable:"))
        return int(found.split()[1]) * 1024
    except (OSError, StopIteration, ValueError, IndexError):
        return UNKNOWN_MEMORY_BYTES


class Writing:
    """The jobs on their way through a context whose sequences are apart."""

    def __init__(self, context: Context, prefixes: Prefixes, jobs: Sequence[Job]) -> None:
        self._context = context
        self._prefixes = prefixes
        self._waiting = deque(job for job in jobs if not job.answer.is_done)
        self._free = list(range(prefixes.places, context.cache.sequences))
        self._going: dict[int, tuple[Job, int]] = {}
        """By sequence: the job, and how many of its tokens were fed."""

    def run(self) -> None:
        """Writes all answers to their ends.

        Raises:
            RuntimeError: llama.cpp can't decode; the context should be dropped.
        """
        feeds = self._refill()
        while feeds:
            feeds = self._in_order([*self._extend(feeds), *self._refill()])

    def _refill(self) -> list[Feed]:
        """The prompts of the jobs that go into the free places."""
        feeds: list[Feed] = []
        while self._free and self._waiting:
            job, sequence = self._waiting.popleft(), heappop(self._free)
            begin = self._prefixes.branch([sequence], job.ids)
            last = len(job.ids) - 1
            feeds.extend(Feed(job.ids[at], at, (sequence,), at == last) for at in range(begin, len(job.ids)))
            self._going[sequence] = (job, len(job.ids))
        return feeds

    def _extend(self, feeds: list[Feed]) -> list[Feed]:
        """Decodes them and lets each answer that is scored choose; what it chose is fed next."""
        chosen: list[Feed] = []
        scored = [feed.sequences[0] for feed in feeds if feed.is_scored]
        for sequence, logits in zip(scored, decoded(self._context, feeds), strict=True):
            job, fed = self._going[sequence]
            token = job.answer.extend(logits)
            if job.answer.is_done:
                self._leave(sequence)
            else:
                chosen.append(Feed(token, fed, (sequence,), True))
                self._going[sequence] = (job, fed + 1)
        return chosen

    def _leave(self, sequence: int) -> None:
        self._context.forget(sequence)
        del self._going[sequence]
        heappush(self._free, sequence)

    def _in_order(self, feeds: list[Feed]) -> list[Feed]:
        """The feeds by sequence, without gaps between the sequences.

        llama.cpp computes apart sequences together only where their numbers follow one another: each gap,
        and each step back, would be a pass through the network of its own. What is moved is copied once.
        """
        moves: dict[int, int] = {}
        while self._going and self._free and self._free[0] < (last := max(self._going)):
            target = heappop(self._free)
            self._context.branch(last, target)
            self._context.forget(last)
            self._going[target] = self._going.pop(last)
            heappush(self._free, last)
            moves[last] = target
        moved = [replace_sequence(feed, moves) for feed in feeds] if moves else feeds
        return sorted(moved, key=lambda feed: feed.sequences[0])


def replace_sequence(feed: Feed, moves: Mapping[int, int]) -> Feed:
    """The feed on the sequence that its own was moved to."""
    (sequence,) = feed.sequences
    return feed._replace(sequences=(moves.get(sequence, sequence),))
