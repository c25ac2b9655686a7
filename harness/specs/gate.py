"""A gate rule: what must hold, for whom, and how sure we must be."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from harness.specs.base import Document

Metric = Literal[
    "accuracy", "precision", "recall", "error_rate", "truncated_rate", "latency_p95_ms", "size_mb"
]
RATES = ("accuracy", "precision", "recall", "error_rate", "truncated_rate")
Probability = Annotated[float, Field(ge=0.0, le=1.0)]


class Gate(Document):
    """One rule. A release is the AND of its rules."""

    metric: Metric
    """What is measured. `precision` and `recall` are per label; the rest are per record."""
    at_least: float | None = None
    """PASS when the lower confidence bound reaches this."""
    at_most: float | None = None
    """PASS when the upper confidence bound stays at or under this."""
    versus: str | None = None
    """Compare on the same items with this: `base`, or a stage that came earlier in the chain."""
    no_worse_than: Probability | None = None
    """With `versus`: the largest loss that still passes (non-inferiority margin)."""
    better_than: Probability | None = None
    """With `versus`: the gain that must be exceeded (superiority when 0)."""
    per: str | None = None
    """A slice key of the records, or `label`: the rule holds for every value that has `min_n` items."""
    min_n: Annotated[int, Field(ge=1)] = 20
    """With `per`: values with fewer items are reported and not judged."""
    alpha: Annotated[float, Field(gt=0.0, lt=0.5)] = 0.05
    """Largest probability of a false PASS."""
    beta: Annotated[float, Field(gt=0.0, lt=0.5)] = 0.05
    """Largest probability of a false FAIL."""
    stages: tuple[str, ...] = ()
    """Stages that the rule judges; empty means every stage but the base, `edge` alone for latency and size."""
    suite: str | None = None
    """Name of the suite that the rule reads; may be left out when the recipe has one suite."""

    @model_validator(mode="after")
    def _one_threshold(self) -> Gate:
        bounds = [self.at_least, self.at_most]
        margins = [self.no_worse_than, self.better_than]
        if self.versus is None:
            if sum(bound is not None for bound in bounds) != 1:
                raise ValueError("a rule needs exactly one of at_least, at_most, or versus with a margin")
            if any(margin is not None for margin in margins):
                raise ValueError("no_worse_than and better_than need versus")
        elif any(bound is not None for bound in bounds) or sum(m is not None for m in margins) != 1:
            raise ValueError("versus needs exactly one of no_worse_than and better_than, and no bound")
        if self.versus is not None and self.metric != "accuracy":
            raise ValueError("versus compares accuracy on the same items; other metrics have no paired test")
        if self.metric in ("precision", "recall") and self.per != "label":
            raise ValueError("precision and recall are judged per label: add `per: label`")
        bound = self.at_least if self.at_least is not None else self.at_most
        if bound is not None and self.metric in RATES and not 0.0 <= bound <= 1.0:
            raise ValueError("a rate lies between 0 and 1")
        return self

    @property
    def name(self) -> str:
        """The rule in words, such as `recall per label at least 0.6`."""
        per = f" per {self.per}" if self.per else ""
        if self.versus is not None:
            margin = self.no_worse_than if self.no_worse_than is not None else self.better_than
            word = "no worse than" if self.no_worse_than is not None else "better than"
            return f"{self.metric}{per} {word} {self.versus} by {margin:g}"
        if self.at_least is not None:
            return f"{self.metric}{per} at least {self.at_least:g}"
        return f"{self.metric}{per} at most {self.at_most:g}"
