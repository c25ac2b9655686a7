"""One label, several labels, options, orders; and what is computed from counts."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score, ndcg_score, precision_recall_fscore_support

from harness.scoring.counts import add_counts, macro_f1, micro, rates
from harness.scoring.item import Item
from harness.scoring.labels import choice, label_set
from harness.scoring.ranking import hits_at, ndcg, reciprocal_rank, token_probability

LABELS = ("A", "B", "C", "D")
label_lists = st.lists(st.sampled_from(LABELS), max_size=4, unique=True)


def said(parsed: Any, gold: list[str]) -> Item:
    return Item(None, (), parsed=parsed, target=gold)


def test_sets_of_labels_are_counted_by_label() -> None:
    found = label_set(said(["A", "C", "C"], ["A", "B"]))

    assert found.counts == {"A": (1, 0, 0), "B": (0, 0, 1), "C": (0, 1, 0)}
    assert (found.value, found.error_class) == (0.5, "both")


@pytest.mark.parametrize(
    ("parsed", "gold", "value", "error_class"),
    [
        ([], [], 1.0, None), (None, [], 0.0, "unread"), ([], ["A"], 0.0, "no_label_right"),
        (["A"], [], 0.0, "no_label_right"),
        (["A", "B"], ["A"], 2 / 3, "extra_labels"), (["A"], ["A", "B"], 2 / 3, "missing_labels"),
        ("A", ["A"], 0.0, "unread"),
    ],
)  # fmt: skip
def test_empty_and_unread_answers_are_different_things(
    parsed: Any, gold: list[str], value: float, error_class: str | None
) -> None:
    found = label_set(said(parsed, gold))

    assert (found.value, found.error_class) == (pytest.approx(value), error_class)


@given(st.lists(st.tuples(label_lists, label_lists), min_size=1, max_size=12))
def test_sums_give_the_averages_that_scikit_learn_gives(pairs: list[tuple[list[str], list[str]]]) -> None:
    truth = [[int(label in gold) for label in LABELS] for _, gold in pairs]
    guess = [[int(label in named) for label in LABELS] for named, _ in pairs]
    counts = add_counts(label_set(said(named, gold)).counts for named, gold in pairs)
    used = [i for i, label in enumerate(LABELS) if label in counts]
    scores = precision_recall_fscore_support(truth, guess, average=None, zero_division=math.nan)

    for index in used:
        mine = rates(counts[LABELS[index]])
        for value, theirs in zip(mine, (scores[0][index], scores[1][index]), strict=False):
            assert value is None if math.isnan(theirs) else value == pytest.approx(theirs)
        assert mine.f1 == pytest.approx(scores[2][index])
    if used:
        assert micro(counts).f1 == pytest.approx(f1_score(truth, guess, average="micro", zero_division=0.0))
        assert macro_f1(counts) == pytest.approx(
            f1_score(truth, guess, average="macro", labels=used, zero_division=0.0)
        )
    else:
        assert (micro(counts).f1, macro_f1(counts)) == (None, None)


@given(label_lists, label_lists)
def test_the_f1_of_two_sets_is_the_same_both_ways(a: list[str], b: list[str]) -> None:
    assert label_set(said(a, b)).value == pytest.approx(label_set(said(b, a)).value)


def test_options_are_right_by_text_or_by_place() -> None:
    options = ("Paris", "Rome", "2")

    assert choice(Item("Rome", ("Rome",), options=options)).value == 1.0
    assert choice(Item("Rome", ("1",), options=options)).value == 1.0
    assert choice(Item("2", ("2",), options=options)).value == 1.0
    assert choice(Item("Paris", ("2",), options=options)).value == 0.0
    assert choice(Item("Paris", ("9",), options=options)).value == 0.0


def test_orders_are_scored_by_the_place_of_what_is_right() -> None:
    def item(order: Any, **settings: Any) -> Item:
        return Item(None, ("b",), parsed=order, options=("a", "b", "c"), settings=settings)

    assert [reciprocal_rank(item(order)).value for order in (["b", "a"], ["a", "b"], ["a", "c"], [], None)] == [
        1.0, 0.5, 0.0, 0.0, 0.0,
    ]  # fmt: skip
    assert [hits_at(item(["a", "b"], k=k)).value for k in (1, 2)] == [0.0, 1.0]
    assert ndcg(item(["a", "b", "b"])).value == pytest.approx(1 / math.log2(3))


@given(st.permutations("abcd"), st.lists(st.integers(0, 3), min_size=4, max_size=4).filter(any))
def test_graded_orders_agree_with_scikit_learn(order: list[str], grades: list[int]) -> None:
    gains = dict(zip("abcd", grades, strict=True))
    ranks = [[float(-order.index(option)) for option in "abcd"]]

    mine = ndcg(Item(None, ("a",), parsed=order, target=gains)).value

    assert mine == pytest.approx(ndcg_score([grades], ranks))


def test_a_texts_weight_is_the_inverse_of_its_perplexity() -> None:
    assert token_probability(Item(None, (), parsed={"logprob": -4.0, "tok": 2})).value == pytest.approx(
        math.exp(-2)
    )
    assert token_probability(Item(None, (), parsed=-2.0)).value == pytest.approx(math.exp(-2))
    unread = [{"logprob": -1.0, "tok": 0}, math.nan, -math.inf, True, "x", {"logprob": "-1", "tok": 1}]
    assert {token_probability(Item(None, (), parsed=value)).error_class for value in unread} == {"unread"}


@pytest.mark.parametrize("cells", [(0, 0, 0), (0, 0, 3), (0, 2, 0)])
def test_unknown_rates_are_none_and_never_zero(cells: tuple[int, int, int]) -> None:
    found = rates(cells)

    assert (found.precision is None) == (cells[0] + cells[1] == 0)
    assert (found.recall is None) == (cells[0] + cells[2] == 0)
    assert (found.f1 is None) == (sum(cells) == 0)
