"""Rules on means and rates: accuracy, other scores, errors, truncations, precision, recall and F1.

Scores of 0 and 1 have exact bounds, on the effective sample where units repeat. Everything else that is bounded
(partial credit, several parts in one answer) goes through the betting test on units.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import partial
from typing import NamedTuple

from harness.data.slices import crossed_names
from harness.evals.results import RuleVerdict, Sample
from harness.evals.rules.decide import (
    Bounds,
    Compared,
    Measure,
    aim_of,
    decide,
    judge_parts,
    nothing,
    skipped,
)
from harness.evals.rules.engine import engine_bounds, range_of, unit_ratios
from harness.evals.rules.evidence import Evidence, noise_floor, score_of
from harness.specs.gate import COUNTED_METRICS, Gate
from harness.stats.f1 import (
    Confusion,
    Ratio,
    f1_ratio,
    overlap_count,
    overlap_to_f1,
    precision_ratio,
    recall_ratio,
)
from harness.stats.power import items_needed
from harness.stats.survey import effective_lower, effective_sample, effective_upper

RATIOS = {"precision": precision_ratio, "recall": recall_ratio, "f1": f1_ratio}
NOISY_METRICS = ("accuracy", "score")
"""Rules whose threshold is moved by the noise floor."""


class Part(NamedTuple):
    """One slice of a stage's items, as scores of what the rule measures."""

    name: str
    scores: list[float]
    units: list[str]


class CountedPart(NamedTuple):
    """One slice or label of a stage's items, as counts."""

    name: str
    counts: list[Confusion]
    units: list[str]


def judge_rate(gate: Gate, suite: str, shown: Evidence) -> list[RuleVerdict]:
    """The rule's verdict on each of its slices or labels."""
    if gate.average == "macro":
        from harness.evals.rules.macro import judge_macro

        return judge_macro(gate, suite, counted_parts(gate, shown.samples), len(shown.samples))
    noise = noise_floor(shown) if gate.metric in NOISY_METRICS else 0.0
    sized = _measures(gate, shown.samples, aim_of(gate).compared(noise))
    if not sized:
        missing = (
            f"{gate.metric} per {gate.per_words}: no item has it" if gate.per else "no items were scored"
        )
        return [decide(gate, suite, gate.per_words or "all", nothing(missing))]
    judged = {name: measure for name, (n, measure) in sized.items() if not gate.per or n >= gate.min_n}
    verdicts = {rule.slice: rule for rule in judge_parts(gate, suite, judged, aim=aim_of(gate), noise=noise)}
    for name, (n, measure) in sized.items():
        if name not in judged:
            verdicts[name] = skipped(gate, suite, name, n, measure(gate.alpha, gate.beta).score)
    absent = [decide(gate, suite, name, nothing("no item has it")) for name in _absent(gate, sized)]
    return [*(verdicts[name] for name in sized), *absent]


def _absent(gate: Gate, found: Iterable[str]) -> list[str]:
    """The slices that the rule names and no item is in: nothing is known of them, and they must not look well."""
    wanted = [f"{key}={value}" for key in gate.slice_keys for value in gate.only]
    return sorted(set(wanted) - set(found))


def _measures(gate: Gate, samples: Sequence[Sample], at: Compared) -> dict[str, tuple[int, Measure]]:
    """Items and measure of each part that the rule judges, by name."""
    if gate.metric in COUNTED_METRICS:
        counted = [
            (counted_n(gate, part), part)
            for part in counted_parts(gate, samples)
            if gate.holds_for(part.name)
        ]
        return {part.name: (n, partial(counted_bounds, gate, part, at=at)) for n, part in counted if n}
    parts = [part for part in score_parts(gate, samples) if gate.holds_for(part.name)]
    return {part.name: (len(part.scores), partial(score_bounds, gate, part, at=at)) for part in parts}


