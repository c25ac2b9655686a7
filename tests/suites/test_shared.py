"""The shared suites: sound, balanced, clean; a model that knows passes, one that does what it must not is caught."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from harness.data.check import check
from harness.data.overlap import near_duplicates
from harness.data.records import Record
from harness.evals.gate import Evidence, judge
from harness.evals.results import Sample, State
from harness.evals.run import Work
from harness.models.base import Answer, ChoiceRequest
from harness.specs.load import load_gates
from tests.evals.fakes import Told, run
from tests.suites import domains

SUITES = domains.ROOT / "suites" / "shared"
OWN = ["general", "refusals", "planted", "calibration", "privacy"]
PUBLIC = [
    "truthfulqa", "truthfulqa_open", "halueval_general", "truth_judge", "bbq", "hatecheck", "winobias", "xstest",
    "prompt_injections", "mmlu",
]  # fmt: skip


def rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (SUITES / name).read_text("utf-8").splitlines()]


def written(name: str, reply: Callable[[Record], str], folder: Path) -> tuple[Work, list[Sample]]:
    """The samples of a suite whose answers are written by `reply`."""
    work = domains.work_of(domains.load(f"shared/{name}"))
    records = {record.id: record for record in work.records}
    told = Told(lambda request: Answer(request.id, text=reply(records[request.id]), token_logprobs=(-0.1,)))
    return work, run(told, work, folder)


def verdicts(name: str, samples: list[Sample]) -> dict[str, State]:
    """What the suite's rules say of the samples, by rule and slice."""
    suite = f"shared-{name}"
    gates = load_gates(SUITES / "rules" / f"{name}.yaml")
    found = judge("model", "m", "", gates, {suite: Evidence(samples, max_error_frac=0.02)}, suite)
    return {
        f"{one.rule} {one.slice}": one.verdict for one in found.rules if one.rule in {g.name for g in gates}
    }


def test_all_shared_suites_and_rules_are_sound_without_the_public_data() -> None:
    assert check([SUITES]) == []
    assert {path.stem for path in SUITES.glob("*.yaml")} == {*OWN, *PUBLIC}


def test_every_file_of_rules_is_for_a_suite_that_is_there() -> None:
    assert {path.stem for path in (SUITES / "rules").glob("*.yaml")} <= {
        path.stem for path in SUITES.glob("*.yaml")
    }


@pytest.mark.parametrize("name", [*OWN, *PUBLIC])
def test_the_readme_names_each_suite(name: str) -> None:
    assert f"`{name}.yaml`" in (SUITES / "README.md").read_text("utf-8")


@pytest.mark.parametrize(
    ("name", "n"), [("general", 40), ("refusals", 40), ("planted", 24), ("calibration", 40), ("privacy", 36)]
)
def test_each_suite_has_the_size_that_the_readme_states(name: str, n: int) -> None:
    assert len(domains.load(f"shared/{name}").splits["eval"]) == n
    assert f"{n} " in (SUITES / "README.md").read_text("utf-8")


@pytest.mark.parametrize("name", OWN)
def test_records_have_ids_of_their_own_and_no_two_are_nearly_the_same(name: str) -> None:
    loaded = domains.load(f"shared/{name}")
    ids = [record.id for record in loaded.records]
    pairs = [*combinations(loaded.splits.values(), 2), *((part, part) for part in loaded.splits.values())]

    assert len(set(ids)) == len(ids)
    near = [
        one
        for left, right in pairs
        for one in near_duplicates(left, right, threshold=0.8)
        if one.left != one.right
    ]
    # A document stands twice in `planted`, with another instruction in it.
    assert [one for one in near if name != "planted"] == []


def test_the_right_option_is_as_often_in_each_place() -> None:
    places = Counter(row["options"].index(row["target"]) for row in rows("general.jsonl"))

    assert places == {0: 10, 1: 10, 2: 10, 3: 10}


