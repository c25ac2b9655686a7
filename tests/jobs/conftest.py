"""A whole release in seconds: a tiny random base, a suite of short records, and gates that it passes."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from harness.files import read_json
from harness.jobs import lease
from harness.jobs.journal import Journal
from harness.jobs.orders import Until, order_release
from harness.jobs.worker import do
from tests.export.children import idle, warm
from tests.export.tiny_models import save_checkpoint

__all__ = ["idle", "warm"]

LABELS = ("law", "pay", "term")
WORDS = {
    "law": "courts state governed statute",
    "pay": "invoice fees due sum",
    "term": "notice end expiry cease",
}


def write_records(path: Path, split: str, n: int) -> None:
    rows = []
    for number in range(n):
        label = LABELS[number % 3]
        words = WORDS[label].split()
        text = (
            f"{split} {number}: {words[number % 4]} {words[(number // 3) % 4]} clause {number * 7919 % 1000}"
        )
        kind = "odd" if number % 2 else "even"
        name = f"{split}-{number}"
        rows.append({"id": name, "input": text, "target": label, "slices": {"kind": kind}, "unit": name})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with base, suite, records and recipe. Copy what a test changes."""
    folder = tmp_path_factory.mktemp("project")
    save_checkpoint(folder / "base")
    for split, n in (("train", 24), ("dev", 6), ("eval", 30)):
        write_records(folder / f"{split}.jsonl", split, n)
    (folder / "suite.yaml").write_text(
        "suite: tiny\ndomain: shared\ntask: classify\nlabels: [law, pay, term]\nslices: [kind]\n"
        "records: {train: train.jsonl, dev: dev.jsonl, eval: eval.jsonl}\n"
        "prompt: {user: '{{ input }}', max_tokens: 256}\n"
    )
    (folder / "recipe.yaml").write_text(recipe())
    return folder


LORA = "{method: lora, rank: 2, max_steps: 6, batch: 4, checkpoint_every: 2, max_tokens: 300}"


def recipe(*, at_least: float = 0.0, tune: str = LORA) -> str:
    """A recipe whose gates a random model passes, unless `at_least` says otherwise."""
    return (
        f"recipe: tiny\ndomain: shared\nbase: base\nsuites: [suite.yaml]\ntune: {tune}\n"
        f"gates:\n  - {{metric: accuracy, at_least: {at_least}}}\n"
        "  - {metric: accuracy, versus: f16, no_worse_than: 0.9}\n"
        "export: {quants: [q8_0, q4_0], max_mean_kl: 5}\n"
    )


Harness = Callable[..., subprocess.CompletedProcess[str]]


def run_harness(project: Path, place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command line in the project, in a process of its own, with home and releases in `place`."""
    environment = {**os.environ, "HARNESS_HOME": str(place / "home"), "OMP_NUM_THREADS": "1"}
    out = ["--out", str(place / "releases")] if arguments[0] in ("release", "demo") else []
    return subprocess.run(
        [sys.executable, "-m", "harness", *arguments, *out],
        capture_output=True, text=True, env=environment, cwd=project, check=False,
    )  # fmt: skip


@pytest.fixture
def harness(project: Path, tmp_path: Path) -> Harness:
    """Runs the command line in the project with a home of the test's own."""
    return partial(run_harness, project, tmp_path)


class Done(NamedTuple):
    """A run that was done in this process."""

    code: int
    document: dict[str, Any]
    """Its `result.json`; empty where it came to none."""
    folder: Path


def do_here(recipe_path: Path, place: Path, until: Until = "release") -> Done:
    """What `harness release`, `export` or `train` makes, without the seconds that a process takes to import torch."""
    threads = torch.get_num_threads()
    try:
        with contextlib.chdir(recipe_path.parent):
            folder = order_release(
                place / "home", recipe_path, data_root=None, until=until, out=place / "releases", command=[]
            )
            with lease.hold(folder):
                code = do(folder, journal := Journal(folder / "events.jsonl"))
                journal.close()
    finally:
        torch.set_num_threads(threads)
    path = folder / "result.json"
    return Done(code, read_json(path) if path.exists() else {}, folder)
