"""What a scan finds of the personal data in MultiDoGO (role play by crowd workers), and what it takes for some wrongly.

Slots are the gold: a slot of one of these kinds counts as found where something found overlaps its characters.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from harness.privacy.find import Finder, by_pattern, finder, has_names

pytestmark = pytest.mark.real

Rows = list[dict[str, Any]]
SLOTS = {
    "email": {"email_address"},
    "phone": {"phone_number", "phonenumber"},
    "ssn": {"ssn"},
    "person": {"name"},
}
PERSONAL_WORDS = ("email", "phone", "ssn", "social", "card", "account", "number", "birth", "dob", "id", "pin", "zip",
                  "member", "policy", "name", "address", "street", "booking", "order", "code")  # fmt: skip
N_NAMES = 120
"""Turns that the model reads: it takes some milliseconds for each."""


class Rate(NamedTuple):
    hits: int
    n: int

    @property
    def value(self) -> float:
        return self.hits / self.n


@pytest.fixture(scope="module")
def turns(public: Callable[..., Rows]) -> Rows:
    return public("support/multidogo", "train", "eval")


def recall(turns: Rows, slots: set[str], find: Finder) -> Rate:
    hits = n = 0
    for turn in turns:
        wanted = [slot["text"] for slot in turn["target"]["slots"] if slot["slot"] in slots]
        if not wanted:
            continue
        found = [turn["input"][one.start : one.end] for one in find(turn["input"])]
        n += len(wanted)
        hits += sum(any(text in one or one in text for one in found) for text in wanted)
    return Rate(hits, n)


def without_slots(turns: Rows) -> Rows:
    """Turns none of whose slots could be personal."""
    return [
        turn
        for turn in turns
        if not any(word in slot["slot"] for slot in turn["target"]["slots"] for word in PERSONAL_WORDS)
    ]


def false_rate(turns: Rows, find: Finder) -> Rate:
    """Turns in which something is found although nothing is there."""
    return Rate(sum(bool(find(turn["input"])) for turn in turns), len(turns))


@pytest.mark.parametrize(("kind", "least"), [("email", 0.8), ("phone", 0.85)])
def test_recall_by_pattern(turns: Rows, kind: str, least: float) -> None:
    found = recall(turns, SLOTS[kind], by_pattern)

    assert found.n > 50
    assert found.value >= least


def test_hardly_a_turn_without_personal_data_is_flagged_by_pattern(turns: Rows) -> None:
    found = false_rate(without_slots(turns), by_pattern)

    assert found.n > 1_000
    assert found.value <= 0.01


@pytest.mark.skipif(not has_names(), reason="the extra pii is not installed")
def test_names_are_found_by_the_union_and_by_no_pattern(turns: Rows) -> None:
    named = [
        turn for turn in turns if any(slot["slot"] in SLOTS["person"] for slot in turn["target"]["slots"])
    ]
    some = named[:N_NAMES]

    union, patterns = (recall(some, SLOTS["person"], find) for find in (finder(names=True), by_pattern))

    assert union.n > 50
    assert union.value >= patterns.value + 0.3


@pytest.mark.skipif(not has_names(), reason="the extra pii is not installed")
def test_the_union_loses_nothing_and_its_false_rate_is_bounded(turns: Rows) -> None:
    union = finder(names=True)
    some = [turn for turn in turns if any(slot["slot"] in SLOTS["email"] for slot in turn["target"]["slots"])]
    clean = false_rate(without_slots(turns)[:N_NAMES], union)

    both, patterns = recall(some, SLOTS["email"], union), recall(some, SLOTS["email"], by_pattern)

    assert both.hits >= patterns.hits
    assert clean.value <= 0.2
