"""The decision flow: from what a domain demands to the smallest recipe that can meet it, each choice with its reason.

data_sensitive → pseudonymised training data and a suite on leaks · latency under 200 ms → small or quantized, latency
gated · tight budget → adapters first · high consequence → calibration, coverage and abstention gated, with a review
queue · knowledge changes → retrieval or swappable adapters before retraining · always → slices, not only the whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from harness.specs.domains import DOMAINS, LATENCY_MS
from harness.specs.obligations import EDGE_LATENCY_MS, Case, obligations_of, unmet
from harness.specs.plan_rules import planned_rules
from harness.specs.recipe import Constraints, Recipe
from harness.specs.situation import Plan, Reason, Situation

FEW_RECORDS = 1_000
"""Below this, more passes over the records and a smaller adapter."""
MANY_RECORDS = 20_000
TRAIN_FACTOR = 2.0
"""Memory of a LoRA run over that of the base's 16-bit weights, roughly; `harness train` measures before it starts."""
PRIVACY_SUITE = "suites/shared/privacy.yaml"


class Choice(NamedTuple):
    """What is written at a key, and why."""

    key: str
    value: Any
    why: str


def plan(situation: Situation) -> Plan:
    """The smallest effective method under the constraints, with the rules that they oblige.

    Without suites there are no rules, and `open` says so. The same situation gives the same plan.
    """
    constraints = stated_constraints(situation)
    obligations = obligations_of(situation.domain, constraints)
    recipe: dict[str, Any] = {
        "recipe": situation.name or f"{situation.domain}-plan",
        "domain": situation.domain,
        "constraints": constraints.model_dump(mode="json", exclude_none=True),
        "base": situation.base,
        "suites": [facts.path for facts in situation.suites],
    }
    reasons = [*_constraint_reasons(situation, constraints), *_base_reasons(situation, constraints)]
    tune = list(_tune(situation, constraints))
    rules = planned_rules(situation, constraints, {one.name for one in obligations})
    recipe["tune"] = {choice.key: choice.value for choice in tune}
    recipe["gates"] = [rule.gate for rule in rules.rules]
    quants, why = _quants(constraints)
    recipe["export"] = {"quants": quants, "pick": "smallest"}
    recipe["device"] = situation.device.model_dump(mode="json")
    reasons += [Reason(f"tune.{choice.key}", choice.why) for choice in tune if choice.why]
    reasons += [Reason(f"gates[{at}]", rule.why) for at, rule in enumerate(rules.rules)]
    reasons.append(Reason("export.quants", why))
    still_open = (*_open(situation, constraints), *rules.left_out, *_unmet(recipe, situation))
    return Plan(recipe, obligations, tuple(reasons), still_open)


def stated_constraints(situation: Situation) -> Constraints:
    """The constraints with the domain's own latency, where it is low and nobody said a number."""
    constraints = situation.constraints
    usual = LATENCY_MS.get(DOMAINS[situation.domain].latency)
    if constraints.latency_ms is not None or usual is None:
        return constraints
    return constraints.model_copy(update={"latency_ms": usual})


def _constraint_reasons(situation: Situation, constraints: Constraints) -> Iterator[Reason]:
    advice = DOMAINS[situation.domain]
    if advice.matters:
        yield Reason("domain", f"what matters most: {'; '.join(advice.matters)}")
    if constraints.latency_ms != situation.constraints.latency_ms:
        yield Reason(
            "constraints.latency_ms",
            f"{situation.domain} needs {advice.latency} latency and nobody said a number: "
            f"{constraints.latency_ms:g} ms is assumed; write what your users need",
        )
    if constraints.knowledge == "changing":
        yield Reason(
            "constraints.knowledge",
            "knowledge that changes is looked up, or kept in an adapter that can be swapped, before any retraining",
        )


def _base_reasons(situation: Situation, constraints: Constraints) -> Iterator[Reason]:
    if constraints.latency_ms is not None and constraints.latency_ms < EDGE_LATENCY_MS:
        yield Reason("base", f"under {EDGE_LATENCY_MS:g} ms takes a small or quantized model on the device")
    if situation.base_mb is not None:
        yield Reason("base", f"{situation.base_mb:,.0f} MB in 16 bits")


def _tune(situation: Situation, constraints: Constraints) -> Iterator[Choice]:
    yield from _method(situation, constraints)
    yield from _amount(situation)
    if situation.suites:
        longest = max(_longest_tok(facts.suite) for facts in situation.suites[:1])
        yield Choice("max_tokens", longest, "prompt budget of the first suite, and its answer")


