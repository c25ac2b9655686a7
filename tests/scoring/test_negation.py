"""Denied, hedged, or plainly said: by the words around it."""

from __future__ import annotations

import pytest

from harness.scoring.negation import denied_words, is_denied, is_hedged, sentences_of, without_hedges


def denied(text: str, phrase: str) -> bool:
    start = text.index(phrase)
    return is_denied(text, start, start + len(phrase))


@pytest.mark.parametrize(
    "text",
    [
        "She denies chest pain.",
        "No fever, cough or chest pain.",
        "There was never any chest pain at rest.",
        "He doesn't have chest pain.",
        "Chest is clear; without chest pain.",
        "chest pain was not reported",
        "chest pain: none",
        "Negative for chest pain",
    ],
)
def test_a_finding_that_is_denied(text: str) -> None:
    assert denied(text, "chest pain")


@pytest.mark.parametrize(
    "text",
    [
        "She has chest pain.",
        "No fever. She has chest pain.",
        "No fever but chest pain since noon.",
        "Not only chest pain, also dyspnoea.",
        "He denies fever; chest pain is worse on effort.",
        "There is no doubt that the chest pain is new.",
        "chest pain, no fever",
        "no relief from tablets, sleep, water, salt, rest, walks and cold chest pain",
    ],
)
def test_a_finding_that_stands_although_a_denial_is_near(text: str) -> None:
    assert not denied(text, "chest pain")


def test_a_hedge_is_a_word_of_its_own() -> None:
    assert is_hedged("Losses may rise.")
    assert is_hedged("This depends on rain.")
    assert not is_hedged("Canned goods were sold in Mayfair.")
    assert without_hedges("Losses may rise if rates fall.") == "Losses rise rates fall."


def test_a_question_belongs_to_its_answer_and_a_decimal_point_ends_nothing() -> None:
    assert sentences_of("Any pain? No. It was 3.5 cm. \n\n...") == ["Any pain? No.", "It was 3.5 cm."]


def test_what_a_sentence_denies_are_the_words_after_its_denial() -> None:
    assert denied_words("Cash is low and there is no credit line.") == {"credit", "line"}
    assert denied_words("Doctor: Any fever? Patient: No.") >= {"fever"}
    assert denied_words("Not only rain fell.") == frozenset()
