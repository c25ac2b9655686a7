"""A recipe at a size that takes seconds: a tiny random base, few items and steps, the same suites, rules and stages."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from harness.specs.load import LoadedRecipe, LoadedSuite, load_release
from harness.specs.obligations import obligations_of
from harness.specs.yaml import read_yaml

ROOT = Path(__file__).resolve().parents[2]
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
N_EVAL, N_CALIBRATION, N_DEV = 64, 40, 8
"""A 95th percentile takes 59 requests, and the first one warms up."""
CONTEXT_TOK = 4096
"""The tiny tokenizer knows few words, so that texts are several times as long as for a real model."""
ANSWER_TOK = 8
"""A guess is as wrong after eight tokens as after a hundred."""
QUANTS = ("q8_0", "q4_0")
LOOSE = {"at_least": 0.0, "at_most": 1e9, "no_worse_than": 0.99, "gap": 0.99, "floor": 0.0, "within": 0.99}
"""What a model that guesses keeps; each rule keeps its metric, its slices and its suite."""
NO_REPEATS = (
    "Nothing is asked again at this size: guesses change with the order of a sum, and 0 clears no noise."
)


def own_recipes() -> list[Path]:
    """The recipes whose records all come with the harness."""
    return [path for path in RECIPES if not needs_data(path)]


def needs_data(recipe: Path) -> bool:
    """Whether a suite of the recipe reads a public set."""
    return any(one.suite.records.public is not None for one in load_release(recipe).suites)


def write_base(folder: Path) -> None:
    """A tiny random checkpoint where `write_reduced` names it."""
    from tests.export.tiny_models import save_checkpoint  # loads torch: seconds

    save_checkpoint(folder / "base", max_position_embeddings=CONTEXT_TOK)


def write_reduced(recipe: Path, folder: Path) -> Path:
    """The recipe's suites and the recipe itself, reduced, in the folder; the path of the latter."""
    loaded = load_release(recipe)
    folder.mkdir(parents=True, exist_ok=True)
    names = [_write_suite(one, folder) for one in loaded.suites]
    longest_answer_tok = max(one.suite.generation.max_new_tokens for one in loaded.suites)
    document = dict(read_yaml(recipe).data)
    document |= {
        "base": "base",
        "suites": names,
        "tune": {
            "method": document.get("tune", {}).get("method", "qlora"), "rank": 2, "max_steps": 4, "batch": 4,
            "checkpoint_every": 2, "max_tokens": CONTEXT_TOK - longest_answer_tok,
        },
        "gates": [rule for gate in document["gates"] if (rule := _loosened(gate)) is not None],
        "export": {"quants": list(QUANTS), "max_mean_kl": 20},
        "attempts": "count",
        "deviations": [*document.get("deviations", []), *_no_repeats(loaded)],
    }  # fmt: skip
    target = folder / "recipe.yaml"
    target.write_text(json.dumps(document))
    return target


def release(recipe: Path, home: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """`harness release` of the recipe, with a home of its own and one thread."""
    environment = {**os.environ, "HARNESS_HOME": str(home), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-m", "harness", "release", recipe.name, "--out", str(home / "releases"), "--json", *options],
        capture_output=True, text=True, env=environment, cwd=recipe.parent, check=False,
    )  # fmt: skip


def _no_repeats(loaded: LoadedRecipe) -> list[dict[str, str]]:
    """What a recipe that owes repeated answers says in their place."""
    recipe = loaded.recipe
    owed = {one.name for one in obligations_of(recipe.domain, recipe.constraints)}
    return [{"from": "repeatability", "because": NO_REPEATS}] if "repeatability" in owed else []


def _write_suite(one: LoadedSuite, folder: Path) -> str:
    """The suite with absolute paths to its records and a small part of each judged split; the file's name."""
    document = json.loads(json.dumps(read_yaml(one.path).data))
    records = document["records"]
    for key in ("train", "dev", "calibration", "eval", "documents"):
        if records.get(key) is not None:
            records[key] = str((one.path.parent / records[key]).resolve())
    kept = {"eval": N_EVAL, "calibration": N_CALIBRATION, "dev": N_DEV}
    limits = document.get("limit", {})
    document["limit"] = {**limits, **{split: {"n": n} for split, n in kept.items() if records.get(split)}}
    if records.get("public"):
        document["limit"]["eval"] = {"n": N_EVAL}
    document["prompt"]["max_tokens"] = CONTEXT_TOK // 2
    if "generation" in document:
        document["generation"]["max_new_tokens"] = ANSWER_TOK
    document["repeat"] = 0
    path = folder / f"{one.suite.suite}.yaml"
    path.write_text(json.dumps(document))
    return path.name


def _loosened(gate: dict[str, Any]) -> dict[str, Any] | None:
    """The rule with a bound that a guess keeps; None for the gain over the base, which a guess has none of.

    Probabilities are judged as they are: guesses have no temperature that makes them right.
    """
    if "better_than" in gate:
        return None
    loose = {key: LOOSE.get(key, value) for key, value in gate.items()}
    if gate.get("calibrated"):
        loose["calibrated"] = False
    if gate.get("per") is not None:
        loose["min_n"] = 1
    if gate["metric"] == "precision":
        loose.pop("only", None)  # a guess may never say the label
    if gate["metric"] == "abstention":
        loose["precision"] = 0.001
    if gate.get("at_most") is not None and not gate["metric"].startswith(("latency", "size", "memory")):
        loose["at_most"] = 1.0
    return loose
