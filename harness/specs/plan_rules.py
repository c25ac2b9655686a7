"""The rules that a planned recipe begins with: what is always asked, and what the situation obliges."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

from harness.specs.recipe import Constraints
from harness.specs.situation import GroupFacts, Situation, SuiteFacts
from harness.specs.suite import CHOOSES_LABEL, LABELLED, Suite

FLOOR_BELOW = 0.25
"""How far a slice's floor lies below what all items need."""
LEAST_FLOOR = 0.2
LABEL_FLOOR = 0.4
MARGIN = 0.05
MIN_N = 20
"""Records of a slice's value that make it worth a verdict."""
MIN_LABEL_N = 12


class PlannedRule(NamedTuple):
    """A rule as YAML holds it, and why it is there."""

    gate: dict[str, Any]
    why: str


class PlannedRules(NamedTuple):
    """The rules, and what could not be one."""

    rules: tuple[PlannedRule, ...]
    left_out: tuple[str, ...]


def planned_rules(situation: Situation, constraints: Constraints, owed: set[str]) -> PlannedRules:
    """The rules for the situation's suites; `owed` are the names of its obligations."""
    if not situation.suites:
        return PlannedRules((), ())
    first = situation.suites[0]
    left_out: list[str] = []
    rules = [
        *_overall(situation, first),
        *_slices(situation, first, left_out),
        *_labels(first, "label_errors" in owed, left_out),
        *_probabilities(first, owed, left_out),
        *_others(situation, owed),
    ]
    if "consistency" in owed and not _has_variants(first.suite):
        left_out.append(
            f"consistency: {first.suite.suite} declares no invariance; add kinds to it and a rule"
        )
    elif "consistency" in owed:
        gate = {"metric": "consistency", "at_least": round(min(0.8, _under(first.best_bound)), 2)}
        rules.append(PlannedRule(gate, "an answer must stay when what does not matter changes"))
    if constraints.latency_ms is not None:
        gate = {"metric": "latency_p95_ms", "at_most": constraints.latency_ms}
        rules.append(PlannedRule(gate, "measured on each file that could ship, request by request"))
    return PlannedRules(tuple(_named(rule, situation) for rule in rules), tuple(left_out))


def _named(rule: PlannedRule, situation: Situation) -> PlannedRule:
    """The rule with its suite's name, which it needs where there are several."""
    if len(situation.suites) < 2 or "suite" in rule.gate:
        return rule
    return PlannedRule({**rule.gate, "suite": situation.suites[0].suite.suite}, rule.why)


def _overall(situation: Situation, first: SuiteFacts) -> Iterator[PlannedRule]:
    bound = min(situation.at_least, _under(first.best_bound))
    why = "what the domain needs: put your own number here"
    if bound < situation.at_least:
        why = f"{first.n_eval} records can't show {situation.at_least:g}; more records, then a higher bound"
    yield PlannedRule({"metric": "accuracy", "at_least": bound}, why)
    yield PlannedRule(
        {"metric": "accuracy", "versus": "base", "better_than": 0.0},
        "training that adds nothing is not shipped",
    )
    if first.finest_margin is not None and first.finest_margin < 1.0:
        margin = max(MARGIN, math.ceil(first.finest_margin * 100) / 100)
        why = f"what quantizing may cost; {first.n_eval} records show no finer margin than {first.finest_margin:.3f}"
        yield PlannedRule({"metric": "accuracy", "versus": "f16", "no_worse_than": margin}, why)
    if first.suite.prompt.over_length.startswith("truncate"):
        yield PlannedRule({"metric": "truncated_rate", "at_most": 0.1}, "cut prompts were not read whole")


def _slices(situation: Situation, first: SuiteFacts, left_out: list[str]) -> Iterator[PlannedRule]:
    for key in first.suite.slices:
        facts = first.groups.get(key)
        floor = 0.0 if facts is None else _floor(situation.at_least - FLOOR_BELOW, facts)
        if facts is None or floor < LEAST_FLOOR:
            left_out.append(f"slice {key}: too few evaluation records a value to judge; reported only")
            continue
        gate = {"metric": "accuracy", "per": key, "at_least": floor, "min_n": MIN_N}
        why = f"{facts.n_values} value{_s(facts.n_values)} of {facts.n_least} records or more: none may be left behind"
        yield PlannedRule(gate, why)


def _labels(first: SuiteFacts, needs_precision: bool, left_out: list[str]) -> Iterator[PlannedRule]:
    if first.suite.task not in LABELLED:
        return
    facts = first.groups.get("label")
    floor = 0.0 if facts is None else _floor(LABEL_FLOOR, facts)
    if facts is None or floor < LEAST_FLOOR:
        left_out.append("labels: too few evaluation records a label to judge; reported only")
        return
    gate = {"metric": "recall", "per": "label", "at_least": floor, "min_n": MIN_LABEL_N}
    yield PlannedRule(
        gate,
        f"{facts.n_values} label{_s(facts.n_values)} of {facts.n_least} records or more: none may be lost",
    )
    if needs_precision:
        yield PlannedRule({**gate, "metric": "precision"}, "both kinds of error, label by label")


def _probabilities(first: SuiteFacts, owed: set[str], left_out: list[str]) -> Iterator[PlannedRule]:
    """Rules on confidence; they stand on calibration records."""
    wanted = [name for name in ("calibration", "coverage", "abstention") if name in owed]
    if wanted and not first.n_calibration:
        named = ", ".join(wanted)
        left_out.append(
            f"{named}: {first.suite.suite} has no calibration records; give it some, then these rules"
        )
        return
    if "calibration" in wanted:
        gate = {"metric": "confidence_gap", "within": 0.15, "calibrated": True}
        yield PlannedRule(gate, "a person must know when the model guesses")
    if "coverage" in wanted and first.suite.task in (*CHOOSES_LABEL, "choice"):
        gate = {"metric": "coverage", "target": 0.9, "at_least": round(min(0.8, _under(first.best_bound)), 2)}
        yield PlannedRule(gate, "sets that hold the right answer as often as promised")
    if "abstention" in wanted:
        gate = {"metric": "abstention", "precision": 0.8, "at_least": 0.2}
        yield PlannedRule(gate, "what is answered is right; the rest goes to the review queue")


def _others(situation: Situation, owed: set[str]) -> Iterator[PlannedRule]:
    """One rule for each further suite, so that nothing is measured for nobody."""
    for facts in situation.suites[1:]:
        leaks = next((spec for spec in facts.suite.scorers if spec.name == "pii_leak"), None)
        bound = round(min(0.9 if leaks else situation.at_least, _under(facts.best_bound)), 2)
        if leaks is not None and "pii_suite" in owed:
            gate = {
                "metric": "score",
                "score": leaks.score_name,
                "at_least": bound,
                "suite": facts.suite.suite,
            }
            yield PlannedRule(gate, "personal data must not come out of the model")
        elif bound >= LEAST_FLOOR:
            gate = {"metric": "accuracy", "at_least": bound, "suite": facts.suite.suite}
            yield PlannedRule(gate, "put your own number here")


def _floor(wanted: float, facts: GroupFacts) -> float:
    return round(max(0.0, min(wanted, _under(facts.best_bound))), 2)


def _under(best: float) -> float:
    """A bound that a perfect score clears, to two digits."""
    return math.floor((best - 0.02) * 100) / 100


def _has_variants(suite: Suite) -> bool:
    """Whether the suite asks its items again in other ways."""
    return bool(getattr(getattr(suite, "invariance", None), "kinds", ()))


def _s(n: int) -> str:
    return "" if n == 1 else "s"
