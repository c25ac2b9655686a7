"""From log-probabilities of labels to a label, its probability and a score."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple


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


def score_label(answer: str | None, gold: Sequence[str]) -> float:
    """1.0 if the label is one of the gold labels, to the letter; else 0.0."""
    return float(answer is not None and answer in gold)
