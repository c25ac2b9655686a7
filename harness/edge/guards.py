"""What an answer must keep before anybody sees it: the suite's own validators, run on the device."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from harness.errors import DataError, HarnessError
from harness.files import parse_json
from harness.scoring.item import Item, Score, Scorer
from harness.scoring.quotes import find_places
from harness.specs.suite import Suite

VALIDATORS = (
    "citations", "grounded", "valid_json", "form", "pii_leak", "promises", "attributes", "forbidden_claims",
)  # fmt: skip
"""Scorers that need no gold answer, and whose every fault is one: what they find is not a matter of wording."""
QUOTED_WORDS = 4
"""A quotation of fewer words is emphasis, or a name."""
_QUOTATION = re.compile(r"[\"“«]([^\"“”«»]{1,4000})[\"”»]")


@dataclass(frozen=True, slots=True)
class Guard:
    """One thing that an answer must keep."""

    name: str
    check: Scorer
    settings: Mapping[str, Any] = field(default_factory=dict)


class Held(NamedTuple):
    """The guard that held an answer back."""

    guard: str
    note: str
    """For whoever looks into it; may hold text of the answer, so it goes to the review queue alone."""


def guards_of(suite: Suite) -> tuple[Guard, ...]:
    """The suite's validators, and what its task itself demands of an answer."""
    from harness.scoring.scorers import find_scorer

    found = [
        Guard(scorer.score_name, find_scorer(scorer.name, scorer.settings), dict(scorer.settings))
        for scorer in suite.scorers
        if scorer.name in VALIDATORS
    ]
    found += [
        Guard(scorer.score_name, _terms_are_sound, dict(scorer.settings))
        for scorer in suite.scorers
        if scorer.name == "clause_terms"
    ]
    if suite.task == "spans":
        found.append(Guard("quotes", _spans_are_there))
    if suite.task == "extract" and not any(guard.name == "valid_json" for guard in found):
        required = {"required": tuple(suite.generation.fields)}
        found.append(Guard("schema", find_scorer("valid_json"), required))
    return tuple(found)


def chat_guards(suites: Sequence[Suite], names: Sequence[str] = ()) -> tuple[Guard, ...]:
    """The guards of free chats: those named, and the release's own rules on personal data, claims and banned phrases.

    What else a suite demands, such as a length, holds for its own question alone.

    Raises:
        DataError: no guard has the name.
    """
    unknown = [name for name in names if name not in _NAMED]
    if unknown:
        raise DataError(f"--guard {unknown[0]}: no such guard", hint=f"one of {', '.join(_NAMED)}")
    found = {name: _NAMED[name]() for name in names}
    for suite in suites:
        for scorer in suite.scorers:
            if scorer.name == "pii_leak":
                found.setdefault("pii", _NAMED["pii"]())
            if scorer.name == "forbidden_claims":
                found.setdefault(
                    "claims", Guard("claims", _scorer("forbidden_claims"), dict(scorer.settings))
                )
            if scorer.name == "form" and "banned" in scorer.settings:
                name = f"banned ({suite.suite})"
                found[name] = Guard(name, _scorer("form"), {"banned": scorer.settings["banned"]})
    return tuple(found.values())


def json_guard() -> Guard:
    """For answers that were asked for as JSON: one that was cut off is none."""
    return Guard("schema", _is_json)


def first_held(
    guards: Sequence[Guard], answer: str, *, parsed: Any = None, input_: str = "", context: str = "",
    meta: Mapping[str, Any] | None = None,
) -> Held | None:  # fmt: skip
    """The first guard that the answer does not keep; None where it keeps them all.

    A guard that can't be run holds the answer back: nobody knows that it is well.
    """
    for guard in guards:
        item = Item(
            answer=answer, targets=(), parsed=parsed, input=input_, context=context, meta=meta or {},
            settings=guard.settings,
        )  # fmt: skip
        try:
            score = guard.check(item)
        except (HarnessError, ArithmeticError, LookupError, TypeError, ValueError, RecursionError) as error:
            return Held(guard.name, f"could not be checked: {error}")
        if not score.value >= 1.0:  # NaN is no pass either
            return Held(guard.name, score.error_class or score.note or f"scored {score.value:g}")
    return None


def _spans_are_there(item: Item) -> Score:
    """1 if every quote stands in the text; `parsed` is what `place_quotes` made of them."""
    if not isinstance(item.parsed, list):
        return Score(0.0, error_class="unread")
    invented = [span for span in item.parsed if isinstance(span, Mapping) and span.get("start") is None]
    return Score(float(not invented), error_class="invented_quote" if invented else None)


def _quotations_are_there(item: Item) -> Score:
    """1 if every quotation of the answer stands in the conversation, to the letter but for spaces and marks."""
    source = f"{item.context}\n{item.input}"
    quotations = [
        match for match in _QUOTATION.findall(item.answer or "") if len(match.split()) >= QUOTED_WORDS
    ]
    invented = [text for text in quotations if not find_places(text.strip(" .,;:"), source)]
    return Score(float(not invented), error_class="invented_quote" if invented else None)


def _terms_are_sound(item: Item) -> Score:
    """1 if each term that the answer names is well made and in the text; which may be left out, golds alone know."""
    from harness.scoring.clause_terms import check_term, fields_of

    if not isinstance(item.parsed, Mapping):
        return Score(0.0, error_class="not_json")
    source = item.context or item.input
    named = {
        field: value for field in fields_of(item) if (value := item.parsed.get(field)) not in (None, "", [])
    }
    problems = [
        check_term(kind, named[field], source) for field, kind in fields_of(item).items() if field in named
    ]
    problem = next((problem for problem in problems if problem is not None), None)
    return Score(float(problem is None), error_class=problem)


def _is_json(item: Item) -> Score:
    try:
        parse_json(item.answer or "", name="the answer")
    except DataError as error:
        return Score(0.0, error_class="not_json", note=error.message)
    return Score(1.0)


def _scorer(name: str) -> Scorer:
    from harness.scoring.scorers import find_scorer

    return find_scorer(name)


_NAMED: Mapping[str, Callable[[], Guard]] = {
    "pii": lambda: Guard("pii", _scorer("pii_leak")),
    "numbers": lambda: Guard("numbers", _scorer("grounded"), {"names": False}),
    "names": lambda: Guard("names", _scorer("grounded"), {"numbers": False}),
    "quotes": lambda: Guard("quotes", _quotations_are_there),
}
"""What `--guard` takes. The conversation before the answer is what numbers, names and quotations must stand in."""
