"""Does each citation name a passage that is there, and does the passage say what is quoted."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.scoring.counts import Cells, as_counts, f1_value
from harness.scoring.item import Item, Score
from harness.scoring.quotes import find_places

MAX_CITATIONS = 500

_CHUNK = re.compile(r"^\[(?P<id>[\w.:-]{1,64})\][ \t]?", re.MULTILINE)
_BRACKETS = re.compile(r"[\[【](?P<ids>[^\[\]【】\n]{0,200})[\]】]")
_OPEN = re.compile(r"\[\d{1,4}(?=[\s.,;]|$)(?![^\[\]\n]{0,200}\])")
_ID = re.compile(r"\^?[\w.:-]{1,64}")
_QUOTE_BEFORE = re.compile(r"[\"“”«]([^\"“”«»]{1,2000})[\"“”»][\s.,;:]{0,3}$")
_SENTENCE = re.compile(r"[^.!?\n]+(?:[.!?]+(?=\s|\[|$)(?:\s?\[[^\[\]\n]{0,200}\])*|\n|$)|[^.!?\n]*[.!?]")


@dataclass(frozen=True, slots=True)
class Citation:
    """What an answer says that a passage says."""

    chunk: str | None
    """The passage's id; None where the citation can't be read."""
    quote: str | None = None
    start: int | None = None
    """In the passage, in characters."""
    end: int | None = None


def citations(item: Item) -> Score:
    """F1 of citations that hold, against those that don't and those that are missing.

    Passages are the context's parts that begin a line with `[id]`, or the record's list at the setting
    `chunks_field` (`{id, text}` or texts, counted from 1). Citations are read from the answer's `[id]` and the
    quotation before it, or from a parsed list of `{chunk, quote, start, end}`. With `every_sentence`, a sentence
    without one is missing one. An answer without any is wrong, unless `required: false`.

    Error classes, the most frequent: `no_citation`, `malformed`, `unknown_chunk`, `quote_not_found`,
    `quote_elsewhere` (another passage holds it), `wrong_offsets`.
    """
    chunks = read_chunks(item)
    found = read_citations(item)
    if not found and (item.answer is None or item.settings.get("required", True)):
        return Score(0.0, as_counts({"citation": Cells(0, 0, 1)}), "no_citation")
    problems = [check_citation(citation, chunks) for citation in found]
    n_wrong = sum(problem is not None for problem in problems)
    missing = _uncited_sentences(item.answer or "") if item.settings.get("every_sentence") else 0
    cells = Cells(len(found) - n_wrong, n_wrong, missing)
    classes = Counter(problem for problem in problems if problem)
    error_class = classes.most_common(1)[0][0] if classes else "no_citation" if missing else None
    return Score(f1_value(cells), as_counts({"citation": cells}), error_class)


def read_chunks(item: Item) -> dict[str, str]:
    """The passages by id."""
    if field := item.settings.get("chunks_field"):
        parts: Any = item.meta
        for key in str(field).split("."):
            parts = parts.get(key) if isinstance(parts, Mapping) else None
        return dict(_listed(parts if isinstance(parts, list) else []))
    marks = list(_CHUNK.finditer(item.context))
    ends = [*(mark.start() for mark in marks[1:]), len(item.context)]
    return {mark["id"]: item.context[mark.end() : end] for mark, end in zip(marks, ends, strict=False)}


def read_citations(item: Item) -> list[Citation]:
    """The answer's citations, in their order."""
    if isinstance(item.parsed, list | tuple):
        return [_from_json(part) for part in item.parsed[:MAX_CITATIONS]]
    text = item.answer or ""
    found = [
        citation
        for match in _BRACKETS.finditer(text)
        for citation in _in_brackets(match, text[max(match.start() - 2100, 0) : match.start()])
    ]
    return (found + [Citation(None) for _ in _OPEN.finditer(text)])[:MAX_CITATIONS]


def check_citation(citation: Citation, chunks: Mapping[str, str]) -> str | None:
    """None if the citation holds, else how it does not."""
    if citation.chunk is None:
        return "malformed"
    if citation.chunk not in chunks:
        return "unknown_chunk"
    if citation.quote is None:
        return None
    text = chunks[citation.chunk]
    places = find_places(citation.quote, text)
    if not places:
        is_elsewhere = any(find_places(citation.quote, other) for other in chunks.values())
        return "quote_elsewhere" if is_elsewhere else "quote_not_found"
    if citation.start is None and citation.end is None:
        return None
    return None if (citation.start, citation.end) in places else "wrong_offsets"


def _listed(parts: Sequence[Any]) -> list[tuple[str, str]]:
    """(id, text) of each passage; those without an id are counted from 1."""
    objects = [part if isinstance(part, Mapping) else {"text": part} for part in parts]
    return [
        (str(one.get("id", place)), str(one.get("text", ""))) for place, one in enumerate(objects, start=1)
    ]


def _from_json(part: Any) -> Citation:
    if not isinstance(part, Mapping) or isinstance(part.get("chunk"), bool):
        return Citation(None)
    chunk, quote = part.get("chunk"), part.get("quote")
    start, end = part.get("start"), part.get("end")
    is_readable = isinstance(chunk, str | int) and isinstance(quote, str | None)
    if not is_readable or not all(place is None or type(place) is int for place in (start, end)):
        return Citation(None)
    return Citation(str(chunk), quote, start, end)


def _in_brackets(match: re.Match[str], before: str) -> list[Citation]:
    """One citation an id; the first one carries the quotation that stands before the brackets."""
    ids = [part.strip() for part in re.split(r"[,;]", match["ids"])]
    quote = _QUOTE_BEFORE.search(before)
    found = [Citation(part.lstrip("^") if _ID.fullmatch(part) else None) for part in ids]
    first = Citation(found[0].chunk, quote.group(1)) if quote else found[0]
    return [first, *found[1:]]


def _uncited_sentences(text: str) -> int:
    sentences = [match.group() for match in _SENTENCE.finditer(text[:100_000])]
    return sum(bool(re.search(r"\w", one)) and not _BRACKETS.search(one) for one in sentences)
