"""What a gate rule may say, and what it is told when it says too little or too much."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from ruamel.yaml import YAML

from harness.specs.gate import Gate

VALID: list[dict[str, Any]] = [
    {"metric": "accuracy", "at_least": 0.8},
    {"metric": "score", "score": "rouge_l", "at_least": 0.4},
    {"metric": "score", "score": "rouge_l", "versus": "base", "better_than": 0.0},
    {"metric": "f1", "per": "label", "at_least": 0.4},
    {"metric": "f1", "average": "macro", "at_least": 0.4},
    {"metric": "precision", "average": "micro", "per": "ward", "at_least": 0.4},
    {"metric": "accuracy", "gap": 0.1, "per": ["sex", "age"], "floor": 0.7},
    {"metric": "demographic_parity", "gap": 0.1, "per": "sex", "positive": "yes"},
    {"metric": "coverage", "target": 0.9, "at_least": 0.85, "per": "ward"},
    {"metric": "abstention", "precision": 0.95, "at_least": 0.5, "confidence": "p_true"},
    {"metric": "confidence_gap", "within": 0.05, "calibrated": True},
    {"metric": "brier", "versus": "f16", "no_worse_than": 0.02},
    {"metric": "brier", "at_most": 0.3},
    {"metric": "ece", "at_most": 0.05},
    {"metric": "latency_p99_ms", "at_most": 100},
    {"metric": "memory_mb", "at_most": 900},
    {"metric": "accuracy", "at_least": 0.8, "design": "sequential", "n_max": 400},
    {"metric": "f1", "average": "micro", "at_least": 0.8, "design": "sequential", "max_parts": 12},
]


def problem_of(**values: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        Gate.model_validate(values)
    return "\n".join(error["msg"] for error in caught.value.errors())


@pytest.mark.parametrize("values", VALID, ids=lambda values: str(values["metric"]))
def test_a_rule_comes_back_from_its_json_as_it_was(values: dict[str, Any]) -> None:
    rule = Gate.model_validate(values)

    assert Gate.model_validate_json(rule.model_dump_json(), strict=True) == rule


def test_rules_that_say_different_things_have_different_names() -> None:
    names = [Gate.model_validate(values).name for values in VALID[:-2]]

    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"metric": "accuracy"}, "exactly one of at_least, at_most, gap, within"),
        ({"metric": "accuracy", "at_least": 0.5, "at_most": 0.6}, "exactly one of"),
        ({"metric": "accuracy", "at_least": 1.5}, "between 0 and 1"),
        ({"metric": "accuracy", "at_least": 0.5, "no_worse_than": 0.1}, "need versus"),
        ({"metric": "accuracy", "versus": "base"}, "exactly one of no_worse_than and better_than"),
        ({"metric": "recall", "versus": "base", "better_than": 0, "per": "label"}, "no paired test"),
        ({"metric": "score", "at_least": 0.5}, "score needs score"),
        ({"metric": "accuracy", "score": "rouge_l", "at_least": 0.5}, "score belongs to score"),
        ({"metric": "f1", "at_least": 0.5}, "`per: label` and `average: micro`"),
        ({"metric": "f1", "average": "micro", "per": "label", "at_least": 0.5}, "needs one of"),
        ({"metric": "f1", "average": "macro", "per": "ward", "at_least": 0.5}, "without per"),
        ({"metric": "accuracy", "gap": 0.1}, "gap needs per"),
        ({"metric": "accuracy", "at_least": 0.5, "floor": 0.1}, "floor belongs to a rule with gap"),
        ({"metric": "demographic_parity", "gap": 0.1, "per": "sex"}, "needs positive"),
        ({"metric": "coverage", "at_least": 0.9}, "coverage needs target"),
        ({"metric": "coverage", "at_least": 0.9, "target": 0.9}, "can't be shown to reach it"),
        ({"metric": "abstention", "at_least": 0.9}, "abstention needs precision"),
        ({"metric": "confidence_gap", "at_most": 0.9}, "confidence_gap needs within"),
        ({"metric": "brier", "at_least": 0.9}, "less is better"),
        ({"metric": "accuracy", "per": ["sex", "sex"], "at_least": 0.5}, "names a key twice"),
        ({"metric": "accuracy", "per": 3, "at_least": 0.5}, "a slice key, or a list of keys"),
        ({"metric": "accuracy", "n_max": 100, "at_least": 0.5}, "n_max belongs to design: sequential"),
        ({"metric": "brier", "at_most": 0.3, "design": "sequential"}, "design: sequential judges"),
        (
            {"metric": "f1", "per": "label", "at_least": 0.3, "design": "sequential"},
            "can't plan f1 per label",
        ),
    ],
)  # fmt: skip
def test_a_rule_that_says_too_little_or_too_much_is_told_so(values: dict[str, Any], said: str) -> None:
    assert said in problem_of(**values)


def test_the_rules_of_the_documentation_are_rules() -> None:
    text = (Path(__file__).parents[2] / "docs" / "gates.md").read_text(encoding="utf-8")
    block = text.split("```yaml\n")[1].split("```")[0]

    rules = [Gate.model_validate(rule) for rule in YAML(typ="safe").load(block)["gates"]]

    assert len({rule.name for rule in rules}) >= len(rules) - 1


def test_all_problems_of_a_rule_are_told_at_once() -> None:
    said = problem_of(metric="f1", at_least=2, target=0.3, n_max=5)

    assert all(part in said for part in ("between 0 and 1", "belongs to coverage", "average", "n_max"))
