"""Rules that stop as soon as they know: the betting test over units in an order fixed before the run.

The same code watches a run and judges it afterwards, so a run that stopped early gets the verdict that stopped it.
Items that were not needed were never scored: they are no errors, and no rule that needs them may share the run.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import repeat

from harness.data.slices import crossed_names
from harness.evals.results import RuleVerdict, Sample, State
from harness.evals.rules.decide import Aim, Bounds, aim_of, decide, nothing, skipped
from harness.evals.rules.engine import DISCORDANCE, Range, bet, engine_bounds, mean_claim, seeded_order
from harness.evals.rules.evidence import Evidence, Planned, noise_floor, score_of
from harness.evals.rules.rates import NOISY_METRICS, RATIOS, label_counts, overall_counts
from harness.specs.gate import COUNTED_METRICS, EDGE_METRICS, Gate
from harness.stats.f1 import Confusion, Ratio
from harness.stats.sequential import Betting

PARTS_SHRINK = 0.25
"""Guess of how much smaller a unit's score varies than the most parts that it can have would allow."""


class SequentialGate:
    """Watches a run and says when every rule is decided."""

    def __init__(
        self,
        gates: Sequence[Gate],
        planned: Sequence[Planned],
        *,
        earlier: Mapping[str, Sequence[Sample]] | None = None,
        noise: float = 0.0,
    ) -> None:
        seed = gates[0].order_seed if gates else 17
        self.order = run_order(planned, seed)
        """Positions of the planned items in the order in which they must be scored."""
        self._watches = [RuleWatch(gate, planned, earlier or {}, noise) for gate in gates]
        self._by_id: dict[str, Sample] = {}
        self._planned = len(planned)

    def add(self, samples: Iterable[Sample]) -> bool:
        """Whether every rule is decided after these samples too. What comes out of order waits for what is missing."""
        self._by_id.update((sample.id, sample) for sample in samples)
        for watch in self._watches:
            watch.advance(self._by_id)
        return self.is_decided

    @property
    def is_decided(self) -> bool:
        """Whether no further item can change any rule."""
        return bool(self._watches) and all(watch.is_done for watch in self._watches)

    @property
    def items_used(self) -> int:
        return len(self._by_id)

    @property
    def items_saved(self) -> int:
        """Planned items that were not scored."""
        return self._planned - len(self._by_id)


def can_stop_early(gates: Sequence[Gate]) -> bool:
    """Whether these rules, all that judge a stage on a suite, let it stop before its last item."""
    on_items = [gate for gate in gates if gate.metric not in EDGE_METRICS]
    return bool(on_items) and all(gate.design == "sequential" for gate in on_items)


def run_order(planned: Sequence[Planned], seed: int) -> list[int]:
    """Positions of the items, unit by unit in the seeded order."""
    place = {unit: rank for rank, unit in enumerate(seeded_order((item.unit for item in planned), seed))}
    return sorted(range(len(planned)), key=lambda position: (place[planned[position].unit], position))


def judge_sequential(gate: Gate, suite: str, shown: Evidence) -> list[RuleVerdict]:
    """The rule's verdict on each of its slices, from the items up to its decision."""
    noise = noise_floor(shown) if gate.metric in NOISY_METRICS else 0.0
    watch = RuleWatch(gate, shown.plan, shown.earlier, noise)
    watch.advance({sample.id: sample for sample in shown.samples})
    scored = {sample.id for sample in shown.samples}
    return watch.verdicts(suite, scored)


