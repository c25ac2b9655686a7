"""From samples to a verdict: what each rule says of each slice, and their AND.

PASS means that "worse than the threshold" is rejected at alpha, FAIL that "good enough" is rejected at
beta. Between the two is INCONCLUSIVE, which blocks. No number at all is INCONCLUSIVE too, never PASS.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from harness.evals.results import RuleVerdict, Sample, State, Verdict
from harness.evals.run import slice_names
from harness.specs.gate import Gate
from harness.stats.paired import paired_bounds
from harness.stats.power import items_needed, paired_items_needed
from harness.stats.quantiles import quantile, quantile_lower_bound, quantile_upper_bound
from harness.stats.survey import effective_lower, effective_sample, effective_upper, paired_worth

CHAIN = ("base", "adapter", "merged", "f16")
"""Stages before the quants, in their order."""
EDGE_METRICS = ("latency_p95_ms", "size_mb")
QUALITY_METRICS = ("accuracy", "precision", "recall")
"""Without a PASS on one of these nothing is known about the answers, and nothing passes."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a stage has shown on one suite."""

    samples: Sequence[Sample]
    max_error_frac: float
    latencies_ms: Sequence[float] = ()
    """Of single requests, one after another, on the device."""
    size_bytes: int | None = None
    earlier: Mapping[str, Sequence[Sample]] = field(default_factory=dict)
    """Samples of earlier stages on the same suite, by stage."""


class Bounds(NamedTuple):
    """A rule's number with its one-sided bounds."""

    n: int
    score: float | None
    low: float | None
    high: float | None
    reason: str = ""
    """Why there is no number, or what else a reader must know."""
    worth: float | None = None
    """Independent items that the items are worth; None where that makes no sense."""
    discordant: tuple[int, int] | None = None
    """For paired rules: items that the baseline alone, and the candidate alone, has right."""


class Part(NamedTuple):
    """One slice of a stage's items, as scores of what the rule measures."""

    name: str
    scores: list[float]
    units: list[str]


def judge(
    stage: str, identity: str, lock: str, gates: Sequence[Gate], evidence: Mapping[str, Evidence], only: str
) -> Verdict:
    """The verdict of a stage.

    `evidence` is by suite name; a rule without a suite reads `only`, the recipe's first one.
    """
    rules = [_integrity(suite, shown) for suite, shown in evidence.items()]
    for gate in gates:
        suite = gate.suite or only
        if suite in evidence and applies(gate, stage):
            found = _judge_rule(gate, suite, evidence[suite])
            rules += found if _is_judged(found) else [*found, _unjudged(gate, suite)]
    return Verdict(stage, identity, lock, combine(rules), tuple(rules))


def _is_judged(found: Sequence[RuleVerdict]) -> bool:
    return any(rule.verdict is not State.SKIPPED for rule in found)


def _unjudged(gate: Gate, suite: str) -> RuleVerdict:
    """A rule none of whose slices is large enough has proved nothing, and must not look as if it held."""
    reason = f"no {gate.per} has {gate.min_n} items: nothing was judged"
    return _decide(gate, suite, gate.per or "all", Bounds(0, None, None, None, reason))


def applies(gate: Gate, stage: str) -> bool:
    """Whether the rule judges the stage."""
    if gate.stages:
        return stage in gate.stages
    if gate.metric in EDGE_METRICS:
        return stage not in CHAIN
    if gate.versus is None:
        return True
    return _position(stage) > _position(gate.versus)


def combine(rules: Sequence[RuleVerdict]) -> State:
    """The AND: one FAIL fails, one INCONCLUSIVE blocks, and without a measured PASS nothing passes.

    No correction for the number of rules: an intersection-union test keeps its level on the PASS side.
    """
    states = [rule.verdict for rule in rules]
    if State.FAIL in states:
        return State.FAIL
    measured = [rule for rule in rules if rule.verdict is State.PASS and rule.metric in QUALITY_METRICS]
    return State.INCONCLUSIVE if State.INCONCLUSIVE in states or not measured else State.PASS


def _position(stage: str) -> int:
    return CHAIN.index(stage) if stage in CHAIN else len(CHAIN)


def _integrity(suite: str, shown: Evidence) -> RuleVerdict:
    """The rule that no recipe can leave out: the run must have happened, and most of it without errors."""
    n = len(shown.samples)
    errors = sum(sample.error is not None for sample in shown.samples)
    rate = errors / n if n else None
    if rate is None:
        state, reason = State.INCONCLUSIVE, "no items were scored: an empty run proves nothing"
    elif rate > shown.max_error_frac:
        state, reason = (
            State.FAIL,
            f"{errors} of {n} items ended in an error; the suite allows {shown.max_error_frac:.1%}",
        )
    else:
        state, reason = State.PASS, f"{errors} of {n} items ended in an error"
    return RuleVerdict(
        rule="errors within the suite's limit", suite=suite, metric="error_rate", slice="all", n=n, score=rate,
        low=None, high=None, threshold=shown.max_error_frac, verdict=state, reason=reason,
    )  # fmt: skip


