"""Scores of short texts against gold texts."""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Sequence

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def exact(answer: str | None, gold: Sequence[str]) -> float:
    """1.0 if the answer is one of the gold texts, apart from white space at its ends; else 0.0."""
    return float(answer is not None and answer.strip() in {text.strip() for text in gold})


def normalised(answer: str | None, gold: Sequence[str]) -> float:
    """1.0 if the answer equals a gold text after `normalise`; else 0.0. An answer of nothing is wrong."""
    if answer is None:
        return 0.0
    found = normalise(answer)
    return float(bool(found) and found in {normalise(text) for text in gold})


def normalise(text: str) -> str:
    """Lower case, NFKC, no ASCII punctuation, no English articles, single spaces.

    The normalisation of SQuAD's official evaluation (Rajpurkar et al., arXiv 1606.05250), after NFKC.
    """
    plain = unicodedata.normalize("NFKC", text).casefold().translate(_PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", plain).split())
