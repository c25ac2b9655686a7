"""What the calibration split gives: a temperature, thresholds for prediction sets, and from when on to answer.

Fitted on items that no rule is judged on; used by the rules `coverage` and `abstention`, and by whoever serves the
model. A number that could not be had is None, and `reasons` says why.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from harness.data.slices import crossed_names
from harness.errors import DataError
from harness.evals.results import Sample
from harness.evals.rules.evidence import Planned
from harness.files import digest_json
from harness.specs.gate import CALIBRATED_METRICS, Gate
from harness.stats.conformal import (
    GroupThreshold,
    abstention_threshold,
    conformal_threshold,
    group_thresholds,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

FORMAT = 1
FEWEST_FOR_TEMPERATURE = 30
LEAST_PROBABILITY = 1e-12


@dataclass(frozen=True, slots=True)
class CoverageFit:
    """Thresholds of prediction sets made for one target coverage."""

    target: float
    per: tuple[str, ...]
    """Slice keys whose values have a threshold of their own; empty for one threshold."""
    pooled: GroupThreshold
    groups: dict[str, GroupThreshold] = field(default_factory=dict)

    def threshold(self, group: str) -> GroupThreshold:
        """The group's threshold; the pooled one, without a promise, for a group that calibration never saw."""
        if not self.per:
            return self.pooled
        return self.groups.get(group, GroupThreshold(self.pooled.threshold, 0, True))


@dataclass(frozen=True, slots=True)
class AbstentionFit:
    """From which confidence on answers are right often enough."""

    precision: float
    confidence: str | None
    """The confidence by name; None for the answer's own probability."""
    found: bool
    """Whether any threshold was proved on the calibration split."""
    threshold: float | None
    """Answer where the confidence is greater than this; None answers everything, where `found`."""
    coverage: float | None
    """Share of the calibration items that is answered."""
    p: float | None


@dataclass(frozen=True, slots=True)
class Calibration:
    """All that one stage's calibration split gave on one suite."""

    suite: str
    n: int
    units: int
    items: str
    """Digest of the items' ids."""
    temperature: float | None
    coverage: tuple[CoverageFit, ...] = ()
    abstention: tuple[AbstentionFit, ...] = ()
    tests: dict[str, float | None] = field(default_factory=dict)
    """P-values of "the confidences are right" on the calibration split: Kolmogorov-Smirnov and Kuiper."""
    reasons: dict[str, str] = field(default_factory=dict)
    """Why a number is None, by its name."""

    def coverage_for(self, gate: Gate) -> CoverageFit | None:
        """The thresholds for the rule's sets; None where none were fitted."""
        keys = gate.slice_keys
        return next((fit for fit in self.coverage if fit.target == gate.target and fit.per == keys), None)

    def abstention_for(self, gate: Gate) -> AbstentionFit | None:
        """The threshold for the rule's answers; None where none was looked for."""
        wanted = (gate.precision, gate.confidence)
        return next((fit for fit in self.abstention if (fit.precision, fit.confidence) == wanted), None)

    def to_json(self) -> dict[str, Any]:
        """The content of `calibration.json`; an infinite threshold, of sets that hold every label, is null."""
        return {
            "format": FORMAT, "suite": self.suite, "n": self.n, "units": self.units, "items": self.items,
            "temperature": self.temperature, "tests": self.tests, "reasons": self.reasons,
            "coverage": [_coverage_json(fit) for fit in self.coverage],
            "abstention": [
                {name: getattr(fit, name) for name in AbstentionFit.__dataclass_fields__} for fit in self.abstention
            ],
        }  # fmt: skip

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Calibration:
        return cls(
            suite=data["suite"], n=data["n"], units=data["units"], items=data["items"],
            temperature=data["temperature"], tests=dict(data["tests"]), reasons=dict(data["reasons"]),
            coverage=tuple(
                CoverageFit(
                    fit["target"], tuple(fit["per"]), _threshold(fit["pooled"]),
                    {name: _threshold(group) for name, group in fit["groups"].items()},
                )
                for fit in data["coverage"]
            ),
            abstention=tuple(AbstentionFit(**fit) for fit in data["abstention"]),
        )  # fmt: skip


