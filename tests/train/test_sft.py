from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from harness.errors import CancelledError, DataError, IntegrityError, RunDiedError
from harness.specs.recipe import Tune
from harness.train import loop
from harness.train.checkpoints import newest
from harness.train.plan import TrainPlan, TrainResult
from harness.train.schedule import learning_rate, total_steps
from harness.train.sft import train
from tests.train.conftest import build_base, build_example

STEPS = 9


def plan_for(base: Path, *, threads: int | None = None, **tune: Any) -> TrainPlan:
    settings = {
        "rank": 4,
        "batch": 4,
        "micro_batch": 2,
        "epochs": 2.0,
        "learning_rate": 5e-3,
        "max_tokens": 200,
    }
    settings |= {"checkpoint_every": 3, "dropout": 0.1, "max_steps": STEPS, **tune}
    examples = [build_example(at) for at in range(22)]
    return TrainPlan(base, examples, [build_example(at) for at in range(40, 44)], Tune(**settings), threads)


class Log:
    """All events of a run."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []

    def __call__(self, name: str, data: dict[str, Any]) -> None:
        json.dumps(data, allow_nan=False)
        self.events.append((name, data))

    def of(self, name: str) -> list[dict[str, Any]]:
        return [data for event, data in self.events if event == name]


def never() -> bool:
    return False


def after(steps: int, log: Log) -> Callable[[], bool]:
    return lambda: len(log.of("train.step")) >= steps


def run(plan: TrainPlan, folder: Path) -> tuple[TrainResult, Log]:
    log = Log()
    return train(plan, folder, on_event=log, should_stop=never), log


def state(folder: Path) -> dict[str, bytes]:
    """Everything that the next step depends on, from the newest checkpoint."""
    path = sorted((folder / "checkpoints").glob("step-*"))[-1]
    names = ("adapter_model.safetensors", "optimizer.safetensors", "random.safetensors")
    tensors = {
        f"{file}/{k}": v.numpy().tobytes() for file in names for k, v in load_file(path / file).items()
    }
    return {
        **tensors,
        "position": json.dumps(json.loads((path / "progress.json").read_text())["position"]).encode(),
    }


@pytest.fixture(scope="module")
def whole(base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TrainResult, Log]:
    """A run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, *run(plan_for(base), folder)


def test_training_lowers_the_loss_and_leaves_an_adapter(whole: tuple[Path, TrainResult, Log]) -> None:
    folder, result, log = whole
    losses = [data["loss"] for data in log.of("train.step")]

    assert losses[-1] < losses[0] - 0.2
    assert result.adapter == folder / "adapter"
    assert (result.adapter / "adapter_model.safetensors").is_file()
    assert result.steps == STEPS
    assert result.loss == pytest.approx(sum(losses) / STEPS, abs=1e-4)
    assert result.held_out_loss == pytest.approx(log.of("train.held_out")[-1]["loss"], abs=1e-4)


def test_events_carry_what_the_journal_promises(whole: tuple[Path, TrainResult, Log]) -> None:
    _, result, log = whole

    assert [data["step"] for data in log.of("train.step")] == list(range(1, STEPS + 1))
    assert set(log.of("train.step")[0]) == {
        "step", "of", "loss", "lr", "grad_norm", "tok_s", "supervised_tok", "supervised_tok_s", "eta_s",
        "memory_mb",
    }  # fmt: skip
    assert [data["step"] for data in log.of("train.checkpoint")] == [0, 3, 6, 9]
    assert [data["step"] for data in log.of("train.held_out")] == [3, 6, 9]
    assert log.of("train.step")[-1]["supervised_tok"] == result.supervised_tok
    assert log.of("step.progress")[-1]["done"] == log.of("step.progress")[-1]["total"] == STEPS


def test_a_finished_run_returns_at_once(base: Path, whole: tuple[Path, TrainResult, Log]) -> None:
    folder, result, _ = whole
    again, log = run(plan_for(base), folder)

    assert (again, log.events) == (result, [])


