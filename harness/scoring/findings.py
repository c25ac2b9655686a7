"""Does a summary say what must not be left out, and does its source carry each of its statements."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from harness.errors import StatsError
from harness.scoring.counts import Cells, as_counts
from harness.scoring.grounded import check_numbers
from harness.scoring.item import Item, Score
from harness.scoring.negation import best_match, content_words, denied_words, is_denied, sentences_of

SUPPORT_FRAC = 0.65
"""Share of a statement's words that its source must hold."""
SAME_FRAC = 0.6
"""Share of a statement's words that one sentence of the source must hold before their denials are compared."""
MAX_STATEMENTS = 100
MAX_CHARS = 100_000


class Finding(NamedTuple):
    """Something that an answer must say."""

    phrases: tuple[str, ...]
    """Ways to say it, of which any will do."""
    is_absent: bool
    """It must be denied: `no fever` is a finding too."""


class Support(NamedTuple):
    """An answer's statements, by whether the source carries them."""

    supported: tuple[str, ...]
    unsupported: tuple[str, ...]
    flipped: tuple[str, ...]
    """The source says the opposite; among neither of the others."""


def findings(item: Item) -> Score:
    """The share of the record's critical findings that the answer says, as present or as absent as they are.

    Findings are a list at the setting `findings_field`: a phrase, or `{any: [phrases], absent: true}`.
    A finding that is said the other way round (`denies chest pain` for chest pain) is missing and worse.

    Error classes: `empty`, `flipped_finding`, `missing_finding`. Counts: `finding`, said and missing.

    Raises:
        StatsError: `findings_field` is not set.
    """
    wanted = read_findings(item)
    states = [state_of(finding, item.answer or "") for finding in wanted]
    said = sum(state is True for state in states)
    counts = as_counts({"finding": Cells(said, 0, len(wanted) - said)})
    missing = "; ".join(
        finding.phrases[0] for finding, state in zip(wanted, states, strict=True) if state is not True
    )
    if not (item.answer or "").strip():
        return Score(0.0, counts, "empty", missing)
    error_class = "flipped_finding" if False in states else "missing_finding" if missing else None
    return Score(said / len(wanted) if wanted else 1.0, counts, error_class, missing)


def read_findings(item: Item) -> list[Finding]:
    """The record's findings; those without a phrase are left out."""
    field = item.settings.get("findings_field")
    if not field:
        raise StatsError(
            "scorer 'findings' does not know where a record keeps its findings",
            hint="set findings_field beside its name",
        )
    value: Any = item.meta
    for key in str(field).split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    found = (_finding(part) for part in value) if isinstance(value, list) else ()
    return [finding for finding in found if finding.phrases]


def state_of(finding: Finding, answer: str) -> bool | None:
    """True where the answer says the finding as it is, False where only the other way round, None where not at all."""
    flat = " ".join(answer[:MAX_CHARS].split())
    places = [
        match.span()
        for phrase in finding.phrases
        for match in _pattern(phrase).finditer(flat)
        if phrase.strip()
    ]
    if not places:
        return None
    return any(is_denied(flat, *place) == finding.is_absent for place in places)


def statements(item: Item) -> Score:
    """The share of the answer's sentences that the source carries; 1 minus it is the unsupported-statement rate.

    A sentence is carried where the source (context and input) holds `support` (setting, 0.65) of its content words
    and every number in it, and where what it denies is denied there, and what it says is not. This compares words: a
    synonym is unsupported, and a wrong relation between right words is not seen.

    Error classes: `empty`, `flipped_statement`, `unsupported_statement`. Counts: `statement`, carried and not.
    """
    answer = (item.answer or "")[:MAX_CHARS]
    if not content_words(answer):
        return Score(0.0, error_class="empty")
    at_least = float(item.settings.get("support", SUPPORT_FRAC))
    found = check_statements(answer, f"{item.context}\n{item.input}", at_least)
    n_wrong = len(found.unsupported) + len(found.flipped)
    cells = Cells(len(found.supported), n_wrong, 0)
    error_class = "flipped_statement" if found.flipped else "unsupported_statement" if n_wrong else None
    note = " / ".join((*found.flipped, *found.unsupported))[:400]
    return Score(cells.tp / (cells.tp + cells.fp), as_counts({"statement": cells}), error_class, note)


def check_statements(answer: str, source: str, at_least: float = SUPPORT_FRAC) -> Support:
    """The answer's sentences by what the source says to them."""
    told = sentences_of(source)
    pool = [content_words(sentence) for sentence in told]
    known = frozenset[str]().union(*pool)
    denied = [denied_words(sentence) for sentence in told]
    supported, unsupported, flipped = [], [], []
    for statement in sentences_of(answer)[:MAX_STATEMENTS]:
        words = content_words(statement)
        if not words:
            continue
        nearest = best_match(words, pool)
        is_same = nearest is not None and len(words & pool[nearest]) >= SAME_FRAC * len(words)
        is_carried = len(words & known) >= at_least * len(words)
        if is_same and _is_flipped(words, denied_words(statement), pool[nearest or 0], denied, nearest or 0):
            flipped.append(statement)
        elif is_carried and not check_numbers(statement, source, derive=False).unsupported:
            supported.append(statement)
        else:
            unsupported.append(statement)
    return Support(tuple(supported), tuple(unsupported), tuple(flipped))


def _is_flipped(
    words: frozenset[str],
    denies: frozenset[str],
    told: frozenset[str],
    denied: Sequence[frozenset[str]],
    nearest: int,
) -> bool:
    """Whether the statement denies what its nearest sentence says and no other denies, or says what that one denies."""
    denied_anywhere = frozenset[str]().union(*denied)
    return bool(denies & told and not denies & denied_anywhere) or bool((words - denies) & denied[nearest])


def _finding(part: Any) -> Finding:
    if isinstance(part, str):
        return Finding((part,), False)
    phrases = part.get("any") if isinstance(part, Mapping) else None
    texts = phrases if isinstance(phrases, list) else []
    is_absent = isinstance(part, Mapping) and part.get("absent") is True
    return Finding(tuple(text for text in texts if isinstance(text, str) and text.strip()), is_absent)


def _pattern(phrase: str) -> re.Pattern[str]:
    words = r"\s+".join(re.escape(word) for word in phrase.split())
    return re.compile(rf"(?<!\w){words}(?:s|es)?(?!\w)", re.IGNORECASE)