def _method(situation: Situation, constraints: Constraints) -> Iterator[Choice]:
    """The smallest method that suits the domain's work."""
    advice = DOMAINS[situation.domain]
    adapter = _adapter(situation, constraints)
    if advice.method == "conservative":
        yield Choice(
            "preset",
            "conservative",
            "figures that the base has right must stay right: small steps on few layers",
        )
        yield adapter
    elif advice.method == "smallest" and (constraints.budget == "tight" or _is_few(situation)):
        why = "the smallest method that becomes a GGUF, as prompt tuning can't; where it is too small, lora"
        yield Choice("method", "ia3", why)
    elif advice.method == "small_lora" and _is_many(situation) and constraints.budget != "tight":
        yield Choice("preset", "instruction", f"{situation.n_train:,} records carry broad instruction tuning")
        yield adapter
    else:
        yield adapter
        small = advice.method in ("small_lora", "smallest")
        yield Choice(
            "rank", 8 if small else 16, "a small adapter first; raise it where development records say so"
        )
        yield Choice("alpha", 16.0 if small else 32.0, "")


def _adapter(situation: Situation, constraints: Constraints) -> Choice:
    """LoRA over 16-bit weights, or over NF4 where money or memory is short."""
    if constraints.budget == "tight":
        return Choice(
            "method", "qlora", "a tight budget takes adapters first, over a 4-bit base: the least memory"
        )
    short = (
        situation.base_mb is not None
        and situation.train_memory_mb is not None
        and situation.base_mb * TRAIN_FACTOR > situation.train_memory_mb
    )
    if short:
        room = f"{situation.train_memory_mb:,.0f} MB"
        why = f"{situation.base_mb:,.0f} MB of weights and their training don't fit {room}: 4 bits"
        return Choice("method", "qlora", why)
    return Choice(
        "method", "lora", "an adapter learns the domain, leaves the base as it is and can be swapped"
    )


def _amount(situation: Situation) -> Iterator[Choice]:
    if DOMAINS[situation.domain].method == "conservative" and not _is_few(situation):
        return
    if situation.n_train is None:
        yield Choice(
            "epochs", 2.0, "the number of records is unknown: two passes, and `tune.gates` to stop earlier"
        )
    elif _is_few(situation):
        yield Choice("epochs", 4.0, f"{situation.n_train:,} records are few: four passes over them")
    elif _is_many(situation):
        yield Choice("epochs", 1.0, f"{situation.n_train:,} records are many: one pass")
    else:
        yield Choice("epochs", 2.0, f"{situation.n_train:,} records: two passes")


def _is_few(situation: Situation) -> bool:
    return situation.n_train is not None and situation.n_train < FEW_RECORDS


def _is_many(situation: Situation) -> bool:
    return situation.n_train is not None and situation.n_train >= MANY_RECORDS


def _longest_tok(suite: Any) -> int:
    """The prompt's budget with room for the template and the answer."""
    from harness.specs.suite import SCORED_BY_LOGPROB

    answer = 32 if suite.task in SCORED_BY_LOGPROB else suite.generation.max_new_tokens
    return int(suite.prompt.max_tokens + max(32, answer))


def _quants(constraints: Constraints) -> tuple[list[str], str]:
    if constraints.latency_ms is not None and constraints.latency_ms < EDGE_LATENCY_MS:
        return [
            "q8_0",
            "q4_k_m",
            "q4_0",
        ], "a hard latency: 4 bits are tried twice, and each file is gated by itself"
    return ["q8_0", "q5_k_m", "q4_k_m"], "from safe to small: the smallest that passes ships"


def _open(situation: Situation, constraints: Constraints) -> Iterator[str]:
    """What no recipe does by itself."""
    advice = DOMAINS[situation.domain]
    if not situation.suites:
        yield "no suite: a recipe needs one that says what good means: --suite FILE"
    if constraints.data_sensitive:
        yield "pseudonymise before training: harness data pseudonymise IN OUT --key-file KEY"
        yield "keep source, key and map on an encrypted disk: the harness encrypts the map, not your files"
        yield "where one record must not be recognisable from the model: tune.dp, differential privacy"
        if not any(_has_leak_scorer(facts.suite) for facts in situation.suites):
            yield f"no suite scores personal data in answers: add {PRIVACY_SUITE}"
    if constraints.consequence == "high":
        yield "what the model abstains from goes to a person: harness review"
    if advice.uses_retrieval and constraints.knowledge == "changing":
        yield "give answers their passages: `retrieval` in a suite, or fields.context, and the scorer citations"
    if (
        advice.records is not None
        and situation.n_train is not None
        and situation.n_train < advice.records.least
    ):
        yield (
            f"{situation.n_train:,} training records; {advice.work} usually takes {advice.records.least:,} to "
            f"{advice.records.most:,}: the gates say whether yours suffice"
        )


def _unmet(recipe: dict[str, Any], situation: Situation) -> Iterator[str]:
    """Obligations that the suites can't meet, however they are gated."""
    if situation.suites:
        case = Case(Recipe.model_validate(recipe), tuple(facts.suite for facts in situation.suites))
        yield from (f"obliged and not met: {one.name}, {one.wants}: add {one.add}" for one in unmet(case))


def _has_leak_scorer(suite: Any) -> bool:
    return any(scorer.name == "pii_leak" for scorer in suite.scorers)
