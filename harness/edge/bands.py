"""How sure an answer is, by what the calibration split gave for the very file that answers.

The threshold and the sets are applied to the same numbers that they were fitted on: softmax over the labels'
log-probabilities, before the temperature. The temperature makes the confidence that is told.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from harness.data.slices import crossed_names
from harness.evals.calibrate import LEAST_PROBABILITY, AbstentionFit, Calibration, CoverageFit
from harness.evals.tasks import Reading

Reason = Literal["confidence", "set", "no_threshold", "no_confidence", "unread"]
"""Below the threshold; more or fewer than one label in the set; none could be proved; the threshold is on a
confidence that is not computed here; the answer says nothing by the suite's task."""


@dataclass(frozen=True, slots=True)
class Weighed:
    """An answer and how sure it is."""

    label: str | None
    confidence: float | None
    """Calibrated where a temperature is known: see `is_calibrated`."""
    is_calibrated: bool
    set: tuple[str, ...] | None
    """The conformal set, likeliest first; None where the release has no sets."""
    coverage: float | None
    """What the set was made for; None where nothing is promised for this item's slice."""
    precision: float | None
    """How often answers over the threshold are right, as it was proved; None without a threshold."""
    reason: Reason | None
    """Why it should not be answered here; None where it may be."""

    @property
    def is_sure(self) -> bool:
        return self.reason is None


def weigh(
    reading: Reading, calibration: Calibration | None, slices: Mapping[str, str | list[str]]
) -> Weighed:
    """The answer's confidence, set, and whether it may be given.

    Of several abstention rules the most demanding one decides, of several sets those made for the most coverage.
    Without a threshold a set decides: one label may be given. Without either, everything is, and nothing is promised.
    """
    if calibration is None:
        reason: Reason | None = "unread" if reading.answer is None else None
        return Weighed(reading.answer, reading.confidence, False, None, None, None, reason)
    fit = max(calibration.abstention, key=lambda one: one.precision, default=None)
    sets = max(calibration.coverage, key=lambda one: one.target, default=None)
    labels, coverage = _conformal(reading, sets, slices)
    confidence = tempered(reading, calibration.temperature)
    return Weighed(
        label=reading.answer,
        confidence=reading.confidence if confidence is None else confidence,
        is_calibrated=confidence is not None,
        set=labels, coverage=coverage,
        precision=fit.precision if fit is not None and fit.found else None,
        reason=_reason(reading, fit, labels),
    )  # fmt: skip


def tempered(reading: Reading, temperature: float | None) -> float | None:
    """The answer's probability at the temperature; None without a temperature, probabilities or an answer.

    Guo et al. (2017), On calibration of modern neural networks, arXiv 1706.04599.
    """
    probs = reading.label_probs
    if temperature is None or not probs or reading.answer not in probs:
        return None
    scaled = {label: math.log(max(value, LEAST_PROBABILITY)) / temperature for label, value in probs.items()}
    top = max(scaled.values())
    total = math.fsum(math.exp(value - top) for value in scaled.values())
    return math.exp(scaled[reading.answer] - top) / total


def _reason(reading: Reading, fit: AbstentionFit | None, labels: tuple[str, ...] | None) -> Reason | None:
    if reading.answer is None:
        return "unread"
    if fit is None:
        return "set" if labels is not None and len(labels) != 1 else None
    if not fit.found:
        return "no_threshold"
    named = reading.confidence if fit.confidence is None else reading.confidences.get(fit.confidence)
    if named is None or math.isnan(named):
        return "no_confidence"
    return None if fit.threshold is None or named > fit.threshold else "confidence"


def _conformal(
    reading: Reading, fit: CoverageFit | None, slices: Mapping[str, str | list[str]]
) -> tuple[tuple[str, ...] | None, float | None]:
    """The labels whose 1 - p is within the threshold of the item's group, and the coverage promised to that group.

    An item in several groups takes the most generous threshold; one whose slices nobody named, the pooled one.
    """
    probs = reading.label_probs
    if fit is None or not probs:
        return None, None
    names = crossed_names(slices, fit.per) if fit.per else ["all"]
    found = [fit.threshold(name) for name in names] or [fit.pooled._replace(is_pooled=True)]
    widest = max(found, key=lambda one: one.threshold)
    ranked = sorted(probs, key=lambda label: -probs[label])
    promised = None if any(one.is_pooled for one in found) else fit.target
    return tuple(label for label in ranked if 1.0 - probs[label] <= widest.threshold), promised
