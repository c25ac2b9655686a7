"""What two splits share: found by id, unit, text, words, and near-duplicates exactly as brute force does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.data.overlap import find_overlaps, near_duplicates, normalise
from harness.data.records import Record


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
