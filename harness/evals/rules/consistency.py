"""Rules on answers that must not move: the share of items that no change of the suite's invariance moves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from harness.evals.results import RuleVerdict, Sample
from harness.evals.rules.decide import decide, nothing
from harness.evals.rules.evidence import Evidence
from harness.evals.rules.rates import judge_rate
from harness.specs.gate import Gate

VARIANT = "variant"
"""What `per` says where each kind of change is judged by itself."""


def judge_consistency(gate: Gate, suite: str, shown: Evidence) -> list[RuleVerdict]:
    """The rule's verdict on the items that were asked in another way, or by kind of change.

    An item counts once, whatever the number of its variants: it is consistent where none of them moved the answer.
    """
    by_kind = gate.per == VARIANT
    items = [item for sample in shown.samples for item in (_by_kind(sample) if by_kind else _whole(sample))]
    if not items:
        return [decide(gate, suite, gate.per_words or "all", nothing("no item was asked in another way"))]
    return judge_rate(gate, suite, replace(shown, samples=items))


def consistency_items(samples: Sequence[Sample]) -> dict[str, list[float]]:
    """1 for each item that did not move and 0 for one that did: of all together as `all`, and by kind of change."""
    found: dict[str, list[float]] = {}
    for sample in samples:
        for item in (*_whole(sample), *_by_kind(sample)):
            name = f"{VARIANT}={item.slices[VARIANT]}" if VARIANT in item.slices else "all"
            found.setdefault(name, []).append(item.score)
    return found


def _whole(sample: Sample) -> Iterator[Sample]:
    if sample.variants:
        slices = {key: value for key, value in sample.slices.items() if key != VARIANT}
        yield replace(sample, score=float(not sample.moved), slices=slices)


def _by_kind(sample: Sample) -> Iterator[Sample]:
    for kind in sample.variants:
        yield replace(sample, score=float(kind not in sample.moved), slices={VARIANT: kind})
