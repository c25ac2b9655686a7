"""What two splits share: found by id, unit, text, words, and near-duplicates exactly as brute force does."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.data.overlap import find_overlaps, near_duplicates, normalise, shared
from harness.data.records import Record
from harness.retrieval.passages import Retrieved


def record(name: str, text: str, unit: str = "") -> Record:
    return Record(name, text, ("x",), {}, unit or name, {})


def test_each_kind_of_overlap_names_both_ids() -> None:
    train = [record("t1", "The law of France."), record("t2", "Pay on time!", "K"), record("both", "a b c")]
    held_out = [
        record("e1", "The law of France."), record("e2", "the  LAW of\nfrance"), record("e3", "new", "K"),
        record("both", "other"), record("e4", "sound"),
    ]  # fmt: skip

    found = {(pair.kind, pair.left, pair.right) for pair in find_overlaps(train, held_out)}

    assert found == {
        ("id", "both", "both"), ("unit", "t2", "e3"), ("unit", "both", "both"),
        ("text", "t1", "e1"), ("normalised", "t1", "e2"),
    }  # fmt: skip


QUESTION = "Some obligations of this agreement survive its end."
CONTRACT = " ".join(f"clause {n} binds party {n % 7}" for n in range(60))


def about(name: str, text: str, context: str) -> Record:
    return Record(name, text, ("x",), {}, name, {}, context)


def test_one_question_about_two_documents_is_two_questions() -> None:
    other = " ".join(f"article {n} frees seller {n % 5}" for n in range(60))
    train = [
        about("t1", QUESTION, other),
        about("t2", QUESTION.upper(), other),
        about("t3", f"Hear: {QUESTION}", other),
    ]

    assert shared(train, [about("e", QUESTION, CONTRACT)]) == {}


@pytest.mark.parametrize("text", [QUESTION, QUESTION.upper(), f"Hear: {QUESTION}"])
@pytest.mark.parametrize("context", ["", CONTRACT, CONTRACT.replace("clause 30", "clause thirty")])
def test_a_question_is_found_again_with_its_document_or_with_none(text: str, context: str) -> None:
    for left, right in ((context, CONTRACT), (CONTRACT, context)):
        assert ("t", "e") in shared([about("t", text, left)], [about("e", QUESTION, right)])


def test_what_was_looked_up_for_a_question_does_not_make_it_another() -> None:
    passages = Retrieved("snapshot", ())
    trained = replace(about("t", QUESTION, "one passage about survival"), retrieved=passages)

    assert shared([trained], [about("e", QUESTION, CONTRACT)]) == {("t", "e"): "text"}


def test_splits_without_overlap_have_none() -> None:
    assert find_overlaps([record("a", "one")], [record("b", "two")]) == []


@pytest.mark.parametrize(
    ("left", "right"),
    [("Straße", "STRASSE"), ("\ufb01ne print", "Fine, print!"), ("a\u00a0b", "a b"), ("\uff21\uff22", "ab")],
)
def test_texts_that_only_look_different_have_the_same_words(left: str, right: str) -> None:
    assert normalise(left) == normalise(right)


def test_a_changed_word_in_a_long_text_is_a_near_duplicate() -> None:
    words = [f"word{n}" for n in range(100)]
    changed = [*words[:50], "other", *words[51:]]

    (pair,) = near_duplicates([record("t", " ".join(words))], [record("e", " ".join(changed))])

    assert (pair.kind, pair.left, pair.right) == ("near", "t", "e")
    assert pair.similarity == pytest.approx(91 / 101)


def test_short_texts_are_compared_whole() -> None:
    found = near_duplicates(
        [record("a", "Pay now"), record("b", "")], [record("c", "pay NOW!"), record("d", "Pay")]
    )

    assert [(pair.left, pair.right) for pair in found] == [("a", "c")]


@pytest.mark.parametrize("threshold", [0.0, 1.1, -1.0])
def test_a_threshold_outside_its_range_is_refused(threshold: float) -> None:
    with pytest.raises(ValueError, match="threshold"):
        near_duplicates([], [], threshold=threshold)


def jaccard(left: str, right: str) -> float:
    """By its definition: the share of common word 5-grams, or of whole texts under five words."""
    sets = []
    for text in (left, right):
        words = text.split()
        sets.append(
            {tuple(words[i : i + 5]) for i in range(len(words) - 4)} or ({tuple(words)} if words else set())
        )
    union = sets[0] | sets[1]
    return len(sets[0] & sets[1]) / len(union) if union else 0.0


texts = st.lists(st.lists(st.sampled_from("abc"), max_size=14).map(" ".join), max_size=8)


@given(texts, texts, st.sampled_from([0.1, 0.25, 1 / 3, 0.5, 0.75, 0.8, 0.9, 1.0]))
def test_the_pairs_are_those_of_brute_force(left: list[str], right: list[str], threshold: float) -> None:
    found = near_duplicates(
        [record(f"l{n}", text) for n, text in enumerate(left)],
        [record(f"r{n}", text) for n, text in enumerate(right)],
        threshold=threshold,
    )

    wanted = {
        (f"l{i}", f"r{j}"): jaccard(a, b)
        for i, a in enumerate(left)
        for j, b in enumerate(right)
        if jaccard(a, b) >= threshold
    }
    assert {(pair.left, pair.right): pair.similarity for pair in found} == wanted
