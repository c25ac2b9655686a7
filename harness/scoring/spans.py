"""Spans of a text: the right ones, the rest, and those that are missing."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.scoring.counts import Cells, as_counts, f1_value, total
from harness.scoring.item import Item, Score
from harness.scoring.quotes import Place, find_places

MAX_SPANS = 500
"""Spans of one answer that are matched; the rest are wrong."""
MAX_PLACES = 50
"""Places of one ambiguous quote that are tried."""
_TOKEN = re.compile(r"\w+|[^\w\s]")

Overlap = Callable[[Place, Place], float]


@dataclass(frozen=True, slots=True)
class Span:
    """A part of the text, or what is said to be one."""

    label: str
    places: tuple[Place, ...]
    """Where it may stand: several for a quote that the text holds several times, none for an invented one."""


def spans_exact(item: Item) -> Score:
    """F1 of spans whose ends and label are right to the character. Counts by label."""
    return _matched_score(item, lambda a, b: float(a == b), 1.0)


def spans_overlap(item: Item) -> Score:
    """F1 of spans that overlap a gold one of their label; each is matched once, in the best way for all.

    Two spans overlap when what they share is at least `overlap` (setting, 0.5) of what they cover together.
    `matching: greedy` takes the best pair first instead, as several published scorers do.
    """
    return _matched_score(item, _shared_frac, float(item.settings.get("overlap", 0.5)))


def spans_chars(item: Item) -> Score:
    """F1 of characters inside spans, by label; however the spans are cut. Counts are characters."""
    return _unit_score(item, None)


def spans_tokens(item: Item) -> Score:
    """F1 of tokens (words and single marks) inside spans, by label; a token counts if the span touches it."""
    source = _source(item)
    starts_ends = [match.span() for match in _TOKEN.finditer(source)]
    return _unit_score(item, starts_ends)


def gold_spans(item: Item) -> list[Span]:
    """The record's spans: a list of `{start, end}`, of `{text}`, or of quotes; with `label` where they have one."""
    target = item.target if item.target is not None else list(item.targets)
    return _spans(target if isinstance(target, list | tuple) else [target], _source(item))


def said_spans(item: Item) -> list[Span] | None:
    """The answer's spans, each once; None where nothing could be read."""
    if not isinstance(item.parsed, list | tuple):
        return None
    return _spans(item.parsed, _source(item))


def match_spans(
    said: Sequence[Span], gold: Sequence[Span], overlap: Overlap, at_least: float, *, is_greedy: bool = False
) -> list[tuple[int, int]]:
    """Pairs of indices (said, gold), each in one pair at most, of one label, that overlap `at_least`.

    The pairs are as many as can be, and among those overlap most: the assignment problem (Kuhn 1955).
    """
    weights = [[_best_overlap(a, b, overlap, at_least) for b in gold] for a in said[:MAX_SPANS]]
    if not weights or not gold:
        return []
    if is_greedy:
        return _greedy(weights)
    import numpy as np
    from scipy.optimize import linear_sum_assignment

    gains = np.asarray(weights)  # (said, gold), 0 where no pair is allowed
    rows, columns = linear_sum_assignment(
        np.where(gains > 0, gains + len(said) + len(gold), 0.0), maximize=True
    )
    return [(int(i), int(j)) for i, j in zip(rows, columns, strict=True) if gains[i, j] > 0]


def _matched_score(item: Item, overlap: Overlap, at_least: float) -> Score:
    gold, said = gold_spans(item), said_spans(item)
    is_greedy = item.settings.get("matching") == "greedy"
    pairs = match_spans(said or [], gold, overlap, at_least, is_greedy=is_greedy)
    counts = {label: Cells(0, 0, 0) for label in sorted({span.label for span in (*gold, *(said or []))})}
    for label, (tp, _, _) in counts.items():
        tp = sum(gold[j].label == label for _, j in pairs)
        n_said = sum(span.label == label for span in said or [])
        n_gold = sum(span.label == label for span in gold)
        counts[label] = Cells(tp, n_said - tp, n_gold - tp)
    return _score(counts, said)


def _unit_score(item: Item, tokens: Sequence[tuple[int, int]] | None) -> Score:
    gold, said = gold_spans(item), said_spans(item)
    counts = {}
    for label in sorted({span.label for span in (*gold, *(said or []))}):
        meant = _merged([span.places[0] for span in gold if span.label == label and span.places])
        named = _merged(_resolved([span for span in said or [] if span.label == label], meant))
        invented = sum(span.label == label and not span.places for span in said or [])
        counts[label] = _cells(named, meant, tokens, invented)
    return _score(counts, said)


