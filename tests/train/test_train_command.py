"""`harness train` from its command to its adapter: several processes, gates inside training, what is forgotten."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.data.check import check

SUITE = """\
suite: {name}
domain: shared
task: classify
records:
  train: {name}.train.jsonl
  dev: {name}.dev.jsonl
  eval: {name}.eval.jsonl
labels: [Law, Court]
prompt:
  user: "{{{{ input }}}}?"
"""
RECIPE = """\
recipe: tiny
domain: shared
base: {base}
suites: [clauses.yaml, kept.yaml]
tune:
  method: lora
  rank: 4
  batch: 4
  max_steps: 4
  max_tokens: 128
  learning_rate: 0.05
  processes: {processes}
  gates: {{every: 2, forgetting: kept, max_drop: {max_drop}}}
gates:
  - {{suite: clauses, metric: accuracy, at_least: 0.01}}
"""


def write_suite(folder: Path, name: str, *, label: str) -> None:
    """A suite whose answer is the label, but for one record in sixteen."""
    (folder / f"{name}.yaml").write_text(SUITE.format(name=name))
    (other,) = {"Law", "Court"} - {label}
    for at, split in enumerate(("train", "dev", "eval")):
        rows = [
            {"id": f"{name}{at}{n}", "input": f"{name} {split} {n * 7}", "target": label if n else other}
            for n in range(16)
        ]
        (folder / f"{name}.{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_recipe(folder: Path, base: Path, *, processes: int, max_drop: float) -> Path:
    """Trains one label, where what must not be forgotten is the other."""
    write_suite(folder, "clauses", label="Court")
    write_suite(folder, "kept", label="Law")
    path = folder / "tiny.yaml"
    path.write_text(RECIPE.format(base=base, processes=processes, max_drop=max_drop))
    return path


def train(recipe: Path) -> tuple[int, dict[str, Any], list[dict[str, Any]], Path]:
    """Exit code, what stdout says, the journal, and the run's folder."""
    home = recipe.parent / "home"
    done = subprocess.run(
        [sys.executable, "-m", "harness", "train", str(recipe), "--json"],
        capture_output=True, text=True, env={**os.environ, "HARNESS_HOME": str(home), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    (run,) = (home / "runs").iterdir()
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    return done.returncode, json.loads(done.stdout or "{}"), events, run


def gates_of(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [event for event in events if event["event"] == "train.gate"]


@pytest.mark.slow
def test_one_command_writes_the_launch_configuration_and_starts_the_processes(
    base: Path, tmp_path: Path
) -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    code, _, events, run = train(write_recipe(tmp_path, base, processes=2, max_drop=1.0))

    assert code in (0, 1, 3), events[-1]
    assert load_config_from_file(str(run / "train" / "launch.yaml")).num_processes == 2
    assert [event["step"] for event in events if event["event"] == "train.step"] == [1, 2, 3, 4]
    assert [gate["step"] for gate in gates_of(events)] == [0, 2, 4]
    assert all(gate["n"] == 16 and gate["kept"] is not None for gate in gates_of(events))
    assert (run / "artifacts" / "adapter" / "adapter_model.safetensors").is_file() or (
        run / "train" / "adapter" / "adapter_model.safetensors"
    ).is_file()


def test_a_suite_that_no_gate_inside_training_can_score_is_found_before_anything_runs(
    base: Path, tmp_path: Path
) -> None:
    recipe = write_recipe(tmp_path, base, processes=1, max_drop=0.1)
    assert check([recipe]) == []
    recipe.write_text(
        recipe.read_text().replace("forgetting: kept", "suites: [clauzes], forgetting: general")
    )

    found = {problem.key: problem for problem in check([recipe])}

    assert set(found) == {"tune.gates.suites[0]", "tune.gates.forgetting"}
    assert "clauses, kept" in found["tune.gates.forgetting"].wanted


def test_eval_records_do_not_steer_training(base: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, base, processes=1, max_drop=0.1)
    suite = tmp_path / "kept.yaml"
    suite.write_text(suite.read_text().replace("  dev: kept.dev.jsonl\n", ""))

    (problem,) = check([recipe])

    assert problem.key == "tune.gates.forgetting"
    assert "development records" in problem.wanted


def test_the_documents_example_of_what_must_not_be_forgotten_is_sound(tmp_path: Path) -> None:
    document = (Path(__file__).parents[2] / "docs" / "training.md").read_text()
    example = document.split("## Gates while training")[1].split("```yaml\n")[1].split("```")[0]
    recipe = tmp_path / "kept.yaml"
    recipe.write_text(f"recipe: kept\ndomain: support\nbase: embedded:smollm2-135m\n{example}")

    assert "forgetting: science-roles" in example
    # What else a whole recipe owes its constraints is left out of the example.
    assert [problem for problem in check([recipe]) if problem.key != "constraints"] == []
