"""Scores of short texts against gold texts."""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter

from harness.scoring.item import Item, Score

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_POINT = re.compile(r"(?<=\d)\.(?=\d)")
_MINUS = re.compile(r"(?<![\w.)])[-\u2212](?=[$€£]?\.?\d)")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def exact(item: Item) -> Score:
    """1 if the answer is one of the gold texts, apart from white space at its ends."""
    answer = item.answer
    return Score(float(answer is not None and answer.strip() in {text.strip() for text in item.targets}))


def normalised(item: Item) -> Score:
    """1 if the answer equals a gold text after `normalise`. An answer of nothing is wrong."""
    found = normalise(item.answer or "")
    return Score(float(bool(found) and found in {normalise(text) for text in item.targets}))


def token_f1(item: Item) -> Score:
    """F1 of the words that answer and gold share, the best over the gold texts; as SQuAD's official evaluation."""
    words = Counter(normalise(item.answer or "").split())
    return Score(
        max((_overlap_f1(words, Counter(normalise(gold).split())) for gold in item.targets), default=0.0)
    )


def normalise(text: str) -> str:
    """Lower case, NFKC, no ASCII punctuation, no English articles, single spaces.

    The normalisation of SQuAD's official evaluation (Rajpurkar et al., arXiv 1606.05250), after NFKC; but the
    point of a decimal and the minus before a number stay: 1.5 is not 15, and -5 not 5.
    """
    plain = unicodedata.normalize("NFKC", text).casefold()
    kept = _MINUS.sub("\u2212", _POINT.sub("\u00b7", plain))
    return " ".join(_ARTICLES.sub(" ", kept.translate(_PUNCTUATION)).split())


def _overlap_f1(a: Counter[str], b: Counter[str]) -> float:
    total = a.total() + b.total()
    return 2 * (a & b).total() / total if total else 0.0
