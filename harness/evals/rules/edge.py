"""Rules on what ships: its latency, its size and the memory it takes."""

from __future__ import annotations

from harness.evals.results import RuleVerdict
from harness.evals.rules.decide import Bounds, decide, nothing
from harness.evals.rules.evidence import Evidence
from harness.specs.gate import Gate
from harness.stats.quantiles import items_for_quantile, quantile, quantile_lower_bound, quantile_upper_bound

PERCENTILES = {"latency_p50_ms": 0.50, "latency_p95_ms": 0.95, "latency_p99_ms": 0.99}


def judge_edge(gate: Gate, suite: str, shown: Evidence) -> list[RuleVerdict]:
    """The rule's verdict on the file."""
    if gate.metric in PERCENTILES:
        return [decide(gate, suite, "all", latency_bounds(gate, shown))]
    if gate.metric == "size_mb":
        size_mb = None if shown.size_bytes is None else shown.size_bytes / 1e6
        return [decide(gate, suite, "all", _known(size_mb, "the file's size"))]
    return [decide(gate, suite, "all", _known(shown.memory_mb, "the peak of memory"))]


def latency_bounds(gate: Gate, shown: Evidence) -> Bounds:
    """The percentile of single requests with bounds that hold whatever the distribution."""
    values, share = shown.latencies_ms, PERCENTILES[gate.metric]
    if not values:
        return nothing("latency was not measured")
    low, high = (
        quantile_lower_bound(values, share, gate.beta),
        quantile_upper_bound(values, share, gate.alpha),
    )
    fewest = items_for_quantile(share, gate.alpha)
    reason = (
        f"{len(values)} requests are too few for a bound: {fewest} are the fewest" if high is None else ""
    )
    return Bounds(len(values), quantile(values, share), low, high, reason)


def requests_needed(gate: Gate) -> int:
    """Requests that a latency rule stands on: twice the fewest with a bound, and 120 at least."""
    return max(120, 2 * (items_for_quantile(PERCENTILES[gate.metric], gate.alpha) or 0))


def _known(value_mb: float | None, what: str) -> Bounds:
    if value_mb is None:
        return nothing(f"{what} is unknown")
    return Bounds(1, value_mb, value_mb, value_mb, f"{what}, measured once")
