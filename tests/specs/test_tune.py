from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from harness.errors import SpecError
from harness.files import bundled_root
from harness.specs.load import load_recipe
from harness.specs.tune import PRESETS, Tune


def recipe(folder: Path, *lines: str) -> Path:
    """The demo's recipe with other lines in place of its method."""
    text = (bundled_root() / "recipes" / "demo.yaml").read_text()
    path = folder / "recipe.yaml"
    path.write_text(text.replace("  method: qlora\n", "".join(f"  {line}\n" for line in lines)))
    return path


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_gives_its_settings_where_nothing_else_is_said(name: Any) -> None:
    found = Tune(preset=name)

    assert {key: getattr(found, key) for key in PRESETS[name]} == dict(PRESETS[name])
    assert Tune(preset=name, rank=3).rank == 3


def test_a_preset_stands_in_a_recipe_beneath_the_recipes_own_keys(tmp_path: Path) -> None:
    found = load_recipe(recipe(tmp_path, "preset: conservative")).tune

    assert (found.method, found.targets, found.clip_norm) == ("lora", ("q_proj", "v_proj"), 0.3)
    assert (found.rank, found.epochs) == (16, 4.0)


@pytest.mark.parametrize(
    ("method", "rate", "is_nf4"),
    [("qlora", 5e-4, True), ("lora", 5e-4, False), ("ia3", 3e-3, False), ("full", 2e-5, False)],
)
def test_a_method_brings_its_own_learning_rate_and_precision(method: Any, rate: float, is_nf4: bool) -> None:
    found = Tune(method=method)

    assert (found.learning_rate, found.is_nf4) == (rate, is_nf4)
    assert Tune(method=method, learning_rate=0.1).learning_rate == 0.1


def test_settings_read_back_from_a_document_are_the_same() -> None:
    for tune in (Tune(preset="instruction"), Tune(method="ia3", base_precision="nf4")):
        assert Tune.model_validate(tune.model_dump()) == tune


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"method": "full", "base_precision": "nf4"}, "NF4 weights can't be trained"),
        ({"method": "qlora", "base_precision": "16bit"}, "that is method lora"),
        ({"method": "lora", "base_precision": "nf4"}, "that is method qlora"),
        ({"method": "ia3", "dora": True}, "dora is an option of qlora and lora"),
        ({"method": "ia3", "dropout": 0.1}, "dropout is an option"),
        ({"virtual_tokens": 8}, "virtual_tokens is an option of prompt"),
        ({"dora": True, "init": "pissa"}, "take one"),
        ({"objective": "distill"}, r"set distill\.teacher"),
        ({"dpo": {}}, "belongs to objective dpo"),
        ({"objective": "dpo", "method": "full"}, "reference is the base"),
        ({"objective": "dpo", "init": "pissa"}, "it changes the base"),
        ({"objective": "dpo", "dropout": 0.1}, "different networks"),
        ({"dp": {"noise": 1.0, "delta": 1e-5}, "dora": True}, "without dora"),
        ({"dp": {"noise": 1.0, "delta": 1e-5}, "objective": "dpo"}, "dp goes with objective sft"),
        ({"dp": {"noise": 1.0, "delta": 1e-5}, "dropout": 0.1}, "dropout with dp"),
        ({"dp": {"noise": 1.0, "delta": 1e-5}, "processes": 2}, "processes above 1 with dp"),
        ({"dp": {"delta": 1e-5}}, "one of epsilon and noise"),
        ({"method": "none", "rank": 4}, "rank is set, and method none trains nothing"),
        ({"method": "none", "objective": "dpo"}, "objective is set"),
        ({"method": "none", "preset": "conservative"}, "preset is set"),
        ({"dp": {"delta": 1e-5, "noise": 1.0, "epsilon": 3.0}}, "one of epsilon and noise"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Tune.model_validate(settings)


def test_method_none_stands_alone_and_survives_a_round_trip() -> None:
    found = Tune(method="none")

    assert not found.trains
    assert not found.is_nf4
    assert Tune.model_validate(found.model_dump()) == found


def test_all_of_them_are_named_at_once_each_at_its_line(tmp_path: Path) -> None:
    path = recipe(tmp_path, "method: full", "base_precision: nf4", "dora: true", "virtual_tokens: 3")

    with pytest.raises(SpecError) as caught:
        load_recipe(path)

    found = {(problem.key, problem.line) for problem in caught.value.problems}
    lines = path.read_text().splitlines()
    wanted = {"base_precision", "dora", "virtual_tokens"}
    assert found == {
        (f"tune.{key}", next(n for n, s in enumerate(lines, 1) if f" {key}:" in s)) for key in wanted
    }


def test_a_recipe_cannot_end_in_a_gguf_of_virtual_tokens(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"tune\.method.*can't become a GGUF") as caught:
        load_recipe(recipe(tmp_path, "method: prompt"))
    assert [problem.key for problem in caught.value.problems] == ["tune.method"]


def test_lists_in_a_recipes_file_are_lists_under_tune_too(tmp_path: Path) -> None:
    lines = ("targets: [q_proj, v_proj]", "gates: {suites: [one, two]}")

    tune = load_recipe(recipe(tmp_path, *lines)).tune

    assert tune.targets == ("q_proj", "v_proj")
    assert tune.gates is not None
    assert tune.gates.suites == ("one", "two")
