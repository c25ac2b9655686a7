"""A run's numbers, per slice, label, scorer and confidence, with intervals for display."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.evals.confidence import PROBABILITIES
from harness.evals.results import Reading, Sample, Scorecard
from harness.evals.rules.consistency import consistency_items
from harness.evals.run import NOISE_FILE, slice_names
from harness.files import read_json
from harness.scoring.counts import add_counts, macro_f1, micro, rates
from harness.stats.proportions import wilson

NORMAL_975 = 1.959964
ECE_DRAWS = 200
"""How often chance is drawn for the expected calibration error of a perfect model."""
CONFUSED_CHARS = 200
"""Of a gold or an answer that stands among the confusions."""


def make_scorecard(
    suite: str,
    stage: str,
    identity: str,
    samples: Sequence[Sample],
    *,
    slices: Sequence[str],
    is_labelled: bool,
    noise: Mapping[str, Any] | None = None,
) -> Scorecard:
    """The scorecard of a stage's samples on one suite.

    Intervals are 95 %, two-sided and for the eye: Wilson's for rates, normal ones for other means. The gate
    computes its own. `noise` is what `read_noise` gives.
    """
    readings = [
        _mean("accuracy", "all", [sample.score for sample in samples]),
        *_slice_readings(samples, slices),
        *_scorer_readings(samples),
        *(_label_readings(samples) if is_labelled else _count_readings(samples)),
        *_weight_readings(samples),
        *_confidence_readings(samples),
        *(_mean("consistency", name, kept) for name, kept in sorted(consistency_items(samples).items())),
        *_error_readings(samples),
    ]
    return Scorecard(
        suite=suite, stage=stage, identity=identity, n=len(samples),
        n_errors=sum(sample.error is not None for sample in samples),
        n_truncated=sum(sample.is_truncated for sample in samples),
        readings=tuple(readings), confusions=_confusions(samples), noise=dict(noise) if noise else None,
    )  # fmt: skip


def read_noise(folder: Path) -> dict[str, Any] | None:
    """The noise floor that was measured for a stage and suite, whose folder this is; None where none was."""
    path = folder / NOISE_FILE
    return dict(read_json(path)) if path.exists() else None


def find_reading(card: Scorecard, metric: str, slice_name: str = "all") -> Reading | None:
    """The card's reading of that name; None where it has none."""
    return next((r for r in card.readings if r.metric == metric and r.slice == slice_name), None)


def _slice_readings(samples: Sequence[Sample], slices: Sequence[str]) -> list[Reading]:
    scores: dict[str, list[float]] = {}
    for sample in samples:
        for name in slice_names(sample, slices):
            scores.setdefault(name, []).append(sample.score)
    return [_mean("accuracy", name, scores[name]) for name in sorted(scores)]


def _scorer_readings(samples: Sequence[Sample]) -> list[Reading]:
    """The mean of each scorer, where there are several."""
    names = list(dict.fromkeys(name for sample in samples for name in sample.scores))
    if len(names) < 2:
        return []
    return [
        _mean(f"score {name}", "all", [sample.scores.get(name, 0.0) for sample in samples]) for name in names
    ]


def _label_readings(samples: Sequence[Sample]) -> list[Reading]:
    """Precision and recall of each label: a record with several gold labels counts in the recall of each."""
    readings = []
    answers = {sample.answer for sample in samples if sample.answer is not None}
    for label in sorted(answers | {gold for sample in samples for gold in sample.gold}):
        said = [float(label in sample.gold) for sample in samples if sample.answer == label]
        meant = [float(sample.answer == label) for sample in samples if label in sample.gold]
        readings.append(_mean("precision", f"label={label}", said))
        readings.append(_mean("recall", f"label={label}", meant))
    return readings


def _count_readings(samples: Sequence[Sample]) -> Iterator[Reading]:
    """Precision, recall and F1 by label or field, and F1 over all: from counts, where answers hold parts."""
    counts = add_counts(sample.counts for sample in samples)
    for key in sorted(counts):
        tp, fp, fn = counts[key]
        yield _rate("precision", f"label={key}", tp, tp + fp)
        yield _rate("recall", f"label={key}", tp, tp + fn)
        yield Reading("f1", f"label={key}", tp + fp + fn, None, rates(counts[key]).f1, None, None)
    if counts:
        n = sum(map(sum, counts.values()))
        yield Reading("micro_f1", "all", n, None, micro(counts).f1, None, None)
        yield Reading("macro_f1", "all", len(counts), None, macro_f1(counts), None, None)