def score_parts(gate: Gate, samples: Sequence[Sample]) -> list[Part]:
    """The rule's items: all of them, or one part a slice value, by name. What a scorer left out is NaN."""
    parts: dict[str, Part] = {}
    for sample in samples:
        score = score_of(gate, sample)
        for name in crossed_names(sample.slices, gate.slice_keys):
            part = parts.setdefault(name, Part(name, [], []))
            part.scores.append(math.nan if score is None else score)
            part.units.append(sample.unit)
    return [parts[name] for name in sorted(parts)]


def score_bounds(
    gate: Gate, part: Part, low_error: float, high_error: float, *, at: Compared | None = None
) -> Bounds:
    """Bounds of the part's mean: exact for scores of 0 and 1, by the betting test for others from 0 to 1."""
    if not all(math.isfinite(score) for score in part.scores):
        what = f"scorer {gate.score!r} left no score" if gate.score else "a score is not a number"
        return nothing(what, len(part.scores))
    if all(score in (0.0, 1.0) for score in part.scores):
        return _with_items(gate, rate_bounds(part.scores, part.units, low_error, high_error), part)
    if not all(0.0 <= score <= 1.0 for score in part.scores):
        return nothing("a score is not from 0 to 1", len(part.scores))
    if len(set(part.scores)) == 1:  # a scorer that says the same of every answer has read none of them
        return Bounds(
            len(part.scores), part.scores[0], None, None, "all scores are the same: they prove nothing"
        )
    ratios = [Ratio(score, 1.0) for score in part.scores]
    return _engine(gate, ratios, part.units, low_error, high_error, at)


def rate_bounds(scores: Sequence[float], units: Sequence[str], low_error: float, high_error: float) -> Bounds:
    """A rate with Clopper-Pearson's one-sided bounds, on the effective sample where units repeat.

    `scores` are 0 and 1, one an item, shape (n,).
    """
    low_sample = effective_sample(scores, units, low_error)
    high_sample = effective_sample(scores, units, high_error)
    if low_sample is None or high_sample is None:
        return nothing("no items")
    low, high = effective_lower(low_sample, low_error), effective_upper(high_sample, high_error)
    clustered = low_sample.clusters < len(scores)
    reason = f"worth {low_sample.n:.0f} independent items in {low_sample.clusters} units" if clustered else ""
    return Bounds(len(scores), math.fsum(scores) / len(scores), low, high, reason, worth=low_sample.n)


def counted_parts(gate: Gate, samples: Sequence[Sample]) -> list[CountedPart]:
    """Counts item by item: a part a label, a part a slice value, or one for all."""
    parts: dict[str, CountedPart] = {}
    by_label = gate.is_label_rule or gate.average == "macro"
    for sample in samples:
        for name, cells in _named_counts(gate, sample, by_label):
            part = parts.setdefault(name, CountedPart(name, [], []))
            part.counts.append(cells)
            part.units.append(sample.unit)
    return [parts[name] for name in sorted(parts)]


def label_counts(sample: Sample) -> dict[str, Confusion]:
    """The sample's counts by label: its own where it has them, else from answer and gold."""
    if sample.counts:
        return {label: Confusion(*cells) for label, cells in sample.counts.items()}
    found = {label: Confusion(*((1, 0, 0) if sample.answer == label else (0, 0, 1))) for label in sample.gold}
    if sample.answer is not None and sample.answer not in sample.gold:
        found[sample.answer] = Confusion(0, 1, 0)
    return found


def overall_counts(sample: Sample) -> Confusion:
    """The sample's counts over all labels. One answer of which any gold is right is one part."""
    if sample.counts:
        return Confusion(*(sum(cells[k] for cells in sample.counts.values()) for k in range(3)))
    if sample.answer is not None and sample.answer in sample.gold:
        return Confusion(1, 0, 0)
    return Confusion(0, int(sample.answer is not None), 1)


def counted_n(gate: Gate, part: CountedPart) -> int:
    """Items that the metric's denominator counts."""
    return sum(RATIOS[gate.metric](cells).denominator > 0 for cells in part.counts)


