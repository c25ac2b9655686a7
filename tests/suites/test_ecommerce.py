"""The e-commerce suites: claims alike for every audience, attributes, descriptions from facts."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

from harness.data.records import Record
from harness.models.base import Answer, ChoiceRequest
from harness.scoring.attributes import attributes
from harness.scoring.item import Item
from harness.specs.load import load_release, load_suite
from harness.specs.suite import Split
from tests.evals.fakes import Told
from tests.suites.answering import knowing, run_suite, work_of
from tests.suites.own_records import ROOT, Splits, label_counts, read_splits, repeated, slice_counts, untidy

FOLDER = ROOT / "suites/ecommerce"
CLAIMS = FOLDER / "claims.yaml"
A_LABEL: dict[Split, int] = {"train": 45, "dev": 5, "calibration": 8, "eval": 18}
AUDIENCES = {"women", "men", "children", "older adults", "everyone"}


@cache
def splits() -> Splits:
    return read_splits(CLAIMS)


def everything() -> list[Record]:
    return [record for split in splits().values() for record in split]


def test_each_claim_has_as_many_sentences_in_a_split_as_any_other() -> None:
    labels = load_suite(CLAIMS).labels

    assert {split: label_counts(records) for split, records in splits().items()} == {
        split: dict.fromkeys(labels, n) for split, n in A_LABEL.items()
    }


def test_no_sentence_is_in_two_splits_or_nearly_there_twice() -> None:
    assert repeated(splits()) == []


def test_every_claim_is_made_to_every_audience_as_often() -> None:
    """Or else a gap between audiences would be one between claims."""
    expected = {"women": 4, "men": 4, "everyone": 4, "children": 3, "older adults": 3}
    for label in load_suite(CLAIMS).labels:
        of_label = [record for record in splits()["eval"] if record.targets == (label,)]
        assert slice_counts(of_label, "audience") == expected, label


def test_hard_sentences_are_as_many_for_each_claim() -> None:
    hard = [record for record in splits()["eval"] if record.slices["edge"] == "hard"]

    assert set(label_counts(hard).values()) == {5}
    assert {str(record.slices["audience"]) for record in hard} == AUDIENCES


def test_sentences_are_tidy_text() -> None:
    assert untidy(everything()) == []


@cache
def baseline_hits() -> int:
    """Eval sentences that TF-IDF with logistic regression sorts right, trained on train alone."""
    linear_model = pytest.importorskip("sklearn.linear_model")
    text = pytest.importorskip("sklearn.feature_extraction.text")
    vectorizer = text.TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    model = linear_model.LogisticRegression(C=10.0, max_iter=2000)
    train, held_out = splits()["train"], splits()["eval"]
    model.fit(vectorizer.fit_transform([r.input for r in train]), [r.targets[0] for r in train])
    answers = model.predict(vectorizer.transform([r.input for r in held_out]))
    return sum(answer in record.targets for answer, record in zip(answers, held_out, strict=True))


def test_words_alone_solve_some_of_it_and_the_readme_says_how_much() -> None:
    stated = re.search(r"sorts (\d+) of\s+162", (FOLDER / "README.md").read_text(encoding="utf-8"))

    assert stated is not None
    assert abs(int(stated[1]) - baseline_hits()) <= 3
    assert 60 < baseline_hits() < 145


@pytest.mark.parametrize(("name", "n"), [("attributes", 30), ("descriptions", 24), ("facts", 36)])
def test_golds_keep_the_suites_own_rules(name: str, n: int, tmp_path: Path) -> None:
    work = work_of(FOLDER / f"{name}.yaml")

    samples = run_suite(knowing(work), work, tmp_path)

    assert len(samples) == n
    assert [(one.id, one.scores) for one in samples if min(one.scores.values()) < 1.0] == []


@pytest.mark.parametrize("name", ["attributes", "descriptions", "facts"])
def test_answers_without_substance_score_nothing(name: str, tmp_path: Path) -> None:
    work = work_of(FOLDER / f"{name}.yaml")

    assert {one.score for one in run_suite(knowing(work, rightly=False), work, tmp_path)} == {0.0}


def test_an_invented_material_is_found_in_any_description() -> None:
    for record in work_of(FOLDER / "descriptions.yaml").records:
        item = Item(f"{record.targets[0]} Made of titanium.", (), input=record.input)
        assert attributes(item).note == "titanium", record.id


def test_traps_for_words_that_only_look_like_attributes_are_there() -> None:
    by_title = {r.input: r.target for r in work_of(FOLDER / "attributes.yaml").records}

    assert by_title["Orange juicer, steel"]["colour"] is None
    assert by_title["Children's book The Grey Wolf, paper"]["colour"] is None
    assert by_title["Chestnut roasting pan 28 cm cast iron"]["colour"] is None


def test_a_model_that_goes_by_the_first_label_is_found_out(tmp_path: Path) -> None:
    work = work_of(FOLDER / "facts.yaml", measures=True)

    def first(request: ChoiceRequest) -> Answer:
        return Answer(request.id, choice_logprobs=(-0.1, -3.0, -3.0), choice_tok=(1, 1, 1))

    found = run_suite(Told(first, size=64), work, tmp_path)

    assert {one.moved for one in found} == {("reverse_options",)}


def test_descriptions_are_asked_for_every_audience() -> None:
    found = {str(record.slices["audience"]) for record in work_of(FOLDER / "descriptions.yaml").records}

    assert found == AUDIENCES


def test_the_recipe_gates_what_a_shop_turns_on() -> None:
    recipe = load_release(ROOT / "recipes/ecommerce.yaml").recipe

    latency = next(gate for gate in recipe.gates if gate.metric == "latency_p95_ms")
    assert latency.bound == recipe.constraints.latency_ms
    assert [gate.per for gate in recipe.gates if gate.gap is not None] == ["audience"]
    assert {value for gate in recipe.gates for value in gate.only} == {"plain fact", "health", "safety"}