def test_an_adapter_that_changed_after_the_end_is_made_again(
    base: Path, whole: tuple[Path, TrainResult, Log]
) -> None:
    folder, _, _ = whole
    weights = folder / "adapter" / "adapter_model.safetensors"
    promised = weights.read_bytes()
    weights.write_bytes(promised[:-1] + bytes([promised[-1] ^ 1]))

    _, log = run(plan_for(base), folder)

    assert weights.read_bytes() == promised
    assert log.of("train.step") == []


@pytest.mark.parametrize("stop_at", [1, 3, 7])
def test_a_stopped_run_goes_on_bit_for_bit(
    base: Path, whole: tuple[Path, TrainResult, Log], tmp_path: Path, stop_at: int
) -> None:
    folder, result, whole_log = whole
    log = Log()
    with pytest.raises(CancelledError, match=f"after step {stop_at} of {STEPS}"):
        train(plan_for(base), tmp_path, on_event=log, should_stop=after(stop_at, log))

    resumed, rest = run(plan_for(base), tmp_path)

    assert state(tmp_path) == state(folder)
    assert [d["loss"] for d in [*log.of("train.step"), *rest.of("train.step")]] == [
        d["loss"] for d in whole_log.of("train.step")
    ]
    assert (resumed.loss, resumed.held_out_loss) == (result.loss, result.held_out_loss)
    assert_same_adapter(tmp_path, folder)


def assert_same_adapter(one: Path, other: Path) -> None:
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert (one / "adapter" / name).read_bytes() == (other / "adapter" / name).read_bytes()


KILLED = """
import sys
from pathlib import Path
import torch
torch.set_num_threads({threads})
from tests.train.test_sft import plan_for, never
from harness.train.sft import train
def tell(name, data):
    print(name, data.get("step"), flush=True)
train(plan_for(Path(sys.argv[1])), Path(sys.argv[2]), on_event=tell, should_stop=never)
"""


@pytest.mark.parametrize("moment", ["train.step 5", "train.held_out 6"])
def test_a_killed_process_is_resumed_bit_for_bit(
    base: Path, whole: tuple[Path, TrainResult, Log], tmp_path: Path, moment: str
) -> None:
    code = KILLED.format(threads=torch.get_num_threads())
    root = Path(__file__).parents[2]
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(base), str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=root
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(moment):
            os.kill(process.pid, signal.SIGKILL)
            break
    assert process.wait() == -signal.SIGKILL

    _, log = run(plan_for(base), tmp_path)

    assert 0 < len(log.of("train.step")) < STEPS
    assert state(tmp_path) == state(whole[0])
    assert_same_adapter(tmp_path, whole[0])


