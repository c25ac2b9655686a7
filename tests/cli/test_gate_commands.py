"""`harness lock`, `harness check` with its curves, and what `harness show` says of changed runs; no model."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from harness.cli import app
from harness.errors import HarnessError, IntegrityError, SpecError
from harness.jobs.orders import order_release
from tests.jobs.test_gating import make_run, waive

SUITE = """\
suite: tiny
domain: shared
task: classify
labels: [yes_, no_]
slices: [style]
records: {train: train.jsonl, eval: eval.jsonl}
prompt: {user: '{{ input }}'}
"""
RECIPE = """\
recipe: tiny
domain: shared
base: base
suites: [suite.yaml]
gates:
  - {metric: accuracy, at_least: 0.8}
"""


def harness(home: Path, *arguments: str) -> Result:
    return CliRunner(env={"HARNESS_HOME": str(home), "COLUMNS": "160"}).invoke(app, list(arguments))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for split, n in (("train", 8), ("eval", 120)):
        rows = [
            {"id": f"{split}-{k}", "input": f"{split} question number {k * 7919}", "target": "yes_" if k % 2 else "no_",
             "slices": {"style": "plain"}, "unit": f"{split}-{k}"}
            for k in range(n)
        ]  # fmt: skip
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "suite.yaml").write_text(SUITE)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    (tmp_path / "base").mkdir()
    return tmp_path


def order(project: Path) -> Path:
    return order_release(
        project / "home",
        project / "recipe.yaml",
        data_root=None,
        until="train",
        out=project / "out",
        command=[],
    )


def test_a_locked_recipe_runs_as_it_was_frozen_and_not_otherwise(project: Path) -> None:
    recipe = str(project / "recipe.yaml")
    done = harness(project, "lock", recipe)
    assert done.exit_code == 0, done.output
    assert (project / "recipe.lock.json").exists()
    assert harness(project, "lock", recipe, "--check").exit_code == 0
    order(project)

    (project / "recipe.yaml").write_text(RECIPE.replace("0.8", "0.7"))

    changed = harness(project, "lock", recipe, "--check")
    assert isinstance(changed.exception, IntegrityError)
    assert "recipe.lock.json froze: gates" in changed.exception.message
    with pytest.raises(IntegrityError, match="TAMPERED"):
        order(project)
    assert harness(project, "lock", recipe).exit_code == 0  # a person may freeze anew
    order(project)


@pytest.mark.parametrize(
    ("name", "old", "new", "named"),
    [
        ("eval.jsonl", "number 0", "number zero", "suites.tiny.records.eval"),
        ("train.jsonl", "number 0", "number zero", "suites.tiny.records.train"),
        ("suite.yaml", "{{ input }}", "{{ input }}!", "suites.tiny.template"),
        ("suite.yaml", "records:", "scorers: [label]\nrecords:", "suites.tiny.scorers"),
    ],
)
def test_what_changed_since_is_named(project: Path, name: str, old: str, new: str, named: str) -> None:
    recipe = str(project / "recipe.yaml")
    harness(project, "lock", recipe)
    (project / name).write_text((project / name).read_text().replace(old, new, 1))

    done = harness(project, "lock", recipe, "--check")

    assert isinstance(done.exception, IntegrityError)
    assert named in done.exception.message


def test_a_suite_can_be_locked_alone_and_without_a_lock_there_is_nothing_to_check(project: Path) -> None:
    assert isinstance(
        harness(project, "lock", str(project / "suite.yaml"), "--check").exception, HarnessError
    )

    document = json.loads(harness(project, "lock", str(project / "suite.yaml"), "--json").stdout)

    assert document["file"] == str(project / "suite.lock.json")
    assert set(document["lock"]["suites"]) == {"tiny"}


def test_check_shows_what_each_rule_can_see(project: Path) -> None:
    done = harness(project, "check", str(project / "recipe.yaml"))
    document = json.loads(harness(project, "check", str(project / "recipe.yaml"), "--json").stdout)

    assert "accuracy at least 0.8" in done.stdout
    assert "alpha 0.0304" in done.stdout  # what a first attempt may spend
    assert "P(PASS)" in done.stdout
    (curve,) = document["curves"]["recipe"]
    assert (curve["n"], curve["units"], curve["can_pass"]) == (120, 120, True)


def test_check_refuses_a_margin_that_the_records_cannot_show(project: Path) -> None:
    fine = "  - {metric: accuracy, versus: f16, no_worse_than: 0.01}\n"
    (project / "recipe.yaml").write_text(RECIPE + fine)

    refused = harness(project, "check", str(project / "recipe.yaml"))

    assert isinstance(refused.exception, SpecError)
    assert "acknowledge" in refused.exception.message
    (project / "recipe.yaml").write_text(
        RECIPE + fine.replace("}", ", acknowledge: the customer asks for it}")
    )
    told = harness(project, "check", str(project / "recipe.yaml"))
    assert told.exit_code == 0
    assert "acknowledged: the customer asks for it" in told.stdout
    assert "finer than the records can show" in told.stdout


def test_show_names_what_changed_since_the_verdict_and_what_is_waived(tmp_path: Path) -> None:
    folder = make_run(tmp_path, "one", 82)
    waive(tmp_path, "one", "accuracy at least 0.8")
    path = folder / "stages" / "adapter" / "s" / "samples.jsonl"
    before = path.stat().st_mtime_ns
    path.write_text(path.read_text() + "\n")
    os.utime(path, ns=(before + 1, before + 1))

    notes = json.loads(harness(tmp_path, "show", "one", "--json").stdout)["notes"]

    assert notes[0] == "STALE adapter: stages/adapter/s/samples.jsonl: its bytes changed"
    assert "waived by Ada Lovelace" in notes[1]
    assert all(note in harness(tmp_path, "show", "one").stdout for note in notes)
