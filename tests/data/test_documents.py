"""Documents in a file of their own: each record gets the text that it names, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from harness.data.records import RecordsError
from harness.data.sources import files_of, load_split
from harness.specs.suite import Suite


def suite(**records: Any) -> Suite:
    fields = {"document": "about.doc", **records.pop("fields", {})}
    spec = {"eval": "eval.jsonl", "documents": "documents.jsonl", **records, "fields": fields}
    return Suite.model_validate({
        "suite": "s", "domain": "science", "task": "answer", "prompt": {"user": "{{ context }}"}, "records": spec,
    })  # fmt: skip


def write(path: Path, *rows: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def record(name: str, document: Any) -> dict[str, Any]:
    return {"id": name, "input": "what?", "target": "this", "about": {"doc": document}}


def load(folder: Path, asked: Suite) -> list[str]:
    records = load_split(asked, "eval", suite_path=folder / "s.yaml", data_root=folder)
    return [one.context for one in records]


def test_records_that_name_one_document_share_its_text(tmp_path: Path) -> None:
    write(tmp_path / "eval.jsonl", record("a", "d2"), record("b", 1), record("c", "d2"))
    write(tmp_path / "documents.jsonl", {"doc_id": 1, "text": "one"}, {"doc_id": "d2", "text": "two\n| 2 |"})

    assert load(tmp_path, suite()) == ["two\n| 2 |", "one", "two\n| 2 |"]
    files = files_of(suite(), suite_path=tmp_path / "s.yaml", data_root=None)
    assert [path.name for path in files] == ["eval.jsonl", "documents.jsonl"]


def test_a_public_set_has_its_documents_beside_its_records(tmp_path: Path) -> None:
    write(tmp_path / "area/set/eval.jsonl", record("a", "d"))
    write(tmp_path / "area/set/documents.jsonl", {"doc_id": "d", "text": "the text"})

    assert load(tmp_path, suite(eval=None, documents=None, public="area/set")) == ["the text"]


def test_every_unknown_and_missing_name_is_told_at_once(tmp_path: Path) -> None:
    write(tmp_path / "eval.jsonl", record("a", "gone"), record("b", None), record("c", "d"))
    write(tmp_path / "documents.jsonl", {"doc_id": "d", "text": "the text"})

    with pytest.raises(RecordsError) as caught:
        load(tmp_path, suite())

    assert [(one.found, one.hint) for one in caught.value.problems] == [
        ("gone", "record a"),
        ("no document", "record b"),
    ]


@pytest.mark.parametrize(
    "row", [{"doc_id": "d", "text": "again"}, {"doc_id": "e"}, {"text": "x"}, {"doc_id": "e", "text": " "}]
)
def test_a_document_has_a_name_of_its_own_and_a_text(tmp_path: Path, row: dict[str, Any]) -> None:
    write(tmp_path / "eval.jsonl", record("a", "d"))
    write(tmp_path / "documents.jsonl", {"doc_id": "d", "text": "the text"}, row)

    with pytest.raises(RecordsError) as caught:
        load(tmp_path, suite())

    assert [one.line for one in caught.value.problems] == [2]


@pytest.mark.parametrize(
    ("records", "said"),
    [
        ({"documents": None}, "needs documents"),
        ({"fields": {"context": "context"}}, "set one of them"),
        ({"fields": {"document": None}}, "says which one is meant"),
        ({"eval": None, "public": "area/set"}, "of the suite's own"),
    ],
)
def test_half_of_the_setting_is_refused(records: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        suite(**records)
