"""Digests of data: the same for the same content, another for any change that matters."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.data.lineage import records_digest, suite_lineage
from harness.data.records import Record
from harness.specs.suite import Suite

RECORD = Record("a", "text", ("x",), {"k": "v"}, "u", {"note": 1})


@pytest.mark.parametrize(
    "change", [{"id": "b"}, {"input": "text "}, {"targets": ("y",)}, {"slices": {"k": "w"}}, {"unit": "v"}]
)
def test_any_change_that_matters_changes_the_digest(change: dict[str, Any]) -> None:
    assert records_digest([replace(RECORD, **change)]) != records_digest([RECORD])


def test_what_no_one_reads_does_not_change_the_digest_and_order_does() -> None:
    other = replace(RECORD, id="b")

    assert records_digest([replace(RECORD, raw={})]) == records_digest([RECORD])
    assert records_digest([RECORD, other]) != records_digest([other, RECORD])


def test_a_suites_lineage_has_its_files_and_the_splits_that_it_has(tmp_path: Path) -> None:
    rows = [{"id": str(n), "input": "t", "target": "x", "unit": f"u{n % 2}"} for n in range(5)]
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    (tmp_path / "eval.jsonl").write_bytes(content)
    suite = Suite.model_validate(
        {
            "suite": "s", "domain": "legal", "task": "classify", "prompt": {"user": "{{ input }}"},
            "records": {"eval": "eval.jsonl", "fields": {"unit": "unit"}},
        }
    )  # fmt: skip

    lineage = suite_lineage(suite, suite_path=tmp_path / "s.yaml", data_root=None).to_json()

    assert lineage["files"] == [
        {"name": "eval.jsonl", "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    ]
    (split,) = lineage["splits"]
    assert (split["split"], split["n_records"], split["n_units"]) == ("eval", 5, 2)
    assert json.loads(json.dumps(lineage)) == lineage
