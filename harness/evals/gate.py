"""From samples to a verdict: what each rule says of each slice, and their AND.

PASS means that "worse than the threshold" is rejected at alpha, FAIL that "good enough" is rejected at
beta. Between the two is INCONCLUSIVE, which blocks. No number at all is INCONCLUSIVE too, never PASS.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from harness.evals.results import RuleVerdict, State, Verdict
from harness.evals.rules.consistency import judge_consistency
from harness.evals.rules.decide import Bounds, aim_of, decide, nothing
from harness.evals.rules.edge import judge_edge
from harness.evals.rules.evidence import Evidence, Planned
from harness.evals.rules.frozen import judge_frozen
from harness.evals.rules.groups import judge_gap
from harness.evals.rules.paired import difference_bounds, judge_paired
from harness.evals.rules.probabilities import judge_brier, judge_confidence_gap, judge_ece
from harness.evals.rules.rates import Part, judge_rate
from harness.evals.rules.sequential import judge_sequential
from harness.evals.rules.sets import judge_abstention, judge_coverage
from harness.specs.gate import EDGE_METRICS, Gate

__all__ = ["BASELINE", "CHAIN", "EDGE_METRICS", "QUALITY_METRICS", "Bounds", "Evidence", "Part", "Planned", "applies",
           "combine", "difference_bounds", "is_borne_out", "judge", "stale"]  # fmt: skip

CHAIN = ("base", "adapter", "merged", "f16")
"""Stages before the quants, in their order."""
BASELINE = "baseline"
"""What a rule calls another run that it is compared with, whatever its stage: `versus: baseline`."""
QUALITY_METRICS = ("accuracy", "score", "precision", "recall", "f1", "brier", "coverage", "abstention")
"""Without a PASS on one of these nothing is known about the answers, and nothing passes."""
BLOCKING = (State.FAIL, State.STALE, State.INCONCLUSIVE)
"""What stands in the way of a release, the worst first."""
Judge = Callable[[Gate, str, Evidence], list[RuleVerdict]]
_JUDGES: Mapping[str, Judge] = {
    "coverage": judge_coverage, "abstention": judge_abstention, "confidence_gap": judge_confidence_gap,
    "brier": judge_brier, "ece": judge_ece, "consistency": judge_consistency, **dict.fromkeys(EDGE_METRICS, judge_edge),
}  # fmt: skip


def judge(
    stage: str, identity: str, lock: str, gates: Sequence[Gate], evidence: Mapping[str, Evidence], only: str
) -> Verdict:
    """The verdict of a stage.

    `evidence` is by suite name; a rule without a suite reads `only`, the recipe's first one.
    """
    rules = [_integrity(suite, shown) for suite, shown in evidence.items()]
    for gate in gates:
        suite = gate.suite or only
        if suite in evidence and applies(gate, stage):
            found = _acknowledged(gate, _judge_rule(gate, suite, evidence[suite]))
            rules += found if _is_judged(found) else [*found, _unjudged(gate, suite)]
    return Verdict(stage, identity, lock, combine(rules), tuple(rules))


def applies(gate: Gate, stage: str) -> bool:
    """Whether the rule judges the stage."""
    if gate.stages:
        return stage in gate.stages
    if gate.metric in EDGE_METRICS:
        return stage not in CHAIN
    if gate.versus in (None, BASELINE):
        return True
    return _position(stage) > _position(str(gate.versus))


def combine(rules: Sequence[RuleVerdict]) -> State:
    """The AND: one FAIL fails, one STALE or INCONCLUSIVE blocks, and without a measured PASS nothing passes.

    A WAIVED rule does not block and is no PASS. No correction for the number of rules: an intersection-union test
    keeps its level on the PASS side.
    """
    states = [rule.verdict for rule in rules]
    blocking = next((state for state in BLOCKING if state in states), None)
    if blocking is not None:
        return blocking
    measured = [rule for rule in rules if rule.verdict is State.PASS and rule.metric in QUALITY_METRICS]
    return State.PASS if measured else State.INCONCLUSIVE


def is_borne_out(rule: RuleVerdict, gate: Gate) -> bool:
    """Whether the numbers of a rule's PASS reach the gate's thresholds, noise included."""
    noise = rule.noise or 0.0
    if gate.within is not None:
        ends = rule.low, rule.high
        return None not in ends and -gate.within <= (rule.low or 0.0) and (rule.high or 0.0) <= gate.within
    aim = aim_of(gate)
    if gate.metric == "abstention" and rule.threshold == gate.precision and gate.precision is not None:
        aim = aim._replace(threshold=gate.precision)
    return rule.threshold == aim.threshold and aim.passes(rule.low, rule.high, noise)


def stale(verdict: Verdict, identity: str, lock: str) -> Verdict:
    """The verdict, or STALE where it is about another model or stands on another lock."""
    if (verdict.identity, verdict.lock) == (identity, lock):
        return verdict
    return replace(verdict, verdict=State.STALE)


def _position(stage: str) -> int:
    return CHAIN.index(stage) if stage in CHAIN else len(CHAIN)


def _is_judged(found: Sequence[RuleVerdict]) -> bool:
    return any(rule.verdict is not State.SKIPPED for rule in found)


def _unjudged(gate: Gate, suite: str) -> RuleVerdict:
    """A rule none of whose slices is large enough has proved nothing, and must not look as if it held."""
    reason = f"no {gate.per_words} has {gate.min_n} items: nothing was judged"
    return decide(gate, suite, gate.per_words or "all", nothing(reason))


def _acknowledged(gate: Gate, found: Sequence[RuleVerdict]) -> list[RuleVerdict]:
    """The verdicts with the recipe's reason for a margin that its records can hardly show."""
    if gate.acknowledge is None:
        return list(found)
    return [replace(rule, reason=f"{rule.reason}; acknowledged: {gate.acknowledge}") for rule in found]


def _judge_rule(gate: Gate, suite: str, shown: Evidence) -> list[RuleVerdict]:
    if gate.population == "frozen":
        return judge_frozen(gate, suite, shown)
    if gate.metric in _JUDGES:
        return _JUDGES[gate.metric](gate, suite, shown)
    if gate.gap is not None:
        return judge_gap(gate, suite, shown)
    if gate.design == "sequential":
        return judge_sequential(gate, suite, shown)
    return judge_paired(gate, suite, shown) if gate.versus is not None else judge_rate(gate, suite, shown)


def _integrity(suite: str, shown: Evidence) -> RuleVerdict:
    """The rule that no recipe can leave out: the run must have happened, and most of it without errors."""
    n = len(shown.samples)
    errors = sum(sample.error is not None for sample in shown.samples)
    rate = errors / n if n else None
    if rate is None:
        state, reason = State.INCONCLUSIVE, "no items were scored: an empty run proves nothing"
    elif rate > shown.max_error_frac:
        state, reason = (
            State.FAIL,
            f"{errors} of {n} items ended in an error; the suite allows {shown.max_error_frac:.1%}",
        )
    else:
        state, reason = State.PASS, f"{errors} of {n} items ended in an error"
    return RuleVerdict(
        rule="errors within the suite's limit", suite=suite, metric="error_rate", slice="all", n=n, score=rate,
        low=None, high=None, threshold=shown.max_error_frac, verdict=state, reason=reason,
    )  # fmt: skip
