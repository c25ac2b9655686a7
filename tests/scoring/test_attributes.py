"""Materials, colours and seals that the facts name, and those that a text made up."""

from __future__ import annotations

from typing import Any

import pytest

from harness.errors import StatsError
from harness.scoring.attributes import VOCABULARY, attributes
from harness.scoring.item import Item, Score

FACTS = "name: Tarn bench\nmaterial: oak, stainless steel\ncolour: grey\ncare: machine washable cover"


def scored(answer: str | None, **settings: Any) -> Score:
    return attributes(Item(answer, (), input=FACTS, settings=settings))


@pytest.mark.parametrize(
    "answer",
    [
        "A grey bench of oak on stainless steel legs.",
        "A GRAY bench whose cover is machine washable.",
        "A bench for two.",  # names none
        "A bench with a golden-rule attitude.",  # part of a longer word
    ],
)
def test_what_the_facts_say_may_be_said(answer: str) -> None:
    assert scored(answer).value == 1.0


@pytest.mark.parametrize(
    ("answer", "invented"),
    [
        ("A bench of solid walnut wood.", "walnut wood"),
        ("A bench of oak and steel.", "steel"),  # stainless steel is not any steel
        ("A blue bench.", "blue"),
        ("A recyclable, handmade bench.", "recyclable, hand-made"),
        ("A wooden bench.", "wood"),  # oak is wood, but the facts don't say so: a known strictness
    ],
)
def test_what_they_do_not_say_is_invented(answer: str, invented: str) -> None:
    found = scored(answer)

    assert (found.error_class, found.note) == ("invented_attribute", invented)
    assert found.value < 1.0


def test_named_and_invented_ones_are_counted_by_kind() -> None:
    found = scored("A grey and blue bench of oak.")

    assert found.value == pytest.approx(2 / 3)
    assert found.counts == {"colour": (1, 1, 0), "material": (1, 0, 0)}


def test_settings_narrow_widen_and_allow() -> None:
    assert scored("A blue bench.", kinds="material").value == 1.0
    assert scored("A lacquered bench.", extra=("lacquered",)).error_class == "invented_attribute"
    assert scored("A wooden bench.", allow=("wood",)).value == 1.0
    with pytest.raises(StatsError, match="no kind 'smell'"):
        scored("x", kinds="smell")


@pytest.mark.parametrize("answer", [None, "", " "])
def test_no_answer_is_no_good_one(answer: str | None) -> None:
    assert scored(answer).value == 0.0


def test_no_spelling_belongs_to_two_attributes() -> None:
    spellings = [
        spelling.strip()
        for words in VOCABULARY.values()
        for entry in words.split(";")
        for spelling in " ".join(entry.split()).replace("=", ",").split(",")
    ]

    assert sorted(spellings) == sorted(set(spellings))
    assert all(spelling == spelling.lower() for spelling in spellings)
