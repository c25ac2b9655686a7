"""One stage, from a model that only counts what it is asked to a verdict on disk."""

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from harness.errors import DataError, SpecError
from harness.evals.calibrate import Calibration
from harness.evals.results import Sample, State
from harness.files import write_json
from harness.jobs.journal import Journal
from harness.jobs.orders import load_order
from harness.jobs.progress import Progress
from harness.jobs.regate import judge_again
from harness.jobs.stages import Stages, parity_rule
from harness.models.base import Answer, ChoiceRequest, Identity, Prompt
from tests.evals.builders import sample

SUITE = {
    "suite": "tiny", "domain": "shared", "task": "classify", "labels": ["yes", "no"], "repeat": 8,
    "records": {"eval": "eval.jsonl", "calibration": "calibration.jsonl"}, "prompt": {"user": "{{ input }}?"},
}  # fmt: skip


class Sure:
    """Says "yes" with a probability that the record's number sets, the same however it is asked."""

    identity = Identity("m", "scripted", "", "", "", "", "")

    def __init__(self) -> None:
        self.asked: list[str] = []

    def plan(self, requests: Sequence[Any]) -> list[list[int]]:
        return [list(range(k, min(k + 8, len(requests)))) for k in range(0, len(requests), 8)]

    def score_choices(self, requests: Sequence[ChoiceRequest]) -> Iterator[Answer]:
        for request in requests:
            self.asked.append(request.id)
            p = 0.55 + 0.004 * (int(request.id[1:]) % 100)
            yield Answer(request.id, choice_logprobs=(math.log(p), math.log(1.0 - p)), prompt_digest="d")

    def generate(self, requests: Sequence[Any]) -> Iterator[Answer]:
        raise AssertionError("the suite chooses labels")

    def token_ids(self, prompt: Prompt) -> list[int]:
        return []

    def close(self) -> None:
        pass


def lines(first: int, n: int) -> str:
    """Records of which the model is right about 19 in 20."""
    made = (
        {"id": f"r{k}", "input": f"text {k}", "target": "no" if k % 20 == 0 else "yes"}
        for k in range(first, first + n)
    )
    return "".join(json.dumps(record) + "\n" for record in made)


def stages(
    run: Path,
    *gates: dict[str, Any],
    calibration: int = 0,
    n: int = 600,
    device: dict[str, Any] | None = None,
) -> Stages:
    """The stages of a run in the folder, whose documents stand in it too."""
    run.mkdir(exist_ok=True)
    recipe = {
        "recipe": "r", "domain": "shared", "base": "embedded:smollm2-135m", "suites": ["tiny.yaml"],
        "gates": list(gates), "device": device or {"name": "cpu"},
    }  # fmt: skip
    write_json(run / "recipe.yaml", recipe)
    records = {key: file for key, file in SUITE["records"].items() if key == "eval" or calibration}  # type: ignore[attr-defined]
    write_json(run / "tiny.yaml", {**SUITE, "records": records})
    (run / "eval.jsonl").write_text(lines(0, n))
    (run / "calibration.jsonl").write_text(lines(10_000, calibration))
    loaded = load_order(run / "recipe.yaml", None)
    document = {"recipe": recipe, "suites": {"tiny": SUITE}}
    options = {"recipe": str(run / "recipe.yaml")}
    write_json(
        run / "manifest.json", {"options": options, "document": document, "lock": loaded.lock["digest"]}
    )
    progress = Progress(Journal(run / "events.jsonl"), run, [("x", "x")])
    return Stages(run, loaded, progress)


def test_a_stage_whose_rules_are_all_sequential_asks_no_more_than_they_need(tmp_path: Path) -> None:
    model = Sure()

    verdict, _ = stages(tmp_path, {"metric": "accuracy", "at_least": 0.7, "design": "sequential"}).run(
        "adapter", "m", lambda: model
    )

    assert verdict.verdict is State.PASS
    assert len(set(model.asked)) < 600
    assert verdict.rules[-1].items_saved == 600 - len(set(model.asked))


@pytest.mark.parametrize(
    "other",
    [
        {"metric": "accuracy", "at_least": 0.5},
        {"metric": "accuracy", "versus": "adapter", "no_worse_than": 0.1},
    ],
)
def test_a_stage_is_scored_whole_where_another_rule_needs_every_item(
    tmp_path: Path, other: dict[str, Any]
) -> None:
    model = Sure()

    stages(tmp_path, {"metric": "accuracy", "at_least": 0.7, "design": "sequential"}, other).run(
        "adapter", "m", lambda: model
    )

    assert len(set(model.asked)) == 600