def _judge_rule(gate: Gate, suite: str, shown: Evidence) -> list[RuleVerdict]:
    if gate.metric in EDGE_METRICS:
        return [_decide(gate, suite, "all", _edge_bounds(gate, shown))]
    if gate.versus is not None:
        return _judge_paired(gate, suite, shown)
    parts = _parts(gate, shown.samples)
    if not parts:
        missing = f"{gate.metric} per {gate.per}: no item has it" if gate.per else "no items were scored"
        return [_decide(gate, suite, gate.per or "all", Bounds(0, None, None, None, missing))]
    return [_judge_part(gate, suite, part) for part in parts]


def _judge_part(gate: Gate, suite: str, part: Part) -> RuleVerdict:
    if gate.per and len(part.scores) < gate.min_n:
        return _skipped(gate, suite, part)
    # The bound that a PASS needs is the one at alpha: the upper one where less is better.
    low_error, high_error = (gate.beta, gate.alpha) if gate.at_most is not None else (gate.alpha, gate.beta)
    return _decide(gate, suite, part.name, rate_bounds(part.scores, part.units, low_error, high_error))


def rate_bounds(scores: Sequence[float], units: Sequence[str], low_error: float, high_error: float) -> Bounds:
    """A rate with Clopper-Pearson's one-sided bounds, on the effective sample where units repeat."""
    if not all(math.isfinite(score) for score in scores):
        return Bounds(len(scores), None, None, None, "a score is not a number")
    low_sample = effective_sample(scores, units, low_error)
    high_sample = effective_sample(scores, units, high_error)
    if low_sample is None or high_sample is None:
        return Bounds(0, None, None, None, "no items")
    low, high = effective_lower(low_sample, low_error), effective_upper(high_sample, high_error)
    clustered = low_sample.clusters < len(scores)
    reason = f"worth {low_sample.n:.0f} independent items in {low_sample.clusters} units" if clustered else ""
    return Bounds(len(scores), math.fsum(scores) / len(scores), low, high, reason, low_sample.n)


def _parts(gate: Gate, samples: Sequence[Sample]) -> list[Part]:
    """The rule's items: all of them, or one part a slice value or label, by name."""
    parts: dict[str, Part] = {}
    for sample in samples:
        for name, score in _scored_as(gate, sample):
            part = parts.setdefault(name, Part(name, [], []))
            part.scores.append(score)
            part.units.append(sample.unit)
    return [parts[name] for name in sorted(parts)]


def _scored_as(gate: Gate, sample: Sample) -> list[tuple[str, float]]:
    """In which of the rule's slices the sample counts, and as what."""
    if gate.metric == "precision":
        return (
            [(f"label={sample.answer}", float(sample.answer in sample.gold))]
            if sample.answer is not None
            else []
        )
    if gate.metric == "recall":
        return [(f"label={label}", float(sample.answer == label)) for label in sample.gold]
    score = _SCORE_OF[gate.metric](sample)
    names = slice_names(sample, [gate.per]) if gate.per else ["all"]
    return [(name, score) for name in names]


_SCORE_OF: Mapping[str, Callable[[Sample], float]] = {
    "accuracy": lambda sample: sample.score,
    "error_rate": lambda sample: float(sample.error is not None),
    "truncated_rate": lambda sample: float(sample.is_truncated),
}


def _judge_paired(gate: Gate, suite: str, shown: Evidence) -> list[RuleVerdict]:
    before = {sample.id: sample for sample in shown.earlier.get(gate.versus or "", ())}
    if set(before) != {sample.id for sample in shown.samples} or not before:
        reason = f"{gate.versus} was not scored on the same items"
        return [_decide(gate, suite, gate.per or "all", Bounds(0, None, None, None, reason))]
    groups: dict[str, list[Sample]] = {}
    for sample in shown.samples:
        for name in slice_names(sample, [gate.per]) if gate.per else ["all"]:
            groups.setdefault(name, []).append(sample)
    verdicts = []
    for name, group in sorted(groups.items()):
        differences = [sample.score - before[sample.id].score for sample in group]
        part = Part(name, differences, [sample.unit for sample in group])
        if gate.per and len(group) < gate.min_n:
            verdicts.append(_skipped(gate, suite, part))
        else:
            verdicts.append(_decide(gate, suite, name, difference_bounds(part, gate.alpha, gate.beta)))
    return verdicts


