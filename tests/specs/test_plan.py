"""The decision flow, branch by branch, and the table of the six domains."""

from __future__ import annotations

from typing import Any

import pytest

from harness.specs.domains import DOMAINS
from harness.specs.obligations import obligations_of
from harness.specs.plan import plan
from harness.specs.recipe import Constraints, Recipe
from harness.specs.situation import GroupFacts, Plan, Situation, SuiteFacts
from harness.specs.suite import Domain, Suite


def a_suite(**changes: Any) -> Suite:
    plain = {
        "suite": "notes",
        "domain": "healthcare",
        "task": "classify",
        "records": {"train": "t.jsonl", "eval": "e.jsonl"},
        "labels": ["a", "b"],
        "prompt": {"user": "{{ input }}", "max_tokens": 128},
        "slices": ["sex"],
    }
    return Suite.model_validate({**plain, **changes})


def facts(n_calibration: int = 60, **changes: Any) -> SuiteFacts:
    groups = {"sex": GroupFacts(2, 60, 0.94), "label": GroupFacts(2, 60, 0.94)}
    return SuiteFacts("suites/notes.yaml", a_suite(**changes), 160, n_calibration, 0.97, 0.06, groups)


def planned(domain: Domain = "healthcare", n_train: int | None = 5_000, **constraints: Any) -> Plan:
    return plan(Situation(domain, Constraints(**constraints), suites=(facts(),), n_train=n_train))


def names(found: Plan) -> set[str]:
    return {one.name for one in found.obligations}


def metrics(found: Plan) -> set[str]:
    return {gate["metric"] for gate in found.recipe["gates"]}


def why(found: Plan, key: str) -> str:
    return " ".join(reason.text for reason in found.reasons if reason.key == key)


def test_sensitive_data_oblige_pseudonyms_and_a_suite_on_leaks() -> None:
    found = planned("science", data_sensitive=True)

    assert {"pseudonymised_data", "pii_suite"} <= names(found)
    said = " ".join(found.open)
    assert "harness data pseudonymise" in said
    assert "encrypted disk" in said
    assert "tune.dp" in said
    assert not {"pseudonymised_data", "pii_suite"} & names(planned("science"))


@pytest.mark.parametrize(("latency_ms", "is_hard"), [(199.9, True), (200.0, False), (None, False)])
def test_latency_under_200_ms_takes_a_small_quantized_model_and_a_gate(
    latency_ms: float | None, is_hard: bool
) -> None:
    found = planned("science", latency_ms=latency_ms)

    assert ("latency" in names(found)) is is_hard
    assert ("q4_0" in found.recipe["export"]["quants"]) is is_hard
    bounds = [gate["at_most"] for gate in found.recipe["gates"] if gate["metric"] == "latency_p95_ms"]
    assert bounds == ([] if latency_ms is None else [latency_ms])


def test_a_tight_budget_takes_adapters_over_a_4_bit_base() -> None:
    assert planned(budget="tight").recipe["tune"]["method"] == "qlora"
    assert "small_method" in names(planned(budget="tight"))
    assert planned(budget="ample").recipe["tune"]["method"] == "lora"
    assert "small_method" not in names(planned(budget="ample"))


def test_no_budget_and_no_domain_begins_with_full_tuning() -> None:
    for domain in DOMAINS:
        for budget in ("tight", "normal", "ample"):
            for n_train in (None, 100, 10_000, 1_000_000):
                tune = planned(domain, n_train, budget=budget).recipe["tune"]
                assert tune["method"] in ("lora", "qlora", "ia3")


def test_high_consequence_obliges_calibration_coverage_and_abstention_with_a_person_behind_it() -> None:
    found = planned("science", consequence="high")

    assert {"calibration", "coverage", "abstention"} <= names(found)
    assert {"confidence_gap", "coverage", "abstention"} <= metrics(found)
    assert any("harness review" in line for line in found.open)
    assert not {"confidence_gap", "coverage", "abstention"} & metrics(
        planned("science", consequence="medium")
    )


def test_rules_on_confidence_need_calibration_records() -> None:
    situation = Situation("science", Constraints(consequence="high"), suites=(facts(n_calibration=0),))

    found = plan(situation)

    assert not {"confidence_gap", "coverage", "abstention"} & metrics(found)
    assert any("no calibration records" in line for line in found.open)


def test_knowledge_that_changes_is_looked_up_or_swapped_before_any_retraining() -> None:
    found = planned("support", knowledge="changing")

    assert "replaceable_knowledge" in names(found)
    assert "before any retraining" in why(found, "constraints.knowledge")
    assert found.recipe["tune"]["method"] in ("lora", "qlora")  # what can be swapped
    assert any("citations" in line for line in found.open)
    assert "replaceable_knowledge" not in names(planned("support", knowledge="stable"))


