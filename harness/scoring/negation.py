"""Is a phrase of a text denied, and is a sentence hedged."""

from __future__ import annotations

import re
from collections.abc import Sequence

SCOPE_WORDS = 8
"""How far before a phrase a denial reaches."""
SCOPE_CHARS = 300
"""No eight words are longer; what stands further away is not read, however long the text is."""
_DENIAL = re.compile(
    r"\b(?:no|not|never|neither|nor|none|without|cannot|lacks?|lacking|denies|denied|deny|denying|negative for"
    r"|absence of|free (?:of|from)|rule[sd]? out|unlikely|excluded)\b|n['’]t\b",
    re.IGNORECASE,
)
_NO_DENIAL = re.compile(
    r"\b(?:not only|not just|no doubt|no longer than|no more than|no less than|no fewer than|not necessarily"
    r"|without delay)\b",
    re.IGNORECASE,
)
"""Words that look like a denial and deny nothing, or not the phrase that follows."""
_DENIED_AFTER = re.compile(
    r"^[^.;!?:]{0,30}?(?:\b(?:is|was|are|were|has been|have been) (?:absent|excluded|denied|ruled out"
    r"|not (?:present|seen|found|felt|reported|noted|guaranteed|possible))\b|: ?(?:no|none|negative|absent)\b)",
    re.IGNORECASE,
)
_END_OF_SCOPE = re.compile(
    r"[.;!?\n]|\b(?:but|however|although|though|except|apart from|yet|while|whereas|reports|complains of"
    r"|presents with)\b",
    re.IGNORECASE,
)
_HEDGE = re.compile(
    r"\b(?:(?-i:may)|might|could|would|can|possibl[ey]|probabl[ey]|perhaps|likely|likelier|unlikely|potential(?:ly)?"
    r"|expect(?:s|ed)?|anticipat(?:es?|ed)|estimat(?:es?|ed)|believes?|suggests?|appears?|seems?|risk of|risks? that"
    r"|subject to|depends? on|uncertain|if|unless|should|approximately|about|around)\b",
    re.IGNORECASE,
)
_SENTENCE = re.compile(r"[^.!?\n]+(?:\.(?=\d)[^.!?\n]+)*[.!?]*")


def is_denied(text: str, start: int, end: int) -> bool:
    """Whether what stands from `start` to `end` is said not to be so.

    A denial counts from up to eight words before, as far as the clause reaches, or right after it. The idea is
    NegEx's (Chapman et al. 2001, doi 10.1006/jbin.2001.1029); this list of words is shorter, and English.
    """
    before = text[max(start - SCOPE_CHARS, 0) : start]
    ends = [match.end() for match in _END_OF_SCOPE.finditer(before)]
    clause = " ".join(before[ends[-1] if ends else 0 :].split()[-SCOPE_WORDS:])
    if _DENIAL.search(_NO_DENIAL.sub(" ", clause)):
        return True
    return _DENIED_AFTER.search(text[end : end + SCOPE_CHARS]) is not None


def denied_words(sentence: str) -> frozenset[str]:
    """The content words that the sentence denies: those after a denial, or all where it ends with one (`No.`)."""
    masked = _NO_DENIAL.sub(" ", sentence)
    found: frozenset[str] = frozenset()
    for match in _DENIAL.finditer(masked):
        rest = _END_OF_SCOPE.split(masked[match.end() : match.end() + SCOPE_CHARS], maxsplit=1)[0]
        after = content_words(" ".join(rest.split()[:SCOPE_WORDS]))
        found |= after or content_words(masked)
    return found


def is_hedged(sentence: str) -> bool:
    """Whether the sentence says that something may be so, rather than that it is."""
    return _HEDGE.search(sentence) is not None


def without_hedges(sentence: str) -> str:
    """The sentence with its hedging words taken out: what somebody too sure would say."""
    return " ".join(_HEDGE.sub(" ", sentence).split())


def sentences_of(text: str) -> list[str]:
    """The sentences that hold a word. A question and the sentence after it are one: neither says it alone."""
    parts = [part.strip() for part in _SENTENCE.findall(text) if re.search(r"\w", part)]
    joined: list[str] = []
    question = ""
    for part in parts:
        if not question and part.endswith("?"):
            question = part
        else:
            joined.append(f"{question} {part}".strip())
            question = ""
    return [*joined, question] if question else joined


_STOP = frozenset(re.findall(r"\w+", """
    a an and are as at be been but by for from had has have he her his i in is it its of on or she that the their them
    they this to was were will with you your our we us which who whom do does did there than then so also patient
    patients doctor mother father nurse says said reports reported describes not never none without neither nor
"""))  # fmt: skip
_ENDINGS = ("ingly", "edly", "ies", "ied", "ing", "ed", "es", "ly", "s", "e")


def content_words(text: str) -> frozenset[str]:
    """The words that carry meaning, in small letters and without common endings."""
    found = re.findall(r"[^\W_]+(?:['’][^\W_]+)?", text.casefold())
    return frozenset(_stem(word) for word in found if word not in _STOP and (len(word) > 2 or word.isdigit()))


def best_match(words: frozenset[str], pool: Sequence[frozenset[str]]) -> int | None:
    """The place of the set that shares most words, the shorter one where two share as many; None where none does."""
    shared = [(len(words & other), -len(other), -at) for at, other in enumerate(pool)]
    best = max(shared, default=(0, 0, 0))
    return -best[2] if best[0] else None


def _stem(word: str) -> str:
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 4:
            return word[: -len(ending)]
    return word
