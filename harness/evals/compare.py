"""Two stages on the same items: what was gained, what was lost, where, and whether chance explains it.

A is the baseline, B the candidate; differences are B minus A. An item counts as right when its score is 1.
Only items that both have, with the same gold, are compared; the others are named.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from harness.errors import DataError
from harness.evals.changes import Change, find_changes
from harness.evals.gate import Part, difference_bounds
from harness.evals.results import Sample
from harness.evals.run import slice_names
from harness.evals.samples import Header, read_header, read_samples
from harness.stats.multiplicity import holm
from harness.stats.paired import mcnemar_exact

ERROR_EACH_SIDE = 0.025
"""The bounds are one-sided at this level each: together a 95 % interval."""


@dataclass(frozen=True, slots=True)
class Side:
    """Which samples stand on one side."""

    run: str
    stage: str


@dataclass(frozen=True, slots=True)
class Delta:
    """One number on both sides, on the same items."""

    metric: str
    """`accuracy`, or `recall` of a label."""
    slice: str
    """`all`, `key=value`, or `label=value`."""
    n: int
    worth: float
    """Independent items that the items are worth: fewer than `n` where units have several."""
    a: float
    b: float
    delta: float
    low: float | None
    high: float | None
    """95 % bounds of the difference: Tango's, on what the items are worth."""
    lost: int
    gained: int
    p: float
    """Exact McNemar, two-sided, on what the items are worth."""
    p_holm: float | None = None
    """Corrected for all slices and labels of the comparison; None for `all`."""


@dataclass(frozen=True, slots=True)
class Flip:
    """Items with one gold that turned from or to one wrong answer."""

    gold: tuple[str, ...]
    answer: str | None
    """The wrong answer: B's where the items were lost, A's where they were gained; None for no answer."""
    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Unmatched:
    """Items that could not be compared, by id."""

    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    other_gold: tuple[str, ...]
    """Both have the id, and each another right answer: not the same item."""


@dataclass(frozen=True, slots=True)
class SuiteComparison:
    """Both sides on one suite."""

    suite: str
    overall: Delta | None
    """None without an item in common."""
    parts: tuple[Delta, ...]
    lost: tuple[Flip, ...]
    """Right in A, wrong in B; the most frequent first."""
    gained: tuple[Flip, ...]
    n_wrong_otherwise: int
    """Items that both have wrong, each with another answer."""
    n_same_prompt: int
    """Items that both were asked with the very same token ids."""
    unmatched: Unmatched


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two stages, all suites that both were scored on."""

    a: Side
    b: Side
    changes: tuple[Change, ...]
    suites: tuple[SuiteComparison, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class Pair(NamedTuple):
    """One item's samples."""

    a: Sample
    b: Sample


class Outcome(NamedTuple):
    """One item's part in one number."""

    unit: str
    is_right_a: bool
    is_right_b: bool


def compare(a: Path, b: Path, stage_a: str, stage_b: str, *, suite: str | None = None) -> Comparison:
    """Stage `stage_a` of the run folder `a` against `stage_b` of `b`, on all common suites or on `suite`.

    Raises:
        DataError: no common suite, no item in common, or a manifest that can't be read.
    """
    sides = (a / "stages" / stage_a, b / "stages" / stage_b)
    names = _common_suites(sides, suite)
    found = [
        _compare_suite(name, *(read_samples(side / name / "samples.jsonl") for side in sides))
        for name in names
    ]
    if not any(one.overall for one in found):
        raise DataError(
            f"{a.name} at {stage_a} and {b.name} at {stage_b} have no item in common on {', '.join(names)}"
        )
    headers: Mapping[str, tuple[Header | None, Header | None]] = {
        name: (read_header(sides[0] / name / "samples.jsonl"), read_header(sides[1] / name / "samples.jsonl"))
        for name in names
    }
    return Comparison(
        Side(a.name, stage_a), Side(b.name, stage_b), tuple(find_changes(a, b, headers)), _corrected(found)
    )


def _common_suites(sides: tuple[Path, Path], wanted: str | None) -> list[str]:
    of_a, of_b = ({path.parent.name for path in side.glob("*/samples.jsonl")} for side in sides)
    names = sorted(name for name in of_a & of_b if wanted in (None, name))
    if not names:
        what = f"suite {wanted!r}" if wanted else "any suite"
        raise DataError(
            f"the two were not both scored on {what}: A on {', '.join(sorted(of_a)) or 'none'}, "
            f"B on {', '.join(sorted(of_b)) or 'none'}"
        )
    return names


