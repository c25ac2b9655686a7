"""What a release says of pseudonymised training data and of obligations that were not met."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.data.check import check
from harness.data.protection import protection_lineage
from harness.files import sha256_file
from harness.jobs.orders import load_order
from harness.jobs.packing import training_files
from harness.privacy.find import by_pattern
from harness.privacy.keys import derive
from harness.privacy.rewrite import pseudonymise

SUITE = """\
suite: notes
domain: shared
task: classify
records: {train: train.jsonl, eval: eval.jsonl}
labels: [a, b]
prompt: {user: "{{ input }}"}
"""
RECIPE = """\
recipe: demo
domain: shared
constraints: {data_sensitive: true}
deviations: [{from: pii_suite, because: only labels are answered}]
base: embedded:smollm2-135m
suites: [notes.yaml]
gates: [{metric: accuracy, at_least: 0.6}]
"""


def rows(start: int, n: int) -> list[dict[str, Any]]:
    texts = [f"note {i * 7919} by person{i}@corp.test" for i in range(start, start + n)]
    return [{"id": f"r{start + i}", "input": text, "target": "ab"[i % 2]} for i, text in enumerate(texts)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, some in (("raw", rows(0, 40)), ("eval", rows(100, 80))):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some))
    (tmp_path / "notes.yaml").write_text(SUITE)
    (tmp_path / "demo.yaml").write_text(RECIPE)
    return tmp_path


def test_sensitive_data_are_refused_raw_and_taken_pseudonymised_with_their_lineage(folder: Path) -> None:
    raw, train = folder / "raw.jsonl", folder / "train.jsonl"
    train.write_bytes(raw.read_bytes())
    (refused,) = check([folder / "demo.yaml"])
    assert "pseudonymisation" in refused.wanted
    train.unlink()

    pseudonymise(raw, train, derive(b"k" * 32), by_pattern, finders={"harness": "test"})

    assert check([folder / "demo.yaml"]) == []
    (found,) = protection_lineage(
        training_files(load_order(folder / "demo.yaml", None), folder / "demo.yaml", None)
    )
    assert (found["source"]["sha256"], found["output"]["sha256"]) == (sha256_file(raw), sha256_file(train))
    assert found["kinds"] == {"email": {"replaced": 40, "distinct": 40}}


def test_the_files_that_trained_are_the_recipes_own_where_it_names_some(folder: Path) -> None:
    (folder / "train.jsonl").write_bytes((folder / "raw.jsonl").read_bytes())
    (folder / "own.jsonl").write_text('{"prompt": "p", "completion": "c"}\n')
    (folder / "demo.yaml").write_text(RECIPE + "data: [{path: own.jsonl}]\n")

    assert training_files(load_order(folder / "demo.yaml", None), folder / "demo.yaml", None) == [
        folder / "own.jsonl"
    ]
