"""Does an answer promise anything that the policy it stands on does not offer?"""

from __future__ import annotations

import re
from typing import NamedTuple

from harness.scoring.counts import Cells, as_counts
from harness.scoring.grounded import check_numbers
from harness.scoring.item import Item, Score

MAX_PROMISES = 100

_COMMITMENTS = {
    "refund": r"refund\w*|money back|reimburs\w*|repay\w*",
    "replace": r"replac\w+|exchang\w+|swap\w*|new one",
    "repair": r"repair\w*|mend\w*|fix\w*",
    "credit": r"credit\w*|vouchers?|coupons?|gift cards?|discounts?|rebates?|% off|percent off",
    "compensate": r"compensat\w+|make (?:it )?up (?:to|for)|goodwill",
    "free": r"free|no charge|no cost|at no|on us|on the house|complimentary|waiv\w+",
    "deliver": r"deliver\w*|ship\w*|dispatch\w*|arriv\w*|send|sent|courier",
    "cancel": r"cancel\w*|stop the order",
    "call": r"call you|phone you|ring you|call back|callback|get back to you",
    "collect": r"collect\w*|pick (?:it|them)? ?up|pick-?up",
    "extend": r"extend\w*|extension|warrant\w+|guarantee for",
    "change": r"chang\w+|updat\w+|correct\w*|redirect\w*|rerout\w*",
}
"""What can be promised, and the words that promise it or offer it."""
_OFFERED = {
    name: re.compile(rf"(?<!\w)(?:{words})(?!\w)", re.IGNORECASE) for name, words in _COMMITMENTS.items()
}
_SPEAKER = r"(?:we|i|our \w+|you|your \w+|it|they|the \w+)"
_PROMISE = re.compile(
    rf"\b{_SPEAKER}(?:'ll| will| shall| can| is going to| are going to| (?:have|has) (?:already |been )?)\b"
    rf"|\b(?:guarantee|promise|assure|rest assured|you get|you are entitled to|i have (?:already )?)\b",
    re.IGNORECASE,
)
_NEGATED = re.compile(
    r"\b(?:not|never|no longer|cannot|unable|without)\b|n't\b"
    r"|\b(?:no|nor|neither)\b(?! (?:charge|cost|problem|worries|need))",
    re.IGNORECASE,
)
_CLAUSE = re.compile(r"[^.!?;\n]+(?:[.](?=\d)[^.!?;\n]*)*")
_SPLIT = re.compile(r",? but |, although |, however,? |, and ", re.IGNORECASE)


class Promise(NamedTuple):
    """One part of an answer that commits to something."""

    text: str
    commitments: tuple[str, ...]


def promises(item: Item) -> Score:
    """The share of the answer's promises that the context backs; 1 where it promises nothing.

    A promise is a clause with "we will", "you can", "I guarantee" … and a commitment (a refund, a delivery, a
    voucher …) that is not negated. The context backs it where one of its own clauses names the commitment without
    negating it, and it holds every number of the promise. The customer's message backs nothing.
    Counts: `promise`, backed as true and unbacked as false positives.

    Error classes: `unbacked_promise`, `unbacked_number`, `no_answer`. English alone; it compares words, so a promise
    in words of its own ("we have your back") is missed, and a condition that is left out is not seen.
    """
    if not (item.answer or "").strip():
        return Score(0.0, error_class="no_answer")
    found = read_promises(item.answer or "")
    offered = offers_of(item.context)
    problems = {one.text: problem for one in found if (problem := _problem(one, offered, item.context))}
    wrong = sum(one.text in problems for one in found)
    counts = as_counts({"promise": Cells(len(found) - wrong, wrong, 0)})
    value = (len(found) - wrong) / len(found) if found else 1.0
    classes = list(problems.values())
    error_class = "unbacked_promise" if "unbacked_promise" in classes else classes[0] if classes else None
    return Score(value, counts, error_class, "; ".join(problems)[:500])


def read_promises(text: str) -> list[Promise]:
    """The text's promises, in their order."""
    found = [
        Promise(clause, commitments)
        for clause in _clauses(text)
        if _PROMISE.search(clause) and not _NEGATED.search(clause) and (commitments := _commitments(clause))
    ]
    return found[:MAX_PROMISES]


def offers_of(policy: str) -> frozenset[str]:
    """The commitments that a clause of the policy names without negating them."""
    return frozenset(
        name for clause in _clauses(policy) if not _NEGATED.search(clause) for name in _commitments(clause)
    )


def _problem(promise: Promise, offered: frozenset[str], policy: str) -> str | None:
    if not offered.issuperset(promise.commitments):
        return "unbacked_promise"
    return "unbacked_number" if check_numbers(promise.text, policy, derive=False).unsupported else None


def _commitments(clause: str) -> tuple[str, ...]:
    return tuple(name for name, words in _OFFERED.items() if words.search(clause))


def _clauses(text: str) -> list[str]:
    plain = text.replace("’", "'")
    sentences = [found.group().strip() for found in _CLAUSE.finditer(plain)]
    return [part.strip() for sentence in sentences for part in _SPLIT.split(sentence) if part.strip()]
