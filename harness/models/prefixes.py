"""Which prompts begin alike, so that what they share is computed once."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

Ids = tuple[int, ...]

MIN_SAVED_TOK = 128
"""A beginning inside a beginning must save so many tokens: it costs a pass of its own, and smaller batches."""
MIN_SAVED_FRAC = 0.1
"""And this share of what its prompts would otherwise feed."""


class Shared(NamedTuple):
    """The beginnings that are worth computing once."""

    prefixes: list[Ids]
    """Each row's longest one; empty where it shares none."""
    parents: dict[Ids, Ids]
    """Each one's own beginning among them; empty for the outermost."""
    order: dict[Ids, int]
    """Each one's place when the tree is walked depth first: neighbours share most."""


class _Span(NamedTuple):
    """Rows `low` to `high` of the sorted ones, of which `prefix` is already shared."""

    low: int
    high: int
    prefix: Ids


def shared_prefixes(rows: Sequence[Sequence[int]], *, is_nested: bool = True) -> Shared:
    """The tree of beginnings of the rows, such as a suite's few-shot examples and those of each subject.

    A prefix is always shorter than each of its rows. Without `is_nested` there is none but the one that
    all rows share. Depends on the rows alone, not on their order.
    """
    order = sorted(range(len(rows)), key=lambda at: tuple(rows[at]))
    alike = [tuple(rows[at]) for at in order]
    common = [0, *(_common_tok(a, b) for a, b in pairwise(alike))]
    found: list[Ids] = [()] * len(rows)
    shared = Shared(found, {}, {(): 0})
    waiting = [_Span(0, len(rows), ())] if rows else []
    while waiting:
        span = waiting.pop()
        here = _longest(span, alike, common)
        prefix = span.prefix
        if here is not None and _is_worth(span, here, alike):
            prefix = alike[span.low][:here]
            shared.parents[prefix] = span.prefix
            shared.order[prefix] = len(shared.order)
        for at in range(span.low, span.high):
            found[order[at]] = prefix
        if not is_nested:
            break
        waiting.extend(reversed(_parts(span, here, prefix, common)))
    return shared


def _common_tok(one: Ids, other: Ids) -> int:
    length = min(len(one), len(other))
    if one[:length] == other[:length]:
        return length
    return next(at for at in range(length) if one[at] != other[at])


def _longest(span: _Span, alike: list[Ids], common: list[int]) -> int | None:
    """Tokens that all rows of the span share, short of the shortest row's last; None for a single row."""
    if span.high - span.low < 2:
        return None
    shared = min(common[span.low + 1 : span.high])
    return min(shared, min(len(row) for row in alike[span.low : span.high]) - 1)


def _is_worth(span: _Span, here: int, alike: list[Ids]) -> bool:
    extra = here - len(span.prefix)
    saved = (span.high - span.low - 1) * extra
    if not span.prefix and span.high - span.low == len(alike):
        return extra > 0  # what all rows share splits no batch
    fed = sum(len(row) for row in alike[span.low : span.high])
    own = fed - (span.high - span.low) * len(span.prefix)
    return saved >= max(MIN_SAVED_TOK, MIN_SAVED_FRAC * own)


def _parts(span: _Span, here: int | None, prefix: Ids, common: list[int]) -> list[_Span]:
    """The span cut where neighbours share no more than all do; none where no part could share more."""
    if here is None:
        return []
    least = min(common[span.low + 1 : span.high])
    cuts = [at for at in range(span.low + 1, span.high) if common[at] == least]
    edges = [span.low, *cuts, span.high]
    return [_Span(a, b, prefix) for a, b in pairwise(edges) if b - a > 1]