def test_the_calibration_split_is_scored_only_where_a_rule_needs_it(tmp_path: Path) -> None:
    plain, calibrated = Sure(), Sure()
    coverage = {"metric": "coverage", "target": 0.9, "at_least": 0.8}
    accuracy = {"metric": "accuracy", "at_least": 0.7}

    stages(tmp_path / "a", accuracy, calibration=200).run("adapter", "m", lambda: plain)
    verdict, _ = stages(tmp_path / "b", accuracy, coverage, calibration=200).run(
        "adapter", "m", lambda: calibrated
    )

    assert {int(id_[1:]) >= 10_000 for id_ in plain.asked} == {False}
    assert sum(int(id_[1:]) >= 10_000 for id_ in set(calibrated.asked)) == 200
    kept = tmp_path / "b" / "stages" / "adapter" / "tiny" / "calibration.json"
    found = Calibration.from_json(json.loads(kept.read_text()))
    assert (found.n, found.suite, found.temperature is not None) == (200, "tiny", True)
    assert verdict.rules[-1].verdict is State.PASS


def test_without_calibration_records_such_a_rule_stays_open(tmp_path: Path) -> None:
    coverage = {"metric": "coverage", "target": 0.9, "at_least": 0.8}

    verdict, _ = stages(tmp_path, {"metric": "accuracy", "at_least": 0.7}, coverage).run("adapter", "m", Sure)

    assert verdict.verdict is State.INCONCLUSIVE
    assert "calibration split was not scored" in verdict.rules[-1].reason


def test_a_stage_is_judged_again_from_what_is_on_disk_alone(tmp_path: Path) -> None:
    rules = [
        {"metric": "accuracy", "at_least": 0.7, "design": "sequential"},
        {"metric": "coverage", "target": 0.9, "at_least": 0.8},
        {"metric": "abstention", "precision": 0.9, "at_least": 0.3},
        {"metric": "brier", "at_most": 0.9, "calibrated": True},
    ]
    for name, asked in (("whole", rules), ("early", rules[:1])):
        verdict, _ = stages(tmp_path / name, *asked, calibration=200).run("adapter", "m", Sure)

        again = judge_again(tmp_path / name, "adapter")

        assert (again.kept, again.is_same) == ((), True)
        assert again.measured.rules == verdict.rules


def test_calibration_records_that_the_gate_judges_end_the_run(tmp_path: Path) -> None:
    coverage = {"metric": "coverage", "target": 0.9, "at_least": 0.8}
    of = stages(tmp_path, coverage, calibration=50, n=10_020)  # r10000 to r10019 are in both

    with pytest.raises(DataError, match="20 items that the gate judges"):
        of.run("adapter", "m", Sure)


def test_memory_is_what_the_file_took_when_it_was_measured(tmp_path: Path) -> None:
    of = stages(
        tmp_path, {"metric": "accuracy", "at_least": 0.7}, {"metric": "memory_mb", "at_most": 900}, n=60
    )

    def measure() -> list[Any]:
        path = tmp_path / "stages" / "q4_0" / "fidelity.json"
        path.write_text(json.dumps({"identity": "m", "child_peak_mb": 512.5}))
        return []

    verdict, _ = of.run("q4_0", "m", Sure, extra_rules=measure)

    rule = next(rule for rule in verdict.rules if rule.metric == "memory_mb")
    assert (rule.score, rule.verdict) == (512.5, State.PASS)


def test_sequential_rules_of_one_suite_want_one_order(tmp_path: Path) -> None:
    one = {"metric": "accuracy", "at_least": 0.7, "design": "sequential"}

    with pytest.raises(SpecError, match="orders 17, 18: one order_seed a suite"):
        stages(tmp_path, one, {**one, "at_least": 0.6, "order_seed": 18})


def digests(start: int, end: int, digest: str = "d") -> list[Sample]:
    return [sample(k, prompt_digest=digest) for k in range(start, end)]


@pytest.mark.parametrize(
    ("before", "now", "state"),
    [
        (digests(0, 9), digests(0, 9), State.PASS),
        (digests(0, 5), digests(0, 9), State.PASS),
        (digests(0, 9), digests(0, 5), State.PASS),
        (digests(0, 5), digests(3, 9), State.FAIL),
        (digests(0, 9, "x"), digests(0, 9), State.FAIL),
        (digests(0, 5, "x"), digests(0, 9), State.FAIL),
        ([], digests(0, 9), State.FAIL),
        (digests(0, 9), [], State.FAIL),
    ],
)  # fmt: skip
def test_token_ids_are_compared_on_the_items_that_both_stages_scored(
    before: list[Sample], now: list[Sample], state: State
) -> None:
    assert parity_rule("s", "f16", before, now).verdict is state
