"""The support suites: what their README promises of triage and replies."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from harness.data.records import Record
from harness.data.variants import make_variant
from harness.scoring.item import Item
from harness.scoring.promises import promises
from harness.specs.load import load_release, load_suite
from harness.specs.suite import Split
from tests.suites.answering import knowing, run_suite, work_of
from tests.suites.own_records import ROOT, Splits, label_counts, read_splits, repeated, slice_counts, untidy

FOLDER = ROOT / "suites/support"
TRIAGE, REPLIES = FOLDER / "triage.yaml", FOLDER / "replies.yaml"
A_LABEL: dict[Split, int] = {"train": 48, "dev": 4, "calibration": 8, "eval": 15}
TONES = {"plain", "typos", "slang", "rude"}


@cache
def splits() -> Splits:
    return read_splits(TRIAGE)


def everything() -> list[Record]:
    return [record for split in splits().values() for record in split]


def test_each_intent_has_as_many_messages_in_a_split_as_any_other() -> None:
    labels = load_suite(TRIAGE).labels

    assert {split: label_counts(records) for split, records in splits().items()} == {
        split: dict.fromkeys(labels, n) for split, n in A_LABEL.items()
    }
    assert (len(labels), labels[-1]) == (11, "out of scope")


def test_no_message_is_in_two_splits_or_nearly_there_twice() -> None:
    assert repeated(splits()) == []


def test_every_intent_is_asked_for_in_every_tone() -> None:
    for split in ("train", "eval"):
        found = {(record.targets[0], record.slices["style"]) for record in splits()[split]}
        assert len(found) == 11 * len(TONES)
    assert slice_counts(splits()["eval"], "style") == {"plain": 66, "typos": 33, "slang": 33, "rude": 33}


def test_hard_messages_and_letters_are_many_enough_to_be_reported() -> None:
    assert slice_counts(splits()["eval"], "edge")["hard"] == 55
    assert slice_counts(splits()["eval"], "channel")["email"] == 11


def test_slices_say_what_can_be_counted() -> None:
    for record in everything():
        assert record.slices["length"] == ("short" if len(record.input.split()) <= 10 else "long"), record.id
        assert record.slices["scope"] == ("out" if record.targets == ("out of scope",) else "in"), record.id
    assert set(load_suite(TRIAGE).slices) == set(everything()[0].slices)


def test_messages_are_tidy_text() -> None:
    assert untidy(everything()) == []


@cache
def baseline_hits() -> int:
    """Eval messages that TF-IDF with logistic regression sorts right, trained on train alone."""
    linear_model = pytest.importorskip("sklearn.linear_model")
    text = pytest.importorskip("sklearn.feature_extraction.text")
    vectorizer = text.TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    model = linear_model.LogisticRegression(C=10.0, max_iter=2000)
    train, held_out = splits()["train"], splits()["eval"]
    model.fit(vectorizer.fit_transform([r.input for r in train]), [r.targets[0] for r in train])
    answers = model.predict(vectorizer.transform([r.input for r in held_out]))
    return sum(answer in record.targets for answer, record in zip(answers, held_out, strict=True))


def test_words_alone_solve_some_of_it_and_the_readme_says_how_much() -> None:
    stated = re.search(r"sorts (\d+) of\s+165", (FOLDER / "README.md").read_text(encoding="utf-8"))

    assert stated is not None
    assert abs(int(stated[1]) - baseline_hits()) <= 3
    assert 60 < baseline_hits() < 140


# Replies.


def test_each_reference_keeps_its_policy_and_says_what_it_must(tmp_path: Path) -> None:
    work = work_of(REPLIES)

    samples = run_suite(knowing(work), work, tmp_path)

    assert len(samples) == 30
    assert [(one.id, one.scores) for one in samples if min(one.scores.values()) < 1.0] == []


def test_a_model_that_says_nothing_to_the_point_scores_nothing(tmp_path: Path) -> None:
    work = work_of(REPLIES)

    assert {one.score for one in run_suite(knowing(work, rightly=False), work, tmp_path)} == {0.0}


def test_every_policy_is_asked_about_in_every_tone() -> None:
    records = work_of(REPLIES).records

    assert {(str(r.slices["policy"]), str(r.slices["style"])) for r in records} == {
        (policy, tone)
        for policy in ("returns", "delivery", "damage", "billing", "account", "vouchers")
        for tone in TONES
    }


@pytest.mark.parametrize(
    "addition",
    [
        "We will also give you a 20 percent discount.",
        "I guarantee delivery within 1 day.",
        "You'll get 500 euros of compensation.",
    ],
)
def test_a_promise_outside_the_policy_is_found_in_any_reply(addition: str) -> None:
    for record in work_of(REPLIES).records:
        item = Item(
            f"{record.targets[0]} {addition}", record.targets, context=record.context, input=record.input
        )
        assert promises(item).value < 1.0, record.id
        assert promises(replace(item, answer=record.targets[0])).value == 1.0, record.id


# The recipe.


def test_the_recipe_gates_what_support_turns_on() -> None:
    gates = load_release(ROOT / "recipes/support.yaml").recipe.gates

    assert {"abstention", "consistency", "latency_p95_ms"} <= {gate.metric for gate in gates}
    assert [gate.only for gate in gates if gate.only] == [("out of scope",)]
    assert "style" in {gate.per for gate in gates}


def test_the_variants_of_a_message_are_messages(tmp_path: Path) -> None:
    suite = load_suite(TRIAGE)
    for kind in suite.invariance.kinds:
        made = [make_variant(kind, r, suite.labels, shows_labels=False) for r in splits()["eval"]]
        changed = [one for one in made if one is not None]
        assert len(changed) > 60, kind
        assert all(one.record.input.strip() for one in changed)


def test_records_are_json_with_the_documented_keys_alone() -> None:
    for split in A_LABEL:
        rows = [json.loads(line) for line in (FOLDER / f"{split}.jsonl").read_text("utf-8").splitlines()]
        assert {tuple(row) for row in rows} == {("id", "input", "target", "slices", "unit")}
