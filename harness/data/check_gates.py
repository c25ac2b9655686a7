"""What is wrong with a recipe's rules: what they name, which stages they judge, and whether they can pass."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from typing import Any

from harness.data.check_suite import Checked
from harness.data.records import Record
from harness.data.slices import crossed_names
from harness.errors import Problem
from harness.specs.gate import CALIBRATED_METRICS, EDGE_METRICS, LESS_IS_BETTER, RATES, Gate
from harness.specs.suite import Suite
from harness.specs.yaml import Loc, YamlDocument, describe
from harness.stats.multiplicity import alpha_for_attempt
from harness.stats.planning import detectable_gap, detectable_margin, planned_worth
from harness.stats.power import fewest_items
from harness.stats.sequential import Betting, Claim
from harness.stats.survey import effective_lower, effective_sample
from harness.text import nearest, visible

CHAIN = ("base", "adapter", "merged", "f16")
UNTRAINED = ("base", "f16")
"""Stages before the quants where nothing is trained."""
"""Stages before the quants, in their order."""
TOKEN_CONFIDENCES = ("mean_logprob", "min_logprob")
"""Confidences that every written answer has."""
MAX_SLICES = 3
"""Slices that a problem names."""


def check_gates(
    yaml: YamlDocument, suites: Sequence[Checked], quants: Sequence[str], *, knows_all_suites: bool,
    trains: bool = True,
) -> list[Problem]:  # fmt: skip
    """Problems of the rules that are rules; what is wrong with the others, the recipe's own check says.

    With `knows_all_suites` false, a rule may read a suite that could not be loaded, so unknown names pass.
    """
    items = yaml.data.get("gates")
    gates = {index: _gate(item) for index, item in enumerate(items if isinstance(items, list) else [])}
    rules = {index: gate for index, gate in gates.items() if gate is not None}
    problems: list[Problem] = []
    for index, gate in rules.items():
        loc: Loc = ("gates", index)
        problems += _check_stages(yaml, loc, gate, quants, CHAIN if trains else UNTRAINED)
        problems += _check_direction(yaml, loc, gate)
        if knows_all_suites:
            problems += _check_suite_name(yaml, loc, gate, suites)
        if (checked := _suite_of(gate, suites)) is not None and checked.suite is not None:
            problems += _check_per(yaml, loc, gate, checked.suite)
            problems += _check_evidence(yaml, loc, gate, checked.suite, checked)
            held = _as_first_attempt(yaml, gate)
            problems += _check_power(yaml, loc, held, checked)
            problems += _check_margin(yaml, loc, held, checked)
        first = next((other for other, rule in rules.items() if rule == gate), index)
        if first < index:
            problems.append(yaml.problem(loc, gate.name, "each rule once", f"gates[{first}] is it too"))
    if (
        rules
        and len(rules) == len(gates)
        and not any(_judges_quants(rule, quants) for rule in rules.values())
    ):
        problems.append(
            yaml.problem(("gates",), "no rule judges a quant", "at least one for the files that ship")
        )
    return problems


def _gate(item: Any) -> Gate | None:
    from pydantic import ValidationError

    try:
        return Gate.model_validate_json(json.dumps(item), strict=True)
    except ValidationError:
        return None


def _suite_of(gate: Gate, suites: Sequence[Checked]) -> Checked | None:
    if gate.suite is None:
        return suites[0] if len(suites) == 1 else None
    return next((checked for checked in suites if checked.suite and checked.suite.suite == gate.suite), None)


def _check_suite_name(
    yaml: YamlDocument, loc: Loc, gate: Gate, suites: Sequence[Checked]
) -> Iterator[Problem]:
    names = [checked.suite.suite for checked in suites if checked.suite]
    if gate.suite is None and len(names) > 1 and gate.metric not in EDGE_METRICS:
        yield yaml.problem(loc, gate.name, "a suite", f"add `suite:` and one of {', '.join(names)}")
    elif gate.suite is not None and gate.suite not in names:
        yield yaml.problem(
            (*loc, "suite"), describe(gate.suite), "a suite of this recipe", _nearest(gate.suite, names)
        )


def _check_stages(
    yaml: YamlDocument, loc: Loc, gate: Gate, quants: Sequence[str], chain: Sequence[str]
) -> Iterator[Problem]:
    known = [*chain, *quants]
    for place, stage in enumerate(gate.stages):
        here = (*loc, "stages", place)
        if stage not in known:
            hint = "leave `stages` out to judge each quant" if stage == "edge" else _nearest(stage, known)
            yield yaml.problem(here, describe(stage), "a stage of this recipe", hint)
        elif gate.metric in EDGE_METRICS and stage in chain:
            yield yaml.problem(here, describe(stage), "a quant", f"{gate.metric} is measured on what ships")
    versus = gate.versus
    if versus is not None and versus not in known:
        yield yaml.problem((*loc, "versus"), describe(versus), "an earlier stage", _nearest(versus, known))
    elif versus is not None and versus not in chain:
        yield yaml.problem(
            (*loc, "versus"), describe(versus), f"one of {', '.join(chain)}", "quants come last"
        )
    elif versus is not None:
        late = [
            stage for stage in gate.stages if stage in chain and chain.index(stage) <= chain.index(versus)
        ]
        if late:
            hint = f"{', '.join(late)} does not come after it"
            yield yaml.problem(
                (*loc, "versus"), describe(versus), "an earlier stage than each it judges", hint
            )


def _check_direction(yaml: YamlDocument, loc: Loc, gate: Gate) -> Iterator[Problem]:
    if gate.metric in LESS_IS_BETTER and gate.at_least is not None:
        yield yaml.problem(
            (*loc, "at_least"), f"{gate.at_least:g}", "at_most", f"less {gate.metric} is better"
        )
    if gate.metric in EDGE_METRICS and gate.per is not None:
        yield yaml.problem(
            (*loc, "per"), describe(gate.per_words), "no `per`", f"{gate.metric} is one number a file"
        )


def _check_per(yaml: YamlDocument, loc: Loc, gate: Gate, suite: Suite) -> Iterator[Problem]:
    if gate.per is None or gate.metric in EDGE_METRICS:
        return
    here = (*loc, "per")
    if gate.metric == "consistency" and gate.per == "variant":
        yield from _check_only(yaml, loc, gate, suite.invariance.kinds)
    elif gate.is_label_rule:
        if suite.task in ("answer", "generate", "rank", "perplexity"):
            yield yaml.problem(here, "label", "a suite that classifies", f"{suite.suite} generates")
    elif gate.per == "label" and "label" not in suite.slices:
        yield yaml.problem(here, '"label"', "recall or precision", f"{gate.metric} has no label to go by")
    else:
        for key in gate.slice_keys:
            if key not in suite.slices:
                hint = _nearest(key, list(suite.slices))
                yield yaml.problem(here, describe(key), f"a slice that {suite.suite} declares", hint)


def _check_only(yaml: YamlDocument, loc: Loc, gate: Gate, known: Sequence[str]) -> Iterator[Problem]:
    """Values that the rule is about and nothing has."""
    for place, value in enumerate(gate.only):
        if value not in known:
            wanted = f"a value of {gate.slice_keys[0]}"
            yield yaml.problem((*loc, "only", place), describe(value), wanted, _nearest(value, known))


def _check_evidence(
    yaml: YamlDocument, loc: Loc, gate: Gate, suite: Suite, checked: Checked
) -> Iterator[Problem]:
    """Scores, confidences, variants, slice values and calibration records that the suite does not have."""
    if gate.metric == "consistency" and not suite.invariance.kinds:
        hint = f"such as invariance: {{kinds: [rename_parties]}} in {suite.suite}"
        yield yaml.problem(
            loc, f"{suite.suite} has no invariance", "changes that must not move an answer", hint
        )
    if gate.only and gate.per != "variant" and checked.splits is not None:
        parts = _parts(gate.model_copy(update={"only": ()}), checked.splits["eval"])
        prefix = "" if gate.is_label_rule else f"{gate.slice_keys[0]}="
        yield from _check_only(yaml, loc, gate, [name.removeprefix(prefix) for name in parts])
    scorers = [spec.score_name for spec in suite.scorers]
    if gate.score is not None and scorers and gate.score not in scorers:
        wanted = f"a scorer of {suite.suite}"
        yield yaml.problem((*loc, "score"), describe(gate.score), wanted, _nearest(gate.score, scorers))
    known = (*suite.confidence.kinds, *TOKEN_CONFIDENCES)
    if gate.confidence is not None and gate.confidence not in known:
        here, hint = (*loc, "confidence"), _nearest(gate.confidence, known)
        yield yaml.problem(here, describe(gate.confidence), f"one that {suite.suite} measures", hint)
    is_calibrated = gate.metric in CALIBRATED_METRICS or gate.calibrated
    if is_calibrated and checked.splits is not None and not checked.splits["calibration"]:
        hint = "give a calibration file, or `calibration_frac`, which takes units of the training records"
        yield yaml.problem(loc, f"{suite.suite} has no calibration records", "some", hint)


def _check_power(yaml: YamlDocument, loc: Loc, gate: Gate, checked: Checked) -> Iterator[Problem]:
    """A rule that could not pass if every answer were right, or that would judge nothing."""
    records = checked.splits["eval"] if checked.splits is not None else []
    bound = gate.at_least if gate.at_least is not None else gate.at_most
    if bound is None or gate.metric not in RATES or not records:
        return
    if gate.metric in ("precision", "f1") or gate.average == "macro":  # hangs on what will be answered
        return
    key = "at_least" if gate.at_least is not None else "at_most"
    threshold = bound if key == "at_least" else 1.0 - bound
    parts = _parts(gate, records)
    judged = {name: units for name, units in parts.items() if not gate.per or len(units) >= gate.min_n}
    if parts and not judged:
        most = max(map(len, parts.values()))
        found = f"every {gate.per_words} has fewer than min_n {gate.min_n} eval records"
        yield yaml.problem(loc, found, "", f"the rule would judge nothing; the most is {most}")
    hopeless = {name: units for name, units in judged.items() if not _can_pass(gate, units, threshold)}
    if hopeless:
        words = _hopeless_words(hopeless, threshold, gate.alpha)
        hint = "" if gate.design == "fixed" else "; one by one it takes more: use design: fixed"
        yield yaml.problem((*loc, key), f"{bound:g}", "", words + hint)


def _as_first_attempt(yaml: YamlDocument, gate: Gate) -> Gate:
    """The rule with the alpha that a first attempt may spend: no later one can see more."""
    if yaml.data.get("attempts", "spend") != "spend":
        return gate
    return gate.model_copy(update={"alpha": alpha_for_attempt(gate.alpha, 1)})


def _check_margin(yaml: YamlDocument, loc: Loc, gate: Gate, checked: Checked) -> Iterator[Problem]:
    """A margin, or a cap on a gap, that the records can't show even where there is no difference at all."""
    records = checked.splits["eval"] if checked.splits is not None else []
    key = "no_worse_than" if gate.no_worse_than is not None else "gap"
    margin = gate.no_worse_than if gate.no_worse_than is not None else gate.gap
    if margin is None or gate.acknowledge or not records or gate.metric == "brier":
        return
    parts = {
        name: units
        for name, units in _parts(gate, records).items()
        if not gate.per or len(units) >= gate.min_n
    }
    worth = sorted((planned_worth(units, gate.alpha), name) for name, units in parts.items())
    if not worth or (key == "gap" and len(worth) < 2):
        return
    least, name = worth[0]
    finest = (
        detectable_margin(least, alpha=gate.alpha) if key == "no_worse_than"
        else detectable_gap(int(least), int(worth[1][0]), alpha=gate.alpha)
    )  # fmt: skip
    if finest is None or margin >= finest:
        return
    where = "" if name == "all" else f" of {visible(name, keep_newlines=False, limit_chars=60)}"
    units = parts[name]
    hint = (
        f"{len(units)} items{where} in {len(set(units))} units pass less than 4 times in 5 without any difference; "
        "`acknowledge: why` on the rule keeps it"
    )
    yield yaml.problem((*loc, key), f"{margin:g}", f"{math.ceil(finest * 1000) / 1000:g} or more", hint)


