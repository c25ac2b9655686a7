"""Quotes found in the text they are from: where, how often, and whether to the letter."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

MAX_PLACES = 1_000
"""Places of one quote that are looked at."""

_ALIKE = str.maketrans({"“": '"', "”": '"', "„": '"', "«": '"', "»": '"', "‘": "'", "’": "'", "‚": "'", "`": "'",
                        "–": "-", "—": "-", "‐": "-", "‑": "-", "−": "-"})  # fmt: skip
_INVISIBLE = frozenset("\u00ad\u200b\u200c\u200d\u2060\ufeff")


class Place(NamedTuple):
    """Characters from `start` up to `end`."""

    start: int
    end: int


class _Flat(NamedTuple):
    """A text with one spelling of spaces, quotation marks and dashes, and where each character was."""

    text: str
    origins: tuple[int, ...]


def find_places(quote: str, source: str) -> list[Place]:
    """All places of the quote in the source, to the letter; else with spaces, quotation marks and dashes taken
    as equal. Empty where there is none, or the quote is blank."""
    if not quote.strip():
        return []
    exact = _all(quote, source)
    if exact:
        return [Place(start, start + len(quote)) for start in exact]
    flat, wanted = _flat(source), _flat(quote.strip()).text
    if not wanted:
        return []
    return [
        Place(flat.origins[start], flat.origins[start + len(wanted) - 1] + 1)
        for start in _all(wanted, flat.text)
    ]


def place_quotes(spans: Sequence[dict[str, Any]], source: str) -> list[dict[str, Any]]:
    """The spans with `text`, `start` and `end`; None where the source does not hold the text.

    Offsets that point at the very text are kept. A quote that stands in the source several times takes its
    first place and says in `n_places` how many there are; the same quote once more takes the next. A span that
    is said twice is there once.
    """
    used: set[tuple[Any, ...]] = set()
    placed: list[dict[str, Any]] = []
    for span in spans:
        spot, n_places = _spot(span, source, used)
        key = (span.get("label"), *(spot or ("", span["text"])))
        if key in used:
            continue
        used.add(key)
        start, end = spot if spot else (None, None)
        label = {"label": span["label"]} if "label" in span else {}
        ambiguous = {"n_places": n_places} if n_places > 1 else {}
        placed.append({**label, "text": span["text"], "start": start, "end": end, **ambiguous})
    return placed


def _spot(span: dict[str, Any], source: str, used: set[tuple[Any, ...]]) -> tuple[Place | None, int]:
    """The place that the span takes, and of how many; one where its own offsets are right."""
    if "start" in span and source[span["start"] : span["end"]] == span["text"]:
        return Place(span["start"], span["end"]), 1
    places = find_places(span["text"], source)
    free = [place for place in places if (span.get("label"), *place) not in used]
    return next(iter(free or places), None), len(places)


def _all(wanted: str, text: str) -> list[int]:
    found: list[int] = []
    at = text.find(wanted)
    while at >= 0 and len(found) < MAX_PLACES:
        found.append(at)
        at = text.find(wanted, at + len(wanted))
    return found


@lru_cache(maxsize=8)
def _flat(text: str) -> _Flat:
    chars: list[str] = []
    origins: list[int] = []
    for at, char in enumerate(text.translate(_ALIKE)):
        if char in _INVISIBLE:
            continue
        if char.isspace():
            if chars and chars[-1] == " ":
                continue
            char = " "
        chars.append(char)
        origins.append(at)
    return _Flat("".join(chars), tuple(origins))
