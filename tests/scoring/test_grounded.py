"""Numbers and names that the context carries, or that nobody gave."""

from __future__ import annotations

import pytest

from harness.scoring.grounded import check_names, check_numbers, grounded
from harness.scoring.item import Item

CONTEXT = "Revenue of Acme Corp. was $1,250 million in 2019 and 1,000 in 2018. Dr. Ana García-López leads Borg & Sons."


@pytest.mark.parametrize(
    "answer",
    [
        "1,250", "$1.25 billion", "1250000000", "about 1,250 million", "1.3 billion", "2019",
        "2,250 in both years", "a rise of 250", "25% more", "a rise of 25.0 %", "80% of it",
        "1.25 times", "fell 20%", "(250)",
    ],
)  # fmt: skip
def test_numbers_that_are_there_or_follow_are_supported(answer: str) -> None:
    assert check_numbers(answer, CONTEXT).unsupported == ()


@pytest.mark.parametrize("answer", ["1,251", "1,260 million", "26%", "251", "2017", "12.5", "0.81", "3,333"])
def test_numbers_that_nobody_gave_are_not(answer: str) -> None:
    assert len(check_numbers(answer, CONTEXT).unsupported) == 1


def test_a_zero_in_the_context_carries_nothing_but_itself() -> None:
    assert check_numbers("98765 and 0", "It was 0 and 3.").unsupported == ("98765",)


def test_only_copies_count_where_nothing_may_be_derived() -> None:
    assert check_numbers("a rise of 250", CONTEXT, derive=False).unsupported == ("250",)


@pytest.mark.parametrize(
    ("answer", "unsupported"),
    [
        ("Acme Corp grew.", ()), ("ACME's revenue", ()), ("The chief is Ana Garcia-Lopez.", ()),
        ("Dr. García-López agreed.", ()),
        ("It was Borg & Sons.", ()), ("Growth was strong. Demand rose.", ()), ("In March the Acme Corp. said", ()),
        ("The chief is Ana Smith.", ("Ana Smith",)), ("Zorblax Industries paid.", ("Zorblax Industries",)),
        ("It was NASA.", ("NASA",)),
    ],
)  # fmt: skip
def test_names_are_compared_without_accents_case_and_titles(
    answer: str, unsupported: tuple[str, ...]
) -> None:
    assert check_names(answer, CONTEXT).unsupported == unsupported


def test_a_name_inside_another_word_is_no_support() -> None:
    assert check_names("It was led by Ana Gar.", CONTEXT).unsupported == ("Ana Gar",)


def test_the_share_of_what_is_supported_is_the_score() -> None:
    found = grounded(Item("Acme Corp made 1,250 and Zorblax Ltd made 77.", (), context=CONTEXT))

    assert found.counts == {"number": (1, 1, 0), "name": (1, 1, 0)}
    assert (found.value, found.error_class, found.note) == (0.5, "unsupported_number", "77; Zorblax Ltd")


def test_an_answer_that_claims_nothing_is_grounded_and_an_empty_one_is_not() -> None:
    assert grounded(Item("it rose a little", (), context=CONTEXT)).value == 1.0
    assert [grounded(Item(answer, (), context=CONTEXT)).error_class for answer in (None, "", " \n")] == [
        "empty"
    ] * 3


def test_the_question_may_be_repeated() -> None:
    assert (
        grounded(Item("Yes, Zorblax paid 77.", (), input="Did Zorblax pay 77?", context=CONTEXT)).value == 1.0
    )