def needs_calibration(gates: Iterable[Gate]) -> bool:
    """Whether a rule can't be judged without the calibration split."""
    return any(gate.metric in CALIBRATED_METRICS or gate.calibrated for gate in gates)


def fit_calibration(
    samples: Sequence[Sample], gates: Sequence[Gate], *, suite: str, judged: Iterable[Planned]
) -> Calibration:
    """What these samples of the calibration split give for the rules.

    `judged` are the items of the gate's own split.

    Raises:
        DataError: an item or a unit of the calibration split is also one that the gate judges.
    """
    _require_apart(samples, suite, judged)
    temperature, reasons = fit_temperature_of(samples)
    tests, why = _tests(samples)
    wanted = {(g.target, g.slice_keys) for g in gates if g.metric == "coverage" and g.target is not None}
    fits = tuple(_fit_coverage(samples, target, keys) for target, keys in sorted(wanted))
    asked = {(g.precision, g.confidence or "", g.alpha) for g in gates if g.precision is not None}
    abstentions = tuple(_fit_abstention(samples, p, name or None, alpha) for p, name, alpha in sorted(asked))
    for fit in abstentions:
        if not fit.found:
            reasons[f"abstention {fit.precision:g}"] = _no_abstention(samples, fit)
    return Calibration(
        suite, len(samples), len({sample.unit for sample in samples}),
        digest_json(sorted(sample.id for sample in samples)), temperature, fits, abstentions, tests,
        {**reasons, **why},
    )  # fmt: skip


def label_table(samples: Sequence[Sample]) -> tuple[Floats, Ints] | None:
    """Probabilities of the labels, shape (n, labels), and the column of the likeliest right one, shape (n,).

    None where an item has no probabilities, other labels, or no right label among them.
    """
    import numpy as np

    if not samples or not samples[0].label_probs:
        return None
    labels = sorted(samples[0].label_probs)
    rows, gold = [], []
    for sample in samples:
        probs = sample.label_probs or {}
        right = [label for label in sample.gold if label in probs]
        if sorted(probs) != labels or not right:
            return None
        rows.append([probs[label] for label in labels])
        gold.append(labels.index(max(right, key=lambda label: probs[label])))
    return np.array(rows, float), np.array(gold, np.int64)


def right_probability(sample: Sample) -> float | None:
    """The probability of the likeliest right label; None after an error, or without probabilities."""
    probs = sample.label_probs
    if sample.error is not None or not probs:
        return None
    return max((probs[label] for label in sample.gold if label in probs), default=0.0)


def confidence_of(sample: Sample, name: str | None = None) -> float | None:
    """How sure the model is of its answer; None after an error or where nothing says."""
    if sample.error is not None:
        return None
    return sample.confidence if name is None else sample.confidences.get(name)


def fit_temperature_of(samples: Sequence[Sample]) -> tuple[float | None, dict[str, str]]:
    """The temperature with the least log loss, or None and why."""
    import numpy as np

    from harness.stats.calibration import COLDEST, HOTTEST, fit_temperature

    answered = [sample for sample in samples if sample.error is None]
    table = label_table(answered)
    if table is None:
        return None, {"temperature": "not every answer has probabilities of the same labels"}
    if len(answered) < FEWEST_FOR_TEMPERATURE:
        why = f"{len(answered)} answers: {FEWEST_FOR_TEMPERATURE} are the fewest"
        return None, {"temperature": why}
    found = fit_temperature(np.log(np.maximum(table[0], LEAST_PROBABILITY)), table[1])
    if not COLDEST * 1.01 < found < HOTTEST / 1.01:
        return None, {"temperature": f"no best one between {COLDEST:g} and {HOTTEST:g}"}
    return found, {}


