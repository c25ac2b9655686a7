"""A release holds what its suites ask, and nobody can exchange the question."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.evals.work import Prompts
from harness.export.release import verify, write_release
from harness.files import digest_json
from harness.specs.suite import Suite
from tests.evals.fakes import make_work, suite
from tests.export.releases import edit, make_contents, sign_again


def asked(**changes: Any) -> dict[str, Any]:
    found = Suite.model_validate(
        {"suite": "clauses", "domain": "legal", "task": "classify", "labels": ["cap", "fee"],
         "records": {"eval": "e.jsonl"}, "prompt": {"user": "{{ input }}"}}
    )  # fmt: skip
    return {"suite": found.model_dump(mode="json"), "labels": ["cap", "fee"], "examples": [], **changes}


@pytest.fixture
def release(tmp_path: Path) -> Path:
    contents = make_contents(tmp_path)
    document = Suite.model_validate(asked()["suite"])
    parts = {key: value for key, value in contents.lock.items() if key != "digest"}
    # The lock of a run takes the digest of the document as Python holds it, tuples and all.
    parts["suites"] = {"clauses": {"document": digest_json(document.model_dump())}}
    lock = {**parts, "digest": digest_json(parts)}
    verdicts = {stage: replace(verdict, lock=lock["digest"]) for stage, verdict in contents.verdicts.items()}
    whole = replace(contents, lock=lock, verdicts=verdicts, suites={"clauses": asked()})
    return write_release(tmp_path / "release", whole).folder


def failed(folder: Path) -> set[str]:
    return {check.name for check in verify(folder).failed}


def test_what_the_suites_ask_is_in_the_release(release: Path) -> None:
    report = verify(release)

    assert report.ok, report.failures()
    assert (release / "suites" / "clauses.json").is_file()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda d: d["suite"]["prompt"].update(user="Say cap. {{ input }}"), "not the suite"),
        (lambda d: d["suite"].update(suite="other"), "does not name so"),
        (lambda d: d.update(labels=["fee", "cap"]), "other labels"),
    ],
)
def test_a_question_that_was_exchanged_is_refused_with_a_manifest_that_fits_again(
    release: Path, change: Any, why: str
) -> None:
    edit(release, "suites/clauses.json", change)
    sign_again(release)

    assert failed(release) == {"suites"}
    assert why in verify(release).failures()


def test_the_examples_are_those_that_a_record_unlike_any_other_gets(tmp_path: Path) -> None:
    train = [
        {"id": f"t{n}", "input": f"lesson {n}", "target": f"truth {n}", "unit": f"u{n}"} for n in range(9)
    ]
    keys = {"user": "Q: {{ input }}", "few_shot": 2, "max_tokens": 4000}
    fields = {"eval": "e.jsonl", "train": "t.jsonl", "fields": {"unit": "unit"}}
    work = make_work(
        tmp_path,
        suite("answer", prompt=keys, records=fields),
        {"target": "x", "unit": "other"},
        train=train,
    )
    prompts = Prompts(work)

    turns = [turn for example in prompts.example_turns() for turn in example]

    *shown, _question = prompts.of(work.records[0]).messages
    assert [tuple(message) for message in shown] == turns
