"""Overlap of words and characters with references."""

from __future__ import annotations

import pytest
import sacrebleu
from hypothesis import given
from hypothesis import strategies as st

from harness.scoring.item import Item, Scorer
from harness.scoring.ngrams import NGRAM_SCORERS, bleu, chrf, rouge_1, rouge_2, rouge_l
from harness.scoring.text import token_f1

GOLD = "the cat sat on the mat"


def test_rouge_is_what_is_counted_by_hand() -> None:
    item = Item(
        "the cat on the mat", (GOLD,)
    )  # 5 words, all of them in the 6; pairs: the-cat, on-the, the-mat

    assert rouge_1(item).value == pytest.approx(2 * 5 / 11)
    assert rouge_2(item).value == pytest.approx(2 * 3 / 9)
    assert rouge_l(item).value == pytest.approx(2 * 5 / 11)
    assert rouge_l(Item("mat the on cat the", (GOLD,))).value == pytest.approx(2 * 3 / 11)  # the on the


def test_chrf_and_bleu_are_sacrebleus_over_all_references() -> None:
    golds = ("a quick brown fox jumps over", "the fast brown fox leapt over it")
    answer = "the quick brown fox jumped over it"

    assert chrf(Item(answer, golds)).value == pytest.approx(
        sacrebleu.sentence_chrf(answer, list(golds)).score / 100
    )
    assert bleu(Item(answer, golds)).value == pytest.approx(
        sacrebleu.sentence_bleu(answer, list(golds)).score / 100
    )


def test_token_f1_is_that_of_squad() -> None:
    assert token_f1(Item("The cat, sat!", ("a cat slept",))).value == pytest.approx(0.5)
    assert token_f1(Item("the", ("a",))).value == 0.0


@pytest.mark.parametrize("scorer", NGRAM_SCORERS.values(), ids=NGRAM_SCORERS)
def test_the_best_reference_counts_and_nothing_scores_nothing(scorer: Scorer) -> None:
    assert scorer(Item(GOLD, ("another text altogether here", GOLD))).value == pytest.approx(1.0)
    assert [scorer(Item(answer, (GOLD,))).value for answer in (None, "", "  ", "\u2297")] == [0.0] * 4
    assert scorer(Item(GOLD, ("",))).value == 0.0


@given(st.text(max_size=60), st.text(max_size=60))
def test_all_scores_are_between_0_and_1(answer: str, gold: str) -> None:
    values = [scorer(Item(answer, (gold,))).value for scorer in (*NGRAM_SCORERS.values(), token_f1)]

    assert all(0.0 <= value <= 1.0 for value in values)


@given(
    st.lists(st.sampled_from("abc"), min_size=1, max_size=12),
    st.lists(st.sampled_from("abc"), min_size=1, max_size=12),
)
def test_f1_of_words_is_the_same_both_ways(a: list[str], b: list[str]) -> None:
    one, other = " ".join(a), " ".join(b)

    for scorer in (rouge_1, rouge_2, rouge_l, token_f1):
        assert scorer(Item(one, (other,))).value == pytest.approx(scorer(Item(other, (one,))).value)