def _weight_readings(samples: Sequence[Sample]) -> Iterator[Reading]:
    """Perplexity of a token and bits a byte over the whole corpus, each token and byte counting alike."""
    weighed = [
        s.parsed
        for s in samples
        if isinstance(s.parsed, dict) and {"logprob", "tok", "bytes"} <= s.parsed.keys()
    ]
    tok, size = sum(one["tok"] for one in weighed), sum(one["bytes"] for one in weighed)
    if not tok or not size:
        return
    nats = -math.fsum(one["logprob"] for one in weighed)
    yield Reading("token_perplexity", "all", tok, None, math.exp(min(nats / tok, 700.0)), None, None)
    yield Reading("bits_per_byte", "all", size, None, nats / math.log(2.0) / size, None, None)


def _confidence_readings(samples: Sequence[Sample]) -> Iterator[Reading]:
    """How well each confidence tells right from wrong, and whether it is as often right as it says."""
    found: dict[str, list[tuple[float, bool]]] = {}
    for sample in samples:
        own = {} if sample.confidence is None else {"confidence": sample.confidence}
        for name, value in {**own, **sample.confidences}.items():
            found.setdefault(name, []).append((value, sample.score == 1.0))
    for name in sorted(found):
        yield from _one_confidence(name, found[name])


def _one_confidence(name: str, pairs: Sequence[tuple[float, bool]]) -> Iterator[Reading]:
    import numpy as np

    from harness.stats.calibration import expected_calibration_error
    from harness.stats.discrimination import auroc

    values, is_right = np.array([v for v, _ in pairs]), np.array([right for _, right in pairs])
    area = auroc(-values if name == "semantic_entropy" else values, is_right)
    if area is not None:
        yield Reading("auroc", f"confidence={name}", len(pairs), None, area.area, area.low, area.high)
    if name not in PROBABILITIES:
        return
    ece = expected_calibration_error(values.clip(0.0, 1.0), is_right, draws=ECE_DRAWS)
    if ece is not None:
        yield Reading("ece", f"confidence={name}", len(pairs), None, ece.error, None, None)
        yield Reading(
            "ece_by_chance", f"confidence={name}", len(pairs), None, ece.chance, None, ece.chance_high
        )


def _error_readings(samples: Sequence[Sample]) -> Iterator[Reading]:
    """Errors, cut texts, and how wrong answers are wrong."""
    yield _mean("error_rate", "all", [float(sample.error is not None) for sample in samples])
    yield _mean("truncated_rate", "all", [float(sample.is_truncated) for sample in samples])
    classes = Counter(sample.error_class for sample in samples if sample.error_class is not None)
    for name in sorted(classes):
        yield _rate("error_class", f"class={name}", classes[name], len(samples))


def _mean(metric: str, slice_name: str, scores: Sequence[float]) -> Reading:
    """The mean of scores; a rate where each is 0 or 1."""
    n, total = len(scores), math.fsum(scores)
    if all(score in (0.0, 1.0) for score in scores):
        return _rate(metric, slice_name, round(total), n)
    mean = total / n
    if n < 2:
        return Reading(metric, slice_name, n, None, mean, None, None)
    spread = math.sqrt(math.fsum((score - mean) ** 2 for score in scores) / (n - 1) / n) * NORMAL_975
    return Reading(metric, slice_name, n, None, mean, max(0.0, mean - spread), min(1.0, mean + spread))


def _rate(metric: str, slice_name: str, hits: int, n: int) -> Reading:
    if not n:
        return Reading(metric, slice_name, 0, None, None, None, None)
    interval = wilson(hits, n)
    low, high = (interval.low, interval.high) if interval else (None, None)
    return Reading(metric, slice_name, n, hits, hits / n, low, high)


def _confusions(samples: Sequence[Sample], most: int = 20) -> tuple[tuple[str, str, int], ...]:
    wrong = Counter(
        (
            "+".join(sample.gold)[:CONFUSED_CHARS],
            sample.answer[:CONFUSED_CHARS] if sample.answer is not None else "(none)",
        )
        for sample in samples
        if sample.score < 1.0
    )
    ranked = sorted(wrong.items(), key=lambda item: (-item[1], item[0]))
    return tuple((gold, answer, count) for (gold, answer), count in ranked[:most])
