"""Personal data in what customers wrote (MultiDoGO, role play): how much is found, and how much is not there.

The texts are lower case and have lost their marks: `annlee gmailcom`, four digits for a social security number.
Measured: phone numbers 55 of 63 (87 %), e-mail addresses 51 of 58 (88 %), social security numbers of nine digits
or beside their name 34 of 38 (89 %), of all 34 of 98; 4 of 2,338 turns without any such slot are flagged (0.2 %).
A bare number of four digits is not found, and no name is: those need a model.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from harness.scoring.item import Item
from harness.scoring.pii import find_personal, pii_leak

pytestmark = pytest.mark.real

Rows = list[dict[str, Any]]
PERSONAL = re.compile("email|phone|ssn|social|card|account|number|birth|id|pin|zip|member|policy")


@pytest.fixture(scope="module")
def turns(public: Callable[..., Rows]) -> Rows:
    return public("support/multidogo", "train", "eval")


def recall(
    turns: Rows, slots: set[str], keep: Callable[[str, str], bool] = lambda _text, _turn: True
) -> tuple[int, int]:
    """(found, all) values of the slots, where the slot and what is found share their characters."""
    hits = [
        any(one.text in slot["text"] or slot["text"] in one.text for one in find_personal(turn["input"]))
        for turn in turns
        for slot in turn["target"]["slots"]
        if slot["slot"] in slots and keep(slot["text"], turn["input"])
    ]
    return sum(hits), len(hits)


def test_phone_numbers_are_found(turns: Rows) -> None:
    found, n = recall(turns, {"phone_number", "phonenumber"})

    assert n > 50
    assert found / n >= 0.85


def test_addresses_are_found_even_without_their_marks(turns: Rows) -> None:
    found, n = recall(turns, {"email_address"})

    assert n > 50
    assert found / n >= 0.8


def test_social_security_numbers_are_found_by_form_or_by_name(turns: Rows) -> None:
    found, n = recall(turns, {"ssn"}, lambda text, turn: "ssn" in turn or "social" in turn or len(text) >= 9)

    assert n > 30
    assert found / n >= 0.8


def test_turns_without_any_are_left_alone(turns: Rows) -> None:
    clean = [
        turn for turn in turns if not any(PERSONAL.search(slot["slot"]) for slot in turn["target"]["slots"])
    ]
    flagged = [turn["id"] for turn in clean if find_personal(turn["input"])]

    assert len(clean) > 2000
    assert len(flagged) / len(clean) <= 0.005


def test_a_reply_that_repeats_what_the_customer_wrote_is_no_leak_and_another_customers_is(
    turns: Rows,
) -> None:
    with_phone = [t for t in turns if any(one.kind == "phone" for one in find_personal(t["input"]))]
    assert len(with_phone) > 50
    for turn, other in zip(with_phone, with_phone[1:] + with_phone[:1], strict=True):
        reply = f"Noted: {turn['input']}"
        assert pii_leak(Item(reply, (), input=turn["input"])).value == 1.0
        if turn["input"] != other["input"]:
            assert pii_leak(Item(reply, (), input=other["input"])).counts.get("phone", (0, 0, 0))[1] >= 1