@pytest.mark.parametrize(
    "file",
    [
        "adapter_model.safetensors",
        "optimizer.safetensors",
        "random.safetensors",
        "progress.json",
        "manifest.json",
    ],
)
def test_a_flipped_byte_in_the_newest_checkpoint_means_the_one_before_it(
    base: Path, whole: tuple[Path, TrainResult, Log], tmp_path: Path, file: str
) -> None:
    log = Log()
    with pytest.raises(CancelledError):
        train(plan_for(base), tmp_path, on_event=log, should_stop=after(7, log))
    newest_path = sorted((tmp_path / "checkpoints").iterdir())[-1]
    content = bytearray((newest_path / file).read_bytes())
    content[len(content) // 2] ^= 0x10
    (newest_path / file).write_bytes(bytes(content))

    _, rest = run(plan_for(base), tmp_path)

    assert f"{newest_path}" in rest.of("note")[0]["text"]
    assert rest.of("train.step")[0]["step"] == 7
    assert_same_adapter(tmp_path, whole[0])


def test_a_folder_of_another_plan_is_refused(base: Path, whole: tuple[Path, TrainResult, Log]) -> None:
    with pytest.raises(IntegrityError, match="another training run"):
        run(plan_for(base, rank=8), whole[0])


def test_another_base_is_another_plan(whole: tuple[Path, TrainResult, Log], tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="another training run"):
        run(plan_for(build_base(tmp_path / "base", seed=9)), whole[0])


def test_a_loss_that_is_not_a_number_goes_back_and_lowers_the_rate(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest, calls = loop.accumulate, []

    def once_bad(*args: Any, **kwargs: Any) -> float:
        calls.append(1)
        loss = honest(*args, **kwargs)
        return float("nan") if len(calls) == 5 else loss

    monkeypatch.setattr(loop, "accumulate", once_bad)
    result, log = run(plan_for(base), tmp_path)
    rates = [data["lr"] for data in log.of("train.step")]

    assert result.steps == STEPS
    notes = [data["text"] for data in log.of("note") if "training needs" not in data["text"]]
    assert "step 5: loss nan" in notes[0]
    assert "back to step 3, learning rate x 0.5" in notes[1]
    assert [data["step"] for data in log.of("train.step")] == [1, 2, 3, 4, 4, 5, 6, 7, 8, 9]
    assert rates[4] == pytest.approx(rates[3] / 2)


def test_a_loss_that_stays_infinite_ends_with_the_records_and_a_way_out(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "accumulate", lambda *args, **kwargs: float("inf"))

    with pytest.raises(RunDiedError, match=r"step 1: loss inf.*records r0") as caught:
        run(plan_for(base), tmp_path)
    assert "tune.learning_rate" in caught.value.hint
    assert not (tmp_path / "adapter").exists()


def test_no_optimizer_step_uses_a_bad_gradient(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = loop.accumulate

    def poisoned(adapted: Any, *args: Any, **kwargs: Any) -> float:
        loss = honest(adapted, *args, **kwargs)
        next(iter(adapted.parameters.values())).grad.fill_(float("nan"))
        return loss

    monkeypatch.setattr(loop, "accumulate", poisoned)
    with pytest.raises(RunDiedError, match="gradient norm nan"):
        run(plan_for(base), tmp_path)
    found = newest(tmp_path / "checkpoints", plan_digest=json.loads(manifest(tmp_path))["plan"])
    assert found.path is not None
    tensors = load_file(found.path / "adapter_model.safetensors")
    assert all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values())


def manifest(folder: Path) -> str:
    return (sorted((folder / "checkpoints").iterdir())[-1] / "manifest.json").read_text()


def test_records_that_are_too_long_are_an_error_that_names_them(base: Path, tmp_path: Path) -> None:
    plan = replace(plan_for(base), examples=[build_example(0), build_example(1, words=90)])

    with pytest.raises(DataError, match=r"1 training records are over .* = 200: r001"):
        run(plan, tmp_path)


def test_a_plan_without_examples_is_an_error(base: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="none of 0"):
        run(replace(plan_for(base), examples=[]), tmp_path)


def test_without_held_out_examples_their_loss_is_unknown(base: Path, tmp_path: Path) -> None:
    result, log = run(replace(plan_for(base, max_steps=2), held_out=[]), tmp_path)

    assert result.held_out_loss is None
    assert log.of("train.held_out") == []


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
def test_the_learning_rate_warms_up_to_its_peak_and_then_follows_its_schedule(schedule: Any) -> None:
    tune = Tune(learning_rate=1e-3, warmup_frac=0.1, schedule=schedule)
    rates = [learning_rate(step, 100, tune) for step in range(100)]

    assert rates[:10] == pytest.approx([1e-4 * (step + 1) for step in range(10)])
    assert rates[10] == pytest.approx(1e-3)
    end = {"cosine": 3.05e-7, "linear": 1.11e-5, "constant": 1e-3}[schedule]
    assert rates[-1] == pytest.approx(end, rel=0.01)


def test_steps_follow_epochs_until_the_recipe_stops_earlier() -> None:
    assert total_steps(22, Tune(batch=4, epochs=2)) == 12
    assert total_steps(22, Tune(batch=4, epochs=1.5)) == 9
    assert total_steps(22, Tune(batch=4, epochs=2, max_steps=5)) == 5


def test_checkpoints_are_two_at_most_and_leave_no_litter(whole: tuple[Path, TrainResult, Log]) -> None:
    names = sorted(path.name for path in (whole[0] / "checkpoints").iterdir())

    assert names == ["step-0000006", "step-0000009"]


def test_importing_the_trainer_loads_nothing_heavy() -> None:
    code = "import sys, harness.train.sft, harness.train.preflight; print('torch' in sys.modules)"
    began = time.monotonic()
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert out.stdout.strip() == "False"
    assert time.monotonic() - began < 30
