"""Spans, counted by hand.

The text is `abcdefghij klmnopqrst`: ten letters, a space, ten letters.
"""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.scoring.counts import rates
from harness.scoring.item import Item, Score, Scorer
from harness.scoring.parse import read_answer
from harness.scoring.quotes import Place, find_places
from harness.scoring.spans import Span, match_spans, spans_chars, spans_exact, spans_overlap, spans_tokens

TEXT = "abcdefghij klmnopqrst"


def at(start: int, end: int, label: str = "span") -> dict[str, Any]:
    return {"label": label, "start": start, "end": end}


def score(scorer: Scorer, gold: list[Any], said: Any, **settings: Any) -> Score:
    return scorer(Item(None, (), parsed=said, target=gold, context=TEXT, settings=settings))


@pytest.mark.parametrize(
    ("said", "exact", "overlap", "chars", "tokens"),
    [
        ([at(0, 10)], (1, 0, 0), (1, 0, 0), (10, 0, 0), (1, 0, 0)),
        ([at(0, 9)], (0, 1, 1), (1, 0, 0), (9, 0, 1), (1, 0, 0)),
        ([at(0, 5)], (0, 1, 1), (1, 0, 0), (5, 0, 5), (1, 0, 0)),
        ([at(0, 4)], (0, 1, 1), (0, 1, 1), (4, 0, 6), (1, 0, 0)),
        ([at(0, 21)], (0, 1, 1), (0, 1, 1), (10, 11, 0), (1, 1, 0)),
        ([at(11, 21)], (0, 1, 1), (0, 1, 1), (0, 10, 10), (0, 1, 1)),
        ([at(0, 10), at(0, 10)], (1, 0, 0), (1, 0, 0), (10, 0, 0), (1, 0, 0)),
        ([at(0, 5), at(5, 10)], (0, 2, 1), (1, 1, 0), (10, 0, 0), (1, 0, 0)),
        ([at(0, 10), at(11, 21)], (1, 1, 0), (1, 1, 0), (10, 10, 0), (1, 1, 0)),
        ([], (0, 0, 1), (0, 0, 1), (0, 0, 10), (0, 0, 1)),
        ([{"text": "abcdefghij", "start": None, "end": None}], (1, 0, 0), (1, 0, 0), (10, 0, 0), (1, 0, 0)),
        ([{"text": "not there", "start": None, "end": None}], (0, 1, 1), (0, 1, 1), (0, 1, 10), (0, 1, 1)),
    ],
)  # fmt: skip
def test_the_table_that_was_counted_by_hand(
    said: Any, exact: Any, overlap: Any, chars: Any, tokens: Any
) -> None:
    gold = [at(0, 10)]
    wanted = (exact, overlap, chars, tokens)
    for scorer, cells in zip((spans_exact, spans_overlap, spans_chars, spans_tokens), wanted, strict=True):
        found = score(scorer, gold, said)
        assert found.counts["span"] == cells
        assert found.value == pytest.approx(2 * cells[0] / (2 * cells[0] + cells[1] + cells[2]))


def test_labels_must_agree_and_are_counted_apart() -> None:
    found = score(spans_exact, [at(0, 5, "A"), at(6, 9, "B")], [at(0, 5, "B"), at(6, 9, "B")])

    assert found.counts == {"A": (0, 0, 1), "B": (1, 1, 0)}
    assert found.value == pytest.approx(0.5)


def test_optimal_matching_finds_two_pairs_where_greedy_stops_at_one() -> None:
    gold, said = [at(0, 6), at(4, 10)], [at(2, 8), at(0, 5)]

    best = score(spans_overlap, gold, said, overlap=0.3)
    greedy = score(
        spans_overlap, [at(0, 10), at(6, 16)], [at(3, 13), at(0, 8)], overlap=0.5, matching="greedy"
    )
    optimal = score(spans_overlap, [at(0, 10), at(6, 16)], [at(3, 13), at(0, 8)], overlap=0.5)

    assert best.counts["span"] == (2, 0, 0)
    assert greedy.counts["span"] == optimal.counts["span"] == (2, 0, 0)


def test_greedy_and_optimal_differ_where_the_best_pair_blocks_two_others() -> None:
    gold = [Span("span", (Place(0, 10),)), Span("span", (Place(4, 14),))]
    said = [Span("span", (Place(2, 12),)), Span("span", (Place(0, 14),))]

    def overlap(a: Place, b: Place) -> float:
        table = {(2, 0): 0.9, (2, 4): 0.8, (0, 0): 0.7, (0, 4): 0.0}
        return table[a.start, b.start]

    assert match_spans(said, gold, overlap, 0.5, is_greedy=True) == [(0, 0)]
    assert sorted(match_spans(said, gold, overlap, 0.5)) == [(0, 1), (1, 0)]


