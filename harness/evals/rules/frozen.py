"""Rules on a suite whose own records are all that is meant: `population: frozen`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from harness.data.slices import crossed_names
from harness.evals.frozen import frozen_lower, frozen_upper
from harness.evals.results import RuleVerdict, Sample
from harness.evals.rules.decide import Bounds, aim_of, judge_parts, nothing, skipped
from harness.evals.rules.evidence import Evidence, Planned, noise_floor, score_of
from harness.specs.gate import Gate


def judge_frozen(gate: Gate, suite: str, shown: Evidence) -> list[RuleVerdict]:
    """The rule's verdict on each of its slices, about the suite's own records and no others."""
    whole = _sizes(gate, shown.population)
    scores = _scores(gate, shown.samples)
    noise = noise_floor(shown) if gate.metric == "accuracy" else 0.0
    judged = {
        name: found for name, found in scores.items() if not gate.per or whole.get(name, 0) >= gate.min_n
    }
    verdicts = judge_parts(
        gate, suite, {name: _Measure(found, whole.get(name, 0)) for name, found in judged.items()},
        aim=aim_of(gate), noise=noise,
    )  # fmt: skip
    left = [
        skipped(gate, suite, name, len(found), math.fsum(found) / len(found))
        for name, found in scores.items() if name not in judged
    ]  # fmt: skip
    return [*verdicts, *left]


class _Measure:
    """The bounds of one slice's share, by drawing without replacement."""

    def __init__(self, scores: Sequence[float], population: int) -> None:
        self._scores, self._population = scores, population

    def __call__(self, low_error: float, high_error: float) -> Bounds:
        n, whole = len(self._scores), self._population
        if n > whole:
            return nothing("the suite's records are not known as a whole", n)
        if not all(math.isfinite(score) for score in self._scores):
            return nothing("a score is not a number", n)
        score = math.fsum(self._scores) / n
        if n == whole:
            return Bounds(n, score, score, score, f"all {n} records of the suite: no sampling error")
        if not set(self._scores) <= {0.0, 1.0}:
            return nothing("partial credit on a part of the records has no exact bound: score all of them", n)
        hits = round(math.fsum(self._scores))
        low, high = frozen_lower(hits, n, whole, low_error), frozen_upper(hits, n, whole, high_error)
        return Bounds(n, score, low, high, f"{n} of the suite's {whole} records", worth=float(n))


def _scores(gate: Gate, samples: Sequence[Sample]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for sample in samples:
        for name in _names(gate, sample.gold, sample.slices):
            score = (
                float(sample.answer == name.removeprefix("label="))
                if gate.is_label_rule
                else score_of(gate, sample)
            )
            found.setdefault(name, []).append(math.nan if score is None else score)
    return dict(sorted(found.items()))


def _sizes(gate: Gate, records: Iterable[Planned]) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for record in records:
        for name in _names(gate, record.gold, record.slices):
            sizes[name] = sizes.get(name, 0) + 1
    return sizes


def _names(gate: Gate, gold: Sequence[str], slices: Mapping[str, str | list[str]]) -> list[str]:
    return (
        [f"label={label}" for label in gold] if gate.is_label_rule else crossed_names(slices, gate.slice_keys)
    )
