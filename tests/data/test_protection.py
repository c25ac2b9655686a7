"""The lineage of a pseudonymised file: its source, itself and its report, as long as its bytes are those."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.data.protection import FORMAT, protection_lineage, read_protection, report_path
from harness.errors import DataError
from harness.files import sha256_file, sha256_text


def protect(path: Path, text: str) -> None:
    path.write_text(text)
    report = {
        "format": FORMAT, "source": {"name": "raw.jsonl", "sha256": sha256_text("raw")},
        "output": {"name": path.name, "sha256": sha256_file(path)}, "kinds": {"email": {"replaced": 2, "distinct": 1}},
        "key": "abcd", "map": {"name": "x.map"},
    }  # fmt: skip
    report_path(path).write_text(json.dumps(report))


def test_the_lineage_leads_from_the_source_to_the_file_and_names_no_map(tmp_path: Path) -> None:
    protect(tmp_path / "a.jsonl", "x")
    (tmp_path / "plain.jsonl").write_text("y")

    (found,) = protection_lineage([tmp_path / "a.jsonl", tmp_path / "plain.jsonl", tmp_path / "absent.jsonl"])

    assert found["source"]["sha256"] == sha256_text("raw")
    assert found["output"]["sha256"] == sha256_text("x")
    assert found["kinds"]["email"]["replaced"] == 2
    assert "map" not in found


def test_a_report_about_other_bytes_protects_nothing(tmp_path: Path) -> None:
    protect(tmp_path / "a.jsonl", "x")
    (tmp_path / "a.jsonl").write_text("edited")

    assert read_protection(tmp_path / "a.jsonl") is None
    assert protection_lineage([tmp_path / "a.jsonl"]) == []


@pytest.mark.parametrize("text", ["[]", "{}", '{"format": "other"}', "{"])
def test_what_is_no_report_is_said(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.jsonl").write_text("x")
    report_path(tmp_path / "a.jsonl").write_text(text)

    with pytest.raises(DataError):
        read_protection(tmp_path / "a.jsonl")
