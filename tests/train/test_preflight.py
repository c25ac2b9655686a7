from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from harness.data.records import Record
from harness.errors import DataError
from harness.models.base import Message, Prompt
from harness.specs.recipe import Preflight, Tune
from harness.train.batches import Example
from harness.train.preflight import PreflightReport, preflight
from tests.train.conftest import build_example

TUNE = Tune(max_tokens=300)
CLAUSE = (
    "This Agreement is governed by the laws of the State of New York, without regard to conflicts. "
    "The parties submit to the courts of that State and waive every objection to venue."
)


def record(id_: str, text: str, unit: str = "") -> Record:
    return Record(id_, text, ("Governing Law",), {}, unit or id_, {})


def asked(id_: str, text: str, answer: str = "Governing Law", **prompt: Any) -> Example:
    return Example(id_, Prompt((Message("user", text),), **prompt), answer)


def look(
    examples: list[Example], chat: Any, gate: list[Record] | None = None, **limits: int
) -> PreflightReport:
    return preflight(examples, gate or [], chat, TUNE, Preflight(**limits))


def ids_of(report: PreflightReport, check: str) -> tuple[str, ...]:
    return next(finding.ids for finding in report.findings if finding.check == check)


def test_clean_data_passes_and_is_counted(chat: Any) -> None:
    report = look([build_example(at) for at in range(6)], chat, [record("g", CLAUSE)])

    report.raise_if_refused()
    assert (report.examples, report.trained) == (6, 6)
    ends = 6
    assert report.supervised_tok == 2 * (len("Governing Law") + len("Insurance") + len("Audit Rights")) + ends
    assert 0 < report.supervised_tok < report.tokens


def test_no_examples_are_refused(chat: Any) -> None:
    with pytest.raises(DataError, match="without a usable example"):
        look([], chat).raise_if_refused()


def test_an_answer_without_tokens_is_refused_by_its_id(chat: Any) -> None:
    with pytest.raises(DataError, match="without a supervised token: blank"):
        look([build_example(0), asked("blank", "What?", "")], chat).raise_if_refused()


def test_a_cut_answer_is_refused_and_its_missing_end_is_not_counted_twice(chat: Any) -> None:
    report = look([build_example(0), asked("cut", "What?", "x" * 400, over_length="truncate")], chat)

    with pytest.raises(DataError, match="1 cut answers: cut"):
        report.raise_if_refused()
    assert ids_of(report, "unsupervised_end") == ()


def test_a_recipe_may_let_a_stated_number_of_cut_answers_through(chat: Any) -> None:
    examples = [build_example(0), asked("cut", "What?", "x" * 400, over_length="truncate")]

    look(examples, chat, max_truncated_answers=1).raise_if_refused()


def test_an_end_of_turn_that_would_never_be_learnt_is_refused(chat: Any) -> None:
    class Endless:
        fit, end_id = staticmethod(chat.fit), chat.end_id

        @staticmethod
        def answer_ids(text: str) -> list[int]:
            return list(chat.encode(text))

    with pytest.raises(DataError, match="without a supervised end: r000"):
        look([build_example(0)], Endless()).raise_if_refused()


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (CLAUSE, "text"),
        (CLAUSE.upper().replace(",", " ;"), "normalised"),
        (f"Clause: {CLAUSE}\nWhich type is it?", "normalised"),
        (CLAUSE.replace("venue", "place"), "near"),
    ],
)
def test_a_gate_record_among_the_training_data_is_refused_however_it_is_dressed(
    chat: Any, text: str, kind: str
) -> None:
    report = look([build_example(0), asked("t7", text)], chat, [record("g3", CLAUSE)])

    assert ids_of(report, "overlaps") == (f"t7 = g3 ({kind})",)
    with pytest.raises(DataError, match="t7 = g3"):
        report.raise_if_refused()


def test_another_record_of_the_same_document_is_an_overlap(chat: Any) -> None:
    example = replace(build_example(0), unit="contract-9", text="one clause")

    report = look([example], chat, [record("g", CLAUSE, unit="contract-9")])

    assert ids_of(report, "overlaps") == ("r000 = g (unit)",)


def test_a_pair_is_counted_once_and_a_limit_lets_it_through(chat: Any) -> None:
    report = look([asked("same", CLAUSE)], chat, [record("same", CLAUSE)], max_overlaps=1)

    assert ids_of(report, "overlaps") == ("same = same (id)",)
    report.raise_if_refused()
    assert "1 training records that the gate judges with (limit 1)" in report.summary()


def test_duplicate_ids_are_refused(chat: Any) -> None:
    with pytest.raises(DataError, match="ids on more than one example: r001"):
        look([build_example(0), build_example(1), build_example(1)], chat).raise_if_refused()


def test_long_prompts_are_counted_by_what_their_suite_allows(chat: Any) -> None:
    examples = [
        build_example(0),
        *(
            replace(build_example(1, words=90, over_length=way), id=way)
            for way in ("error", "skip", "truncate")
        ),
    ]
    report = look(examples, chat, max_skipped=1)

    assert ids_of(report, "too_long") == ("error",)
    assert ids_of(report, "skipped") == ("skip",)
    assert report.truncated_prompts == ("truncate",)
    with pytest.raises(DataError) as caught:
        report.raise_if_refused()
    assert "error" in str(caught.value)
    assert "skip" not in str(caught.value)


def test_all_problems_are_told_at_once_and_the_report_is_json(chat: Any) -> None:
    examples = [build_example(0), build_example(0), asked("blank", "?", ""), asked("leak", CLAUSE)]
    report = look(examples, chat, [record("g", CLAUSE)])

    with pytest.raises(DataError, match="3 problems") as caught:
        report.raise_if_refused()
    assert all(word in str(caught.value) for word in ("r000", "blank", "leak = g"))
    assert json.loads(json.dumps(report.to_json(), allow_nan=False))["is_refused"] is True


def test_personal_data_is_counted_and_over_the_limit_refused(chat: Any) -> None:
    examples = [build_example(0), replace(build_example(1), answer="write to ann.lee@example.org")]

    counted, refused = look(examples, chat), look(examples, chat, max_personal=0)

    assert not counted.is_refused
    with pytest.raises(DataError, match=r"1 records with personal data: r001 \(email\)"):
        refused.raise_if_refused()


def test_prompts_that_hold_their_own_answer_are_counted_and_over_the_limit_refused(chat: Any) -> None:
    leaking = replace(
        build_example(1), text="It says: the Buyer shall pay, at once.", answer="The buyer shall pay"
    )
    short = replace(build_example(2), text="Audit rights", answer="Audit Rights")

    counted, refused = look([leaking, short], chat), look([leaking, short], chat, max_leaks=0)

    assert not counted.is_refused
    with pytest.raises(DataError, match="1 prompts that hold their own answer: r001"):
        refused.raise_if_refused()
