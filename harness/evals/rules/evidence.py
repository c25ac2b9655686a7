"""What a stage has shown: all that a rule may look at."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from harness.evals.results import Sample
from harness.stats.proportions import lower_bound
from harness.stats.scatter import expected_flips

if TYPE_CHECKING:
    from harness.evals.calibrate import Calibration
    from harness.evals.repeat import Noise
    from harness.specs.gate import Gate

PROVEN_ALPHA = 0.05


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

    With label probabilities on every item it is the share that is expected to flip: an item's two likeliest labels
    change places with the probability that a normal move of the scatter seen bridges what lies between them. It
    is never less than what the flips seen prove, their rate's lower bound, and never more than its upper bound.
    Without probabilities it is the upper bound where answers flipped, and 0 where none did: the upper bound on a few
    items that all came out the same is no noise that was seen. All flips are counted as losses.
    """
    noise = shown.noise
    if noise is None or noise.items == 0:
        return 0.0
    expected = _expected_share(shown.samples, noise.margin_sd)
    if expected is None:
        return noise.upper if noise.flips else 0.0
    proven = lower_bound(noise.flips, noise.items, PROVEN_ALPHA) or 0.0
    return min(noise.upper, max(expected, proven))


def _expected_share(samples: Sequence[Sample], margin_sd: float | None) -> float | None:
    if margin_sd is None or not samples:
        return None
    answered = [sample for sample in samples if sample.error is None]
    if any(not sample.label_probs or len(sample.label_probs) < 2 for sample in answered):
        return None
    return expected_flips([_log_margin(sample) for sample in answered], margin_sd) / len(samples)


def _log_margin(sample: Sample) -> float:
    """log P of the likeliest label minus that of the second."""
    first, second = sorted((sample.label_probs or {}).values(), reverse=True)[:2]
    return math.inf if second <= 0.0 else math.log(first) - math.log(second)
