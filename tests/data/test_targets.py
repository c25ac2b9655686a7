"""What each kind of task takes for a gold answer, and what it refuses with the line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.data.records import Record, RecordsError, read_records
from harness.data.targets import gold_labels, gold_texts
from harness.errors import Problem
from harness.specs.suite import Fields, Task


def read(tmp_path: Path, task: Task, fields: Fields | None = None, **row: Any) -> Record:
    path = tmp_path / "r.jsonl"
    path.write_text(json.dumps({"id": "a", "input": "text", **row}))
    (record,) = read_records(path, fields or Fields(), task)
    return record


def problem(tmp_path: Path, task: Task, fields: Fields | None = None, **row: Any) -> Problem:
    with pytest.raises(RecordsError) as caught:
        read(tmp_path, task, fields, **row)
    (found,) = caught.value.problems
    return found


OPTIONS = ["red", "green", "3"]
TWO_TEXTS = "a list of at least two texts"


@pytest.mark.parametrize("task", ["choice", "rank"])
@pytest.mark.parametrize(
    ("target", "texts"),
    [
        ("green", ("green",)), (0, ("red",)), (2, ("3",)), ("3", ("3",)), (["red", 1], ("red", "green")),
        ([1, 1], ("green",)),
    ],
)  # fmt: skip
def test_a_choice_is_gold_by_text_or_by_place(tmp_path: Path, task: Task, target: Any, texts: Any) -> None:
    record = read(tmp_path, task, options=OPTIONS, target=target)

    assert (record.targets, record.options, record.target) == (texts, tuple(OPTIONS), target)


@pytest.mark.parametrize("target", ["blue", 3, -1, True, 1.0, None, [], ["red", "blue"], {"a": 1}, "0"])
def test_a_gold_that_is_no_option_is_refused(tmp_path: Path, target: Any) -> None:
    found = problem(tmp_path, "choice", options=OPTIONS, target=target)

    assert (found.line, found.key) == (1, "target")
    assert "option" in found.wanted


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        (None, TWO_TEXTS), ([], TWO_TEXTS), (["a"], TWO_TEXTS), ("ab", TWO_TEXTS), (["a", " "], TWO_TEXTS),
        (["a", ["b"]], TWO_TEXTS), (["a", "b", "a"], "each option once"),
    ],
)  # fmt: skip
def test_options_that_cannot_be_chosen_from_are_refused(tmp_path: Path, options: Any, wanted: str) -> None:
    found = problem(tmp_path, "choice", options=options, target=0)

    assert (found.line, found.key, found.wanted) == (1, "options", wanted)


def test_options_that_are_missing_are_named_with_their_path(tmp_path: Path) -> None:
    found = problem(tmp_path, "rank", Fields(options="q.choices"), target=0, q={})

    assert (found.line, found.key, found.found) == (1, "q.choices", "missing")


@pytest.mark.parametrize(
    ("task", "target", "texts"),
    [
        ("multi_label", ["b", "a"], ('["b", "a"]',)),
        ("multi_label", [], ("[]",)),
        ("spans", ["one", "two"], ('["one", "two"]',)),
        ("spans", [{"text": "one", "start": 0}], ('["one"]',)),
        ("spans", [{"start": 3, "end": 9, "by": "x"}], ('[{"start": 3, "end": 9}]',)),
        ("spans", [{"label": "drug", "start": 0, "end": 1}], ('[{"label": "drug", "start": 0, "end": 1}]',)),
        ("spans", [{"label": "drug", "text": "ä"}], ('[{"label": "drug", "text": "ä"}]',)),
        ("extract", {"dose": None, "drug": "A"}, ('{"dose": null, "drug": "A"}',)),
        ("extract", [{"a": 1}, {"a": 2}], ('{"a": 1}', '{"a": 2}')),
        ("number", 12, ("12",)),
        ("number", -0.5, ("-0.5",)),
        ("number", "$1.2 million", ("$1.2 million",)),
        ("number", {"value": 5, "unit": "mg"}, ("5 mg",)),
        ("number", [1, "2 kg"], ("1", "2 kg")),
        ("answer", ["a", "b"], ("a", "b")),
        ("verify", True, ("true",)),
    ],
)
def test_golds_are_texts_that_a_model_could_write(
    tmp_path: Path, task: Task, target: Any, texts: Any
) -> None:
    record = read(tmp_path, task, target=target)

    assert (record.targets, record.target) == (texts, target)


@pytest.mark.parametrize(
    ("task", "target"),
    [
        ("multi_label", "a"), ("multi_label", [1]), ("multi_label", [""]), ("spans", "one"), ("spans", [{"start": 1}]),
        ("spans", [{"start": 4, "end": 4}]), ("spans", [{"start": -1, "end": 4}]),
        ("spans", [{"start": True, "end": 4}]),
        ("spans", [3]), ("extract", "text"), ("extract", {}), ("extract", []), ("extract", [1]), ("number", "many"),
        ("number", True), ("number", []), ("number", {"unit": "mg"}), ("number", None), ("answer", {"a": 1}),
        ("answer", []), ("classify", None),
    ],
)  # fmt: skip
def test_what_is_no_gold_for_the_task_is_refused(tmp_path: Path, task: Task, target: Any) -> None:
    assert problem(tmp_path, task, target=target).key == "target"


def test_the_labels_of_several_are_all_of_them(tmp_path: Path) -> None:
    assert gold_labels("multi_label", read(tmp_path, "multi_label", target=["b", "a", "b"])) == ("b", "a")
    assert gold_labels("classify", read(tmp_path, "classify", target=["b", "a"])) == ("b", "a")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a passage", "a passage"),
        (["one", "two"], "one\n\ntwo"),
        ([{"id": 1, "text": "one"}, {"id": 2, "text": "two"}], "one\n\ntwo"),
        ([["year", "total"], [2020, 1.5], [2021, None]], "year | total\n2020 | 1.5\n2021 | "),
        ([], ""),
    ],
)
def test_a_context_is_a_passage_chunks_or_a_table(tmp_path: Path, value: Any, text: str) -> None:
    assert read(tmp_path, "answer", Fields(context="doc"), target="x", doc=value).context == text


@pytest.mark.parametrize("value", [None, {"title": "t"}, [{"id": 1}], [[{"a": 1}]]])
def test_a_context_that_is_none_of_these_is_refused(tmp_path: Path, value: Any) -> None:
    assert problem(tmp_path, "answer", Fields(context="doc"), target="x", doc=value).key == "doc"


def test_half_of_a_surrogate_pair_in_a_table_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness.data import records

    monkeypatch.setattr(
        records, "read_parquet_rows", lambda _: iter([(1, {"id": "\ud800", "input": "i", "target": "t"})])
    )

    with pytest.raises(RecordsError, match="half of a surrogate pair"):
        read_records(tmp_path / "r.parquet", Fields())


def test_a_record_without_spans_has_none_to_find_where_others_have_some(tmp_path: Path) -> None:
    path = tmp_path / "e.jsonl"
    path.write_text('{"id": "a", "input": "x y", "found": ["x"]}\n{"id": "b", "input": "z"}\n')

    found = read_records(path, Fields(target="found"), "spans")

    assert [(record.target, record.targets) for record in found] == [(["x"], ('["x"]',)), ([], ("[]",))]


def test_a_file_in_which_no_record_has_spans_names_another_field(tmp_path: Path) -> None:
    path = tmp_path / "e.jsonl"
    path.write_text('{"id": "a", "input": "x y", "found": ["x"]}\n{"id": "b", "input": "z"}\n')

    with pytest.raises(RecordsError, match="no spans in any record"):
        read_records(path, Fields(target="fund"), "spans")


def test_an_empty_text_beside_others_is_no_answer() -> None:
    assert gold_texts("answer", ["thirty", "", "30"], ()) == ("thirty", "30")
    with pytest.raises(ValueError, match="a text"):
        gold_texts("answer", ["", " "], ())
