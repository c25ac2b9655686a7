"""What a recipe owes to its domain and constraints: met, excused with a reason, or refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.data.check import check
from harness.data.protection import FORMAT, report_path
from harness.errors import Problem
from harness.files import sha256_file
from harness.specs.obligations import OBLIGATIONS, Case, unmet
from harness.specs.recipe import Recipe
from harness.specs.suite import Suite

PLAIN_SUITE: dict[str, Any] = {
    "suite": "notes", "domain": "shared", "task": "classify", "slices": ["sex"], "labels": ["a", "b"],
    "records": {"train": "train.jsonl", "calibration": "calibration.jsonl", "eval": "eval.jsonl"},
    "prompt": {"user": "{{ input }}"},
}  # fmt: skip
WRITTEN: dict[str, Any] = {
    "suite": "written", "domain": "shared", "task": "generate", "records": {"eval": "eval.jsonl"},
    "prompt": {"user": "{{ input }}"},
}  # fmt: skip
ACCURACY = {"metric": "accuracy", "at_least": 0.5}


def case(domain: str, gates: list[dict[str, Any]], *suites: dict[str, Any], **changes: Any) -> Case:
    recipe = {"recipe": "r", "domain": domain, "base": "b", "suites": ["s.yaml"], "gates": gates, **changes}
    return Case(Recipe.model_validate(recipe), tuple(map(Suite.model_validate, suites or (PLAIN_SUITE,))))


def open_ones(domain: str, gates: list[dict[str, Any]], *suites: dict[str, Any], **changes: Any) -> set[str]:
    return {one.name for one in unmet(case(domain, gates, *suites, **changes))}


HIGH = {"constraints": {"consequence": "high"}}
CITED = {
    **WRITTEN,
    "records": {"eval": "e.jsonl", "fields": {"context": "context"}},
    "scorers": ["citations"],
}
LEAKS = {**WRITTEN, "scorers": ["pii_leak"]}


@pytest.mark.parametrize(
    ("name", "domain", "missing", "met", "suites", "changes"),
    [
        ("latency", "support", ACCURACY, {"metric": "latency_p95_ms", "at_most": 100}, [PLAIN_SUITE], {}),
        ("latency", "shared", ACCURACY, {"metric": "latency_p99_ms", "at_most": 100}, [PLAIN_SUITE],
         {"constraints": {"latency_ms": 100.0}}),
        ("calibration", "healthcare", ACCURACY, {"metric": "confidence_gap", "within": 0.1}, [PLAIN_SUITE], {}),
        ("calibration", "shared", ACCURACY, {"metric": "brier", "at_most": 0.2}, [PLAIN_SUITE], HIGH),
        ("coverage", "shared", ACCURACY, {"metric": "coverage", "target": 0.9, "at_least": 0.8}, [PLAIN_SUITE], HIGH),
        ("abstention", "shared", ACCURACY, {"metric": "abstention", "precision": 0.9, "at_least": 0.3},
         [PLAIN_SUITE], HIGH),
        ("groups", "science", ACCURACY, {"metric": "accuracy", "per": "sex", "at_least": 0.3}, [PLAIN_SUITE], {}),
        ("groups", "science", {"metric": "recall", "per": "label", "at_least": 0.3},
         {"metric": "accuracy", "per": "sex", "gap": 0.2}, [PLAIN_SUITE], {}),
        ("consistency", "legal", ACCURACY, {"metric": "consistency", "at_least": 0.8}, [PLAIN_SUITE], {}),
        ("pii_suite", "shared", {"metric": "error_rate", "at_most": 0.5}, ACCURACY, [LEAKS],
         {"constraints": {"data_sensitive": True}}),
        ("pii_suite", "shared", ACCURACY, {"metric": "score", "score": "pii_leak", "at_least": 0.9},
         [{**WRITTEN, "scorers": ["rouge_l", "pii_leak"]}], {"constraints": {"data_sensitive": True}}),
    ],
)  # fmt: skip
def test_an_obliged_rule_that_is_dropped_is_missed_and_one_that_is_there_is_not(
    name: str,
    domain: str,
    missing: dict[str, Any],
    met: dict[str, Any],
    suites: list[dict[str, Any]],
    changes: dict[str, Any],
) -> None:
    assert name in open_ones(domain, [missing], *suites, **changes)
    assert name not in open_ones(domain, [met], *suites, **changes)


@pytest.mark.parametrize(
    ("name", "domain", "gates", "without", "with_it"),
    [
        ("numbers", "finance", [ACCURACY], PLAIN_SUITE, {**WRITTEN, "task": "number"}),
        ("numbers", "finance", [ACCURACY], WRITTEN, {**WRITTEN, "scorers": ["grounded"]}),
        ("determinism", "finance", [ACCURACY], {**WRITTEN, "generation": {"temperature": 0.3}}, WRITTEN),
        ("provenance", "science", [ACCURACY], WRITTEN, {**WRITTEN, "task": "spans"}),
        ("provenance", "science", [ACCURACY], PLAIN_SUITE, CITED),
        ("repeatability", "science", [ACCURACY], {**WRITTEN, "repeat": 0}, WRITTEN),
        ("safe_content", "ecommerce", [ACCURACY], WRITTEN,
         {**WRITTEN, "scorers": [{"name": "form", "banned": ["cure"]}]}),
        ("safe_content", "ecommerce", [ACCURACY], {**WRITTEN, "scorers": [{"name": "form", "max_words": 9}]},
         {**WRITTEN, "scorers": ["refusal"]}),
    ],
)  # fmt: skip
def test_what_a_suite_must_measure(
    name: str, domain: str, gates: list[dict[str, Any]], without: dict[str, Any], with_it: dict[str, Any]
) -> None:
    assert name in open_ones(domain, gates, without)
    assert name not in open_ones(domain, gates, with_it)


def test_both_kinds_of_error_of_each_label_are_owed_in_legal_work() -> None:
    recall = {"metric": "recall", "per": "label", "at_least": 0.3}

    assert "label_errors" in open_ones("legal", [recall])
    assert "label_errors" not in open_ones("legal", [recall, {**recall, "metric": "precision"}])


def test_a_tight_budget_refuses_full_tuning_and_takes_adapters() -> None:
    tight = {"constraints": {"budget": "tight"}}

    assert "small_method" in open_ones("shared", [ACCURACY], tune={"method": "full"}, **tight)
    assert "small_method" not in open_ones("shared", [ACCURACY], tune={"method": "ia3"}, **tight)
    assert "small_method" not in open_ones("shared", [ACCURACY], tune={"method": "full"})


def test_changing_knowledge_takes_a_swappable_adapter_or_cited_passages() -> None:
    changing = {"constraints": {"knowledge": "changing"}}

    assert not open_ones("shared", [ACCURACY], tune={"method": "lora"}, **changing)
    for merged in (
        {"method": "full"},
        {"method": "lora", "dora": True},
        {"method": "qlora", "init": "pissa"},
    ):
        assert open_ones("shared", [ACCURACY], tune=merged, **changing) == {"replaceable_knowledge"}
    assert not open_ones("shared", [ACCURACY], CITED, tune={"method": "full"}, **changing)


def test_a_rule_that_judges_no_file_that_ships_meets_nothing() -> None:
    early = {"metric": "confidence_gap", "within": 0.1, "stages": ["adapter"]}

    assert "calibration" in open_ones("shared", [early], **HIGH)
    assert "calibration" not in open_ones("shared", [{**early, "stages": ["adapter", "q8_0"]}], **HIGH)


def test_no_sets_are_owed_where_nothing_chooses() -> None:
    assert "coverage" not in open_ones("shared", [ACCURACY], WRITTEN, **HIGH)


def test_every_obligation_can_be_excused_by_its_name() -> None:
    for name in OBLIGATIONS:
        recipe = case(
            "shared", [ACCURACY], deviations=[{"from": name, "because": "a reason in words"}]
        ).recipe

        assert recipe.model_dump(mode="json")["deviations"] == [
            {"from": name, "because": "a reason in words"}
        ]
        assert Recipe.model_validate(recipe.model_dump(mode="json")) == recipe


SUITE = """\
suite: notes
domain: shared
task: classify
records: {train: train.jsonl, eval: eval.jsonl}
labels: [a, b]
slices: [sex]
prompt: {user: "{{ input }}"}
"""
RECIPE = """\
recipe: demo
domain: shared
constraints: {consequence: CONSEQUENCE, data_sensitive: SENSITIVE}
base: embedded:smollm2-135m
suites: [notes.yaml]
gates:
  - {metric: accuracy, at_least: 0.6}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = [
        {
            "id": f"r{i}",
            "input": f"a note with number {i * 7919}",
            "target": "ab"[i % 2],
            "slices": {"sex": "f"},
        }
        for i in range(120)
    ]
    for name, some in (("train", rows[:40]), ("eval", rows[40:])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some))
    (tmp_path / "notes.yaml").write_text(SUITE)
    return tmp_path