class RuleWatch:
    """One rule over the planned items."""

    def __init__(
        self, gate: Gate, planned: Sequence[Planned], earlier: Mapping[str, Sequence[Sample]], noise: float
    ) -> None:
        self._gate, self._noise = gate, noise if gate.metric in NOISY_METRICS else 0.0
        before = {sample.id: sample for sample in earlier.get(gate.versus, ())} if gate.versus else {}
        items: dict[str, list[Planned]] = {}
        for position in run_order(planned, gate.order_seed):
            for name in _part_names(gate, planned[position]):
                items.setdefault(name, []).append(planned[position])
        judged = [name for name in items if not gate.per or len(items[name]) >= gate.min_n]
        self._small = {name: items[name] for name in items if name not in judged}
        # A claim that some slice fails is one of many, so each may spend its part of beta alone.
        aim = aim_of(gate)._replace(beta=gate.beta / max(1, len(judged)))
        self._parts = [
            PartWatch(gate, name, items[name], before, aim, self._noise) for name in sorted(judged)
        ]

    @property
    def is_done(self) -> bool:
        return all(part.is_done for part in self._parts)

    def advance(self, by_id: Mapping[str, Sample]) -> None:
        """Reads the samples as far as they are there without a gap."""
        for part in self._parts:
            part.advance(by_id)

    def verdicts(self, suite: str, scored: set[str]) -> list[RuleVerdict]:
        """What the rule says now, slice by slice; `scored` are the ids of the items that were."""
        gate = self._gate
        found = [part.verdict(suite, scored) for part in self._parts]
        small = [skipped(gate, suite, name, len(items), None) for name, items in sorted(self._small.items())]
        missing = (
            f"{gate.metric} per {gate.per_words}: no item has it" if gate.per else "no items were planned"
        )
        return [*found, *small] or [decide(gate, suite, gate.per_words or "all", nothing(missing))]


class PartWatch:
    """One slice of a rule: its units in the seeded order, and how far they have been read."""

    def __init__(
        self, gate: Gate, name: str, items: Sequence[Planned], before: Mapping[str, Sample], aim: Aim, noise: float
    ) -> None:  # fmt: skip
        self._gate, self._name, self._aim, self._noise = gate, name, aim, noise
        self._items, self._before = items, before
        self._units: list[list[Planned]] = list(_by_unit(items).values())
        self._range = _range(gate, self._units)
        self._units = self._units[: self._range.n_max]
        self._read: list[Ratio] = []
        self._broken = ""
        above, below = aim.compared(noise)
        self._above, self._below = self._test(above), self._test(below)
        self._is_decided = False

    @property
    def is_done(self) -> bool:
        """Whether the part is decided, or has read all that it may."""
        return self._is_decided or bool(self._broken) or len(self._read) == len(self._units)

    def advance(self, by_id: Mapping[str, Sample]) -> None:
        """Reads the next units as long as all of their items are there."""
        while not self.is_done:
            unit = self._units[len(self._read)]
            samples = [by_id[item.id] for item in unit if item.id in by_id]
            if len(samples) < len(unit):
                return
            self._read_unit(samples)

    def _read_unit(self, samples: Sequence[Sample]) -> None:
        ratios = [_ratio(self._gate, self._name, sample, self._before) for sample in samples]
        known = [ratio for ratio in ratios if ratio is not None]
        total = Ratio(math.fsum(r.numerator for r in known), math.fsum(r.denominator for r in known))
        if len(known) < len(ratios) or not math.isfinite(total.numerator):
            self._broken = f"no score for an item of unit {samples[0].unit}"
        elif total.denominator > self._range.largest:
            most = f"over {self._range.largest:g}: set max_parts"
            self._broken = f"unit {samples[0].unit} has {total.denominator:g} parts, {most}"
        else:
            self._read.append(total)
            self._is_decided = self._settle(total)

    def _settle(self, ratio: Ratio) -> bool:
        above, below = self._aim.compared(self._noise)
        return (
            _says(self._above, ratio, above) == "PASS"
            or _says(self._below, ratio, below) == "FAIL"
        )  # fmt: skip

    def verdict(self, suite: str, scored: set[str]) -> RuleVerdict:
        """What the part says of the units read."""
        used = sum(len(unit) for unit in self._units[: len(self._read)])
        saved = sum(item.id not in scored for item in self._items)
        rule = decide(self._gate, suite, self._name, self._bounds(used, saved), self._aim, self._noise)
        if rule.verdict is State.INCONCLUSIVE and not self._could_pass():
            why = f"; can never PASS with {self._range.n_max} units one by one: use design: fixed"
            rule = replace(rule, reason=rule.reason + why, needed=None)
        return replace(rule, design="sequential", items_used=used, items_saved=saved)

    def _bounds(self, used: int, saved: int) -> Bounds:
        if self._broken:
            return nothing(self._broken, used)
        if not self._read:
            return nothing("no items were scored in the planned order")
        low_at, high_at = self._aim.compared(self._noise)
        return engine_bounds(
            self._read, self._range, *self._aim.errors, low_at=low_at, high_at=high_at, items=used,
            reason=f"betting test, {used} items used, {saved} not needed",
        )  # fmt: skip

    def _test(self, threshold: float) -> Betting | None:
        if not self._range.low < threshold < self._range.high:
            return None
        return Betting(mean_claim(threshold, self._range, *self._aim.errors))

    def _could_pass(self) -> bool:
        """Whether units that are all as good as they can be would pass."""
        best = self._range.high if self._aim.wants_more else self._range.low
        threshold = self._aim.compared(self._noise)[0 if self._aim.wants_more else 1]
        if not self._range.low < threshold < self._range.high:
            return self._aim.passes(best, best, self._noise)
        claim = mean_claim(threshold, self._range, *self._aim.errors)
        units = repeat(Ratio(best * self._range.largest, self._range.largest), self._range.n_max)
        wanted = "PASS" if self._aim.wants_more else "FAIL"
        return bet(claim, units, threshold).outcome.decision == wanted