def counted_bounds(
    gate: Gate, part: CountedPart, low_error: float, high_error: float, *, at: Compared | None = None
) -> Bounds:
    """Bounds of precision, recall or F1: exact where an item counts once, by the betting test elsewhere."""
    if gate.metric == "f1" and all(overlap_count(cells).n <= 1 for cells in part.counts):
        return _exact_f1(part, low_error, high_error)
    ratios = [RATIOS[gate.metric](cells) for cells in part.counts]
    counted = [(ratio, unit) for ratio, unit in zip(ratios, part.units, strict=True) if ratio.denominator > 0]
    if not counted:
        return nothing(f"no item counts for {gate.metric}")
    units = [unit for _, unit in counted]
    if _is_plain([ratio for ratio, _ in counted]):
        scores = [ratio.numerator / ratio.denominator for ratio, _ in counted]
        plain = Part(part.name, scores, units)
        return _with_items(gate, rate_bounds(scores, units, low_error, high_error), plain)
    return _engine(gate, [ratio for ratio, _ in counted], units, low_error, high_error, at)


def _named_counts(gate: Gate, sample: Sample, by_label: bool) -> list[tuple[str, Confusion]]:
    if by_label:
        return [(f"label={label}", cells) for label, cells in label_counts(sample).items()]
    return [(name, overall_counts(sample)) for name in crossed_names(sample.slices, gate.slice_keys)]


def _is_plain(ratios: Sequence[Ratio]) -> bool:
    """Whether each item counts the same and is all right or all wrong: then it is a rate."""
    sizes = {ratio.denominator for ratio in ratios}
    return len(sizes) == 1 and all(ratio.numerator in (0, ratio.denominator) for ratio in ratios)


def _exact_f1(part: CountedPart, low_error: float, high_error: float) -> Bounds:
    """By the rate q of true positives among the items that are not true negatives: F1 = 2q / (1 + q)."""
    counted = [
        (cells, unit) for cells, unit in zip(part.counts, part.units, strict=True) if overlap_count(cells).n
    ]
    if not counted:
        return nothing("no item counts for f1")
    hits = [float(cells.true_positives) for cells, _ in counted]
    found = rate_bounds(hits, [unit for _, unit in counted], low_error, high_error)
    assert found.score is not None
    assert found.low is not None
    assert found.high is not None
    return found._replace(
        score=overlap_to_f1(found.score), low=overlap_to_f1(found.low), high=overlap_to_f1(found.high)
    )


def _engine(
    gate: Gate,
    ratios: Sequence[Ratio],
    units: Sequence[str],
    low_error: float,
    high_error: float,
    at: Compared | None,
) -> Bounds:
    by_unit = unit_ratios(ratios, units, gate.order_seed)
    low_at, high_at = at if at is not None else (None, None)
    reason = "betting test" if len(by_unit) == len(ratios) else f"betting test on {len(by_unit)} units"
    return engine_bounds(
        by_unit, range_of(by_unit), low_error, high_error, low_at=low_at, high_at=high_at, items=len(ratios),
        reason=reason,
    )  # fmt: skip


def _with_items(gate: Gate, found: Bounds, part: Part) -> Bounds:
    """The bounds with a way to say how many more items are needed."""
    return found._replace(needed=partial(_rate_needed, gate, part)) if found.score is not None else found


def _rate_needed(gate: Gate, part: Part) -> int | None:
    """Items still missing if today's score stays; further items are taken to be worth what today's are."""
    worth = effective_sample(part.scores, part.units, gate.alpha)
    if worth is None or gate.bound is None:
        return None
    n = max(1, round(worth.n))
    more = items_needed(
        round(math.fsum(part.scores) / len(part.scores) * n), n, at_least=gate.at_least, at_most=gate.at_most,
        alpha=gate.alpha, beta=gate.beta,
    )  # fmt: skip
    return None if more is None else max(1, math.ceil(more * len(part.scores) / worth.n))
