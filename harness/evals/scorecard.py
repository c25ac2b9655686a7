"""A run's numbers, per slice and per label, with intervals for display."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from harness.evals.results import Reading, Sample, Scorecard
from harness.evals.run import slice_names
from harness.stats.proportions import wilson


def make_scorecard(
    suite: str,
    stage: str,
    identity: str,
    samples: Sequence[Sample],
    *,
    slices: Sequence[str],
    is_labelled: bool,
) -> Scorecard:
    """The scorecard of a stage's samples on one suite.

    Intervals are Wilson's, 95 %, two-sided: for the eye. The gate computes its own.
    """
    readings = [
        _rate("accuracy", "all", [sample.score for sample in samples]),
        *_slice_readings(samples, slices),
        *(_label_readings(samples) if is_labelled else ()),
        _rate("error_rate", "all", [float(sample.error is not None) for sample in samples]),
        _rate("truncated_rate", "all", [float(sample.is_truncated) for sample in samples]),
    ]
    return Scorecard(
        suite=suite, stage=stage, identity=identity, n=len(samples),
        n_errors=sum(sample.error is not None for sample in samples),
        n_truncated=sum(sample.is_truncated for sample in samples),
        readings=tuple(readings), confusions=_confusions(samples),
    )  # fmt: skip


def find_reading(card: Scorecard, metric: str, slice_name: str = "all") -> Reading | None:
    """The card's reading of that name; None where it has none."""
    return next((r for r in card.readings if r.metric == metric and r.slice == slice_name), None)


def _slice_readings(samples: Sequence[Sample], slices: Sequence[str]) -> list[Reading]:
    scores: dict[str, list[float]] = {}
    for sample in samples:
        for name in slice_names(sample, slices):
            scores.setdefault(name, []).append(sample.score)
    return [_rate("accuracy", name, scores[name]) for name in sorted(scores)]


def _label_readings(samples: Sequence[Sample]) -> list[Reading]:
    """Precision and recall of each label: a record with several gold labels counts in the recall of each."""
    readings = []
    answers = {sample.answer for sample in samples if sample.answer is not None}
    for label in sorted(answers | {gold for sample in samples for gold in sample.gold}):
        said = [float(label in sample.gold) for sample in samples if sample.answer == label]
        meant = [float(sample.answer == label) for sample in samples if label in sample.gold]
        readings.append(_rate("precision", f"label={label}", said))
        readings.append(_rate("recall", f"label={label}", meant))
    return readings


def _rate(metric: str, slice_name: str, values: Iterable[float]) -> Reading:
    scores = list(values)
    n, hits = len(scores), round(sum(scores))
    if not n:
        return Reading(metric, slice_name, 0, None, None, None, None)
    interval = wilson(hits, n)
    low, high = (interval.low, interval.high) if interval else (None, None)
    return Reading(metric, slice_name, n, hits, hits / n, low, high)


def _confusions(samples: Sequence[Sample], most: int = 20) -> tuple[tuple[str, str, int], ...]:
    wrong = Counter(
        ("+".join(sample.gold), sample.answer if sample.answer is not None else "(none)")
        for sample in samples
        if sample.score < 1.0
    )
    ranked = sorted(wrong.items(), key=lambda item: (-item[1], item[0]))
    return tuple((gold, answer, count) for (gold, answer), count in ranked[:most])