def test_slices_are_always_judged() -> None:
    for domain in DOMAINS:
        found = planned(domain)

        assert ("groups" in names(found)) is (domain != "shared")
        assert [gate for gate in found.recipe["gates"] if gate.get("per") == "sex"]


def test_a_slice_with_too_few_records_is_left_out_and_said() -> None:
    found = plan(Situation("science", suites=(facts(slices=["sex", "age"]),)))

    assert not [gate for gate in found.recipe["gates"] if gate.get("per") == "age"]
    assert any(line.startswith("slice age: too few") for line in found.open)


def test_without_a_suite_there_are_no_rules_and_the_plan_says_so() -> None:
    found = plan(Situation("legal"))

    assert found.recipe["gates"] == []
    assert any(line.startswith("no suite") for line in found.open)


def test_a_base_that_does_not_fit_is_held_in_4_bits() -> None:
    roomy = Situation("legal", suites=(facts(),), base_mb=270.0, train_memory_mb=8_000.0)
    short = Situation("legal", suites=(facts(),), base_mb=14_000.0, train_memory_mb=16_000.0)

    assert plan(roomy).recipe["tune"]["method"] == "lora"
    assert plan(short).recipe["tune"]["method"] == "qlora"
    assert "14,000 MB" in why(plan(short), "tune.method")


@pytest.mark.parametrize(
    ("domain", "method", "obliged", "records", "latency"),
    [
        ("healthcare", {"method": "lora"}, {"calibration", "abstention", "groups"}, (10_000, 100_000), "relaxed"),
        ("finance", {"preset": "conservative"}, {"numbers", "determinism", "calibration"}, (5_000, 50_000), "medium"),
        ("legal", {"method": "lora"}, {"label_errors", "consistency"}, (5_000, 20_000), "medium"),
        ("support", {"method": "lora", "rank": 8}, {"latency"}, (1_000, 50_000), "low"),
        ("ecommerce", {"method": "lora", "rank": 8}, {"latency", "safe_content"}, (1_000, 20_000), "very low"),
        ("science", {"method": "lora"}, {"provenance", "repeatability"}, None, "relaxed"),
    ],
)  # fmt: skip
def test_the_table_of_the_domains(
    domain: Domain, method: dict[str, Any], obliged: set[str], records: tuple[int, int] | None, latency: str
) -> None:
    found = planned(domain)

    assert method.items() <= found.recipe["tune"].items()
    assert obliged <= names(found)
    assert DOMAINS[domain].records == records
    assert DOMAINS[domain].latency == latency
    assert DOMAINS[domain].uses_retrieval is (domain != "ecommerce")
    assert why(found, "domain").startswith("what matters most: ")


def test_few_records_for_descriptions_take_the_smallest_method_that_becomes_a_gguf() -> None:
    assert planned("ecommerce", 300).recipe["tune"]["method"] == "ia3"
    assert planned("ecommerce", budget="tight").recipe["tune"]["method"] == "ia3"


def test_many_tickets_carry_instruction_tuning_where_the_budget_allows() -> None:
    assert planned("support", 40_000).recipe["tune"]["preset"] == "instruction"
    assert "preset" not in planned("support", 40_000, budget="tight").recipe["tune"]
    assert "preset" not in planned("support", 2_000).recipe["tune"]


def test_fewer_records_than_the_domain_usually_takes_are_said() -> None:
    assert any("usually takes 5,000 to 20,000" in line for line in planned("legal", 240).open)
    assert not any("usually takes" in line for line in planned("legal", 6_000).open)


def test_a_latency_that_nobody_said_is_an_assumption_in_sight() -> None:
    found = planned("support")

    assert found.recipe["constraints"]["latency_ms"] == 500.0
    assert "is assumed" in why(found, "constraints.latency_ms")
    assert planned("support", latency_ms=80.0).recipe["constraints"]["latency_ms"] == 80.0


def test_what_two_causes_oblige_is_obliged_once_with_both() -> None:
    found = obligations_of("healthcare", Constraints(consequence="high"))

    calibration = [one for one in found if one.name == "calibration"]
    assert len(calibration) == 1
    assert "consequence: high" in calibration[0].because
    assert "domain: healthcare" in calibration[0].because


def test_an_obligation_that_no_suite_can_meet_is_open_by_its_name() -> None:
    assert any(line.startswith("obliged and not met: numbers") for line in planned("finance").open)
    assert not any(line.startswith("obliged and not met") for line in planned("healthcare").open)


def test_a_planned_recipe_is_a_recipe() -> None:
    for domain in DOMAINS:
        found = planned(domain, consequence="high", data_sensitive=True, latency_ms=90.0)

        assert Recipe.model_validate(found.recipe).domain == domain