def _part_names(gate: Gate, item: Planned) -> list[str]:
    if gate.is_label_rule:
        return [f"label={label}" for label in item.gold]
    return crossed_names(item.slices, gate.slice_keys)


def _by_unit(items: Sequence[Planned]) -> dict[str, list[Planned]]:
    units: dict[str, list[Planned]] = {}
    for item in items:
        units.setdefault(item.unit, []).append(item)
    return units


def _range(gate: Gate, units: Sequence[Sequence[Planned]]) -> Range:
    """What a unit can be at most: from the plan, or from `max_parts` where an answer has several parts."""
    a_piece = 2.0 if gate.metric == "f1" else 1.0
    sizes = [len(unit) * a_piece for unit in units]
    largest = float(gate.max_parts) if gate.max_parts is not None else max(sizes, default=1.0)
    shrink = math.fsum((size / largest) ** 2 for size in sizes) / max(1, len(sizes))
    if gate.max_parts is not None:
        shrink = PARTS_SHRINK
    low, prior = (-1.0, DISCORDANCE / 4.0 * shrink) if gate.versus is not None else (0.0, None)
    return Range(low, 1.0, largest, max(1, min(len(units), gate.n_max or len(units))), prior, shrink)


def _ratio(gate: Gate, part: str, sample: Sample, before: Mapping[str, Sample]) -> Ratio | None:
    """What the sample adds to the part's sums; None where a score is missing."""
    if gate.metric in COUNTED_METRICS:
        if gate.is_label_rule:
            return RATIOS[gate.metric](
                label_counts(sample).get(part.removeprefix("label="), Confusion(0, 0, 0))
            )
        return RATIOS[gate.metric](overall_counts(sample))
    score = score_of(gate, sample)
    if gate.versus is None:
        return None if score is None else Ratio(score, 1.0)
    then = score_of(gate, before[sample.id]) if sample.id in before else None
    return None if score is None or then is None else Ratio(score - then, 1.0)


def _says(test: Betting | None, ratio: Ratio, threshold: float) -> str | None:
    """The test's decision after one more unit; None where it has none, or there is no test."""
    if test is None:
        return None
    claim = test.claim
    return test.add(min(max(ratio.numerator - threshold * ratio.denominator, claim.low), claim.high))
