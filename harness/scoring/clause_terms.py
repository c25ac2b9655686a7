"""The terms of a clause, each held against what such a term must be: a law, a day, a sum, a quotation."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from harness.errors import StatsError
from harness.scoring.counts import Cells, as_counts
from harness.scoring.item import Item, Score
from harness.scoring.jurisdictions import find_jurisdictions
from harness.scoring.numbers import read_quantities
from harness.scoring.parse import read_object
from harness.scoring.quotes import find_places

CHECKED = ("jurisdiction", "date", "amount", "quote")
"""Kinds of terms; each is a setting that names the answer's fields of that kind."""
MAX_TERM_CHARS = 20_000

_DATE_FORMS = ("%Y-%m-%d", "%d %B %Y", "%d %b %Y", "%B %d %Y", "%b %d %Y", "%d.%m.%Y")
_ORDINAL = re.compile(r"(?<=\d)(?:st|nd|rd|th)\b(?: day of)?", re.IGNORECASE)
_NUMERIC = re.compile(r"(\d{1,2})/(\d{1,2})/(\d{4})")
_DATE = re.compile(
    r"\b\d{4}-\d{2}-\d{2}\b|\b\d{1,2}(?:st|nd|rd|th)?(?: day of)? [A-Z][a-z]{2,8}\.?,? \d{4}\b"
    r"|\b[A-Z][a-z]{2,8}\.? \d{1,2}(?:st|nd|rd|th)?,? \d{4}\b|\b\d{1,2}[./]\d{1,2}[./]\d{4}\b"
)


def clause_terms(item: Item) -> Score:
    """The share of the named terms that are what they should be; a term that the gold has as null is right as null.

    Settings: `jurisdiction`, `date`, `amount`, `quote`, each the fields (a name or a list) of the answer's object
    that hold such a term. A jurisdiction is a country, state or province that the source names; a date one day that
    the source names; an amount a sum above 0 that the source holds; a quote is in the source to the letter.
    Counts by field: right as true positives, wrong as false positives and negatives, left out as false negatives.

    Error classes: `not_json`, `missing_term`, `invented_term` (the gold says there is none), `no_jurisdiction`,
    `no_date`, `ambiguous_date` (03/04/2025), `no_amount`, `quote_not_found`, `not_in_source`. It says that a term is
    well made and stands in the source, not that it is the right one: `fields` compares with the gold.

    Raises:
        StatsError: no setting names a field.
    """
    fields = fields_of(item)
    said = item.parsed if isinstance(item.parsed, Mapping) else read_object(item.answer or "")
    golds = item.target if isinstance(item.target, Mapping) else {}
    if said is None:
        return Score(0.0, as_counts({name: Cells(0, 0, 1) for name in fields}), "not_json")
    source = item.context or item.input
    problems = {
        name: _term_problem(kind, said.get(name), golds.get(name, ""), source)
        for name, kind in fields.items()
    }
    cells = {name: _cells(problem) for name, problem in problems.items()}
    wrong = [problem for problem in problems.values() if problem is not None]
    named = "; ".join(f"{name}: {problem}" for name, problem in problems.items() if problem)
    return Score(
        (len(fields) - len(wrong)) / len(fields), as_counts(cells), wrong[0] if wrong else None, named
    )


def fields_of(item: Item) -> dict[str, str]:
    """The answer's fields with the kind of term in each.

    Raises:
        StatsError: no setting names a field.
    """
    found: dict[str, str] = {}
    for kind in CHECKED:
        value = item.settings.get(kind, ())
        found |= dict.fromkeys((value,) if isinstance(value, str) else map(str, value), kind)
    if not found:
        raise StatsError("scorer 'clause_terms' has no field to check", hint="such as date: effective_date")
    return found


def check_term(kind: str, value: Any, source: str) -> str | None:
    """What is wrong with one term, in the words of `clause_terms`; None where it is well made and in the source.

    `kind` is one of `CHECKED`; `source` is the clause.
    """
    text = value if isinstance(value, str) else "" if isinstance(value, bool) else str(value)
    return "missing_term" if not text.strip() else _CHECKS[kind](text[:MAX_TERM_CHARS], source)


def read_date(text: str) -> date | None:
    """The day that the whole text names; None for none, for one that is no day of the calendar, and for 03/04/2025,
    which is two days."""
    plain = " ".join(_ORDINAL.sub("", text).replace(",", " ").replace(". ", " ").split())
    if numeric := _NUMERIC.fullmatch(plain):
        first, second, year = map(int, numeric.groups())
        if first == second or max(first, second) > 12:
            day, month = (first, second) if second <= 12 else (second, first)
            plain = f"{year:04d}-{month:02d}-{day:02d}"
    for form in _DATE_FORMS:
        try:
            return datetime.strptime(plain, form).replace(tzinfo=UTC).date()
        except ValueError:
            continue
    return None


@lru_cache(maxsize=256)
def _dates_in(source: str) -> frozenset[date]:
    return frozenset(day for found in _DATE.finditer(source) if (day := read_date(found.group())) is not None)


def _term_problem(kind: str, value: Any, gold: Any, source: str) -> str | None:
    """As `check_term`, where the gold may say that there is no such term."""
    is_left_out = value in (None, "", [])
    if gold is None:
        return None if is_left_out else "invented_term"
    return "missing_term" if is_left_out else check_term(kind, value, source)


def _cells(problem: str | None) -> Cells:
    if problem is None:
        return Cells(1, 0, 0)
    return Cells(0, 1, 0) if problem == "invented_term" else Cells(0, int(problem != "missing_term"), 1)


def _jurisdiction(text: str, source: str) -> str | None:
    named = find_jurisdictions(text)
    if not named:
        return "no_jurisdiction"
    return None if named & find_jurisdictions(source) else "not_in_source"


def _date(text: str, source: str) -> str | None:
    day = read_date(text)
    if day is None:
        return "ambiguous_date" if _NUMERIC.fullmatch(text.strip()) else "no_date"
    return None if day in _dates_in(source) else "not_in_source"


def _amount(text: str, source: str) -> str | None:
    found = read_quantities(text)
    if len(found) != 1 or found[0].value <= 0 or found[0].is_percent:
        return "no_amount"
    there = {round(one.value, 2) for one in read_quantities(source) if not one.is_percent}
    return None if round(found[0].value, 2) in there else "not_in_source"


def _quote(text: str, source: str) -> str | None:
    return None if find_places(text, source) else "quote_not_found"


_CHECKS: Mapping[str, Callable[[str, str], str | None]] = MappingProxyType(
    {"jurisdiction": _jurisdiction, "date": _date, "amount": _amount, "quote": _quote}
)
