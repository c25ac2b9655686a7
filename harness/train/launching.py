"""Training in several processes: the launch configuration, and the processes started from it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.errors import CancelledError, ExitCode, HarnessError, RunDiedError
from harness.files import write_atomic
from harness.specs.tune import Tune
from harness.train.plan import OnEvent, TrainPlan, TrainResult, plan_digest, write_plan
from harness.train.process import STOP, reply
from harness.train.results import finished
from harness.train.selection import Scorer
from harness.train.sft import train

PLAN = "plan.json"
CONFIG = "launch.yaml"
MODULE = "harness.train.process"


def train_in_processes(
    plan: TrainPlan,
    folder: Path,
    *,
    on_event: OnEvent,
    should_stop: Callable[[], bool],
    scorer: Scorer | None = None,
) -> TrainResult:
    """As `sft.train`, in as many processes as `tune.processes` says.

    Raises:
        ModelError and all that `sft.train` raises.
    """
    if plan.tune.processes == 1:
        return train(plan, folder, on_event=on_event, should_stop=should_stop, scorer=scorer)
    from harness.models.identity import checkpoint_identity

    digest = plan_digest(plan, checkpoint_identity(plan.base).digest)
    if done := finished(folder, digest):
        return done
    last_words = _run(plan, folder, on_event, should_stop, scorer)
    if last_words:
        raise _error(last_words)
    if result := finished(folder, digest):
        return result
    raise RunDiedError(
        f"{plan.tune.processes} training processes ended without a result",
        hint=f"what they said is in {folder / 'processes.log'}; the same command resumes",
    )


def launch_config(tune: Tune, *, is_cuda: bool) -> dict[str, Any]:
    """The settings that `accelerate launch --config_file` reads.

    With `shard_base` it is the one for FSDP; `methods.four_bits` stores packed weights so that they can be sharded.
    """
    kind = "FSDP" if tune.shard_base else "MULTI_GPU" if is_cuda else "MULTI_CPU"
    config: dict[str, Any] = {
        "compute_environment": "LOCAL_MACHINE", "distributed_type": kind, "num_machines": 1, "machine_rank": 0,
        "num_processes": tune.processes, "mixed_precision": "bf16" if is_cuda else "no", "use_cpu": not is_cuda,
        "main_training_function": "main", "same_network": True, "debug": False,
    }  # fmt: skip
    if tune.shard_base:
        config["fsdp_config"] = {
            "fsdp_version": 2, "fsdp_auto_wrap_policy": "TRANSFORMER_BASED_WRAP", "fsdp_reshard_after_forward": True,
            "fsdp_offload_params": False, "fsdp_cpu_ram_efficient_loading": True,
            "fsdp_activation_checkpointing": tune.recompute == "always", "fsdp_state_dict_type": "FULL_STATE_DICT",
        }  # fmt: skip
    return config


def write_config(config: Mapping[str, Any], path: Path) -> None:
    """The settings as YAML; JSON's spelling is YAML's too."""
    write_atomic(path, json.dumps(config, indent=1) + "\n")


def command(folder: Path, tune: Tune, *, is_cuda: bool) -> list[str]:
    """What starts the processes: `accelerate launch`, which on processors alone would want MPI; there torch's own."""
    work = ["-m", MODULE, str(folder / PLAN), str(folder)]
    if is_cuda:
        return [
            sys.executable,
            "-m",
            "accelerate.commands.launch",
            "--config_file",
            str(folder / CONFIG),
            *work,
        ]
    return [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc-per-node={tune.processes}",
        *work,
    ]


def _run(
    plan: TrainPlan,
    folder: Path,
    on_event: OnEvent,
    should_stop: Callable[[], bool],
    scorer: Scorer | None,
) -> Mapping[str, Any]:
    """Passes on what the first process tells, until all have ended; its error where there was one."""
    import torch

    is_cuda, tune = torch.cuda.is_available(), plan.tune
    folder.mkdir(parents=True, exist_ok=True)
    threads = (plan.threads or torch.get_num_threads()) // tune.processes
    write_plan(replace(plan, threads=max(1, threads)), folder / PLAN)
    write_config(launch_config(tune, is_cuda=is_cuda), folder / CONFIG)
    stop = folder / STOP
    stop.unlink(missing_ok=True)
    last_words: Mapping[str, Any] = {}
    with (
        (folder / "processes.log").open("a") as log,
        subprocess.Popen(
            command(folder, tune, is_cuda=is_cuda), stdout=subprocess.PIPE, stderr=log, text=True,
            env={**os.environ, **({} if is_cuda else {"ACCELERATE_USE_CPU": "true"})},
        ) as processes,
    ):  # fmt: skip
        assert processes.stdout is not None
        for line in processes.stdout:
            name, data = _event(line)
            if name == "ask.scores" and scorer is not None:
                reply(folder, data["name"], scorer(Path(data["checkpoint"]), data["name"]))
            elif name == "error":
                last_words = data
            elif name:
                on_event(name, data)
            if should_stop():
                stop.touch()
    return last_words


def _event(line: str) -> tuple[str, dict[str, Any]]:
    """Name and data; an empty name for what a library printed."""
    with suppress(ValueError, AttributeError, KeyError):
        data = json.loads(line)
        return data.pop("event"), data
    return "", {}


def _error(said: Mapping[str, Any]) -> HarnessError:
    code, message, hint = said["exit_code"], said["error"], said["hint"]
    if code == ExitCode.INTERRUPTED:
        return CancelledError(message, hint=hint)
    found = (
        RunDiedError(message, hint=hint) if code == ExitCode.RUN_DIED else HarnessError(message, hint=hint)
    )
    found.exit_code = ExitCode(code)
    return found
