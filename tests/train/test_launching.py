"""Several processes train one adapter, as one process does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from harness.errors import CancelledError, DataError, HarnessError
from harness.specs.tune import Tune
from harness.train.launching import command, launch_config, train_in_processes, write_config
from harness.train.methods import four_bits
from harness.train.ranks import Ranks
from harness.train.selection import Scores
from harness.train.sft import train
from tests.train.test_sft import Log, never, plan_for

SETTINGS = {"dropout": 0.0, "max_steps": 6, "checkpoint_every": 3}


@pytest.mark.slow
@pytest.mark.parametrize("shard_base", [False, True])
def test_two_processes_have_the_loss_curve_of_one(base: Path, tmp_path: Path, shard_base: bool) -> None:
    one, two = Log(), Log()
    alone = train(plan_for(base, threads=1, **SETTINGS), tmp_path / "one", on_event=one, should_stop=never)
    plan = plan_for(base, threads=2, processes=2, shard_base=shard_base, **SETTINGS)
    together = train_in_processes(plan, tmp_path / "two", on_event=two, should_stop=never)

    assert [e["step"] for e in two.of("train.step")] == [1, 2, 3, 4, 5, 6]
    for mine, theirs in zip(two.of("train.step"), one.of("train.step"), strict=True):
        assert mine["loss"] == pytest.approx(theirs["loss"], rel=2e-3)
        assert mine["supervised_tok"] == theirs["supervised_tok"]
    assert together.steps == alone.steps
    for name, tensor in load_file(together.adapter / "adapter_model.safetensors").items():
        other = load_file(alone.adapter / "adapter_model.safetensors")[name]
        # Adam turns bfloat16's last bit of a tiny gradient into a whole step: the tensors, not each number.
        assert float((tensor - other).norm()) < 0.05 * float(other.norm()) + 1e-6


@pytest.mark.slow
def test_processes_stop_resume_and_ask_their_parent_for_scores(base: Path, tmp_path: Path) -> None:
    plan = plan_for(base, threads=2, processes=2, gates={"every": 3}, **SETTINGS)
    asked: list[str] = []

    def scorer(checkpoint: Path, name: str) -> Scores:
        assert (checkpoint / "adapter_model.safetensors").is_file()
        asked.append(name)
        return Scores(4, {"step-0000003": 0.9}.get(name, 0.2), None)

    log = Log()
    with pytest.raises(CancelledError, match="training stopped after step"):
        train_in_processes(
            plan, tmp_path, on_event=log, should_stop=lambda: len(log.of("train.step")) >= 1, scorer=scorer
        )
    result = train_in_processes(plan, tmp_path, on_event=log, should_stop=never, scorer=scorer)

    assert result.chosen_step == 3
    assert asked == ["step-0000000", "step-0000003", "step-0000006"]
    assert train_in_processes(plan, tmp_path, on_event=Log(), should_stop=never) == result


@pytest.mark.slow
def test_an_error_in_a_process_is_the_error_of_the_run(base: Path, tmp_path: Path) -> None:
    plan = plan_for(base, processes=2, **{**SETTINGS, "max_tokens": 16})

    with pytest.raises(HarnessError, match=r"over tune\.max_tokens = 16"):
        train_in_processes(plan, tmp_path, on_event=Log(), should_stop=never)
    with pytest.raises(DataError):
        train(plan, tmp_path / "alone", on_event=Log(), should_stop=never)


def test_shares_of_a_batch_are_all_of_it_once() -> None:
    rows = list(range(11))
    shares = [Ranks(rank, 4).share(rows) for rank in range(4)]

    assert sorted(row for share in shares for row in share) == rows
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize("processes", [2, 8])
def test_accelerate_reads_the_configuration_for_fsdp_with_four_bits(tmp_path: Path, processes: int) -> None:
    from accelerate.commands.config.config_args import load_config_from_file
    from accelerate.utils import DistributedType

    tune = Tune(processes=processes, shard_base=True, recompute="always")
    write_config(launch_config(tune, is_cuda=True), tmp_path / "launch.yaml")
    found = load_config_from_file(str(tmp_path / "launch.yaml"))

    assert found.distributed_type == DistributedType.FSDP
    assert found.num_processes == processes
    assert found.mixed_precision == "bf16"
    assert found.fsdp_config["fsdp_version"] == 2
    assert found.fsdp_config["fsdp_activation_checkpointing"] is True


def test_accelerate_launch_takes_the_configuration(tmp_path: Path) -> None:
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser

    for tune in (Tune(processes=2), Tune(processes=2, shard_base=True)):
        write_config(launch_config(tune, is_cuda=True), tmp_path / "launch.yaml")
        line = command(tmp_path, tune, is_cuda=True)
        assert line[1:3] == ["-m", "accelerate.commands.launch"]
        arguments, defaults, _ = _validate_launch_command(launch_command_parser().parse_args(line[3:]))
        assert defaults.num_processes == arguments.num_processes == 2
        assert arguments.use_fsdp is tune.shard_base
        assert arguments.module is True


def test_sharded_four_bit_weights_are_stored_in_the_dtype_that_they_compute_in() -> None:
    from transformers import BitsAndBytesConfig

    found = BitsAndBytesConfig(**four_bits(torch.bfloat16))

    assert found.bnb_4bit_quant_storage is found.bnb_4bit_compute_dtype is torch.bfloat16
    assert found.bnb_4bit_use_double_quant is True


def test_the_configuration_is_json_and_yaml(tmp_path: Path) -> None:
    from ruamel.yaml import YAML

    config = launch_config(Tune(processes=3), is_cuda=False)
    write_config(config, tmp_path / "launch.yaml")
    text = (tmp_path / "launch.yaml").read_text()

    assert json.loads(text) == YAML(typ="safe", pure=True).load(text) == config
    assert config["distributed_type"] == "MULTI_CPU"
