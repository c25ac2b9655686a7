"""The whole path on a tiny random model, through the command line."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from harness.evals.samples import read_samples
from harness.jobs import lease
from harness.jobs.journal import read_events
from tests.jobs.conftest import Harness, do_here, recipe, run_harness

pytestmark = pytest.mark.usefixtures("warm")
MOMENTS = (("train.step", "step", 3), ("eval.batch", "stage", "f16"))
"""Events that are followed by a kill: between two checkpoints, and between two batches of answers."""


class Released(NamedTuple):
    """A release that nothing disturbed."""

    document: dict[str, Any]
    place: Path
    """Holds its home and its releases."""


@pytest.fixture(scope="module")
def released(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Released:
    """Read it, never write to it."""
    place = tmp_path_factory.mktemp("released")
    done = run_harness(project, place, "release", "recipe.yaml", "--json")
    assert done.returncode == 0, done.stderr
    return Released(json.loads(done.stdout), place)


def run_folder(place: Path) -> Path:
    return next((place / "home" / "runs").iterdir())


def test_a_release_runs_through_all_stages_and_verifies(released: Released, harness: Harness) -> None:
    document = released.document

    assert document["verdict"] == "PASS"
    stages = [stage["stage"] for stage in document["stages"]]
    assert stages == ["base", "adapter", "merged", "f16", "q8_0", "q4_0"]
    assert all(stage["n"] == 30 for stage in document["stages"])
    assert document["picked"] == "q4_0"
    for stage in document["stages"][1:]:
        parity = [rule for rule in stage["rules"] if rule["metric"] == "token_parity"]
        assert [rule["verdict"] for rule in parity] == ["PASS"], stage["stage"]
        attempts = [rule["reason"] for rule in stage["rules"] if rule["metric"] == "attempt"]
        assert attempts == ["attempt 1 on these items: alpha 0.0304 of 0.05 is spent on it"]
    check = harness("verify", document["release"], "--json")
    assert (check.returncode, json.loads(check.stdout)["ok"]) == (0, True)


def test_a_release_that_is_asked_for_again_is_the_same_and_no_second_attempt(
    released: Released, project: Path
) -> None:
    again = run_harness(project, released.place, "release", "recipe.yaml", "--json")

    assert json.loads(again.stdout)["stages"] == released.document["stages"]
    assert len((released.place / "home" / "attempts.jsonl").read_text().splitlines()) == 1
    events = read_events(run_folder(released.place) / "events.jsonl")
    assert max(e.data["done"] for e in events if e.name == "eval.batch") == 30


def test_a_flipped_bit_in_the_released_file_is_refused(
    released: Released, harness: Harness, tmp_path: Path
) -> None:
    copy = shutil.copytree(released.document["release"], tmp_path / "copy")
    model = next(copy.glob("*.gguf"))
    data = bytearray(model.read_bytes())
    data[len(data) // 2] ^= 1
    model.write_bytes(data)

    refused = harness("verify", str(copy))

    assert refused.returncode == 1
    assert "digests" in refused.stdout
    assert "REFUSED" in refused.stdout


def test_an_adapter_that_fails_its_gate_is_not_exported(project: Path, tmp_path: Path) -> None:
    (project / "strict.yaml").write_text(recipe(at_least=0.85).replace("recipe: tiny", "recipe: strict"))

    done = do_here(project / "strict.yaml", tmp_path)

    assert done.code == 1
    assert (done.document["verdict"], done.document["release"], done.document["picked"]) == (
        "FAIL",
        None,
        None,
    )
    assert [stage["stage"] for stage in done.document["stages"]] == ["base", "adapter"]
    assert not list(done.folder.rglob("*.gguf"))
    assert not (tmp_path / "releases").exists()


def test_records_that_change_during_a_run_leave_no_release(project: Path, tmp_path: Path) -> None:
    moving = shutil.copytree(project, tmp_path / "moving")
    (moving / "recipe.yaml").write_text(recipe(tune="{method: none}").replace("[q8_0, q4_0]", "[q8_0]"))
    records = moving / "eval.jsonl"
    process = _start(moving, tmp_path)
    _await(process, lambda: _finished_total(tmp_path) > 0)

    records.write_text(records.read_text().replace("clause", "clauses", 1))
    process.wait(timeout=300)

    assert process.returncode == 2
    assert not (tmp_path / "releases").exists()
    failed = [e for e in read_events(run_folder(tmp_path) / "events.jsonl") if e.name == "run.failed"]
    assert "TAMPERED" in failed[-1].data["error"]
    assert "suites.tiny.records.eval" in failed[-1].data["error"]


def test_a_suite_without_a_development_split_is_exported_too(project: Path, tmp_path: Path) -> None:
    without = shutil.copytree(project, tmp_path / "without")
    suite = without / "suite.yaml"
    suite.write_text(suite.read_text().replace("dev: dev.jsonl, ", ""))
    short = recipe().replace("[q8_0, q4_0]", "[q8_0]").replace("lora", "qlora")
    (without / "recipe.yaml").write_text(short.replace("max_steps: 6", "max_steps: 2"))

    done = do_here(without / "recipe.yaml", tmp_path, "export")

    assert (done.code, done.document["picked"]) == (0, "q8_0")
    kept = json.loads((done.folder / "artifacts" / "merge.json").read_text())
    assert kept == {"kept": "merged-nf4", "dev": {}}


def test_an_overlapping_training_record_is_refused_by_name(
    harness: Harness, project: Path, tmp_path: Path
) -> None:
    shutil.copytree(project, tmp_path / "leaky")
    first = (project / "eval.jsonl").read_text().splitlines()[4]
    leaked = {**json.loads(first), "id": "leaked", "unit": "leaked"}
    with (tmp_path / "leaky" / "train.jsonl").open("a") as file:
        file.write(json.dumps(leaked) + "\n")

    done = harness("release", str(tmp_path / "leaky" / "recipe.yaml"))

    assert done.returncode in (1, 2)
    assert "leaked" in done.stderr
    assert "eval-4" in done.stderr


def test_a_killed_release_ends_as_if_it_had_not_been(
    released: Released, harness: Harness, project: Path, tmp_path: Path
) -> None:
    calm = released.document
    finished_before: dict[str, int] = {}
    for moment in MOMENTS:
        finished_before = _kill_at(moment, project, tmp_path)
    done = harness("release", "recipe.yaml", "--json")

    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert (document["verdict"], document["picked"]) == (calm["verdict"], calm["picked"])
    assert document["stages"] == calm["stages"]
    assert _steps_back(run_folder(tmp_path)) == []
    for name, count in _finished(run_folder(tmp_path)).items():
        assert count >= finished_before.get(name, 0)


def test_a_soft_cancel_keeps_what_is_done(harness: Harness, project: Path, tmp_path: Path) -> None:
    process = _start(project, tmp_path)
    _await(process, lambda: _finished_total(tmp_path) > 0)

    assert harness("cancel", "last").returncode == 0
    process.wait(timeout=60)

    assert process.returncode == 130
    assert json.loads(harness("runs", "--json").stdout)[0]["state"] == "cancelled"


def _start(project: Path, tmp_path: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "HARNESS_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "harness", "release", "recipe.yaml", "--out", str(tmp_path / "releases")],
        cwd=project, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def _kill_at(moment: tuple[str, str, object], project: Path, tmp_path: Path) -> dict[str, int]:
    """Samples that are finished when the run is killed, as soon as such an event is in its journal."""
    watcher = _start(project, tmp_path)
    _await(watcher, lambda: _has_come(moment, tmp_path))
    found = lease.holder(run_folder(tmp_path))
    assert found is not None
    os.killpg(found.pid, signal.SIGKILL)
    watcher.kill()
    watcher.wait()
    return _finished(run_folder(tmp_path))


def _has_come(moment: tuple[str, str, object], tmp_path: Path) -> bool:
    name, key, value = moment
    events = [e for path in tmp_path.glob("home/runs/*/events.jsonl") for e in read_events(path)]
    return any(e.name == name and e.data.get(key) == value for e in events)


def _await(process: subprocess.Popen[bytes], holds: Callable[[], bool], seconds: float = 300.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert process.poll() is None, "it ended before"
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _finished(folder: Path) -> dict[str, int]:
    return {str(path): len(read_samples(path)) for path in (folder / "stages").rglob("samples.jsonl")}


def _finished_total(tmp_path: Path) -> int:
    runs = tmp_path / "home" / "runs"
    return sum(_finished(next(runs.iterdir())).values()) if runs.exists() and any(runs.iterdir()) else 0


def _steps_back(folder: Path) -> list[str]:
    """Stages whose count of finished samples ever went down."""
    done: dict[str, int] = {}
    back = []
    for event in read_events(folder / "events.jsonl"):
        if event.name == "eval.batch":
            if event.data["done"] < done.get(event.data["stage"], 0):
                back.append(event.data["stage"])
            done[event.data["stage"]] = event.data["done"]
    return back
