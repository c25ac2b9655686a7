"""A document in pieces that fit a prompt, each with the place that it is from."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from itertools import zip_longest
from typing import NamedTuple

from harness.errors import DataError
from harness.files import digest_json, sha256_text
from harness.retrieval.documents import Document
from harness.text import visible

_WORD = re.compile(r"\S{1,200}")
"""A longer run without a space is cut, so that no chunk is longer than its words allow."""
_SENTENCE_END = re.compile(r"[.!?:;][\"'”’)\]]*$")
_CITABLE = re.compile(r"[\w.-]{1,48}")


class Span(NamedTuple):
    """Characters from `start` up to `end`."""

    start: int
    end: int


class _Place(NamedTuple):
    id: str
    document: str
    sha256: str
    start: int
    end: int
    text: str


class Chunk(_Place):
    """A piece of a document: `id` is what answers cite, `sha256` is the document's, `text` its characters from
    `start` up to `end`."""

    @cached_property
    def digest(self) -> str:
        """Hex; of the document's name and digest, the span and the text."""
        return digest_json([self.document, self.sha256, self.start, self.end, self.text])


def cut(documents: Sequence[Document], *, words: int) -> list[Chunk]:
    """The chunks of all documents, in their order, of at most `words` words each. The same text is always cut alike.

    Raises:
        DataError: two documents would be cited by one name.
    """
    found: list[Chunk] = []
    named: dict[str, str] = {}
    for document in documents:
        name = cited_name(document.name)
        if name in named:
            shown = " and ".join(visible(one, keep_newlines=False) for one in (named[name], document.name))
            raise DataError(f"documents {shown} would both be cited as {name}", hint="rename one of them")
        named[name] = document.name
        found += [
            Chunk(f"{name}:{n}", document.name, document.sha256, *span, document.text[slice(*span)])
            for n, span in enumerate(split(document.text, words=words), start=1)
        ]
    return found


def cited_name(name: str) -> str:
    """The name as it stands in brackets: folders with dots, and a digest in place of what can't be cited."""
    dotted = name.replace("/", ".")
    return dotted if _CITABLE.fullmatch(dotted) else f"d{sha256_text(name)[:12]}"


def split(text: str, *, words: int) -> list[Span]:
    """Spans that hold all words of the text, in order and without overlap.

    Ends at a paragraph once half of `words` is reached, else at the last sentence or line, else in mid-sentence.
    """
    marks = list(_WORD.finditer(text))
    breaks = [_break_after(text, mark, after) for mark, after in zip_longest(marks, marks[1:]) if mark]
    spans: list[Span] = []
    begin = 0
    while begin < len(marks):
        end = _end_of(breaks, begin, words)
        spans.append(Span(marks[begin].start(), marks[end - 1].end()))
        begin = end
    return spans


def _end_of(breaks: Sequence[int], begin: int, words: int) -> int:
    """The word after the chunk's last."""
    last = min(begin + words, len(breaks))
    for end in range(begin + max(words // 2, 1), last):
        if breaks[end - 1] == 2:
            return end
    if last == len(breaks):
        return last
    floor = begin + max(words // 4, 1)
    return next((end for end in range(last, floor, -1) if breaks[end - 1]), last)


def _break_after(text: str, mark: re.Match[str], after: re.Match[str] | None) -> int:
    """How well the text can be cut behind the word: 2 at a paragraph's end, 1 at a sentence's or line's, else 0."""
    between = text[mark.end() : after.start()] if after else "\n\n"
    lines = between.count("\n")
    if lines > 1:
        return 2
    return int(lines == 1 or (bool(between) and _SENTENCE_END.search(mark.group()) is not None))