def problems(
    folder: Path, *, consequence: str = "medium", sensitive: str = "false", more: str = ""
) -> list[Problem]:
    text = RECIPE.replace("CONSEQUENCE", consequence).replace("SENSITIVE", sensitive)
    (folder / "demo.yaml").write_text(text + more)
    return check([folder / "demo.yaml"])


def test_a_dropped_gate_fails_check_and_a_written_reason_lets_it_pass(folder: Path) -> None:
    found = problems(folder, consequence="high")

    assert [(one.line, one.key, one.found) for one in found] == [(3, "constraints", "consequence: high")] * 3
    assert "from: coverage" in "".join(one.hint for one in found)
    reasons = "deviations:\n" + "".join(
        f"  - {{from: {name}, because: nobody acts on the answers}}\n"
        for name in ("calibration", "coverage", "abstention")
    )
    assert problems(folder, consequence="high", more=reasons) == []


def test_a_reason_that_says_nothing_is_refused(folder: Path) -> None:
    found = problems(folder, consequence="high", more="deviations: [{from: coverage, because: no}]\n")

    assert any(one.key == "deviations[0].because" for one in found)


def test_a_deviation_from_nothing_is_a_problem(folder: Path) -> None:
    needless = "deviations: [{from: coverage, because: nobody acts on the answers}]\n"
    unknown = "deviations: [{from: covrage, because: nobody acts on the answers}]\n"

    assert [one.hint for one in problems(folder, more=needless)] == [
        "neither the domain nor the constraints oblige it"
    ]
    assert [one.hint for one in problems(folder, more=unknown)] == ["nearest: coverage"]


def test_sensitive_data_train_only_with_the_report_of_their_own_bytes(folder: Path) -> None:
    excused = "deviations: [{from: pii_suite, because: only labels are answered}]\n"
    train = folder / "train.jsonl"

    (missing,) = problems(folder, sensitive="true", more=excused)
    assert "missing for train.jsonl" in missing.hint
    report = {"format": FORMAT, "output": {"name": train.name, "sha256": sha256_file(train)}}
    report_path(train).write_text(json.dumps(report))
    assert problems(folder, sensitive="true", more=excused) == []

    train.write_text(train.read_text().replace("a note with number 0", "a note of Ann Lee"))
    (stale,) = problems(folder, sensitive="true", more=excused)
    assert stale.key == "constraints"
