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
    "card": {"card_number"},
    "ssn": {"ssn"},
    "account": {"account_number", "target_account_number"},
    "person": {"name"},
    "address": {"address"},
}
STATED = {
    "email": (51, 54, 58), "phone": (55, 56, 63), "card": (11, 32, 43), "ssn": (34, 37, 98), "account": (10, 15, 58),
    "person": (1, 161, 254), "address": (1, 52, 57),
}  # fmt: skip
"""By pattern, by the union, and of how many: the table of docs/privacy.md."""
PERSONAL_WORDS = ("email", "phone", "ssn", "social", "card", "account", "number", "birth", "dob", "id", "pin", "zip",
                  "member", "policy", "name", "address", "street", "booking", "order", "code")  # fmt: skip
N_CLEAN = 600
"""Turns that the model reads: it takes some milliseconds for each."""


class Rate(NamedTuple):
    hits: int
    n: int


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


@pytest.mark.parametrize("kind", SLOTS)
def test_patterns_find_what_is_stated(turns: Rows, kind: str) -> None:
    found = recall(turns, SLOTS[kind], by_pattern)

    assert found == Rate(STATED[kind][0], STATED[kind][2])


def test_hardly_a_turn_without_personal_data_is_flagged_by_pattern(turns: Rows) -> None:
    assert false_rate(without_slots(turns), by_pattern) == Rate(3, 2031)


@pytest.mark.skipif(not has_names(), reason="the extra pii is not installed")
@pytest.mark.parametrize("kind", SLOTS)
def test_the_union_finds_what_is_stated_or_more(turns: Rows, kind: str) -> None:
    found = recall(turns, SLOTS[kind], finder(names=True))

    assert found.n == STATED[kind][2]
    assert found.hits >= STATED[kind][1] - 1  # another processor rounds the model's scores in another way


@pytest.mark.skipif(not has_names(), reason="the extra pii is not installed")
def test_the_unions_false_rate_is_what_is_stated(turns: Rows) -> None:
    found = false_rate(without_slots(turns)[:N_CLEAN], finder(names=True))

    assert abs(found.hits - 34) <= 2
