"""`harness plan` and `harness init`: a recipe with reasons, and projects that `check` finds sound."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from harness.cli import app
from harness.data.check import check
from harness.errors import DataError, HarnessError, SpecError
from harness.planning.document import flow, recipe_yaml
from harness.planning.estimates import base_mb, estimate, shape_of_config
from harness.planning.project import propose
from harness.specs.load import load_recipe
from harness.specs.recipe import Constraints, Recipe
from harness.specs.situation import Situation
from harness.specs.tune import Tune
from harness.specs.yaml import parse_yaml

DOMAINS = ("healthcare", "finance", "legal", "support", "ecommerce", "science")


def harness(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


@pytest.mark.parametrize("domain", DOMAINS)
def test_each_domain_begins_with_a_project_that_check_finds_sound(tmp_path: Path, domain: str) -> None:
    found = harness("init", domain, str(tmp_path / "mine"), "--json")

    assert found.exit_code == 0, found.output
    document = json.loads(found.stdout)
    assert check([tmp_path / "mine"]) == []
    recipe = load_recipe(document["recipe"])
    assert recipe.domain == domain
    assert all(Path(suite).is_relative_to(tmp_path / "mine") for suite in document["suites"])
    readme = (tmp_path / "mine" / "README.md").read_text()
    assert f"harness release {domain}.yaml" in readme


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")

    found = harness("init", "legal", str(tmp_path))

    assert isinstance(found.exception, DataError)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_an_unknown_domain_names_those_there_are() -> None:
    for command in ("init", "plan"):
        found = harness(command, "poetry")

        assert isinstance(found.exception, HarnessError)
        assert "healthcare" in found.exception.hint


def test_a_plan_says_recipe_obligations_reasons_and_what_stays_open(tmp_path: Path) -> None:
    found = harness("plan", "legal", "--consequence", "high", "--budget", "tight", "--sensitive", "--json")

    document = json.loads(found.stdout)
    assert Recipe.model_validate(document["recipe"]).tune.method == "qlora"
    assert {"calibration", "coverage", "abstention", "pseudonymised_data"} <= {
        one["name"] for one in document["obligations"]
    }
    assert any(one["key"] == "tune.method" and "tight budget" in one["text"] for one in document["reasons"])
    assert any("pseudonymise" in line for line in document["open"])
    assert document["file"] is None


def test_a_plan_is_written_with_its_reasons_and_can_be_checked(tmp_path: Path) -> None:
    out = tmp_path / "my-contracts.yaml"

    found = harness("plan", "legal", "--out", str(out), "--at-least", "0.7")

    assert found.exit_code == 0
    text = out.read_text()
    assert text.startswith(f"# harness release {out}\n")
    assert "# an adapter learns the domain" in text
    assert load_recipe(out).recipe == "my-contracts"
    assert {problem.key for problem in check([out])} <= {"constraints"}  # obligations alone may be open
    again = harness("plan", "legal", "--out", str(out))
    assert isinstance(again.exception, HarnessError)


def test_a_value_that_no_recipe_knows_is_refused_by_its_name() -> None:
    found = harness("plan", "legal", "--budget", "huge")

    assert isinstance(found.exception, SpecError)
    assert "tight" in found.exception.message


def test_yaml_with_reasons_reads_back_as_the_recipe() -> None:
    for domain in ("legal", "science"):
        plan = propose(Situation(domain, Constraints(consequence="high", latency_ms=120.0)))  # type: ignore[arg-type]

        assert parse_yaml(recipe_yaml(plan, "r.yaml").encode(), file="r.yaml").data == plan.recipe


KEYS = st.from_regex(r"[a-z]{1,6}", fullmatch=True)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.floats(0.001, 1e6) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)


@given(JSON.filter(lambda value: "\x85" not in json.dumps(value, ensure_ascii=False)))
def test_any_value_on_one_line_reads_back(value: Any) -> None:
    try:
        found = parse_yaml(f"key: {flow(value)}\n".encode(), file="f")
    except SpecError:
        assert not json.dumps(
            value, ensure_ascii=False
        ).isprintable()  # YAML itself refuses control characters
        return
    assert found.data == {"key": value}


def test_the_embedded_base_has_the_parameters_that_its_card_names() -> None:
    # SmolLM2-135M: 134,515,008 parameters (model card); in 16 bits 269 MB, or 256.6 MiB.
    assert base_mb("embedded:smollm2-135m") == pytest.approx(134_515_008 * 2 / 2**20)


def test_a_lora_adapter_has_as_many_numbers_as_peft_counts() -> None:
    config = {
        "num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2,
        "intermediate_size": 96, "vocab_size": 50, "tie_word_embeddings": True,
    }  # fmt: skip
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    tune = Tune(method="lora", rank=4)
    model = get_peft_model(
        LlamaForCausalLM(LlamaConfig(**config)), LoraConfig(r=4, target_modules=list(tune.targets))
    )
    trained, everything = model.get_nb_trainable_parameters()

    shape = shape_of_config(config, tune)

    assert shape.trainable == trained
    assert shape.parameters == everything - trained


def test_what_nobody_measured_is_unknown(tmp_path: Path) -> None:
    plan = propose(Situation("legal"))

    found = estimate(plan, tmp_path, n_train=288, per_hour=2.0)

    assert (found.seconds, found.cost, found.measured_by) == (None, None, None)
    assert found.training_mb is not None
    unknown = estimate(propose(Situation("legal", base="owner/name")), tmp_path, n_train=288)
    assert (unknown.parameters, unknown.f16_mb, unknown.training_mb) == (None, None, None)


def test_time_and_cost_are_those_of_the_newest_run_of_this_base_and_method(tmp_path: Path) -> None:
    plan = propose(Situation("legal"))
    for run, created, method, seconds in (
        ("old", "2026-01-01T00:00:00Z", "lora", 900.0),
        ("new", "2026-02-01T00:00:00Z", "lora", 100.0),
        ("other", "2026-03-01T00:00:00Z", "full", 7.0),
    ):
        folder = tmp_path / "runs" / run
        folder.mkdir(parents=True)
        recipe = {"base": "embedded:smollm2-135m", "tune": {"method": method, "batch": 8}}
        manifest = {
            "run": run,
            "job": "release",
            "title": run,
            "created": created,
            "document": {"recipe": recipe},
        }
        (folder / "manifest.json").write_text(json.dumps(manifest))
        (folder / "train.json").write_text(json.dumps({"steps": 25, "seconds": seconds}))

    found = estimate(plan, tmp_path, n_train=100, per_hour=3.6)

    # 100 s for 25 steps of 8 are 0.5 s a record; 100 records, 4 epochs.
    assert found.measured_by == "new"
    assert found.seconds == pytest.approx(0.5 * 100 * plan.recipe["tune"]["epochs"])
    assert found.cost == pytest.approx(round(found.seconds / 1000, 4))
