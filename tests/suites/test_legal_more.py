"""Legal beyond clause types: entailment with cited words, terms that are terms, answers that stay."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.data.variants import make_variant
from harness.scoring.clause_terms import check_term
from harness.specs.load import load_release, load_suite
from tests.suites.answering import knowing, run_suite, work_of
from tests.suites.own_records import ROOT, label_counts, untidy

FOLDER = ROOT / "suites/legal"
NLI, EVIDENCE, TERMS, REVIEW = (
    FOLDER / f"{name}.yaml" for name in ("nli", "nli_evidence", "terms", "review")
)
HIGH_RISK = ("Limitation of Liability", "Indemnity", "Confidentiality", "Non-Compete")


def test_each_agreement_is_asked_one_claim_of_each_kind_in_two_wordings() -> None:
    records = list(work_of(NLI).records)

    assert len({record.unit for record in records}) == 12
    assert label_counts(records) == {"entailed": 24, "contradicted": 24, "not mentioned": 24}
    originals = {record.id: record for record in records if "variant_of" not in record.raw}
    assert len(originals) == 36
    for record in records:
        if "variant_of" in record.raw:
            original = originals[record.raw["variant_of"]]
            assert (record.targets, record.context, record.unit) == (
                original.targets, original.context, original.unit,
            )  # fmt: skip
            assert record.input != original.input


def test_what_decides_a_claim_stands_in_its_agreement_and_what_is_not_mentioned_has_no_words() -> None:
    for record in work_of(EVIDENCE).records:
        spans = record.raw["evidence"]
        assert bool(spans) is (record.raw["target"] != "not mentioned"), record.id
        assert all(record.context[s["start"] : s["end"]] == s["text"] for s in spans), record.id


def test_agreements_are_tidy_text() -> None:
    assert untidy(list(work_of(NLI).records)) == []


@pytest.mark.parametrize("path", [NLI, EVIDENCE, TERMS, REVIEW], ids=lambda path: path.stem)
def test_golds_keep_the_suites_own_rules_and_their_opposites_do_not(path: Path, tmp_path: Path) -> None:
    work = work_of(path)

    right = run_suite(knowing(work), work, tmp_path / "right")
    wrong = run_suite(knowing(work, rightly=False), work, tmp_path / "wrong")

    assert [(one.id, one.scores) for one in right if min(one.scores.values()) < 1.0] == []
    # Where there is nothing to find, an answer that finds nothing readable is still wrong.
    assert {one.score for one in wrong} == {0.0}


def test_each_kind_of_term_is_there_and_is_not_there() -> None:
    records = work_of(TERMS).records
    for field in ("governing_law", "date", "cap", "quote"):
        there = sum(record.target[field] is not None for record in records)
        assert 5 <= there <= len(records) - 5, field


@pytest.mark.parametrize(
    ("field", "kind", "swapped"),
    [("governing_law", "jurisdiction", "Norway"), ("date", "date", "1999-12-31"), ("cap", "amount", 12.34)],
)
def test_a_term_of_another_clause_is_not_in_this_one(field: str, kind: str, swapped: object) -> None:
    for record in work_of(TERMS).records:
        if record.target[field] is not None:
            assert check_term(kind, record.target[field], record.input) is None, record.id
            assert check_term(kind, swapped, record.input) == "not_in_source", record.id


def test_review_asks_of_the_same_clauses_what_the_demo_asks() -> None:
    review, clauses = load_suite(REVIEW), load_suite(FOLDER / "clauses.yaml")

    assert (review.records, review.labels, review.slices) == (clauses.records, clauses.labels, clauses.slices)
    assert review.prompt.user == clauses.prompt.user


def test_most_clauses_have_a_name_or_an_order_that_can_change() -> None:
    work = work_of(REVIEW)
    fits = {
        kind: sum(make_variant(kind, r, work.labels, shows_labels=False) is not None for r in work.records)
        for kind in work.suite.invariance.kinds
    }

    assert fits["spacing"] > 150
    assert fits["rename_parties"] > 40
    assert fits["reorder_sentences"] > 10


def test_the_recipe_holds_clauses_of_high_risk_to_more() -> None:
    gates = load_release(ROOT / "recipes/legal.yaml").recipe.gates
    recalls = {gate.only: gate.at_least for gate in gates if gate.metric == "recall"}

    assert set(recalls) == {(), HIGH_RISK}
    assert (recalls[HIGH_RISK] or 0.0) > (recalls[()] or 0.0)
    assert {"precision", "consistency", "coverage", "abstention"} <= {gate.metric for gate in gates}
