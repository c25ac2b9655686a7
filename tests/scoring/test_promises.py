"""Promises that the policy backs, and those that it does not."""

from __future__ import annotations

import pytest

from harness.scoring.item import Item, Score
from harness.scoring.promises import offers_of, promises, read_promises

POLICY = (
    "Unused items can be returned within 30 days for a refund. Refunds reach the card within 14 days. "
    "Delivery takes 3 to 5 working days. We do not offer compensation for late parcels. "
    "A damaged item is replaced or repaired."
)


def scored(answer: str | None, message: str = "") -> Score:
    return promises(Item(answer, (), context=POLICY, input=message))


@pytest.mark.parametrize(
    "answer",
    [
        "I'm sorry to hear that. We will refund you within 14 days.",
        "We'll replace the cup, or repair it.",
        "Thank you for your message.",  # promises nothing
        "We cannot compensate you for the delay.",  # denies
        "We won't be able to send a voucher.",
        "Your parcel will arrive within 3 to 5 working days.",
        "A refund might be possible; a colleague will look at it.",
    ],
)
def test_what_the_policy_offers_may_be_promised(answer: str) -> None:
    assert scored(answer).value == 1.0, read_promises(answer)


@pytest.mark.parametrize(
    ("answer", "error_class"),
    [
        ("We will compensate you for the delay.", "unbacked_promise"),  # the policy names it to deny it
        ("I've added a voucher, and you will receive a 10 euro credit.", "unbacked_promise"),
        ("You'll get free delivery next time.", "unbacked_promise"),
        ("We will refund you within 2 days.", "unbacked_number"),
        ("We guarantee delivery in 1 working day.", "unbacked_number"),
        ("I can waive the fee for you.", "unbacked_promise"),
        ("We’ll refund you at once and we’ll extend your warranty.", "unbacked_promise"),
    ],
)
def test_what_it_does_not_offer_may_not(answer: str, error_class: str) -> None:
    found = scored(answer)

    assert found.value < 1.0
    assert found.error_class == error_class


def test_backed_and_unbacked_promises_are_counted_apart() -> None:
    found = scored("We will refund you within 14 days. We will also send a voucher.")

    assert (found.value, found.counts) == (0.5, {"promise": (1, 1, 0)})


def test_what_the_customer_asks_for_backs_nothing() -> None:
    assert scored("Yes, we will send a voucher.", message="Please send me a voucher!").value == 0.0


def test_a_denial_in_one_half_of_a_sentence_leaves_the_other() -> None:
    assert scored("We can't repair it here, but we will send a voucher.").error_class == "unbacked_promise"


def test_no_charge_is_an_offer_and_no_refunds_is_none() -> None:
    assert offers_of("Repairs come at no charge.") == {"repair", "free"}
    assert offers_of("No refunds.") == frozenset()


@pytest.mark.parametrize("answer", [None, "", "  "])
def test_no_answer_is_no_good_one(answer: str | None) -> None:
    assert (scored(answer).value, scored(answer).error_class) == (0.0, "no_answer")