def difference_bounds(part: Part, alpha: float, beta: float) -> Bounds:
    """Candidate minus baseline with Tango's one-sided bounds, on the effective sample where units repeat.

    `part.scores` are the differences, each -1, 0 or 1.
    """
    n, b, c = len(part.scores), part.scores.count(-1.0), part.scores.count(1.0)
    shrink = min(1.0, (paired_worth(part.scores, part.units, alpha) or 0.0) / n)
    # Rounded against the claim: a PASS must not come from rounding.
    fewest = max(1, math.floor(n * shrink))
    most_lost = min(math.ceil(b * shrink), fewest)  # rounded up, it could be more than there are
    low = paired_bounds(most_lost, min(math.floor(c * shrink), fewest - most_lost), fewest, alpha, beta)
    high = paired_bounds(
        math.floor(b * shrink), math.ceil(c * shrink), max(1, math.ceil(n * shrink)), alpha, beta
    )
    reason = f"{c} gained, {b} lost"
    return Bounds(
        n, (c - b) / n, low.low if low else None, high.high if high else None, reason, n * shrink, (b, c)
    )  # fmt: skip


def _edge_bounds(gate: Gate, shown: Evidence) -> Bounds:
    if gate.metric == "size_mb":
        if shown.size_bytes is None:
            return Bounds(0, None, None, None, "the file's size is unknown")
        size_mb = shown.size_bytes / 1e6
        return Bounds(1, size_mb, size_mb, size_mb, "the file's size, without error")
    values = shown.latencies_ms
    low, high = quantile_lower_bound(values, 0.95, gate.beta), quantile_upper_bound(values, 0.95, gate.alpha)
    reason = (
        "latency was not measured" if not values else "too few requests for a bound" if high is None else ""
    )
    return Bounds(len(values), quantile(values, 0.95), low, high, reason)


def _decide(gate: Gate, suite: str, slice_name: str, bounds: Bounds) -> RuleVerdict:
    threshold, wants_more = _threshold(gate)
    state = _state(gate, bounds, threshold, wants_more)
    needed = None
    if state is State.INCONCLUSIVE and bounds.score is not None and bounds.n:
        needed = _needed(gate, bounds, threshold)
    return RuleVerdict(
        rule=gate.name, suite=suite, metric=gate.metric, slice=slice_name, n=bounds.n, score=bounds.score,
        low=bounds.low, high=bounds.high, threshold=threshold, verdict=state,
        reason=_reason(state, bounds, threshold, wants_more), needed=needed,
    )  # fmt: skip


def _threshold(gate: Gate) -> tuple[float, bool]:
    """The number that the bound must reach, and whether more is better."""
    if gate.at_least is not None:
        return gate.at_least, True
    if gate.at_most is not None:
        return gate.at_most, False
    if gate.no_worse_than is not None:
        return -gate.no_worse_than, True
    return gate.better_than or 0.0, True


def _state(gate: Gate, bounds: Bounds, threshold: float, wants_more: bool) -> State:
    pass_bound, fail_bound = (bounds.low, bounds.high) if wants_more else (bounds.high, bounds.low)
    if bounds.score is None:
        return State.INCONCLUSIVE
    if pass_bound is not None and _reaches(gate, pass_bound, threshold, wants_more):
        return State.PASS
    if fail_bound is not None and (fail_bound < threshold if wants_more else fail_bound > threshold):
        return State.FAIL
    return State.INCONCLUSIVE


def _reaches(gate: Gate, bound: float, threshold: float, wants_more: bool) -> bool:
    if gate.better_than is not None:
        return bound > threshold
    return bound >= threshold if wants_more else bound <= threshold


def _reason(state: State, bounds: Bounds, threshold: float, wants_more: bool) -> str:
    if bounds.score is None:
        return bounds.reason or "no number"
    bound = bounds.low if (state is not State.FAIL) == wants_more else bounds.high
    name = "lower" if bound is bounds.low else "upper"
    relation = {State.PASS: "clears", State.FAIL: "misses"}.get(state, "does not clear")
    shown = f"{name} bound {bound:.4g}" if bound is not None else "no bound"
    more = f"; {bounds.reason}" if bounds.reason else ""
    return f"{shown} {relation} {threshold:.4g}{more}"


def _needed(gate: Gate, bounds: Bounds, threshold: float) -> int | None:
    """Items still missing if today's score stays; further items are taken to be worth what today's are."""
    if bounds.worth is None or bounds.score is None:
        return None
    worth_each = bounds.worth / bounds.n
    n = max(1, round(bounds.worth))
    if bounds.discordant is not None:
        b, c = (round(count * worth_each) for count in bounds.discordant)
        more = paired_items_needed(b, c, max(n, b + c), threshold, gate.alpha, gate.beta)
    else:
        more = items_needed(
            round(bounds.score * n),
            n,
            at_least=gate.at_least,
            at_most=gate.at_most,
            alpha=gate.alpha,
            beta=gate.beta,
        )
    return None if more is None else max(1, math.ceil(more / worth_each))


def _skipped(gate: Gate, suite: str, part: Part) -> RuleVerdict:
    n = len(part.scores)
    return RuleVerdict(
        rule=gate.name, suite=suite, metric=gate.metric, slice=part.name, n=n,
        score=math.fsum(part.scores) / n if n else None, low=None, high=None, threshold=_threshold(gate)[0],
        verdict=State.SKIPPED, reason=f"{n} items, fewer than min_n {gate.min_n}: reported, not judged",
    )  # fmt: skip
