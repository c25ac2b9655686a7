"""Rules on whether probabilities are right: over-confidence, Brier score, and the calibration error of many items."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.evals.calibrate import LEAST_PROBABILITY, confidence_of
from harness.evals.results import RuleVerdict, Sample, State
from harness.evals.rules.decide import Bounds, aim_of, decide, nothing
from harness.evals.rules.engine import Range, engine_bounds, range_of, unit_ratios
from harness.evals.rules.evidence import Evidence
from harness.specs.gate import Gate
from harness.stats.f1 import Ratio

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Bools = NDArray[np.bool_]

WORST_BRIER = 2.0
"""What an error scores: as far from the truth as probabilities can be."""
BRIER_PRIOR = 0.01
FEWEST_FOR_ECE = 2000
CHANCE_DRAWS = 400


def judge_confidence_gap(gate: Gate, suite: str, shown: Evidence) -> list[RuleVerdict]:
    """PASS when mean confidence minus accuracy is shown to lie within ± `within`, FAIL when beyond."""
    assert gate.within is not None
    if (temperature := _temperature(gate, shown)) is None:
        return [decide(gate, suite, "all", nothing(_no_temperature(shown)))]
    answered = [sample for sample in shown.samples if sample.error is None]
    sure = [_confidence(sample, temperature) for sample in answered]
    known = [value for value in sure if value is not None]
    if len(known) < len(sure) or not known:
        why = f"{len(sure) - len(known)} of {len(sure)} answers have no confidence"
        return [decide(gate, suite, "all", nothing(why))]
    gaps = [Ratio(value - sample.score, 1.0) for value, sample in zip(known, answered, strict=True)]
    by_unit = unit_ratios(gaps, [sample.unit for sample in answered], gate.order_seed)
    return [_gap_verdict(gate, suite, by_unit, len(gaps), _facts(known, answered))]


def _gap_verdict(gate: Gate, suite: str, units: Sequence[Ratio], items: int, facts: str) -> RuleVerdict:
    within, cap = range_of(units, -1.0, 1.0), gate.within or 0.0
    inside = engine_bounds(units, within, gate.alpha, gate.alpha, low_at=-cap, high_at=cap, items=items)
    outside = engine_bounds(units, within, gate.beta, gate.beta, low_at=cap, high_at=-cap, items=items)
    state = State.INCONCLUSIVE
    if inside.low is not None and inside.high is not None and inside.low >= -cap and inside.high <= cap:
        state = State.PASS
    elif (outside.low is not None and outside.low > cap) or (
        outside.high is not None and outside.high < -cap
    ):
        state = State.FAIL
    word = {State.PASS: "within", State.FAIL: "beyond"}.get(state, "not shown within")
    reason = f"confidence minus accuracy {inside.score or 0.0:+.4f} is {word} ±{cap:g}; {facts}"
    return RuleVerdict(
        rule=gate.name, suite=suite, metric=gate.metric, slice="all", n=items, score=inside.score, low=inside.low,
        high=inside.high, threshold=cap, verdict=state, reason=reason,
        needed=inside.needed() if state is State.INCONCLUSIVE else None,
    )  # fmt: skip


def judge_brier(gate: Gate, suite: str, shown: Evidence) -> list[RuleVerdict]:
    """The Brier score under a cap, or no worse than an earlier stage's on the same items."""
    if (temperature := _temperature(gate, shown)) is None:
        return [decide(gate, suite, "all", nothing(_no_temperature(shown)))]
    bounds = (
        _brier_versus(gate, shown, temperature) if gate.versus else _brier_alone(gate, shown, temperature)
    )
    return [decide(gate, suite, "all", bounds)]


def brier_of(sample: Sample, temperature: float = 1.0) -> float | None:
    """Squared distance of the probabilities from the truth, 0 to 2, all right labels taken as one; None without.

    An error counts as the worst.
    """
    if sample.error is not None:
        return WORST_BRIER
    if not sample.label_probs:
        return None
    probs = _tempered(sample.label_probs, temperature)
    right = math.fsum(p for label, p in probs.items() if label in sample.gold)
    return (1.0 - right) ** 2 + math.fsum(p * p for label, p in probs.items() if label not in sample.gold)


def _brier_alone(gate: Gate, shown: Evidence, temperature: float) -> Bounds:
    found = [brier_of(sample, temperature) for sample in shown.samples]
    known = [value for value in found if value is not None]
    if len(known) < len(found) or not known:
        return nothing("not every answer has label probabilities", len(found))
    by_unit = unit_ratios([Ratio(v, 1.0) for v in known], [s.unit for s in shown.samples], gate.order_seed)
    return _bounds(gate, by_unit, range_of(by_unit, 0.0, WORST_BRIER), len(known))


