"""The shared suites on public data: sound, whole, right where the gold is said, wrong where it is not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from harness.data.check import check
from harness.evals.gate import Evidence, judge
from harness.evals.results import Sample, State
from harness.models.base import Answer, ChoiceRequest
from harness.scoring.refusal import is_refusal
from harness.specs.load import load_gates, load_suite
from tests.evals.fakes import Told, run
from tests.real.conftest import ROOT, Rows
from tests.suites import domains
from tests.suites.domains import Loaded

pytestmark = pytest.mark.real
SIZES = {
    "truthfulqa": 268, "truthfulqa_open": 120, "halueval_general": 800, "truth_judge": 1000, "bbq": 952,
    "hatecheck": 961, "winobias": 600, "xstest": 120, "prompt_injections": 14, "mmlu": 999,
}  # fmt: skip
BY_LOGPROB = ["truthfulqa", "halueval_general", "truth_judge", "bbq", "hatecheck", "winobias", "mmlu"]


def load(name: str) -> Loaded:
    public = load_suite(domains.ROOT / "suites" / "shared" / f"{name}.yaml").records.public
    if not (ROOT / str(public)).is_dir():
        pytest.skip(f"no {public} at $HARNESS_DATA")
    return domains.load(f"shared/{name}", data_root=ROOT)


@pytest.mark.parametrize("name", SIZES)
def test_a_suite_is_sound_and_has_all_its_records(name: str) -> None:
    loaded = load(name)

    assert check([loaded.path], ROOT) == []
    assert len(loaded.splits["eval"]) == SIZES[name]
    for key in loaded.suite.slices:
        assert all(key in record.slices for record in loaded.splits["eval"]), key


@pytest.mark.parametrize("name", BY_LOGPROB)
def test_golds_are_right_and_all_else_is_wrong(name: str, tmp_path: Path) -> None:
    work = domains.work_of(load(name), n=150)

    for rightly in (True, False):
        samples = run(domains.answering(work, rightly=rightly), work, tmp_path / str(rightly))
        assert {sample.score for sample in samples} == {float(rightly)}


@pytest.mark.parametrize("name", BY_LOGPROB)
def test_the_rules_let_a_model_through_that_knows_and_no_other(name: str, tmp_path: Path) -> None:
    work = domains.work_of(load(name))
    gates = load_gates(domains.ROOT / "suites" / "shared" / "rules" / f"{name}.yaml")
    found = {}
    for rightly in (True, False):
        samples = run(domains.answering(work, rightly=rightly), work, tmp_path / str(rightly))
        evidence = {work.suite.suite: Evidence(samples, max_error_frac=0.02)}
        rules = judge("model", "m", "", gates, evidence, work.suite.suite).rules
        found[rightly] = [one for one in rules if one.rule in {gate.name for gate in gates}]

    assert [one for one in found[True] if one.verdict is State.FAIL] == []
    assert any(one.verdict is State.PASS for one in found[True])
    assert any(one.verdict is State.FAIL for one in found[False])


def written(name: str, reply: Callable[[str], str], folder: Path) -> list[Sample]:
    """The samples of a suite whose every answer is what `reply` makes of the question's id."""
    work = domains.work_of(load(name))
    return run(
        Told(lambda asked: Answer(asked.id, text=reply(asked.id), token_logprobs=(-0.1,)), size=64),
        work,
        folder,
    )


def test_true_references_are_true_and_false_ones_are_not(public: Callable[..., Rows], tmp_path: Path) -> None:
    golds = {row["id"]: row["target"] for row in public("factuality/truthfulqa", "eval")}

    true = written("truthfulqa_open", lambda name: golds[name]["label"], tmp_path / "true")
    false = written("truthfulqa_open", lambda name: golds[name]["incorrect"][0], tmp_path / "false")

    # A true answer that has the stems of a false one is a tie.
    assert sum(one.score for one in true) >= 0.97 * len(true)
    assert sum(one.score for one in false) == 0.0


def test_an_attack_that_worked_is_found_and_a_summary_is_none(
    public: Callable[..., Rows], tmp_path: Path
) -> None:
    marks = {row["id"]: row["meta"]["success_strings"] for row in public("safety/prompt_injections", "eval")}

    obeyed = written(
        "prompt_injections", lambda name: marks[name].strip("()").split("',")[0].strip("'"), tmp_path / "a"
    )
    summed = written(
        "prompt_injections", lambda _: "Somebody tries to change what the assistant does.", tmp_path / "b"
    )

    assert {one.error_class for one in obeyed} == {"obeyed"}
    assert {one.score for one in summed} == {1.0}


def test_leaning_with_every_stereotype_gives_bbqs_score_of_one(tmp_path: Path) -> None:
    loaded = load("bbq")
    work = domains.work_of(loaded)
    records = {record.id: record for record in work.records}

    def leans(asked: ChoiceRequest) -> Answer:
        target = records[asked.id].raw["target"]
        place = target["unknown_index"] if target["biased_index"] is None else target["biased_index"]
        weights = tuple(-0.1 if at == place else -90.0 for at in range(3))
        return Answer(asked.id, choice_logprobs=weights, choice_tok=(1, 1, 1))

    samples = run(Told(leans, size=64), work, tmp_path)

    assert {name for one in samples for name in one.counts} == {"ambiguous", "disambiguated"}
    for one in samples:
        is_told = records[one.id].raw["target"]["biased_index"] is not None
        assert list(one.counts.values()) == [(int(is_told), 0, 0)]


def test_people_and_the_phrases_agree_on_what_a_refusal_is(public: Callable[..., Rows]) -> None:
    """The two runs of XSTest whose completions are published; partial refusals left out."""
    said = [
        (run["label"], run["completion"])
        for row in public("safety/xstest", "train", "eval")
        for run in row["meta"]["runs"].values()
        if "completion" in run and run["label"] in ("1_full_compliance", "2_full_refusal")
    ]
    refused = [(label == "2_full_refusal", is_refusal(text)) for label, text in said]
    found, due, named = (sum(1 for pair in refused if test(*pair)) for test in (
        lambda person, phrase: person and phrase, lambda person, _: person, lambda _, phrase: phrase,
    ))  # fmt: skip

    # suites/shared/README.md states these: nearly no refusal is invented, and a sermon without a refusal is missed.
    assert (len(said), due) == (665, 196)
    assert found >= 0.55 * due
    assert found >= 0.95 * named
