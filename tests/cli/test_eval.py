"""`harness eval`: a limit, a baseline and what is left on disk, with real processes and a scripted model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SUITE = """\
suite: towns
domain: shared
task: answer
records: {eval: eval.jsonl}
prompt: {user: "{{ input }}"}
scorers: [exact, token_f1]
slices: [kind]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = [
        {"id": f"q{k}", "input": f"town {k}?", "target": f"Town {k}", "slices": {"kind": "ab"[k % 2]}}
        for k in range(60)
    ]
    (tmp_path / "eval.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "suite.yaml").write_text(SUITE)
    for name, right in (("good", 54), ("poor", 30)):
        lines = [{"id": f"q{k}", "text": f"Town {k}" if k < right else f"Town of {k}"} for k in range(60)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path


def harness(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HARNESS_HOME": str(folder / "home"), "COLUMNS": "160"}
    command = [sys.executable, "-m", "harness", *args]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def scored(folder: Path, *args: str, model: str = "good") -> dict[str, Any]:
    done = harness(folder, "eval", "suite.yaml", "--model", f"scripted:{model}.jsonl", "--json", *args)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def score(document: dict[str, Any], metric: str = "accuracy") -> tuple[int, float]:
    readings = document["scorecard"]["readings"]
    found = next(one for one in readings if (one["metric"], one["slice"]) == (metric, "all"))
    return found["n"], found["score"]


def test_a_suite_is_scored_with_each_scorer_and_its_noise_floor(folder: Path) -> None:
    document = scored(folder)

    assert score(document) == (60, 0.9)
    assert score(document, "score exact") == (60, 0.9)
    # "Town 54" and "Town of 54" share 2 words of 2 and 3: F1 0.8
    assert score(document, "score token_f1") == (60, pytest.approx(0.9 + 0.1 * 0.8))
    assert document["scorecard"]["noise"]["items"] == 16
    assert document["scorecard"]["noise"]["flips"] == 0


def test_a_limit_is_a_random_subset_by_seed_and_is_recorded(folder: Path) -> None:
    first, again = scored(folder, "--limit", "20"), scored(folder, "--limit", "20", "--fresh")
    other = scored(folder, "--limit", "20", "--seed", "4", "--no-repeat")

    ids = [
        {json.loads(line).get("id") for line in path.read_text().splitlines()[1:-1]}
        for path in sorted((folder / "home" / "runs").glob("*/stages/model/towns/samples.jsonl"))
    ]
    manifests = [json.loads(path.read_text()) for path in (folder / "home" / "runs").glob("*/manifest.json")]
    assert score(first)[0] == 20
    assert first["scorecard"] == again["scorecard"]
    assert {frozenset(one) for one in ids} != {frozenset(ids[0])}, "another seed draws others"
    assert sorted(m["options"]["limit"]["seed"] for m in manifests) == [4, 17, 17]
    assert other["scorecard"]["noise"] is None


def test_a_baseline_is_compared_on_the_same_items(folder: Path) -> None:
    scored(folder, model="poor")

    document = scored(folder, "--baseline", "last")

    (suite,) = document["comparison"]["suites"]
    assert (suite["overall"]["n"], suite["overall"]["gained"], suite["overall"]["lost"]) == (60, 24, 0)
    words = harness(
        folder,
        "eval",
        "suite.yaml",
        "--model",
        "scripted:good.jsonl",
        "--baseline",
        "eval-towns",
        "--no-repeat",
    )
    assert words.returncode == 2
    assert "eval-towns" in words.stderr


def test_a_sample_shows_all_its_scores(folder: Path) -> None:
    scored(folder)

    shown = harness(folder, "show", "last", "q59")

    assert "Town of 59" in shown.stdout
    assert "exact 0.000, token_f1 0.800" in shown.stdout


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--baseline", "nowhere"), "nowhere"),
        (("--detach", "--baseline", "last"), "--baseline"),
        (("--limit", "0"), "--limit"),
        (("--split", "tain"), "no such split"),
    ],
)
def test_what_can_not_be_is_refused_before_anything_begins(
    folder: Path, args: tuple[str, ...], words: str
) -> None:
    done = harness(folder, "eval", "suite.yaml", "--model", "scripted:good.jsonl", *args)

    assert done.returncode == 2
    assert words in done.stderr
    assert not (folder / "home" / "runs").exists()


def test_a_split_without_records_is_named(folder: Path) -> None:
    done = harness(folder, "eval", "suite.yaml", "--model", "scripted:good.jsonl", "--split", "dev")

    assert done.returncode == 2
    assert "has no dev records" in done.stderr