def _compare_suite(name: str, before: Sequence[Sample], after: Sequence[Sample]) -> SuiteComparison:
    of_a, of_b = {sample.id: sample for sample in before}, {sample.id: sample for sample in after}
    both = [Pair(of_a[id_], of_b[id_]) for id_ in of_a if id_ in of_b]
    pairs = [pair for pair in both if set(pair.a.gold) == set(pair.b.gold)]
    outcomes = [Outcome(pair.b.unit, _is_right(pair.a), _is_right(pair.b)) for pair in pairs]
    return SuiteComparison(
        suite=name,
        overall=_delta("accuracy", "all", outcomes) if pairs else None,
        parts=tuple(_delta(*key, part) for key, part in sorted(_parts(pairs).items())),
        lost=_flips(pair.b for pair in pairs if _is_right(pair.a) and not _is_right(pair.b)),
        gained=_flips(pair.a for pair in pairs if _is_right(pair.b) and not _is_right(pair.a)),
        n_wrong_otherwise=sum(
            not _is_right(a) and not _is_right(b) and a.answer != b.answer for a, b in pairs
        ),
        n_same_prompt=sum(bool(a.prompt_digest) and a.prompt_digest == b.prompt_digest for a, b in pairs),
        unmatched=Unmatched(
            tuple(sorted(of_a.keys() - of_b.keys())), tuple(sorted(of_b.keys() - of_a.keys())),
            tuple(sorted(pair.a.id for pair in both if set(pair.a.gold) != set(pair.b.gold))),
        ),
    )  # fmt: skip


def _is_right(sample: Sample) -> bool:
    return sample.score == 1.0


def _parts(pairs: Sequence[Pair]) -> dict[tuple[str, str], list[Outcome]]:
    """The outcomes by metric and slice: accuracy of each slice value, recall of each label."""
    is_labelled = any(sample.label_probs is not None for pair in pairs for sample in pair)
    parts: dict[tuple[str, str], list[Outcome]] = {}
    for a, b in pairs:
        for name in slice_names(b, sorted(b.slices)):
            parts.setdefault(("accuracy", name), []).append(Outcome(b.unit, _is_right(a), _is_right(b)))
        for label in dict.fromkeys(b.gold) if is_labelled else ():
            outcome = Outcome(b.unit, a.answer == label, b.answer == label)
            parts.setdefault(("recall", f"label={label}"), []).append(outcome)
    return parts


def _delta(metric: str, slice_name: str, outcomes: Sequence[Outcome]) -> Delta:
    n = len(outcomes)
    differences = [float(one.is_right_b) - float(one.is_right_a) for one in outcomes]
    part = Part(slice_name, differences, [one.unit for one in outcomes])
    bounds = difference_bounds(part, ERROR_EACH_SIDE, ERROR_EACH_SIDE)
    lost, gained = bounds.discordant or (0, 0)
    worth = bounds.worth if bounds.worth is not None else float(n)
    return Delta(
        metric, slice_name, n, worth, a=sum(one.is_right_a for one in outcomes) / n,
        b=sum(one.is_right_b for one in outcomes) / n, delta=(gained - lost) / n, low=bounds.low, high=bounds.high,
        lost=lost, gained=gained, p=_chance(lost, gained, worth / n),
    )  # fmt: skip


def _chance(lost: int, gained: int, shrink: float) -> float:
    """McNemar's p with both counts shrunk to what they are worth, rounded towards "no difference"."""
    fewer, more = sorted((lost, gained))
    return mcnemar_exact(math.ceil(fewer * shrink), math.floor(more * shrink))


def _flips(samples: Iterator[Sample] | Sequence[Sample]) -> tuple[Flip, ...]:
    groups: dict[tuple[tuple[str, ...], str | None], list[str]] = {}
    for sample in samples:
        groups.setdefault((tuple(sorted(sample.gold)), sample.answer), []).append(sample.id)
    flips = [Flip(gold, answer, tuple(sorted(ids))) for (gold, answer), ids in groups.items()]
    return tuple(sorted(flips, key=lambda flip: (-len(flip.ids), flip.gold, flip.answer or "")))


def _corrected(found: Sequence[SuiteComparison]) -> tuple[SuiteComparison, ...]:
    """The suites with Holm's p for each slice and label, all of them taken as one family of claims."""
    adjusted = iter(holm([part.p for one in found for part in one.parts]))
    return tuple(
        replace(one, parts=tuple(replace(part, p_holm=next(adjusted)) for part in one.parts)) for one in found
    )
