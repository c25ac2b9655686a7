"""What a recipe owes to its domain and constraints: each obligation by name, and whether the recipe meets it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from harness.specs.gate import FAIRNESS_METRICS, Gate
from harness.specs.recipe import Constraints, Recipe
from harness.specs.suite import CHOOSES_LABEL, LABELLED, Domain, Suite

EDGE_LATENCY_MS = 200.0
"""Below this a model must be small or quantized, and its latency gated."""
BEFORE_QUANTS = ("base", "adapter", "merged", "f16")
LATENCIES = ("latency_p50_ms", "latency_p95_ms", "latency_p99_ms")
PROBABILITIES = ("confidence_gap", "brier", "ece")
NUMBER_SCORERS = ("number", "number_or_text", "derivation", "fields", "grounded")
SOURCE_SCORERS = ("citations", "spans_exact", "spans_overlap", "spans_chars", "spans_tokens", "grounded")


class Case(NamedTuple):
    """A recipe and the suites that it names, as far as they could be read."""

    recipe: Recipe
    suites: tuple[Suite, ...]


class Obligation(NamedTuple):
    """Something that a recipe must have, or say why not."""

    name: str
    """What a deviation names."""
    because: str
    """The constraint or the domain that obliges it."""
    wants: str
    add: str
    """What to write into the recipe."""
    is_met: Callable[[Case], bool] | None
    """None where it takes the training files to know."""


def obligations_of(domain: Domain, constraints: Constraints) -> tuple[Obligation, ...]:
    """All that a recipe of the domain owes under these constraints, each once, in the order of the decision flow."""
    reasons: dict[str, list[str]] = {}
    for name, because in (*_from_constraints(constraints), *_from_domain(domain)):
        reasons.setdefault(name, []).append(because)
    return tuple(
        Obligation(name, " and ".join(because), *_TERMS[name], _CHECKS.get(name))
        for name, because in sorted(reasons.items(), key=lambda item: list(_TERMS).index(item[0]))
    )


def _from_constraints(constraints: Constraints) -> Iterator[tuple[str, str]]:
    if constraints.data_sensitive:
        for name in ("pseudonymised_data", "pii_suite"):
            yield name, "data_sensitive: true"
    if constraints.latency_ms is not None and constraints.latency_ms < EDGE_LATENCY_MS:
        yield "latency", f"latency_ms: {constraints.latency_ms:g}"
    if constraints.budget == "tight":
        yield "small_method", "budget: tight"
    if constraints.consequence == "high":
        for name in ("calibration", "coverage", "abstention"):
            yield name, "consequence: high"
    if constraints.knowledge == "changing":
        yield "replaceable_knowledge", "knowledge: changing"


def _from_domain(domain: Domain) -> Iterator[tuple[str, str]]:
    if domain != "shared":
        yield "groups", "every domain"
    yield from ((name, f"domain: {domain}") for name in DOMAIN_OBLIGATIONS[domain])


DOMAIN_OBLIGATIONS: dict[Domain, tuple[str, ...]] = {
    "healthcare": ("calibration", "abstention"),
    "finance": ("numbers", "determinism", "calibration"),
    "legal": ("label_errors", "consistency"),
    "support": ("latency",),
    "ecommerce": ("latency", "safe_content"),
    "science": ("provenance", "repeatability"),
    "shared": (),
}
"""What matters most in each domain, as far as a release can show it before anybody uses it."""

_TERMS: dict[str, tuple[str, str]] = {
    "pseudonymised_data": (
        "training files with the report of their pseudonymisation beside them",
        "harness data pseudonymise IN OUT --key-file KEY, and train on OUT",
    ),
    "pii_suite": (
        "a rule on a suite that scores personal data in answers",
        "suites/shared/privacy.yaml, and {metric: score, score: pii_leak, at_least: …, suite: privacy}",
    ),
    "latency": ("a rule on latency", "{metric: latency_p95_ms, at_most: …}"),
    "small_method": ("an adapter", "tune.method qlora, lora or ia3"),
    "calibration": (
        "a rule on how right probabilities are",
        "{metric: confidence_gap, within: …, calibrated: true}",
    ),
    "coverage": ("a rule on prediction sets", "{metric: coverage, target: …, at_least: …}"),
    "abstention": (
        "a rule on abstention, whose unanswered items go to a person",
        "{metric: abstention, precision: …, at_least: …}",
    ),
    "replaceable_knowledge": (
        "knowledge that changes without training: passages with citations, or an adapter that can be swapped",
        "a suite with retrieval, fields.context or fields.document and the scorer citations; or tune.method lora or"
        " qlora without dora and pissa",
    ),
    "groups": (
        "a rule on slices, not only on all items",
        "{metric: accuracy, per: …, at_least: …} or a rule with gap, on a slice that the suite declares",
    ),
    "numbers": (
        "a rule on a suite that checks numbers",
        f"a suite with task number or a scorer {', '.join(NUMBER_SCORERS)}, and a rule on it",
    ),
    "determinism": ("answers without chance", "generation.temperature 0 in each suite"),
    "label_errors": (
        "rules on precision and on recall of each label",
        "{metric: precision, per: label, at_least: …} and {metric: recall, per: label, at_least: …}",
    ),
    "consistency": (
        "a rule on answers that stay when what does not matter changes",
        "invariance in a suite, and {metric: consistency, at_least: …}",
    ),
    "safe_content": (
        "a suite that scores what must not be written",
        "a suite with the scorer form and banned, or with refusal",
    ),
    "provenance": (
        "a rule on a suite that checks where an answer comes from",
        f"a suite with task spans or a scorer {', '.join(SOURCE_SCORERS)}, and a rule on it",
    ),
    "repeatability": ("answers that are asked again", "repeat above 0 in each suite that is gated"),
}  # fmt: skip
"""What each obligation wants, and what to add."""

OBLIGATIONS = tuple(_TERMS)
"""All names that a deviation may use."""


def binding_rules(recipe: Recipe) -> list[Gate]:
    """The rules that judge what ships: a rule on earlier stages alone obliges nobody at the end."""
    return [
        gate
        for gate in recipe.gates
        if not gate.stages or any(stage not in BEFORE_QUANTS for stage in gate.stages)
    ]


def _has_rule(case: Case, *metrics: str) -> bool:
    return any(gate.metric in metrics for gate in binding_rules(case.recipe))


def _read_by(gate: Gate, case: Case) -> Suite | None:
    """The suite that the rule reads."""
    if gate.suite is None:
        return case.suites[0] if len(case.suites) == 1 else None
    return next((suite for suite in case.suites if suite.suite == gate.suite), None)


def _gated_suites(case: Case) -> list[Suite]:
    found = (_read_by(gate, case) for gate in binding_rules(case.recipe))
    return [suite for suite in found if suite is not None]


def scorer_names(suite: Suite) -> set[str]:
    return {scorer.name for scorer in suite.scorers}


def _leaks_are_gated(case: Case) -> bool:
    return any(
        suite is not None and _reads_scorer(gate, suite, "pii_leak")
        for gate in binding_rules(case.recipe)
        if (suite := _read_by(gate, case)) is not None
    )


def _reads_scorer(gate: Gate, suite: Suite, scorer: str) -> bool:
    """Whether the rule is about this scorer: `accuracy` reads the first one, `score` the one that it names."""
    named = [spec.score_name for spec in suite.scorers if spec.name == scorer]
    first = suite.scorers[0].score_name if suite.scorers else None
    return (gate.metric == "score" and gate.score in named) or (
        gate.metric == "accuracy" and first is not None and first in named
    )


def _has_coverage(case: Case) -> bool:
    """Prediction sets are sets of labels or options: where nothing chooses, there are none to cover."""
    chooses = any(suite.task in (*CHOOSES_LABEL, "choice") for suite in case.suites)
    return not chooses or _has_rule(case, "coverage")


def _is_replaceable(case: Case) -> bool:
    tune = case.recipe.tune
    is_swappable = tune.is_lora and not tune.dora and tune.init == "zero"
    return is_swappable or any(_cites(suite) for suite in _gated_suites(case))


def _cites(suite: Suite) -> bool:
    fields = suite.records.fields
    has_own = fields.context is not None or getattr(fields, "document", None) is not None
    has_passages = has_own or suite.retrieval is not None
    return has_passages and "citations" in scorer_names(suite)


def _judges_groups(case: Case) -> bool:
    return any(
        gate.metric in FAIRNESS_METRICS or (gate.slice_keys and not gate.is_label_rule)
        for gate in binding_rules(case.recipe)
    )


def _checks_numbers(case: Case) -> bool:
    return any(
        suite.task == "number" or scorer_names(suite) & set(NUMBER_SCORERS) for suite in _gated_suites(case)
    )


def _is_deterministic(case: Case) -> bool:
    return all(suite.generation.temperature == 0.0 for suite in case.suites)


def _judges_label_errors(case: Case) -> bool:
    """Both kinds of error of each label; where no gated suite has labels, there are none to judge."""
    if not any(suite.task in (*LABELLED, "extract", "spans") for suite in _gated_suites(case)):
        return True
    judged = {gate.metric for gate in binding_rules(case.recipe) if gate.is_label_rule}
    return {"precision", "recall"} <= judged


def _bans_content(case: Case) -> bool:
    return any(
        scorer.name == "refusal" or (scorer.name == "form" and "banned" in scorer.settings)
        for suite in case.suites
        for scorer in suite.scorers
    )


def _has_provenance(case: Case) -> bool:
    return any(
        suite.task == "spans" or scorer_names(suite) & set(SOURCE_SCORERS) for suite in _gated_suites(case)
    )


_CHECKS: dict[str, Callable[[Case], bool]] = {
    "pii_suite": _leaks_are_gated,
    "latency": lambda case: _has_rule(case, *LATENCIES),
    "small_method": lambda case: case.recipe.tune.method != "full",
    "calibration": lambda case: _has_rule(case, *PROBABILITIES),
    "coverage": _has_coverage,
    "abstention": lambda case: _has_rule(case, "abstention"),
    "replaceable_knowledge": _is_replaceable,
    "groups": _judges_groups,
    "numbers": _checks_numbers,
    "determinism": _is_deterministic,
    "label_errors": _judges_label_errors,
    "consistency": lambda case: _has_rule(case, "consistency"),
    "safe_content": _bans_content,
    "provenance": _has_provenance,
    "repeatability": lambda case: all(suite.repeat > 0 for suite in _gated_suites(case)),
}


def unmet(case: Case) -> Sequence[Obligation]:
    """The obligations that the recipe does not meet, whatever its deviations say.

    Those that take the training files to know are left out.
    """
    owed = obligations_of(case.recipe.domain, case.recipe.constraints)
    return [one for one in owed if one.is_met is not None and not one.is_met(case)]
