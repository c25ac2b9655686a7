"""What an answer must say and must not say, record by record: policy facts, product names, claims that are banned."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from harness.errors import StatsError
from harness.scoring.counts import Cells, as_counts
from harness.scoring.item import Item, Score

REQUIRED, BANNED = "required_field", "banned_field"


def mentions(item: Item) -> Score:
    """The share of the record's required phrases that the answer says; 0 where it says a banned one.

    Settings: `required_field` and `banned_field`, dotted paths to lists of phrases in the record. `30 days|thirty
    days` is met by either. Phrases are whole words in any case and spacing. Where nothing is
    required, 1.
    Counts: `required`, said as true positives and left out as false negatives; `banned`, said as false positives.

    Error classes: `banned_phrase`, `missing_phrase`, `no_answer`. It reads words, not sense: "we never offer free
    returns" says "free returns".

    Raises:
        StatsError: neither field is named, or the record holds something else than texts there.
    """
    required, banned = phrases_of(item, REQUIRED), phrases_of(item, BANNED)
    text = _folded(item.answer or "")
    said = [phrase for phrase in required if _is_said(phrase, text)]
    wrong = [phrase for phrase in banned if _is_said(phrase, text)]
    counts = {
        "required": Cells(len(said), 0, len(required) - len(said)),
        "banned": Cells(0, len(wrong), 0),
    }
    if not text:
        return Score(0.0, as_counts(counts), "no_answer")
    value = 0.0 if wrong else len(said) / len(required) if required else 1.0
    missing = [phrase for phrase in required if phrase not in said]
    error_class = "banned_phrase" if wrong else "missing_phrase" if missing else None
    return Score(value, as_counts(counts), error_class, "; ".join((wrong + missing)[:5]))


def phrases_of(item: Item, key: str) -> list[str]:
    """The record's phrases at the setting's path; none where the setting, or the record's list, is not there.

    Raises:
        StatsError: no field is named at all, or the record holds something else than texts there.
    """
    if not any(item.settings.get(name) for name in (REQUIRED, BANNED)):
        raise StatsError("scorer 'mentions' has no phrases to look for", hint=f"set {REQUIRED} or {BANNED}")
    path = item.settings.get(key)
    if not path:
        return []
    value: Any = item.meta
    for part in str(path).split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    if not isinstance(value, list | tuple | None) or not all(isinstance(one, str) for one in value or ()):
        raise StatsError(f"scorer 'mentions': {key} {path!r} holds {value!r}, wanted a list of texts")
    return [phrase for phrase in value or () if phrase.strip(" |")]


def _is_said(phrase: str, text: str) -> bool:
    return any(_pattern(_folded(one)).search(text) is not None for one in phrase.split("|") if one.strip())


@lru_cache(maxsize=2048)
def _pattern(phrase: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w){re.escape(phrase)}(?!\w)")


def _folded(text: str) -> str:
    return " ".join(text.casefold().replace("’", "'").split())
