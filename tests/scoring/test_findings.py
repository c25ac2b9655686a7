"""What a summary must say, and what its source carries."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import StatsError
from harness.scoring.findings import findings, statements
from harness.scoring.item import Item

FIELD = {"findings_field": "gold.findings"}
WANTED = ["chest pain", {"any": ["short of breath", "dyspnoea"]}, {"any": ["fever"], "absent": True}]
VISIT = (
    "Doctor: Any fever? Patient: No. I have had chest pain for 3 days, and I get short of breath on the stairs. "
    "Doctor: You take warfarin 5 mg?\nPatient: Yes, at night."
)


def said(answer: str | None, wanted: Any = WANTED) -> Item:
    return Item(answer, ("x",), context=VISIT, meta={"gold": {"findings": wanted}}, settings=FIELD)


def test_each_finding_counts_once_in_any_of_its_phrases() -> None:
    score = findings(said("Chest pain for 3 days with dyspnoea. No fever."))

    assert (score.value, score.error_class, score.counts) == (1.0, None, {"finding": (3, 0, 0)})


@pytest.mark.parametrize(
    ("answer", "value", "error_class"),
    [
        ("Chest pain. No fever.", 2 / 3, "missing_finding"),
        ("Denies chest pain. Dyspnoea. No fever.", 2 / 3, "flipped_finding"),
        ("Chest pain, dyspnoea and fever.", 2 / 3, "flipped_finding"),
        ("No chest pain at rest, but chest pain on effort; dyspnoea, no fever.", 1.0, None),
        ("Chestpain, dyspnoeas, feverish.", 1 / 3, "missing_finding"),
        ("", 0.0, "empty"),
        (None, 0.0, "empty"),
    ],
)
def test_a_finding_said_the_other_way_round_is_missing_and_named(
    answer: str | None, value: float, error_class: str | None
) -> None:
    score = findings(said(answer))

    assert (score.value, score.error_class) == (pytest.approx(value), error_class)


def test_listing_every_word_does_not_pass_for_a_finding_that_must_be_denied() -> None:
    assert findings(said("chest pain dyspnoea fever cough nausea bleeding")).value < 1.0


@pytest.mark.parametrize("wanted", [None, "chest pain", [], [{"any": []}, {"absent": True}, 5]])
def test_a_record_without_readable_findings_asks_for_none(wanted: Any) -> None:
    assert findings(said("All well.", wanted)).counts == {"finding": (0, 0, 0)}


@pytest.mark.parametrize(
    ("answer", "value", "error_class"),
    [
        ("Chest pain for 3 days. Short of breath on stairs.", 1.0, None),
        ("Chest pain for 9 days.", 0.0, "unsupported_statement"),
        ("Chest pain for 3 days. Smokes forty cigarettes.", 0.5, "unsupported_statement"),
        ("She has a fever.", 0.0, "flipped_statement"),
        ("No fever.", 1.0, None),
        ("No chest pain for 3 days.", 0.0, "flipped_statement"),
        ("Chest pain for 3 days, no fever.", 1.0, None),
        ("Chest pain for 3 days with fever, not short of breath on stairs.", 0.0, "flipped_statement"),
        ("...", 0.0, "empty"),
        (None, 0.0, "empty"),
    ],
)
def test_statements_are_carried_invented_or_turned_round(
    answer: str | None, value: float, error_class: str | None
) -> None:
    score = statements(said(answer))

    assert (score.value, score.error_class) == (value, error_class)


def test_the_rate_counts_statements() -> None:
    score = statements(said("Chest pain for 3 days. Takes aspirin daily with breakfast."))

    assert score.counts == {"statement": (1, 1, 0)}
    assert "aspirin" in score.note


def test_a_suite_must_say_where_findings_stand() -> None:
    with pytest.raises(StatsError, match="does not know where"):
        findings(Item("x", ("x",), meta={"findings": WANTED}))


@given(st.text(max_size=300))
def test_no_text_breaks_the_scorers(text: str) -> None:
    for scorer in (findings, statements):
        assert 0.0 <= scorer(said(text)).value <= 1.0
