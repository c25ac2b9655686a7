"""Where a stage fails: its wrong items in groups, those first that hold more of them than chance would put there."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from harness.evals.results import RuleVerdict, Sample, State, Verdict
from harness.stats.proportions import at_least_p

TOP = 5
"""Groups of a kind that are shown."""
SHOWN_IDS = 3
LEAST_FAILURES = 2
"""One wrong item is no group."""
Kind = Literal["slice", "error_class", "confusion", "error"]


@dataclass(frozen=True, slots=True)
class Group:
    """Wrong items that have something in common."""

    kind: Kind
    name: str
    failures: int
    n: int | None
    """Items, right and wrong, that have it in common; None where only wrong ones can."""
    lift: float | None
    """How much more often its items are wrong than all items are; None without `n`."""
    p: float | None
    """Chance of so many wrong ones among n, were it no worse than the rest: for ranking, uncorrected."""
    ids: tuple[str, ...]
    """The first few."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """What is wrong with a stage on one suite."""

    suite: str
    n: int
    failures: int
    groups: tuple[Group, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def explain(suite: str, samples: Sequence[Sample]) -> Explanation:
    """The wrong items (score under 1) by slice, by error class, by gold and answer, and by error."""
    wrong = [sample for sample in samples if sample.score < 1.0]
    groups = [*_slices(samples), *_confusions(samples), *_classes(wrong), *_errors(wrong)]
    kept = [
        group
        for group in groups
        if group.failures >= LEAST_FAILURES and (group.lift is None or group.lift > 1.0)
    ]
    return Explanation(suite, len(samples), len(wrong), tuple(_top(kept)))


def worst_decided(verdict: Verdict) -> RuleVerdict | None:
    """The rule and slice that stand in the way: failures first, then the largest shortfall; None for none."""
    blocking = [rule for rule in verdict.rules if rule.verdict in (State.FAIL, State.INCONCLUSIVE)]
    return max(blocking, key=_badness, default=None)


def _badness(rule: RuleVerdict) -> tuple[bool, float]:
    is_known = rule.score is not None and rule.threshold is not None
    return rule.verdict is State.FAIL, abs((rule.score or 0.0) - (rule.threshold or 0.0)) if is_known else 0.0


def _top(groups: Sequence[Group]) -> Iterator[Group]:
    """The groups that explain most, kind by kind: the least likely first, then the largest."""
    for kind in ("slice", "confusion", "error_class", "error"):
        mine = [group for group in groups if group.kind == kind]
        yield from sorted(
            mine, key=lambda group: (1.0 if group.p is None else group.p, -group.failures, group.name)
        )[:TOP]


def _slices(samples: Sequence[Sample]) -> Iterator[Group]:
    members: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        for key, value in sample.slices.items():
            for one in [value] if isinstance(value, str) else dict.fromkeys(value):
                members[f"{key}={one}"].append(sample)
    for name, of in members.items():
        if len(of) < len(samples):  # what all items have in common tells none apart
            yield _group("slice", name, [sample for sample in of if sample.score < 1.0], len(of), samples)


def _confusions(samples: Sequence[Sample]) -> Iterator[Group]:
    """By gold and answer, for tasks whose answer is one of few: `n` counts the items with that gold."""
    if not any(sample.label_probs for sample in samples):
        return
    of_gold: dict[str, int] = defaultdict(int)
    found: dict[tuple[str, str], list[Sample]] = defaultdict(list)
    for sample in samples:
        gold = " or ".join(sample.gold)
        of_gold[gold] += 1
        if sample.score < 1.0 and sample.error is None:
            found[gold, sample.answer if sample.answer is not None else "(no answer)"].append(sample)
    for (gold, answer), wrong in found.items():
        yield _group("confusion", f"{gold} → {answer}", wrong, of_gold[gold], samples)


def _classes(wrong: Sequence[Sample]) -> Iterator[Group]:
    yield from _named("error_class", {s.id: s.error_class for s in wrong}, wrong)


def _errors(wrong: Sequence[Sample]) -> Iterator[Group]:
    # Numbers in an error's words differ from item to item.
    said = {
        s.id: None if s.error is None else "".join("#" if c.isdigit() else c for c in s.error) for s in wrong
    }
    yield from _named("error", said, wrong)


def _named(kind: Kind, names: Mapping[str, str | None], wrong: Sequence[Sample]) -> Iterator[Group]:
    members: dict[str, list[Sample]] = defaultdict(list)
    for sample in wrong:
        if (name := names[sample.id]) is not None:
            members[name].append(sample)
    for name, of in members.items():
        yield Group(kind, name, len(of), None, None, None, _ids(of))


def _group(kind: Kind, name: str, wrong: Sequence[Sample], n: int, samples: Sequence[Sample]) -> Group:
    failing = sum(sample.score < 1.0 for sample in samples)
    rate = failing / len(samples)
    lift = len(wrong) / n / rate if rate else None
    # Beside the items outside the group, so that a large group is not compared with itself.
    outside = len(samples) - n
    rest = (failing - len(wrong)) / outside if outside > 0 else rate
    p = at_least_p(len(wrong), n, min(max(rest, 1e-12), 1.0)) if kind == "slice" else None
    return Group(kind, name, len(wrong), n, lift, p, _ids(wrong))


def _ids(samples: Sequence[Sample]) -> tuple[str, ...]:
    return tuple(sample.id for sample in samples[:SHOWN_IDS])
