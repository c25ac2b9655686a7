"""What each rule will do with the records that there are, before any model is asked: its operating curve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from harness.data.records import Record
from harness.data.slices import crossed_names
from harness.specs.gate import EDGE_METRICS, Gate
from harness.stats.planning import (
    CORRELATION,
    DISCORDANCE,
    POWER,
    detectable_gap,
    detectable_margin,
    detectable_rate,
    needed_at,
    paired_curve,
    planned_worth,
)
from harness.stats.power import OperatingPoint, can_never_pass, operating_curve

STEPS = (-0.10, -0.05, 0.0, 0.05, 0.10)
"""Distances from the threshold at which a curve is drawn."""
GAIN = 0.05
"""How much better than the threshold a model is taken to be where items needed are counted."""
SIMULATED_RUNS = 2000
PERCENTILES = {"latency_p50_ms": 0.50, "latency_p95_ms": 0.95, "latency_p99_ms": 0.99}


@dataclass(frozen=True, slots=True)
class Curve:
    """One rule on the slice where it sees least, of those that it judges."""

    rule: str
    suite: str
    slice: str
    slices: int
    """Slices that the rule judges; each must pass."""
    n: int
    units: int
    worth: int
    """Independent items that the items are taken to be worth."""
    alpha: float
    design: str
    points: tuple[OperatingPoint, ...] = ()
    """By the true rate, or the true difference with `versus`; empty where no curve is known beforehand."""
    detectable: float | None = None
    """What passes in four runs of five: the true rate, or the finest margin, or the finest cap of a gap."""
    needed: int | None = None
    """Independent items for that power if the truth is `at`."""
    at: float | None = None
    """A true rate `GAIN` better than the threshold, or no difference."""
    can_pass: bool = True
    is_too_fine: bool = False
    """The margin is finer than the records can show of two equally good models."""
    acknowledge: str | None = None
    remark: str = ""

    def to_json(self) -> dict[str, Any]:
        data = asdict(self)
        return {**data, "points": [point._asdict() for point in self.points]}


def curve_of(gate: Gate, suite: str, records: Sequence[Record]) -> Curve | None:
    """The rule's curve on the evaluation records; None where it judges none of them.

    `gate.alpha` is what the first attempt may spend.
    """
    if gate.metric in EDGE_METRICS:
        return _edge(gate, suite, len(records))
    if gate.gap is not None:
        return _gap(gate, suite, records)
    judged = {
        name: units
        for name, units in slices_of(gate, records).items()
        if not gate.per or len(units) >= gate.min_n
    }
    if not judged:
        return None
    worth = {name: max(1, int(planned_worth(units, gate.alpha))) for name, units in judged.items()}
    least = min(judged, key=lambda name: (worth[name], name))
    start = Curve(
        gate.name, suite, least, len(judged), len(judged[least]), len(set(judged[least])), worth[least], gate.alpha,
        gate.design, acknowledge=gate.acknowledge,
    )  # fmt: skip
    return _paired(gate, start) if gate.versus is not None else _rate(gate, start)


def slices_of(gate: Gate, records: Sequence[Record]) -> dict[str, list[str]]:
    """The units of the records that the rule judges together, by slice or label."""
    parts: dict[str, list[str]] = {}
    for record in records:
        names = [f"label={label}" for label in record.targets] if gate.is_label_rule else crossed_names(
            record.slices, gate.slice_keys
        )  # fmt: skip
        for name in filter(gate.holds_for, names):
            parts.setdefault(name, []).append(record.unit)
    return parts


def _rate(gate: Gate, start: Curve) -> Curve:
    bound = gate.bound
    if (
        bound is None
        or gate.average == "macro"
        or gate.metric in ("brier", "ece", "abstention", "consistency")
    ):
        return _with(start, remark="its curve hangs on what will be answered")
    threshold = bound if gate.at_least is not None else 1.0 - bound
    alpha, n = gate.alpha, start.worth
    truths = _truths(threshold) if gate.target is None else (*_truths(threshold), gate.target)
    points = _sequential(gate, n, threshold, truths) if gate.design == "sequential" else operating_curve(
        n, threshold, truths, alpha, gate.beta
    )  # fmt: skip
    better = min(1.0, threshold + GAIN)
    detectable = detectable_rate(n, threshold, alpha)
    remark = "the items answered with the label count, and their number is not known yet" if (
        gate.metric in ("precision", "f1")
    ) else ""  # fmt: skip
    if gate.at_least is None:
        points = tuple(point._replace(rate=1.0 - point.rate) for point in points)
        detectable = None if detectable is None else 1.0 - detectable
    at = better if gate.at_least is not None else 1.0 - better
    return _with(
        start, points=tuple(points), detectable=detectable, needed=needed_at(threshold, better, alpha), at=at,
        can_pass=not can_never_pass(n, threshold, alpha), remark=remark,
    )  # fmt: skip


def _paired(gate: Gate, start: Curve) -> Curve:
    margin = gate.no_worse_than if gate.no_worse_than is not None else -(gate.better_than or 0.0)
    if gate.metric == "brier" or gate.design == "sequential":
        return _with(
            start, remark="judged by the betting test: its curve hangs on the differences themselves"
        )
    truths = tuple(round(-margin + step, 6) for step in STEPS if -1.0 < -margin + step < 1.0)
    points = paired_curve(start.worth, margin, sorted({*truths, 0.0}), DISCORDANCE, gate.alpha, gate.beta)
    if gate.no_worse_than is None:
        return _with(start, points=points, remark=_assumed())
    finest = detectable_margin(start.worth, alpha=gate.alpha)
    needed = None
    if margin > 0.0 and finest is not None:
        needed = max(1, round(start.worth * (finest / margin) ** 2))
    return _with(
        start, points=points, detectable=finest, needed=needed, at=0.0,
        is_too_fine=finest is not None and margin < finest,
        remark=_assumed(),
    )  # fmt: skip


def _gap(gate: Gate, suite: str, records: Sequence[Record]) -> Curve | None:
    parts = {name: units for name, units in slices_of(gate, records).items() if len(units) >= gate.min_n}
    if len(parts) < 2:
        return None
    worth = {name: max(1, int(planned_worth(units, gate.alpha))) for name, units in parts.items()}
    first, second = sorted(worth, key=lambda name: (worth[name], name))[:2]
    finest = detectable_gap(worth[first], worth[second], alpha=gate.alpha)
    return Curve(
        gate.name, suite, f"{first} and {second}", len(parts), len(parts[first]), len(set(parts[first])), worth[first],
        gate.alpha, gate.design, detectable=finest, is_too_fine=finest is not None and (gate.gap or 0.0) < finest,
        acknowledge=gate.acknowledge, remark="if both groups are 80 % right",
    )  # fmt: skip


def _edge(gate: Gate, suite: str, items: int) -> Curve:
    """Latency: the number of requests under the limit is binomial, and so the rule is one on a rate."""
    start = Curve(gate.name, suite, "all", 1, 1, 1, 1, gate.alpha, gate.design, acknowledge=gate.acknowledge)
    if gate.metric not in PERCENTILES:
        return _with(start, remark="measured once, without error")
    from harness.evals.rules.edge import requests_needed
    from harness.stats.quantiles import items_for_quantile

    share = PERCENTILES[gate.metric]
    requests, fewest = min(items, requests_needed(gate)), items_for_quantile(share, gate.alpha) or 0
    truths = sorted({min(1.0, share + step) for step in (-0.05, -0.02, 0.0, 0.02, 0.04)})
    return _with(
        start, n=requests, units=requests, worth=requests,
        points=operating_curve(requests, share, truths, gate.alpha, gate.beta), needed=fewest,
        can_pass=requests >= fewest,
        remark=f"by the share of requests under the limit; {fewest} requests are the fewest",
    )  # fmt: skip


def _sequential(gate: Gate, n: int, threshold: float, truths: Sequence[float]) -> tuple[OperatingPoint, ...]:
    """By simulation, seeded: the betting test on items right or wrong."""
    import numpy as np

    from harness.stats.sequential import Claim, simulate

    items = min(n, gate.n_max or n)
    if not 0.0 < threshold < 1.0:
        return ()
    rng = np.random.default_rng(gate.order_seed)
    points = []
    for truth in truths:
        ended = simulate(
            Claim(threshold, items, gate.alpha, gate.beta),
            (rng.random((SIMULATED_RUNS, items)) < truth).astype(np.float64),
        )
        points.append(
            OperatingPoint(
                truth, float(ended.passes.mean()), float(ended.fails.mean()), float(ended.n.mean())
            )
        )
    return tuple(points)


def _truths(threshold: float) -> tuple[float, ...]:
    return tuple(dict.fromkeys(round(min(1.0, max(0.0, threshold + step)), 6) for step in STEPS))


def _assumed() -> str:
    return f"if the models differ on {DISCORDANCE:.0%} of the items"


def _with(curve: Curve, **changes: Any) -> Curve:
    from dataclasses import replace

    return replace(curve, **changes)


def describe_assumptions() -> str:
    """What the curves take for granted, in one line."""
    return f"items of one unit are taken to correlate {CORRELATION:g}; power is {POWER:.0%}"


def curves(gates: Mapping[str, Sequence[Gate]], records: Mapping[str, Sequence[Record]]) -> list[Curve]:
    """The curve of every rule that judges any record, suite by suite."""
    found = [curve_of(gate, suite, records[suite]) for suite, mine in gates.items() for gate in mine]
    return [curve for curve in found if curve is not None]