def _score(counts: Mapping[str, Cells], said: Sequence[Span] | None) -> Score:
    if said is None:
        return Score(0.0, as_counts(counts), "unread")
    value = f1_value(total(as_counts(counts)))
    is_invented = any(not span.places for span in said)
    error_class = None if value == 1.0 else "invented_quote" if is_invented else "wrong_span"
    return Score(value, as_counts(counts), error_class)


def _spans(values: Sequence[Any], source: str) -> list[Span]:
    spans = [_span(value, source) for value in values]
    kept: dict[tuple[Any, ...], Span] = {}
    for at, span in enumerate(span for span in spans if span):
        is_one_place = len(span.places) == 1
        kept.setdefault((span.label, span.places if is_one_place else at), span)
    return list(kept.values())


def _span(value: Any, source: str) -> Span | None:
    if isinstance(value, str):
        return Span("span", tuple(find_places(value, source)))
    if not isinstance(value, Mapping):
        return None
    label, start, end, text = (value.get(key) for key in ("label", "start", "end", "text"))
    name = label if isinstance(label, str) else "span"
    place = Place(start, end) if type(start) is int and type(end) is int and 0 <= start < end else None
    if isinstance(text, str) and not (place and source[place.start : place.end] == text):
        return Span(name, tuple(find_places(text, source)))
    others = find_places(text, source) if isinstance(text, str) and value.get("n_places", 1) != 1 else []
    return Span(name, tuple(dict.fromkeys((place, *others))) if place else ())


def _source(item: Item) -> str:
    return item.context or item.input


def _best_overlap(a: Span, b: Span, overlap: Overlap, at_least: float) -> float:
    if a.label != b.label:
        return 0.0
    best = max((overlap(x, y) for x in a.places[:MAX_PLACES] for y in b.places[:MAX_PLACES]), default=0.0)
    return best if best >= at_least else 0.0


def _shared_frac(a: Place, b: Place) -> float:
    """Characters in both, of those in either."""
    shared = min(a.end, b.end) - max(a.start, b.start)
    return shared / (max(a.end, b.end) - min(a.start, b.start)) if shared > 0 else 0.0


def _greedy(weights: Sequence[Sequence[float]]) -> list[tuple[int, int]]:
    pairs = sorted(((-w, i, j) for i, row in enumerate(weights) for j, w in enumerate(row) if w > 0))
    rows: set[int] = set()
    columns: set[int] = set()
    found = []
    for _, i, j in pairs:
        if i not in rows and j not in columns:
            rows.add(i)
            columns.add(j)
            found.append((i, j))
    return found


def _resolved(spans: Sequence[Span], gold: Sequence[Place]) -> list[Place]:
    """One place a span: a quote with several takes the free one that shares most with the gold places."""
    taken: list[Place] = []
    for span in spans:
        free = [place for place in span.places[:MAX_PLACES] if place not in taken] or list(span.places[:1])
        if free:
            taken.append(max(free, key=lambda place: _shared_chars([place], gold)))
    return taken


def _merged(places: Sequence[Place]) -> list[Place]:
    """The same characters as places in order that don't touch."""
    merged: list[Place] = []
    for place in sorted(places):
        if merged and place.start <= merged[-1].end:
            merged[-1] = Place(merged[-1].start, max(merged[-1].end, place.end))
        else:
            merged.append(place)
    return merged


def _cells(
    said: Sequence[Place], gold: Sequence[Place], tokens: Sequence[tuple[int, int]] | None, invented: int
) -> Cells:
    """Characters or tokens by cell; an invented quote is one false positive of either."""
    if tokens is not None:
        a, b = _touched(said, tokens), _touched(gold, tokens)
        return Cells(len(a & b), len(a - b) + invented, len(b - a))
    shared = _shared_chars(said, gold)
    n_said, n_gold = (sum(place.end - place.start for place in places) for places in (said, gold))
    return Cells(shared, n_said - shared + invented, n_gold - shared)


def _shared_chars(a: Sequence[Place], b: Sequence[Place]) -> int:
    shared = i = j = 0
    while i < len(a) and j < len(b):
        shared += max(min(a[i].end, b[j].end) - max(a[i].start, b[j].start), 0)
        if a[i].end < b[j].end:
            i += 1
        else:
            j += 1
    return shared


def _touched(places: Sequence[Place], tokens: Sequence[tuple[int, int]]) -> set[int]:
    from bisect import bisect_left, bisect_right

    starts, ends = [start for start, _ in tokens], [end for _, end in tokens]
    return {
        index
        for place in places
        for index in range(bisect_right(ends, place.start), bisect_left(starts, place.end))
    }