def test_harmless_and_harmful_requests_come_in_equal_numbers_in_every_theme() -> None:
    found = Counter((row["slices"]["theme"], row["target"]) for row in rows("refusals.jsonl"))

    assert len(found) == 20
    assert set(found.values()) == {2}


def test_statements_are_as_often_true_as_false() -> None:
    assert abs(sum(1 if row["target"] == "true" else -1 for row in rows("calibration.jsonl"))) == 0


def test_the_mark_of_an_attack_stands_in_its_text_and_the_fact_too() -> None:
    for row in rows("planted.jsonl"):
        text = row["context"].casefold()
        assert all(mark in text for mark in row["marks"]), row["id"]
        assert any(part.casefold() in text for part in row["facts"][0].split("|")), row["id"]


@pytest.mark.parametrize("name", ["general", "calibration"])
def test_a_model_that_knows_is_right_and_one_that_does_not_is_wrong(name: str, tmp_path: Path) -> None:
    work = domains.work_of(domains.load(f"shared/{name}"))

    for rightly in (True, False):
        samples = run(domains.answering(work, rightly=rightly), work, tmp_path / str(rightly))
        assert {sample.score for sample in samples} == {float(rightly)}


def test_an_instruction_in_a_retrieved_text_that_is_obeyed_is_caught(tmp_path: Path) -> None:
    _, good = written("planted", lambda record: f"It says: {record.targets[0]}.", tmp_path / "good")
    _, bad = written("planted", lambda record: record.raw["marks"][0].upper(), tmp_path / "bad")

    assert [one.id for one in good if one.score < 1.0] == []
    assert {one.scores["mentions"] for one in good} == {1.0}
    assert {one.error_class for one in bad} == {"obeyed"}
    assert State.PASS in verdicts("planted", good).values()
    assert set(verdicts("planted", bad).values()) == {State.FAIL}


def test_a_model_that_refuses_all_and_one_that_refuses_nothing_both_fail(tmp_path: Path) -> None:
    _, all_refused = written("refusals", lambda _: "I'm sorry, but I can't help with that.", tmp_path / "all")
    _, none_refused = written("refusals", lambda _: "Sure, here is how.", tmp_path / "none")

    assert Counter(one.error_class for one in all_refused) == {None: 20, "over_refusal": 20}
    assert Counter(one.error_class for one in none_refused) == {None: 20, "under_refusal": 20}
    assert State.FAIL in verdicts("refusals", all_refused).values()
    assert State.FAIL in verdicts("refusals", none_refused).values()


def test_a_model_that_is_always_sure_and_wrong_in_half_fails_the_rule_of_calibration(tmp_path: Path) -> None:
    work = domains.work_of(domains.load("shared/calibration"))
    sure = Told(lambda request: Answer(request.id, choice_logprobs=(-0.01, -9.0), choice_tok=(1, 1)))
    samples = run(sure, work, tmp_path)

    assert all(isinstance(one, ChoiceRequest) for one in sure.asked)
    assert set(verdicts("calibration", samples).values()) == {State.FAIL}


@pytest.mark.parametrize(("name", "can"), [("general", True), ("mmlu", True), ("refusals", False)])
def test_a_suite_with_development_records_can_veto_a_checkpoint_that_forgot(
    name: str, can: bool, tmp_path: Path
) -> None:
    recipe = (domains.ROOT / "recipes" / "demo.yaml").read_text("utf-8")
    first = next(line for line in recipe.splitlines() if line.startswith("suites:"))
    inner = first.partition("[")[2].rstrip("]")
    suites = ", ".join(str(domains.ROOT / one.strip()) for one in inner.split(","))
    both = f"suites: [{suites}, {SUITES / name}.yaml]"
    gated = recipe.replace(first, both).replace("tune:\n", f"tune:\n  gates: {{forgetting: shared-{name}}}\n")
    (tmp_path / "r.yaml").write_text(gated)

    found = {problem.key for problem in check([tmp_path / "r.yaml"])}

    assert ("tune.gates.forgetting" not in found) is can
