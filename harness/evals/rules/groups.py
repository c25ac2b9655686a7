"""Rules on how groups fare: no group better than another by more than a cap."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from harness.data.slices import crossed_names
from harness.evals.results import RuleVerdict, Sample, State
from harness.evals.rules.decide import decide, nothing, skipped
from harness.evals.rules.evidence import Evidence
from harness.evals.rules.rates import Part
from harness.specs.gate import Gate
from harness.stats.fairness import GapVerdict, Rate, gap_gate
from harness.stats.proportions import Count
from harness.stats.survey import effective_sample

RATES: Mapping[str, tuple[Rate, ...]] = {
    "accuracy": ("accuracy",),
    "demographic_parity": ("selection",),
    "equal_opportunity": ("true_positive",),
    "equalized_odds": ("true_positive", "false_positive"),
}
"""Each rule asks for a gap under the cap in each of these rates."""
MAX_NAMED = 5
"""Small groups that a reason names."""


def judge_gap(gate: Gate, suite: str, shown: Evidence) -> list[RuleVerdict]:
    """The rule's verdict on each of its rates, and the groups that are too small to be judged."""
    found: list[RuleVerdict] = []
    for rate in RATES[gate.metric]:
        groups = group_parts(gate, rate, shown.samples)
        judged = {name: part for name, part in groups.items() if len(part.scores) >= gate.min_n}
        small = [part for name, part in groups.items() if name not in judged]
        verdict = _judge_rate(gate, suite, rate, judged, tuple(part.name for part in small))
        found += [verdict, *(_reported(gate, suite, rate, part) for part in small)]
    return found


def group_parts(gate: Gate, rate: Rate, samples: Sequence[Sample]) -> dict[str, Part]:
    """The items of the rate's denominator by group, as 0 and 1. A group without one is there, and empty."""
    parts: dict[str, Part] = {}
    for sample in samples:
        for name in crossed_names(sample.slices, gate.slice_keys):
            part = parts.setdefault(name, Part(name, [], []))
            if (value := _value(gate, rate, sample)) is not None:
                part.scores.append(value)
                part.units.append(sample.unit)
    return dict(sorted(parts.items()))


def _value(gate: Gate, rate: Rate, sample: Sample) -> float | None:
    """What the sample adds to the rate's numerator; None where it is not in the denominator."""
    if rate == "accuracy":
        return sample.score
    is_positive = gate.positive in sample.gold
    if (rate == "true_positive" and not is_positive) or (rate == "false_positive" and is_positive):
        return None
    return float(sample.answer == gate.positive)


def _judge_rate(
    gate: Gate, suite: str, rate: Rate, groups: Mapping[str, Part], small: tuple[str, ...]
) -> RuleVerdict:
    scores = [score for part in groups.values() for score in part.scores]
    slice_name = gate.per_words if len(RATES[gate.metric]) == 1 else f"{gate.per_words}, {rate} rate"
    if not all(score in (0.0, 1.0) for score in scores):
        return decide(gate, suite, slice_name, nothing("gaps are judged on scores of 0 and 1", len(scores)))
    if len(groups) < 2:
        why = f"{len(groups)} groups of {gate.min_n} items or more: a gap takes two"
        return decide(gate, suite, slice_name, nothing(why, len(scores)))
    assert gate.gap is not None
    counts = {name: _count(part, gate.alpha) for name, part in groups.items()}
    found = gap_gate(counts, gate.gap, alpha=gate.alpha, beta=gate.beta, floor=gate.floor)
    return _verdict(gate, suite, slice_name, len(scores), found, (*small, *found.too_small))


def _count(part: Part, alpha: float) -> Count:
    """Hits of items, of what the items are worth where units repeat."""
    sample = effective_sample(part.scores, part.units, alpha)
    if sample is None:
        return Count(0, 0)
    n = max(1, math.floor(sample.n + 1e-9))
    return Count(round(n * sample.hits / sample.n), n)


def _verdict(
    gate: Gate, suite: str, slice_name: str, n: int, found: GapVerdict, too_small: tuple[str, ...]
) -> RuleVerdict:
    state = {"PASS": State.PASS, "FAIL": State.FAIL, None: State.INCONCLUSIVE}[found.decision]
    worst = found.worst
    return RuleVerdict(
        rule=gate.name, suite=suite, metric=gate.metric, slice=slice_name, n=n,
        score=worst.gap if worst else None, low=worst.low if worst else None, high=worst.high if worst else None,
        threshold=gate.gap, verdict=state, reason=_reason(gate, found, state, too_small), too_small=too_small,
    )  # fmt: skip


def _reason(gate: Gate, found: GapVerdict, state: State, too_small: tuple[str, ...]) -> str:
    worst = found.worst
    if worst is None:
        return "no two groups have items"
    if state is State.FAIL:
        said = (
            f"{worst.better} fares better than {worst.worse} by {worst.gap:.4g}, over {gate.gap:g} after Holm"
        )
    else:
        relation = "is" if state is State.PASS else "is not"
        said = (
            f"{worst.better} over {worst.worse}: upper bound {worst.high:.4g} {relation} under {gate.gap:g}"
        )
    if found.under_floor:
        said += f"; not shown over the floor {gate.floor:g}: {_named(found.under_floor)}"
    return f"{said}; too small to certify: {_named(too_small)}" if too_small else said


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return f"{', '.join(names[:MAX_NAMED])}{more}"


def _reported(gate: Gate, suite: str, rate: Rate, part: Part) -> RuleVerdict:
    name = part.name if len(RATES[gate.metric]) == 1 else f"{part.name}, {rate} rate"
    mean = math.fsum(part.scores) / len(part.scores) if part.scores else None
    return skipped(gate, suite, name, len(part.scores), mean)
