"""The proof of a resume: that it holds for this loop, and that it notices what differs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from harness.errors import DataError
from harness.files import read_json, write_json
from harness.train import prove
from harness.train.checkpoints import newest
from harness.train.plan import TrainPlan, plan_digest, read_plan, write_plan
from harness.train.prove import prove_resume
from harness.train.sft import train
from tests.train.conftest import build_example
from tests.train.test_sft import Log, assert_same_adapter, never, plan_for

WHAT = ["parameters", "optimizer state", "random generators", "schedule", "data position", "next batch",
        "losses", "counts"]  # fmt: skip


@pytest.mark.parametrize(
    "tune",
    [
        {"method": "lora"},
        pytest.param({"method": "qlora"}, marks=pytest.mark.slow),
        pytest.param({"method": "lora", "dora": True, "dropout": 0.0}, marks=pytest.mark.slow),
        pytest.param({"method": "qlora", "optimizer": "adamw_8bit"}, marks=pytest.mark.slow),
    ],
    ids=["lora", "qlora", "dora", "8-bit"],
)
def test_a_killed_run_goes_on_bit_for_bit_in_mid_epoch_with_accumulation(
    base: Path, tmp_path: Path, tune: dict[str, Any]
) -> None:
    proof = prove_resume(plan_for(base, threads=1, **tune), 5, tmp_path)

    assert proof.to_json()["same"], proof.to_json()
    assert [check.what for check in proof.checks] == WHAT
    assert all(check.compared > 0 for check in proof.checks)
    assert (proof.killed_at, proof.resumed_from, proof.compared_at) == (5, 3, 7)
    assert (proof.epoch, proof.batch, proof.micro_batches) == (0, 5, 2)


def test_a_step_that_the_run_does_not_have_is_refused(base: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="trains 9 steps"):
        prove_resume(plan_for(base), 10, tmp_path)


@pytest.mark.parametrize(
    ("file", "what"),
    [
        ("adapter_model.safetensors", "parameters"),
        ("optimizer.safetensors", "optimizer state"),
        ("random.safetensors", "random generators"),
    ],
)
def test_one_flipped_bit_is_a_difference(base: Path, tmp_path: Path, file: str, what: str) -> None:
    one, other = two_checkpoints(base, tmp_path)
    tensors = load_file(other / file)
    name = sorted(tensors)[0]
    raw = tensors[name].flatten().view(torch.uint8)
    raw[0] ^= 1
    save_file(tensors, other / file)

    found = prove._tensors(what, one / file, other / file)

    assert (found.is_same, found.differ) == (False, (name,))


def two_checkpoints(base: Path, folder: Path) -> tuple[Path, Path]:
    import shutil

    train(plan_for(base, max_steps=1), folder / "one", on_event=Log(), should_stop=never)
    path = sorted((folder / "one" / "checkpoints").iterdir())[-1]
    shutil.copytree(path, folder / "other")
    return path, folder / "other"


def test_nothing_compared_is_not_the_same() -> None:
    assert not prove._same("losses", {}, {}).is_same
    assert not prove._same("losses", {"1": 0.5}, {}).is_same
    assert prove._same("losses", {"1": 0.5}, {"1": 0.5}).is_same


def test_a_plan_travels_to_another_process_whole(base: Path, tmp_path: Path) -> None:
    plan = plan_for(base, gates={"every": 5}, threads=2)
    plan = TrainPlan(plan.base, [*plan.examples, build_example(3, max_tokens=50, over_length="skip")],
                     plan.held_out, plan.tune, plan.threads)  # fmt: skip
    write_plan(plan, tmp_path / "plan.json")
    found = read_plan(tmp_path / "plan.json")

    assert found == plan
    assert plan_digest(found, "b") == plan_digest(plan, "b")


KILLED_WHILE_SAVING = """
import sys, time
from pathlib import Path
import torch
torch.set_num_threads({threads})
from harness.train import checkpoints
from harness.train.sft import train
from tests.train.test_sft import plan_for, never
honest = checkpoints.{function}
def waits(*args, **kwargs):
    found = honest(*args, **kwargs)
    if len(list(Path(sys.argv[2], "checkpoints").glob("step-*"))) >= 2:
        print("saving", flush=True)
        time.sleep(600)
    return found
checkpoints.{function} = waits
train(plan_for(Path(sys.argv[1])), Path(sys.argv[2]), on_event=lambda *_: None, should_stop=never)
"""


@pytest.mark.parametrize("function", ["random_state_on_disk", "_write_manifest"])
def test_a_kill_in_the_middle_of_a_save_loses_nothing(base: Path, tmp_path: Path, function: str) -> None:
    name = "_by_rank" if function == "random_state_on_disk" else function
    code = KILLED_WHILE_SAVING.format(threads=torch.get_num_threads(), function=name)
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(base), str(tmp_path / "cut")], stdout=subprocess.PIPE, text=True,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "saving\n"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    folder = tmp_path / "cut" / "checkpoints"
    assert [path.name for path in folder.iterdir() if path.name.endswith(".part")]
    digest = read_json(sorted(folder.glob("step-*"))[-1] / "manifest.json")["plan"]
    found = newest(folder, plan_digest=digest)
    assert (found.progress and found.progress.step, found.rejected) == (3, ())

    whole, resumed = Log(), Log()
    train(plan_for(base), tmp_path / "cut", on_event=resumed, should_stop=never)
    train(plan_for(base), tmp_path / "whole", on_event=whole, should_stop=never)

    assert resumed.of("train.step")[0]["step"] == 4
    assert_same_adapter(tmp_path / "cut", tmp_path / "whole")
    assert not [path.name for path in folder.iterdir() if path.name.endswith("6.part")]


def test_a_manifest_of_other_bytes_is_refused_whatever_it_says(base: Path, tmp_path: Path) -> None:
    one, _ = two_checkpoints(base, tmp_path)
    plan = str(read_json(one / "manifest.json")["plan"])
    write_json(one / "manifest.json", {**read_json(one / "manifest.json"), "plan": "0" * 64})

    found = newest(one.parent, plan_digest=plan)
    assert found.path != one
    assert str(one) in " ".join(found.rejected)
