"""What a stage has shown: all that a rule may look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from harness.evals.results import Sample

if TYPE_CHECKING:
    from harness.evals.calibrate import Calibration
    from harness.evals.repeat import Noise
    from harness.specs.gate import Gate


class Planned(NamedTuple):
    """An item that a run may score, known before it starts."""

    id: str
    unit: str
    gold: tuple[str, ...]
    slices: Mapping[str, str | list[str]]


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
    memory_mb: float | None = None
    """Peak memory of a process that holds the model and answers; None where it was not measured."""
    planned: Sequence[Planned] = ()
    """All items of the split, scored or not; empty where the samples are all there are."""
    calibration: Calibration | None = None
    """What the calibration split gave; None where nothing was fitted."""
    noise: Noise | None = None
    """None where no item was asked again."""
    population: Sequence[Planned] = ()
    """All records of the split before any limit, for rules about a frozen suite; empty where they are not known."""

    @property
    def plan(self) -> Sequence[Planned]:
        """The items that could have been scored."""
        return self.planned or [Planned(s.id, s.unit, s.gold, s.slices) for s in self.samples]


def score_of(gate: Gate, sample: Sample) -> float | None:
    """The sample's number for a rule on scores; None where the named scorer left none."""
    if gate.metric in ("accuracy", "consistency"):
        return sample.score
    if gate.metric == "error_rate":
        return float(sample.error is not None)
    if gate.metric == "truncated_rate":
        return float(sample.is_truncated)
    return sample.scores.get(gate.score or "")


def noise_floor(shown: Evidence) -> float:
    """Share of the answers that may come out otherwise when the same run is made again.

    Where answers flipped it is the upper bound of the flip rate. With label probabilities on every item it is the
    share of near ties, of which the two likeliest labels are nearer than the largest change seen can bridge, but
    never less than the flips seen and never more than that upper bound. 0 where no answer flipped and nothing
    says that one could: the upper bound on a few items that all came out the same is no noise that was seen.
    """
    noise = shown.noise
    if noise is None or noise.items == 0:
        return 0.0
    ties = _near_ties(shown.samples, noise.max_difference)
    if ties is None:
        return noise.upper if noise.flips else 0.0
    return min(noise.upper, max(ties, noise.flips / noise.items))


def _near_ties(samples: Sequence[Sample], max_difference: float | None) -> float | None:
    if max_difference is None or not samples:
        return None
    near = 0
    for sample in samples:
        if sample.error is None and (not sample.label_probs or len(sample.label_probs) < 2):
            return None
        near += sample.error is None and _log_margin(sample) <= 2.0 * max_difference
    return near / len(samples)


def _log_margin(sample: Sample) -> float:
    """log P of the likeliest label minus that of the second."""
    import math

    first, second = sorted((sample.label_probs or {}).values(), reverse=True)[:2]
    return math.inf if second <= 0.0 else math.log(first) - math.log(second)
