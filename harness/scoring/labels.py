"""Labels: one chosen by log-probability, or a set of them; and their scores."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from harness.scoring.counts import Cells, as_counts, f1_value, set_counts, total
from harness.scoring.item import Item, Score


class Choice(NamedTuple):
    """The most probable label and how the probability is spread."""

    label: str
    confidence: float
    probs: dict[str, float]
    """Sums to 1 over the labels."""


def choose(labels: Sequence[str], logprobs: Sequence[float]) -> Choice | None:
    """The label with the largest log-probability, first in the suite's order among equals.

    The probabilities are the softmax over the labels' summed log-probabilities. None when a
    log-probability is NaN or none is finite: such an answer is no answer.
    """
    if len(labels) != len(logprobs) or any(math.isnan(value) for value in logprobs):
        return None
    top = max(logprobs, default=-math.inf)
    if not math.isfinite(top):
        return None
    weights = [math.exp(value - top) for value in logprobs]
    total = math.fsum(weights)
    probs = {label: weight / total for label, weight in zip(labels, weights, strict=True)}
    best = labels[list(logprobs).index(top)]
    return Choice(best, probs[best], probs)


def label(item: Item) -> Score:
    """1 if the label is one of the gold labels, to the letter."""
    return Score(float(item.answer is not None and item.answer in item.targets))


def choice(item: Item) -> Score:
    """1 if the answer is the gold option. A gold that is no option's text is its index, counted from 0."""
    return Score(float(item.answer is not None and item.answer in gold_options(item)))


def label_set(item: Item) -> Score:
    """F1 of the labels that were named against those that hold; counts by label.

    An answer that could not be read names nothing: it is wrong even where no label holds.
    """
    meant = gold_labels(item)
    if not isinstance(item.parsed, list | tuple):
        return Score(0.0, as_counts(set_counts((), meant)), "unread")
    counts = set_counts([str(value) for value in item.parsed], meant)
    value = f1_value(total(counts))
    return Score(value, as_counts(counts), None if value == 1.0 else _set_error(total(counts)))


def gold_labels(item: Item) -> tuple[str, ...]:
    """The labels that hold: the record's list where it is one, which may be empty, else its texts."""
    if isinstance(item.target, list | tuple):
        return tuple(str(value) for value in item.target)
    return item.targets


def gold_options(item: Item) -> set[str]:
    """The options that are right, as texts; golds that are no option are places from 0."""
    golds = set(item.targets)
    if golds & set(item.options):
        return golds
    places = [int(gold) for gold in golds if gold.isascii() and gold.isdigit() and len(gold) < 6]
    return {item.options[place] for place in places if place < len(item.options)} or golds


def _set_error(cells: Cells) -> str:
    if not cells.tp:
        return "no_label_right"
    return "both" if cells.fp and cells.fn else "extra_labels" if cells.fp else "missing_labels"
