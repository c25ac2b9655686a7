"""Answers of sets whose golds are numbers in some records and words in others."""

from __future__ import annotations

from harness.scoring.item import Item, Score
from harness.scoring.number_match import number
from harness.scoring.text import token_f1


def number_or_text(item: Item) -> Score:
    """`number` where the record's gold is a number, and `token_f1` where it is a text; settings of `number`.

    A list of texts means that any of them is right. TAT-QA's own score (Zhu et al. 2021, arXiv 2105.07624) wants all of
    them, and its numbers to two digits after the decimal point.
    """
    return number(item) if is_numeric(item) else token_f1(item)


def is_numeric(item: Item) -> bool:
    """Whether the record's gold is a number, not a text that holds one."""
    return isinstance(item.target, int | float) and not isinstance(item.target, bool)
