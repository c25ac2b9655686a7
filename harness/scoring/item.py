"""What a scorer is given, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Counts = Mapping[str, tuple[int, int, int]]
"""True positives, false positives and false negatives, by label or field."""


@dataclass(frozen=True, slots=True)
class Item:
    """One record beside the answer to it."""

    answer: str | None
    """The answer as text: a label, a choice, or what the model wrote; None after an error."""
    targets: tuple[str, ...]
    """Gold texts, of which any is right."""
    parsed: Any = None
    """The answer as the task reads it: labels, an object, spans, a number; None where nothing could be read."""
    target: Any = None
    """The gold value as it stands in the record: a text, a number, a list, an object."""
    input: str = ""
    context: str = ""
    """What the answer must stand on: a passage, a table, retrieved chunks; empty where there is none."""
    options: tuple[str, ...] = ()
    """The record's own choices, or the suite's labels."""
    meta: Mapping[str, Any] = field(default_factory=dict)
    """The whole record, for scorers that need more of it."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What the suite says beside the scorer's name, such as a tolerance."""


@dataclass(frozen=True, slots=True)
class Score:
    """How good one answer is."""

    value: float
    """0 to 1."""
    counts: Counts = field(default_factory=dict)
    """Where one answer holds several parts; micro and macro precision, recall and F1 come from their sums."""
    error_class: str | None = None
    """How a wrong answer is wrong, such as `unit_slip`; None where it is right or nothing is known."""
    note: str = ""
    """For a reader, such as the number that no passage holds."""


Scorer = Callable[[Item], Score]