def _parts(gate: Gate, records: Sequence[Record]) -> dict[str, list[str]]:
    """The units of the eval records that the rule judges together, by slice."""
    parts: dict[str, list[str]] = {}
    for record in records:
        if gate.per is None:
            names: Sequence[str] = ["all"]
        elif gate.is_label_rule:
            names = record.targets
        else:
            names = crossed_names(record.slices, gate.slice_keys)
        for name in names:
            if gate.is_label_rule and gate.only and name not in gate.only:
                continue
            if gate.is_label_rule or gate.holds_for(name):
                parts.setdefault(name, []).append(record.unit)
    return parts


def _can_pass(gate: Gate, units: Sequence[str], threshold: float) -> bool:
    """Whether the rule passes where every item is right."""
    if gate.design == "fixed" or not 0.0 < threshold < 1.0:
        return _best_bound(units, gate.alpha) >= threshold
    n = min(len(set(units)), gate.n_max or len(units))
    # The test bets a part of its wealth at most, so near 1 and with few units even hits alone don't win enough.
    return Betting(Claim(threshold, n, gate.alpha, gate.beta)).extend([1.0] * n).decision == "PASS"


def _best_bound(units: Sequence[str], alpha: float) -> float:
    """The lower bound that the gate would give if every item were right."""
    sample = effective_sample([1.0] * len(units), units, alpha)
    return 0.0 if sample is None else effective_lower(sample, alpha)


def _hopeless_words(hopeless: dict[str, list[str]], threshold: float, alpha: float) -> str:
    worst = sorted(hopeless, key=lambda name: (len(hopeless[name]), name))
    named = ", ".join(
        f"{visible(name, keep_newlines=False, limit_chars=60)} ({len(hopeless[name])} items in "
        f"{len(set(hopeless[name]))} units)"
        for name in worst[:MAX_SLICES]
    )
    more = f" and {len(worst) - MAX_SLICES} more" if len(worst) > MAX_SLICES else ""
    needed = fewest_items(threshold, alpha)
    wanted = f"at least {needed:,} independent items" if needed else "no number of items proves it"
    return f"can never PASS, not even with every answer right, for {named}{more}: {wanted}"


def _judges_quants(gate: Gate, quants: Sequence[str]) -> bool:
    return not gate.stages or any(stage in quants for stage in gate.stages)


def _nearest(name: str, known: Sequence[str]) -> str:
    close = nearest(name, list(known))
    return f"nearest: {close}" if close else f"there are {', '.join(known) or 'none'}"
