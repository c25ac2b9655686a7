from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness.jobs.seals import changed_sources, changes_since, seal


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    for name in ("stages/q4_0/s/samples.jsonl", "stages/q4_0/verdict.json", "artifacts/model-q4_0.gguf",
                 "train/adapter/weights", "artifacts/merged-16bit/weights", "stages/q4_0/notes.txt"):  # fmt: skip
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"abc")
    return folder


def test_nothing_has_changed_right_after_the_verdict(run: Path) -> None:
    seal(run, "q4_0")

    assert changes_since(run, "q4_0") == []


def test_a_run_that_was_never_sealed_has_nothing_to_compare(run: Path) -> None:
    assert changes_since(run, "q4_0") == []
    assert changed_sources(run, "q4_0") == []


@pytest.mark.parametrize(
    ("stage", "name"),
    [
        ("q4_0", "stages/q4_0/s/samples.jsonl"), ("q4_0", "stages/q4_0/verdict.json"),
        ("q4_0", "artifacts/model-q4_0.gguf"), ("adapter", "train/adapter/weights"),
        ("merged", "artifacts/merged-16bit/weights"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("content", [b"abd", b"abcd", b""])
def test_other_bytes_are_named(run: Path, stage: str, name: str, content: bytes) -> None:
    (run / "stages" / stage).mkdir(exist_ok=True)
    seal(run, stage)
    before = (run / name).stat().st_mtime_ns
    (run / name).write_bytes(content)
    os.utime(run / name, ns=(before + 1, before + 1))

    assert changes_since(run, stage) == [f"{name}: its bytes changed"]


def test_a_file_that_was_only_touched_is_the_same_file(run: Path) -> None:
    seal(run, "q4_0")
    os.utime(run / "artifacts/model-q4_0.gguf", ns=(1, 1))

    assert changes_since(run, "q4_0") == []


def test_evidence_that_is_gone_is_named_and_a_model_that_is_gone_is_not(run: Path) -> None:
    seal(run, "q4_0")
    (run / "artifacts/model-q4_0.gguf").unlink()
    assert changes_since(run, "q4_0") == []

    (run / "stages/q4_0/s/samples.jsonl").unlink()
    assert changes_since(run, "q4_0") == ["stages/q4_0/s/samples.jsonl: is gone"]


def test_other_stages_files_are_not_this_verdicts_business(run: Path) -> None:
    seal(run, "q4_0")
    (run / "train/adapter/weights").write_bytes(b"other")
    (run / "stages/q4_0/notes.txt").write_bytes(b"other")

    assert changes_since(run, "q4_0") == []


def test_sources_outside_the_run_are_told_apart(run: Path, tmp_path: Path) -> None:
    recipe, records = tmp_path / "recipe.yaml", tmp_path / "records.jsonl"
    for path in (recipe, records):
        path.write_text("abc")
    seal(run, "q4_0", [recipe, records, tmp_path / "none.jsonl"])
    assert changed_sources(run, "q4_0") == []

    records.write_text("abcd")
    recipe.unlink()
    assert changed_sources(run, "q4_0") == [records]
    assert changes_since(run, "q4_0") == []