def _require_apart(samples: Sequence[Sample], suite: str, judged: Iterable[Planned]) -> None:
    ids, units = {sample.id for sample in samples}, {sample.unit for sample in samples}
    shared = [item for item in judged if item.id in ids or item.unit in units]
    if shared:
        named = ", ".join(sorted(item.id for item in shared)[:3])
        raise DataError(
            f"suite {suite}: {len(shared)} items that the gate judges share an id or a unit with the calibration "
            f"split, such as {named}",
            hint="leave them out of the calibration records, or set `calibration_frac`, which splits by unit",
        )


def _fit_coverage(samples: Sequence[Sample], target: float, keys: tuple[str, ...]) -> CoverageFit:
    alpha = 1.0 - target
    scores = [_lac_score(sample) for sample in samples]
    pooled = GroupThreshold(conformal_threshold(scores, alpha), len(scores), False)
    pairs = [
        (score, group)
        for score, sample in zip(scores, samples, strict=True)
        for group in (crossed_names(sample.slices, keys) if keys else ())
    ]
    groups = group_thresholds([score for score, _ in pairs], [group for _, group in pairs], alpha)
    own = {
        name: found._replace(threshold=pooled.threshold) if found.is_pooled else found
        for name, found in groups.items()
    }
    return CoverageFit(target, keys, pooled, own)


def _lac_score(sample: Sample) -> float:
    """1 - probability of the likeliest right label; an error is never covered."""
    right = right_probability(sample)
    return math.inf if right is None else 1.0 - right


def _fit_abstention(
    samples: Sequence[Sample], precision: float, name: str | None, alpha: float
) -> AbstentionFit:
    # An error is not answered, and stays in the denominator of the coverage.
    sure = [confidence_of(sample, name) for sample in samples]
    confidence = [-math.inf if value is None else value for value in sure]
    right = [sample.score == 1.0 for sample in samples]
    found = abstention_threshold(confidence, right, precision=precision, alpha=alpha)
    if found is None:
        return AbstentionFit(precision, name, False, None, None, None)
    threshold = found.threshold if math.isfinite(found.threshold) else None
    return AbstentionFit(precision, name, True, threshold, found.coverage, found.p)


def _no_abstention(samples: Sequence[Sample], fit: AbstentionFit) -> str:
    known = sum(confidence_of(sample, fit.confidence) is not None for sample in samples)
    if not known:
        return "no answer has a confidence"
    return f"no threshold keeps answers that are right {fit.precision:.0%} of the time, shown on {len(samples)} items"


def _tests(samples: Sequence[Sample]) -> tuple[dict[str, float | None], dict[str, str]]:
    """P-values of Kolmogorov-Smirnov's and Kuiper's test of calibration (Arrieta-Ibarra et al. 2022)."""
    known = [(confidence_of(sample), sample.score) for sample in samples]
    pairs = [(sure, score) for sure, score in known if sure is not None and score in (0.0, 1.0)]
    if len(pairs) < FEWEST_FOR_TEMPERATURE or len({score for _, score in pairs}) < 2:
        return {"kolmogorov_smirnov_p": None, "kuiper_p": None}, {"tests": "too few answers, or all alike"}
    import numpy as np
    from mapie.metrics.calibration import kolmogorov_smirnov_p_value, kuiper_p_value  # 1 s, with scikit-learn

    right, sure = np.array([score for _, score in pairs]), np.array([value for value, _ in pairs])
    return {
        "kolmogorov_smirnov_p": float(kolmogorov_smirnov_p_value(right, sure)),
        "kuiper_p": float(kuiper_p_value(right, sure)),
    }, {}


def _coverage_json(fit: CoverageFit) -> dict[str, Any]:
    return {
        "target": fit.target, "per": list(fit.per), "pooled": _threshold_json(fit.pooled),
        "groups": {name: _threshold_json(group) for name, group in fit.groups.items()},
    }  # fmt: skip


def _threshold_json(found: GroupThreshold) -> dict[str, Any]:
    return {**found._asdict(), "threshold": found.threshold if math.isfinite(found.threshold) else None}


def _threshold(data: Mapping[str, Any]) -> GroupThreshold:
    threshold = math.inf if data["threshold"] is None else data["threshold"]
    return GroupThreshold(threshold, data["n"], data["is_pooled"])
