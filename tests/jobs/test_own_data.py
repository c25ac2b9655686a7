"""Recipes that train on files of their own, by other methods and for other losses, through the command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.jobs.conftest import LABELS, Harness, do_here, recipe


def recipe_with(project: Path, name: str, tune: str, *, data: str = "", suite: str = "suite.yaml") -> Path:
    path = project / f"{name}.yaml"
    text = recipe().replace("method: lora", tune).replace("recipe: tiny", f"recipe: {name}")
    path.write_text(text.replace("suites: [suite.yaml]\n", f"suites: [{suite}]\n{data}"))
    return path


@pytest.fixture
def own(project: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    shutil.copytree(project, folder)
    return folder


def preferences(folder: Path) -> None:
    rows = [
        {
            "id": f"p{at}",
            "prompt": f"Clause {at} about fees",
            "chosen": LABELS[at % 3],
            "rejected": LABELS[at % 3 - 1],
        }
        for at in range(8)
    ]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def document(done: Any) -> dict[str, Any]:
    assert done.returncode in (0, 1, 3), done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_recipe_trains_on_preferences_of_its_own(own: Path, harness: Harness, tmp_path: Path) -> None:
    preferences(own)
    path = recipe_with(own, "pairs", "objective: dpo, method: lora", data="data: [{path: pairs.jsonl}]\n")

    done = do_here(path, tmp_path, "train")
    shown = harness("check", str(path), "--show", "1", "--json")

    assert done.code == 0
    assert [stage["stage"] for stage in done.document["stages"]] == ["base", "adapter"]
    examples = json.loads(shown.stdout)["examples"][str(path)]
    assert [one["id"] for one in examples] == ["p0 (chosen)", "p0 (rejected)"]


def test_a_run_of_other_training_data_is_another_run(own: Path) -> None:
    from harness.jobs.orders import order_release

    preferences(own)
    path = recipe_with(own, "pairs", "objective: dpo, method: lora", data="data: [{path: pairs.jsonl}]\n")

    def run() -> str:
        settings: Any = {"data_root": None, "until": "train", "out": own / "out", "command": []}
        return order_release(own / "home", path, **settings).name

    first, again = run(), run()
    with (own / "pairs.jsonl").open("a") as file:
        file.write(json.dumps({"id": "more", "prompt": "x", "chosen": "law", "rejected": "pay"}) + "\n")

    assert first == again
    assert run() != first


@pytest.mark.parametrize(
    ("tune", "data", "said"),
    [
        ("objective: dpo, method: lora", "", "name their files under `data`"),
        ("method: lora", "data: [{path: absent.jsonl}]\n", 'data[0].path = "absent.jsonl"'),
        ("method: full, base_precision: nf4", "", "NF4 weights can't be trained"),
        ("method: prompt", "", "can't become a GGUF"),
    ],
)
def test_check_refuses_what_could_not_be_trained_or_exported(
    tune: str, data: str, said: str, own: Path, harness: Harness
) -> None:
    done = harness("check", str(recipe_with(own, "bad", tune, data=data)))

    assert done.returncode == 2
    assert said in done.stderr


pytestmark = pytest.mark.usefixtures("warm")
WAYS = ["method: full", "method: ia3", "method: qlora, dora: true", "method: qlora, init: pissa"]


@pytest.mark.slow
@pytest.mark.parametrize("tune", WAYS)
def test_every_method_goes_all_the_way_to_a_release(tune: str, own: Path, harness: Harness) -> None:
    found = document(harness("release", str(recipe_with(own, "way", tune)), "--json"))

    assert {"base", "adapter", "merged", "f16", "q8_0", "q4_0"} <= set(found["stages"])


def test_records_that_the_gate_judges_with_are_left_out_where_the_recipe_says_so(own: Path) -> None:
    from harness.jobs.candidate import examples_of, left_out
    from harness.jobs.orders import load_order

    held = json.loads((own / "eval.jsonl").read_text().splitlines()[0])
    leak = {**held, "id": "leak", "unit": "elsewhere", "input": held["input"].upper() + " !"}
    with (own / "train.jsonl").open("a") as file:
        file.write(json.dumps(leak) + "\n")
    path = recipe_with(own, "tiny", "method: lora", data="preflight: {overlaps: drop}\n")

    loaded = load_order(path, None)

    assert left_out(loaded) == ("leak",)
    assert "leak" not in {example.id for example in examples_of(loaded, "train")}


def test_own_examples_that_the_gate_judges_with_are_left_out_too(own: Path) -> None:
    from harness.jobs.candidate import examples_of, left_out
    from harness.jobs.orders import load_order

    held = json.loads((own / "eval.jsonl").read_text().splitlines()[0])
    rows = [
        {"id": f"own{at}", "prompt": text, "completion": "law"}
        for at, text in enumerate(("Pay me.", held["input"]))
    ]
    (own / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = "preflight: {overlaps: drop}\ndata: [{path: own.jsonl}]\n"

    loaded = load_order(recipe_with(own, "tiny", "method: lora", data=data), None)

    assert left_out(loaded) == ("own1",)
    assert [example.id for example in examples_of(loaded, "train")] == ["own0"]
