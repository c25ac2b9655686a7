"""Citations that hold, and those that don't."""

from __future__ import annotations

from typing import Any

import pytest

from harness.scoring.citations import citations
from harness.scoring.item import Item, Score

CONTEXT = "[1] Notice must be given in writing.\n[2] The term is “two years”, renewable.\n[b-3] Fees are due."


def score(answer: str | None, parsed: Any = None, **settings: Any) -> Score:
    return citations(Item(answer, (), parsed=parsed, context=CONTEXT, settings=settings))


@pytest.mark.parametrize(
    ("answer", "counts", "error_class"),
    [
        ("Notice is written [1].", (1, 0, 0), None),
        ("Both [1][2], and [1, b-3].", (4, 0, 0), None),
        ("Both [^1]; 【2】.", (2, 0, 0), None),
        ('It says "given in writing" [1].', (1, 0, 0), None),
        ("It says “two years” [2] and \"two years\" [2].", (2, 0, 0), None),
        ('It says "given in  writing".[1]', (1, 0, 0), None),
        ('It says "given orally" [1].', (0, 1, 0), "quote_not_found"),
        ('It says "Fees are due" [1].', (0, 1, 0), "quote_elsewhere"),
        ("As stated [7].", (0, 1, 0), "unknown_chunk"),
        ("As stated [].", (0, 1, 0), "malformed"),
        ("As stated [see above!].", (0, 1, 0), "malformed"),
        ("As stated [1.", (0, 1, 0), "malformed"),
        ("Right [1] and wrong [9].", (1, 1, 0), "unknown_chunk"),
        ("No source at all.", (0, 0, 1), "no_citation"),
        ("", (0, 0, 1), "no_citation"), (None, (0, 0, 1), "no_citation"),
    ],
)  # fmt: skip
def test_each_citation_is_looked_up(
    answer: str | None, counts: tuple[int, int, int], error_class: str | None
) -> None:
    found = score(answer)

    assert (found.counts["citation"], found.error_class) == (counts, error_class)
    assert found.value == pytest.approx(2 * counts[0] / (2 * counts[0] + counts[1] + counts[2]))


@pytest.mark.parametrize(
    ("part", "error_class"),
    [
        ({"chunk": "1", "quote": "Notice", "start": 0, "end": 6}, None), ({"chunk": 1}, None),
        ({"chunk": "1", "quote": "Notice", "start": 1, "end": 7}, "wrong_offsets"),
        ({"chunk": "1", "quote": "Notice", "start": 0}, "wrong_offsets"),
        ({"chunk": "2", "quote": "Notice", "start": 0, "end": 6}, "quote_elsewhere"),
        ({"chunk": True}, "malformed"), ({"chunk": None}, "malformed"), ("1", "malformed"),
        ({"chunk": "1", "quote": 5}, "malformed"), ({"chunk": "1", "start": "0"}, "malformed"),
    ],
)  # fmt: skip
def test_parsed_citations_are_held_to_their_offsets(part: Any, error_class: str | None) -> None:
    assert score(None, [part]).error_class == error_class


def test_every_sentence_can_be_asked_for_a_citation() -> None:
    answer = "Notice is written [1]. Fees are due. The term is two years. [2]"

    assert score(answer, every_sentence=True).counts["citation"] == (2, 0, 1)
    assert score(answer).counts["citation"] == (2, 0, 0)


def test_passages_can_come_from_the_record() -> None:
    meta = {"retrieved": {"passages": [{"id": "x", "text": "Fees are due."}, "Notice."]}}
    item = Item(
        '"Fees" [x] and "Notice" [2].', (), meta=meta, settings={"chunks_field": "retrieved.passages"}
    )

    assert citations(item).value == 1.0


def test_an_answer_may_need_no_citation() -> None:
    assert score("No source at all.", required=False).value == 1.0
    assert score(None, required=False).value == 0.0
