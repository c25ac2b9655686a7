"""Releases whose knowledge is in documents: no training where nothing is to be trained, or only documents changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from harness.cli import app
from harness.data.check import check
from harness.files import read_json, write_json
from harness.jobs.journal import read_events
from harness.jobs.orders import load_order
from harness.jobs.reuse import ADAPTER, adapter_digest, besides_documents, find_trained, take_over
from tests.export.tiny_models import save_checkpoint
from tests.jobs.conftest import do_here, write_records

pytestmark = pytest.mark.usefixtures("warm")
ARTICLES = {
    "courts": "The courts of the state.",
    "fees": "Fees are due with the invoice.",
    "notice": "Notice ends it.",
}
SUITE = (
    "suite: tiny\ndomain: shared\ntask: classify\nlabels: [law, pay, term]\nrepeat: 0\n"
    "records: {train: train.jsonl, dev: dev.jsonl, eval: eval.jsonl}\n"
    "retrieval: {documents: articles, k: 1}\n"
    "prompt: {user: '{{ context }} {{ input }}', max_tokens: 256}\n"
)
NONE, LORA = "{method: none}", "{method: lora, rank: 2, max_steps: 2, batch: 4, max_tokens: 300}"


def recipe(tune: str) -> str:
    return (
        f"recipe: tiny\ndomain: shared\nbase: base\nsuites: [suite.yaml]\ntune: {tune}\n"
        "attempts: count\ngates: [{metric: accuracy, at_least: 0.0}]\nexport: {quants: [q8_0], max_mean_kl: 5}\n"
    )


def write_project(folder: Path, tune: str) -> None:
    save_checkpoint(folder / "base")
    for split, n in (("train", 6), ("dev", 3), ("eval", 9)):
        write_records(folder / f"{split}.jsonl", split, n)
    (folder / "articles").mkdir()
    for name, text in ARTICLES.items():
        (folder / "articles" / f"{name}.md").write_text(text)
    (folder / "suite.yaml").write_text(SUITE)
    (folder / "recipe.yaml").write_text(recipe(tune))


def harness(folder: Path, *arguments: str) -> dict[str, Any]:
    """What the command line says of the folder, in this process."""
    environment = {"HARNESS_HOME": str(folder / "home")}
    done = CliRunner(env=environment).invoke(app, [*arguments, "--json"], catch_exceptions=False)
    return {**json.loads(done.stdout), "exit": done.exit_code}


def runs(folder: Path) -> list[Path]:
    return sorted(
        (folder / "home" / "runs").iterdir(), key=lambda run: read_json(run / "manifest.json")["created"]
    )


def stages(document: dict[str, Any]) -> dict[str, str]:
    return {stage["stage"]: stage["verdict"] for stage in document["stages"]}


def swap_a_document(folder: Path) -> None:
    (folder / "articles" / "fees.md").write_text("Fees are due thirty days after the invoice.")


def test_a_base_is_gated_and_shipped_without_training_and_again_on_other_documents(tmp_path: Path) -> None:
    write_project(tmp_path, NONE)

    first = do_here(tmp_path / "recipe.yaml", tmp_path).document

    assert stages(first) == {"base": "PASS", "f16": "PASS", "q8_0": "PASS"}
    assert harness(tmp_path, "verify", first["release"])["ok"]
    assert harness(tmp_path, "gate", "last")["verdict"] == "PASS"
    (run,) = runs(tmp_path)
    assert not (run / "train").exists()

    swap_a_document(tmp_path)

    stale = harness(tmp_path, "gate", "last")
    assert (stale["verdict"], stale["exit"]) == ("STALE", 3)
    assert "snapshot" in " ".join(stale["stale"])
    again = do_here(tmp_path / "recipe.yaml", tmp_path).document
    assert stages(again) == stages(first)
    before, after = (read_json(one / "lock.json")["suites"]["tiny"]["snapshot"] for one in runs(tmp_path))
    assert before != after
    steps = {
        event.data["step"]
        for event in read_events(runs(tmp_path)[1] / "events.jsonl")
        if event.name == "step.done"
    }
    assert steps == {"prepare", "base", "f16", "ladder", "q8_0", "release"}


def test_rules_on_stages_that_will_not_be_are_problems(tmp_path: Path) -> None:
    write_project(tmp_path, NONE)
    assert check([tmp_path / "recipe.yaml"]) == []
    path = tmp_path / "recipe.yaml"
    path.write_text(
        path.read_text().replace(
            "at_least: 0.0}", "at_least: 0.0}, {metric: accuracy, versus: merged, no_worse_than: 0.9}"
        )
    )

    (problem,) = check([path])

    assert problem.key == "gates[1].versus"


def test_files_need_records_to_be_measured_on(tmp_path: Path) -> None:
    write_project(tmp_path, NONE)
    (tmp_path / "suite.yaml").write_text(SUITE.replace("train: train.jsonl, dev: dev.jsonl, ", ""))

    (problem,) = check([tmp_path / "recipe.yaml"])

    assert (problem.key, problem.wanted) == ("suites[0]", "a suite with development records")


def test_an_adapter_is_judged_on_other_documents_without_being_trained_again(tmp_path: Path) -> None:
    write_project(tmp_path, LORA)
    first = do_here(tmp_path / "recipe.yaml", tmp_path, "train").document
    assert stages(first) == {"base": "PASS", "adapter": "PASS"}

    swap_a_document(tmp_path)
    again = do_here(tmp_path / "recipe.yaml", tmp_path, "train").document

    before, after = runs(tmp_path)
    trained = read_json(after / "train.json")
    steps = [event.name for event in read_events(after / "events.jsonl")]
    assert stages(again) == stages(first)
    assert trained["reused_from"] == before.name
    assert trained["documents_snapshot"] == read_json(before / "lock.json")["suites"]["tiny"]["snapshot"]
    assert "train.step" not in steps
    assert adapter_digest(after / ADAPTER) == adapter_digest(before / ADAPTER)


def key_of(folder: Path) -> str | None:
    return besides_documents(load_order(folder / "recipe.yaml", None), folder / "base", "base")


def test_only_documents_leave_what_trains_the_same(tmp_path: Path) -> None:
    write_project(tmp_path, LORA)
    first = key_of(tmp_path)

    swap_a_document(tmp_path)
    assert key_of(tmp_path) == first is not None

    (tmp_path / "recipe.yaml").write_text(recipe(LORA.replace("rank: 2", "rank: 4")))
    assert key_of(tmp_path) != first
    (tmp_path / "recipe.yaml").write_text(recipe(LORA))
    write_records(tmp_path / "train.jsonl", "train", 7)
    assert key_of(tmp_path) != first
    (tmp_path / "recipe.yaml").write_text(recipe(NONE))
    assert key_of(tmp_path) is None


def write_trained(runs: Path, name: str, created: str, **facts: Any) -> Path:
    adapter = runs / name / ADAPTER
    adapter.mkdir(parents=True)
    (adapter / "weights").write_text(name)
    write_json(runs / name / "manifest.json", {"created": created})
    known = {"besides_documents": "k", "adapter_sha256": adapter_digest(adapter)}
    write_json(runs / name / "train.json", {**known, **facts})
    return adapter


def test_the_newest_whole_adapter_is_taken_over(tmp_path: Path) -> None:
    write_trained(tmp_path, "a", "2026-01-01")
    write_trained(tmp_path, "b", "2026-01-02")
    write_trained(tmp_path, "other", "2026-01-09", besides_documents="x")
    write_trained(tmp_path, "steered", "2026-01-08", orders=["finish"])
    (write_trained(tmp_path, "changed", "2026-01-07") / "weights").write_text("other bytes")
    write_trained(tmp_path, "gone", "2026-01-06", adapter_sha256="0")

    found = find_trained(tmp_path, "k", but="me")

    assert found is not None
    assert found.run == "b"
    assert (take_over(found, tmp_path / "me") / "weights").read_text() == "b"
    assert find_trained(tmp_path, "unknown", but="me") is None
    assert find_trained(tmp_path, "k", but="b") == found._replace(
        run="a", folder=tmp_path / "a" / ADAPTER, facts=read_json(tmp_path / "a" / "train.json")
    )
