"""Rules that use what the calibration split gave: prediction sets that cover, answers that are held back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from harness.data.slices import crossed_names
from harness.evals.calibrate import AbstentionFit, CoverageFit, confidence_of, right_probability
from harness.evals.results import RuleVerdict, Sample, State
from harness.evals.rules.decide import Aim, aim_of, decide, judge_parts, nothing, skipped
from harness.evals.rules.evidence import Evidence
from harness.evals.rules.rates import rate_bounds
from harness.specs.gate import Gate
from harness.stats.conformal import coverage_band
from harness.stats.proportions import Interval


class Sets(NamedTuple):
    """Prediction sets of one group."""

    covered: list[float]
    """1 where the set holds a right label."""
    sizes: list[int]
    """Labels in the set; an error has none."""
    units: list[str]


def judge_coverage(gate: Gate, suite: str, shown: Evidence) -> list[RuleVerdict]:
    """The rule's verdict on each group's sets.

    PASS when the coverage of these very thresholds is shown to reach `at_least`, and is not below where it should
    lie if calibration and gate items were alike. FAIL when either is shown not to hold.
    """
    fit = shown.calibration.coverage_for(gate) if shown.calibration is not None else None
    if fit is None or shown.calibration is None:
        why = "no thresholds: the calibration split was not scored"
        return [decide(gate, suite, gate.per_words or "all", nothing(why))]
    sets = prediction_sets_of(gate, fit, shown.samples)
    judged = {name: found for name, found in sets.items() if not gate.per or len(found.covered) >= gate.min_n}
    measures = {name: partial(rate_bounds, found.covered, found.units) for name, found in judged.items()}
    verdicts = {rule.slice: rule for rule in judge_parts(gate, suite, measures)}
    calibration_units = shown.calibration.units / max(1, shown.calibration.n)
    for name, found in judged.items():
        band = _band(gate, fit, name, found, calibration_units, len(judged))
        verdicts[name] = _with_band(verdicts[name], fit, name, found, band)
    small = [
        skipped(gate, suite, name, len(found.covered), math.fsum(found.covered) / len(found.covered))
        for name, found in sets.items()
        if name not in judged
    ]
    return [*verdicts.values(), *small] or [decide(gate, suite, "all", nothing("no items were scored"))]


def prediction_sets_of(gate: Gate, fit: CoverageFit, samples: Sequence[Sample]) -> dict[str, Sets]:
    """The sets of all items, by group."""
    found: dict[str, Sets] = {}
    for sample in samples:
        right = right_probability(sample)
        for name in crossed_names(sample.slices, gate.slice_keys):
            threshold = fit.threshold(name).threshold
            group = found.setdefault(name, Sets([], [], []))
            group.covered.append(float(right is not None and 1.0 - right <= threshold))
            probs = (sample.label_probs or {}) if sample.error is None else {}
            group.sizes.append(sum(1.0 - p <= threshold for p in probs.values()))
            group.units.append(sample.unit)
    return dict(sorted(found.items()))


def _band(
    gate: Gate, fit: CoverageFit, name: str, found: Sets, calibration_units: float, groups: int
) -> Interval | None:
    """Where the coverage lies if all is well; None for a group without a promise.

    Worth their units on both sides, so that items of one document don't narrow it. The rank is that of the items: a
    threshold of 64 items in 8 documents is finite, where one of 8 items would not be.
    """
    threshold = fit.threshold(name)
    if threshold.is_pooled:
        return None
    worth, confidence = max(1.0, threshold.n * calibration_units), 1.0 - 2.0 * gate.beta / groups
    return coverage_band(threshold.n, len(set(found.units)), 1.0 - fit.target, confidence, worth=worth)


def _with_band(
    rule: RuleVerdict, fit: CoverageFit, name: str, found: Sets, band: Interval | None
) -> RuleVerdict:
    threshold = fit.threshold(name)
    size, empty = sum(found.sizes) / len(found.sizes), found.sizes.count(0)
    reason = f"{rule.reason}; {size:.3g} labels a set, {empty} empty; {threshold.n} calibration items"
    if threshold.is_pooled:
        reason += ", too few for a threshold of its own: the pooled one promises this group nothing"
        return replace(rule, reason=reason, too_small=(name,))
    if band is not None and rule.score is not None and rule.score < band.low:
        reason += f"; below {band.low:.4g}, where sets made for {fit.target:g} start: these items are not like those"
        return replace(rule, verdict=State.FAIL, reason=reason, needed=None)
    return replace(rule, reason=reason)


def judge_abstention(gate: Gate, suite: str, shown: Evidence) -> list[RuleVerdict]:
    """Two verdicts: how much is answered, and how often that is right."""
    fit = shown.calibration.abstention_for(gate) if shown.calibration is not None else None
    if fit is None or not fit.found or shown.calibration is None:
        name = f"abstention {gate.precision:g}"
        known = shown.calibration.reasons.get(name) if shown.calibration is not None else None
        why = f"no threshold: {known or 'the calibration split was not scored'}"
        return [
            decide(gate, suite, part, nothing(why)) for part in ("share answered", "precision of answers")
        ]
    answered = [is_answered(fit, sample) for sample in shown.samples]
    shares, units = [float(is_in) for is_in in answered], [sample.unit for sample in shown.samples]
    kept = [sample for sample, is_in in zip(shown.samples, answered, strict=True) if is_in]
    right, kept_units = [float(sample.score == 1.0) for sample in kept], [sample.unit for sample in kept]
    aim = aim_of(gate)
    return [
        _part(gate, suite, "share answered", shares, units, aim),
        _part(gate, suite, "precision of answers", right, kept_units, aim._replace(threshold=fit.precision)),
    ]


def is_answered(fit: AbstentionFit, sample: Sample) -> bool:
    """Whether the model is sure enough to answer."""
    sure = confidence_of(sample, fit.confidence)
    return sure is not None and (fit.threshold is None or sure > fit.threshold)


def _part(gate: Gate, suite: str, name: str, scores: list[float], units: list[str], aim: Aim) -> RuleVerdict:
    bounds = rate_bounds(scores, units, *aim.errors) if scores else nothing("nothing was answered")
    return decide(gate, suite, name, bounds, aim)