@pytest.mark.parametrize("scorer", [spans_exact, spans_overlap, spans_chars, spans_tokens])
def test_nothing_found_where_there_is_nothing_is_right_and_nothing_read_is_wrong(scorer: Scorer) -> None:
    assert score(scorer, [], []).value == 1.0
    assert score(scorer, [], None).value == 0.0
    assert score(scorer, [at(0, 3)], None).error_class == "unread"


def test_an_ambiguous_quote_is_right_where_any_of_its_places_is_gold() -> None:
    text = "pay now. pay later. pay never."
    said = [{"text": "pay", "start": 0, "end": 3}]
    quote = [{"text": "pay", "start": None, "end": None}]

    def found(parsed: Any) -> Any:
        return spans_exact(
            Item(None, (), parsed=parsed, target=[{"start": 9, "end": 12}], context=text)
        ).counts["span"]

    assert found(quote) == (1, 0, 0)
    assert found(said) == (0, 1, 1)


@pytest.mark.parametrize("scorer", [spans_exact, spans_overlap, spans_chars, spans_tokens])
@pytest.mark.parametrize(
    ("answer", "places", "value"),
    [
        ('["pay"]', [(9, 12)], 1.0), ('["pay", "pay"]', [(9, 12), (20, 23)], 1.0),
        ('["pay", "pay"]', [(20, 23)], 2 / 3),
        ('["pay", "pay", "pay", "pay"]', [(0, 3), (9, 12), (20, 23)], 1.0),
        ('[{"text": "pay", "start": 0, "end": 3}]', [(9, 12)], 0.0),
    ],
)  # fmt: skip
def test_a_quote_that_is_read_from_an_answer_may_stand_anywhere_that_it_stands(
    scorer: Scorer, answer: str, places: list[tuple[int, int]], value: float
) -> None:
    text = "pay now. pay later. pay never."
    gold = [{"start": start, "end": end} for start, end in places]
    parsed = read_answer("spans", answer, source=text)

    assert scorer(Item(answer, (), parsed=parsed, target=gold, context=text)).value == pytest.approx(value)


def test_quotes_are_found_to_the_letter_first_and_then_by_their_look() -> None:
    text = 'He said:\n“do  not – ever”. He said: "do not - ever".'

    assert find_places('"do not - ever"', text) == [(36, 51)]
    assert find_places("“do not — ever”", text) == [(9, 25), (36, 51)]
    assert find_places("do NOT", text) == []
    assert find_places(" \u200b", text) == []


spans_strategy = st.lists(
    st.tuples(st.integers(0, 20), st.integers(1, 20), st.sampled_from("AB")).map(
        lambda t: at(t[0], min(t[0] + t[1], 21), t[2])
    ),
    max_size=5,
)


@pytest.mark.parametrize("scorer", [spans_exact, spans_overlap, spans_chars, spans_tokens])
@given(gold=spans_strategy, said=spans_strategy)
def test_f1_is_symmetric_bounded_and_follows_from_the_counts(scorer: Scorer, gold: Any, said: Any) -> None:
    there, back = score(scorer, gold, said), score(scorer, said, gold)
    tp, fp, fn = (sum(cells[i] for cells in there.counts.values()) for i in range(3))

    assert 0.0 <= there.value <= 1.0
    assert there.value == pytest.approx(back.value)
    assert there.value == pytest.approx(1.0 if not tp + fp + fn else rates((tp, fp, fn)).f1)
    assert score(scorer, gold, gold).value == 1.0


@given(
    st.lists(st.tuples(st.integers(0, 12), st.integers(1, 8)), max_size=4),
    st.lists(st.tuples(st.integers(0, 12), st.integers(1, 8)), max_size=4),
)
def test_no_other_matching_has_more_pairs(a: Any, b: Any) -> None:
    said, gold = ([Span("x", (Place(s, s + n),)) for s, n in dict.fromkeys(part)] for part in (a, b))

    def iou(x: Place, y: Place) -> float:
        shared = max(min(x.end, y.end) - max(x.start, y.start), 0)
        return shared / (max(x.end, y.end) - min(x.start, y.start))

    few, many = sorted((said, gold), key=len)
    best = max(
        (
            sum(iou(x.places[0], y.places[0]) >= 0.5 for x, y in zip(few, order, strict=False))
            for order in permutations(many)
        ),
        default=0,
    )
    assert len(match_spans(said, gold, iou, 0.5)) == best
