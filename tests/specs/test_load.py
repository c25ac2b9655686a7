"""Suites and recipes from files: found, read, and refused with every problem at once."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from harness.errors import ExitCode, Problem, SpecError
from harness.specs import load
from harness.specs.load import find_document, load_recipe, load_release, load_suite

SUITE = """\
suite: clauses
domain: legal
task: classify
records:
  eval: eval.jsonl
prompt:
  user: "Clause: {{ input }}"
"""

RECIPE = """\
recipe: demo
domain: legal
base: embedded:smollm2-135m
suites: [clauses.yaml]
tune:
  rank: 16
gates:
  - {metric: accuracy, at_least: 0.8}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A recipe and its suite, both sound."""
    (tmp_path / "clauses.yaml").write_text(SUITE)
    (tmp_path / "demo.yaml").write_text(RECIPE)
    return tmp_path


def problems_of(path: Path) -> dict[str, Problem]:
    with pytest.raises(SpecError) as caught:
        load_release(path)
    return {problem.key: problem for problem in caught.value.problems}


def test_a_sound_recipe_brings_its_suites(folder: Path) -> None:
    release = load_release(folder / "demo.yaml")

    assert release.recipe == load_recipe(folder / "demo.yaml")
    assert [(loaded.suite.suite, loaded.path) for loaded in release.suites] == [
        ("clauses", folder / "clauses.yaml")
    ]
    assert release.recipe.tune.rank == 16


def test_five_mistakes_give_five_lines_at_once(folder: Path) -> None:
    (folder / "demo.yaml").write_text(
        "recipe: demo\n"
        "domain: legl\n"
        "suites: [clauses.yaml]\n"
        "tune: {rank: 0, aplha: 3}\n"
        "gates:\n"
        "  - {metric: accuracy, at_least: 0.8}\n"
        "  - {metric: recall, at_least: 0.8}\n"
    )

    with pytest.raises(SpecError) as caught:
        load_release(folder / "demo.yaml")

    error = caught.value
    assert [(p.line, p.key, p.found) for p in error.problems] == [
        (1, "base", "missing"),
        (2, "domain", '"legl"'),
        (4, "tune.rank", "0"),
        (4, "tune.aplha", "3"),
        (7, "gates[1]", '{"metric": "recall", "at_least": 0.8}'),
    ]
    assert error.exit_code is ExitCode.BAD_INPUT
    assert len(str(error).splitlines()) == 6


@pytest.mark.parametrize(
    ("line", "key", "wanted", "hint"),
    [
        ("tune: {rank: 257}", "tune.rank", "1 to 256", ""),
        ("tune: {dropout: 1.0}", "tune.dropout", "at least 0 and less than 1", ""),
        ("tune: {alpha: 0}", "tune.alpha", "more than 0", ""),
        ("tune: {learning_rate: .nan}", "tune.learning_rate", "a finite number", ""),
        ("tune: {batch: 2.5}", "tune.batch", "a whole number", ""),
        ("tune: {rank: true}", "tune.rank", "a whole number", ""),
        ('tune: {epochs: "2"}', "tune.epochs", "a number", "without quotes"),
        ("tune: {targets: q_proj}", "tune.targets", "a list", ""),
        ("tune: 3", "tune", "keys and values", ""),
        ("tune: {method: qlra}", "tune.method", "qlora, lora, ia3, prompt, full or none", "nearest: qlora"),
        ("constraints: {latency_ms: 0}", "constraints.latency_ms", "more than 0", ""),
        ("constraints: {data_sensitive: yes}", "constraints.data_sensitive", "true or false", "YAML 1.2"),
        ("export: {quants: []}", "export.quants", "at least 1 item", ""),
        ("device: {name: 17}", "device.name", "text", '"17"'),
        ("device: {threads: 2}", "device.name", "text", ""),
        ("export: {qants: [q8_0]}", "export.qants", "", "nearest: quants"),
        ("colour: red", "colour", "", "allowed: recipe, version"),
        ("tune: {micro_batch: 3}", "tune.micro_batch", "", "does not divide tune.batch 8"),
        ("description: 1", "description", "text", '"1"'),
    ],
)
def test_each_problem_says_what_was_wanted(folder: Path, line: str, key: str, wanted: str, hint: str) -> None:
    source = RECIPE.replace("tune:\n  rank: 16\n", "") + line + "\n"
    (folder / "demo.yaml").write_text(source)

    (problem,) = problems_of(folder / "demo.yaml").values()

    assert (problem.key, problem.wanted) == (key, wanted)
    assert hint in problem.hint
    assert problem.line == source.splitlines().index(line) + 1


def test_a_missing_key_points_to_its_parent(folder: Path) -> None:
    (folder / "clauses.yaml").write_text(SUITE.replace('  user: "Clause: {{ input }}"', "  max_tokens: 64"))

    problem = problems_of(folder / "demo.yaml")["prompt.user"]

    assert (problem.found, problem.line, problem.wanted) == ("missing", 6, "text")


def test_problems_of_a_recipe_and_its_suites_come_together(folder: Path) -> None:
    (folder / "demo.yaml").write_text(RECIPE.replace("16", "0"))
    (folder / "clauses.yaml").write_text(SUITE.replace("classify", "clasify") + "limit: {evl: {n: 1}}\n")

    problems = problems_of(folder / "demo.yaml")

    assert set(problems) == {"tune.rank", "task", "limit.evl"}
    assert problems["limit.evl"].wanted == "train, dev, calibration or eval"
    assert {Path(problem.file).name for problem in problems.values()} == {"demo.yaml", "clauses.yaml"}


def test_a_suite_that_is_not_there_is_named_at_the_recipes_line_with_the_nearest(folder: Path) -> None:
    (folder / "demo.yaml").write_text(RECIPE.replace("clauses.yaml", "clases.yaml"))

    problem = problems_of(folder / "demo.yaml")["suites[0]"]

    assert (problem.line, problem.found) == (4, '"clases.yaml"')
    assert "nearest: clauses" in problem.hint


def test_a_list_of_wrong_items_is_not_also_called_empty(folder: Path) -> None:
    (folder / "demo.yaml").write_text(RECIPE + "export: {quants: [q4_k_n]}\n")

    assert set(problems_of(folder / "demo.yaml")) == {"export.quants[0]"}


def test_documents_are_looked_for_near_then_above_then_here_then_in_the_bundle(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = [
        tmp_path / "release/recipes",
        tmp_path / "release",
        tmp_path / "cwd",
        tmp_path / "bundle/suites",
    ]
    for place in places:
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / "clauses.yaml", place / "found.yaml")
    monkeypatch.chdir(tmp_path / "cwd")
    monkeypatch.setattr(load, "bundled_root", lambda: tmp_path / "bundle")

    for place in places:
        found = find_document("found", near=tmp_path / "release/recipes/demo.yaml").resolve()
        assert found == place / "found.yaml"
        found.unlink()
    with pytest.raises(SpecError, match="no such file"):
        find_document("found", near=tmp_path / "release/recipes/demo.yaml")


def test_a_public_set_must_be_under_data_where_data_is_given(folder: Path) -> None:
    source = SUITE.replace("eval: eval.jsonl", "public: legal/nothing")
    (folder / "clauses.yaml").write_text(source)

    assert load_suite(folder / "clauses.yaml").records.public == "legal/nothing"
    with pytest.raises(SpecError, match="legal/nothing"):
        load_suite(folder / "clauses.yaml", data_root=folder)


def test_labels_that_yaml_1_1_would_have_eaten_stay_labels(folder: Path) -> None:
    (folder / "clauses.yaml").write_text(SUITE + "labels: [yes, no, on, 'null']\n")

    assert load_suite(folder / "clauses.yaml").labels == ("yes", "no", "on", "null")
