"""Rules that compare with an earlier stage on the same items."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial

from harness.data.slices import crossed_names
from harness.evals.results import RuleVerdict, Sample
from harness.evals.rules.decide import Bounds, Compared, aim_of, decide, judge_parts, nothing, skipped
from harness.evals.rules.engine import engine_bounds, range_of, unit_ratios
from harness.evals.rules.evidence import Evidence, noise_floor, score_of
from harness.evals.rules.rates import Part
from harness.specs.gate import Gate
from harness.stats.f1 import Ratio
from harness.stats.paired import paired_bounds
from harness.stats.power import paired_items_needed
from harness.stats.survey import paired_worth


def judge_paired(gate: Gate, suite: str, shown: Evidence) -> list[RuleVerdict]:
    """The rule's verdict on each of its slices."""
    before = {sample.id: sample for sample in shown.earlier.get(gate.versus or "", ())}
    if set(before) != {sample.id for sample in shown.samples} or not before:
        reason = f"{gate.versus} was not scored on the same items"
        return [decide(gate, suite, gate.per_words or "all", nothing(reason))]
    parts = paired_parts(gate, shown.samples, before)
    if not parts:
        return [
            decide(
                gate, suite, gate.per_words, nothing(f"{gate.metric} per {gate.per_words}: no item has it")
            )
        ]
    noise, aim = noise_floor(shown), aim_of(gate)
    judged = {
        part.name: partial(paired_part_bounds, gate, part, at=aim.compared(noise))
        for part in parts
        if not gate.per or len(part.scores) >= gate.min_n
    }
    verdicts = {rule.slice: rule for rule in judge_parts(gate, suite, judged, aim=aim, noise=noise)}
    for part in parts:
        if part.name not in verdicts:
            mean = math.fsum(part.scores) / len(part.scores)
            verdicts[part.name] = skipped(gate, suite, part.name, len(part.scores), mean)
    return [verdicts[part.name] for part in parts]


def paired_parts(gate: Gate, samples: Sequence[Sample], before: Mapping[str, Sample]) -> list[Part]:
    """Differences, candidate minus baseline, by slice; NaN where a stage has no score."""
    parts: dict[str, Part] = {}
    for sample in samples:
        now, then = score_of(gate, sample), score_of(gate, before[sample.id])
        difference = math.nan if now is None or then is None else now - then
        for name in crossed_names(sample.slices, gate.slice_keys):
            part = parts.setdefault(name, Part(name, [], []))
            part.scores.append(difference)
            part.units.append(sample.unit)
    return [parts[name] for name in sorted(parts)]


def paired_part_bounds(
    gate: Gate, part: Part, low_error: float, high_error: float, *, at: Compared | None = None
) -> Bounds:
    """Tango's bounds for differences of -1, 0 and 1, the betting test's for others."""
    if not all(math.isfinite(difference) for difference in part.scores):
        return nothing(f"scorer {gate.score or 'of the suite'} left no score on an item", len(part.scores))
    if all(difference in (-1.0, 0.0, 1.0) for difference in part.scores):
        found = difference_bounds(part, low_error, high_error)
        return found._replace(needed=partial(_needed, gate, part))
    by_unit = unit_ratios([Ratio(d, 1.0) for d in part.scores], part.units, gate.order_seed)
    low_at, high_at = at if at is not None else (None, None)
    gained, lost = sum(d > 0.0 for d in part.scores), sum(d < 0.0 for d in part.scores)
    return engine_bounds(
        by_unit, range_of(by_unit, -1.0, 1.0, is_paired=True), low_error, high_error, low_at=low_at,
        high_at=high_at, items=len(part.scores), reason=f"{gained} better, {lost} worse; betting test",
    )  # fmt: skip


def difference_bounds(part: Part, alpha: float, beta: float) -> Bounds:
    """Candidate minus baseline with Tango's one-sided bounds, on the effective sample where units repeat.

    `part.scores` are the differences, each -1, 0 or 1.
    """
    n, b, c = len(part.scores), part.scores.count(-1.0), part.scores.count(1.0)
    shrink = _shrink(part, alpha)
    # Rounded against the claim: a PASS must not come from rounding.
    fewest = max(1, math.floor(n * shrink))
    most_lost = min(math.ceil(b * shrink), fewest)  # rounded up, it could be more than there are
    low = paired_bounds(most_lost, min(math.floor(c * shrink), fewest - most_lost), fewest, alpha, beta)
    high = paired_bounds(
        math.floor(b * shrink), math.ceil(c * shrink), max(1, math.ceil(n * shrink)), alpha, beta
    )
    reason = f"{c} gained, {b} lost"
    ends = low.low if low else None, high.high if high else None
    return Bounds(n, (c - b) / n, *ends, reason, worth=n * shrink, discordant=(b, c))


def _shrink(part: Part, alpha: float) -> float:
    """Independent pairs that one pair is worth, at most 1."""
    return min(1.0, (paired_worth(part.scores, part.units, alpha) or 0.0) / len(part.scores))


def _needed(gate: Gate, part: Part) -> int | None:
    """Pairs still missing if today's shares stay; further ones are taken to be worth what today's are."""
    shrink = _shrink(part, gate.alpha)
    b, c = (round(part.scores.count(way) * shrink) for way in (-1.0, 1.0))
    n = max(1, round(len(part.scores) * shrink), b + c)
    more = paired_items_needed(b, c, n, aim_of(gate).threshold, gate.alpha, gate.beta)
    return None if more is None else max(1, math.ceil(more / shrink))
