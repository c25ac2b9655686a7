"""Examples before the question come from training, from another unit, and never with the answer that is asked for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.data.records import Record
from harness.errors import DataError
from harness.evals.answers import requests_digest
from harness.evals.fewshot import Examples
from harness.evals.work import Work, build_requests
from harness.models.base import Message
from tests.evals.fakes import make_work, suite

TRAIN = [{"id": f"t{n}", "input": f"lesson {n}", "target": f"truth {n}", "unit": f"u{n}"} for n in range(9)]
FIELDS = {"eval": "e.jsonl", "train": "t.jsonl", "fields": {"unit": "unit"}}


def shown(tmp_path: Path, *, n: int = 2, seed: int = 17, **prompt: Any) -> Work:
    keys = {"user": "Q: {{ input }}", "few_shot": n, "few_shot_seed": seed, "max_tokens": 4000, **prompt}
    asked = suite("answer", prompt=keys, records=FIELDS)
    return make_work(tmp_path, asked, {"target": "x", "unit": "other"}, train=TRAIN)


def pool(work: Work, asked: tuple[Record, ...] = ()) -> Examples:
    return Examples(work.suite, work.train, asked)


def test_examples_stand_as_turns_before_the_question(tmp_path: Path) -> None:
    work = shown(tmp_path, system="Be brief.")
    first, second = pool(work).of(work.records[0])

    (request,) = build_requests(work)

    assert request.prompt.messages == (
        Message("system", "Be brief."),
        Message("user", f"Q: {first.input}"), Message("assistant", first.targets[0]),
        Message("user", f"Q: {second.input}"), Message("assistant", second.targets[0]),
        Message("user", "Q: question 0"),
    )  # fmt: skip


def test_raw_examples_stand_as_text_with_the_prefix_before_their_answers(tmp_path: Path) -> None:
    work = shown(tmp_path, n=1, raw=True, answer_prefix=" A: ", system="left out")
    (only,) = pool(work).of(work.records[0])

    (request,) = build_requests(work)

    assert request.prompt.messages == ()
    assert request.prompt.text == f"Q: {only.input} A: {only.targets[0]}\n\nQ: question 0"


def test_the_draw_depends_on_the_seed_alone(tmp_path: Path) -> None:
    drawn = [
        [e.id for e in pool(shown(tmp_path, n=3, seed=seed)).of(shown(tmp_path).records[0])]
        for seed in (1, 1, 2)
    ]

    assert drawn[0] == drawn[1] != drawn[2]


def test_examples_are_part_of_what_answers_stand_on(tmp_path: Path) -> None:
    digests = {requests_digest(build_requests(shown(tmp_path, seed=seed))) for seed in range(4)}

    assert len(digests) > 1


def test_no_example_is_of_the_records_own_unit_or_text(tmp_path: Path) -> None:
    work = shown(tmp_path, n=7)
    record = replace(work.records[0], unit="u3", input="lesson 5")

    assert {example.id for example in pool(work).of(record)} == {"t0", "t1", "t2", "t4", "t6", "t7", "t8"}


def test_too_few_examples_of_other_units_stop_the_run(tmp_path: Path) -> None:
    work = shown(tmp_path, n=9)

    with pytest.raises(DataError, match="only 8 training records are of another unit"):
        pool(work).of(replace(work.records[0], unit="u3"))


def test_an_evaluated_record_among_the_training_records_stops_the_run(tmp_path: Path) -> None:
    work = shown(tmp_path)

    with pytest.raises(DataError, match="'t4' is evaluated"):
        build_requests(replace(work, records=(*work.records, work.train[4])))


def test_without_a_training_split_there_are_no_examples(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="2 examples wanted, and training has 0"):
        build_requests(replace(shown(tmp_path), train=()))


def test_an_example_of_a_choice_by_letter_is_answered_by_its_letter(tmp_path: Path) -> None:
    asked = suite(
        "choice", answer_with="letter", prompt={"user": "{{ letters | join }}", "few_shot": 1}, records=FIELDS
    )
    options = {"options": ["a", "b", "c"], "target": "c"}
    work = make_work(
        tmp_path, asked, {**options, "unit": "x"}, train=[{**options, "id": "t", "input": "i", "unit": "y"}]
    )

    (request,) = build_requests(work)

    assert [message.content for message in request.prompt.messages] == ["ABC", "C", "ABC"]