def _brier_versus(gate: Gate, shown: Evidence, temperature: float) -> Bounds:
    """Baseline minus candidate, so that more is better. The baseline keeps its own probabilities."""
    before = {sample.id: sample for sample in shown.earlier.get(gate.versus or "", ())}
    if set(before) != {sample.id for sample in shown.samples} or not before:
        return nothing(f"{gate.versus} was not scored on the same items")
    pairs = [(brier_of(before[sample.id]), brier_of(sample, temperature)) for sample in shown.samples]
    gains = [then - now for then, now in pairs if then is not None and now is not None]
    if len(gains) < len(pairs):
        return nothing("not every answer has label probabilities", len(pairs))
    by_unit = unit_ratios([Ratio(v, 1.0) for v in gains], [s.unit for s in shown.samples], gate.order_seed)
    within = range_of(by_unit, -WORST_BRIER, WORST_BRIER)
    return _bounds(gate, by_unit, within._replace(prior_variance=BRIER_PRIOR * within.shrink), len(gains))


def _bounds(gate: Gate, units: Sequence[Ratio], within: Range, items: int) -> Bounds:
    aim = aim_of(gate)
    return engine_bounds(
        units, within, *aim.errors, low_at=aim.threshold, high_at=aim.threshold, items=items,
        reason=f"betting test on {len(units)} units",
    )  # fmt: skip


def judge_ece(gate: Gate, suite: str, shown: Evidence) -> list[RuleVerdict]:
    """The expected calibration error, beside what a perfect model would show; not judged on few items.

    Its bounds add and take away what chance alone shows once in 20 times: by the triangle inequality over the bins
    no more than that lies between the error seen and the true one.
    """
    import numpy as np

    from harness.stats.calibration import expected_calibration_error

    if (temperature := _temperature(gate, shown)) is None:
        return [decide(gate, suite, "all", nothing(_no_temperature(shown)))]
    pairs = [(_confidence(sample, temperature), sample.score == 1.0) for sample in shown.samples]
    known = [(value, right) for value, right in pairs if value is not None]
    sure, right = np.array([v for v, _ in known], float), np.array([r for _, r in known], bool)
    found = expected_calibration_error(sure, right, draws=CHANCE_DRAWS)
    if found is None:
        return [decide(gate, suite, "all", nothing("no answer has a confidence"))]
    said = f"a perfect model shows {found.chance:.4f} on as many items"
    if len(known) < FEWEST_FOR_ECE:
        why = f"expected calibration error {found.error:.4f}, where {said}: never judged under {FEWEST_FOR_ECE} items"
        return [decide(gate, suite, "all", nothing(why, len(known)))]
    low, high = max(0.0, found.error - found.chance_high), found.error + found.chance_high
    return [decide(gate, suite, "all", Bounds(len(known), found.error, low, high, said))]


def _facts(confidence: Sequence[float], answered: Sequence[Sample]) -> str:
    """Spiegelhalter's test and the calibration error, to be read and not judged."""
    import numpy as np

    from harness.stats.calibration import expected_calibration_error, spiegelhalter

    sure, right = np.array(confidence, float), np.array([sample.score == 1.0 for sample in answered], bool)
    test, error = spiegelhalter(sure, right), expected_calibration_error(sure, right, draws=CHANCE_DRAWS)
    said = f"Spiegelhalter p {test.p:.3g}" if test is not None else "no Spiegelhalter test"
    if error is None:
        return said
    return f"{said}, calibration error {error.error:.3f} where chance shows {error.chance:.3f}"


def _temperature(gate: Gate, shown: Evidence) -> float | None:
    """1 for probabilities as they are; None where a calibrated rule has no temperature."""
    if not gate.calibrated:
        return 1.0
    return shown.calibration.temperature if shown.calibration is not None else None


def _no_temperature(shown: Evidence) -> str:
    known = shown.calibration.reasons.get("temperature") if shown.calibration is not None else None
    return f"no temperature: {known or 'the calibration split was not scored'}"


def _confidence(sample: Sample, temperature: float) -> float | None:
    sure = confidence_of(sample)
    if temperature == 1.0 or sure is None:
        return sure
    return max(_tempered(sample.label_probs, temperature).values()) if sample.label_probs else None


def _tempered(probs: dict[str, float], temperature: float) -> dict[str, float]:
    if temperature == 1.0:
        return probs
    logs = {label: math.log(max(p, LEAST_PROBABILITY)) / temperature for label, p in probs.items()}
    top = max(logs.values())
    weights = {label: math.exp(value - top) for label, value in logs.items()}
    total = math.fsum(weights.values())
    return {label: weight / total for label, weight in weights.items()}
