"""Estimates: arithmetic on shapes, and what a run says of itself."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from harness.errors import RefusedError
from harness.files import read_json
from harness.specs.training import Cost
from harness.specs.tune import Tune
from harness.train.estimate import (
    Estimate,
    Load,
    Memory,
    Probe,
    Shape,
    energy_j,
    estimate,
    memory,
    over_budget,
    price,
    shape_of,
)
from harness.train.loop import Loop
from harness.train.plan import plan_digest
from harness.train.probe import recompute
from harness.train.ranks import Ranks
from harness.train.sft import prepare, train
from harness.train.telemetry import EnergyMeter, peak_memory_mb, reset_peak_memory
from tests.train.test_sft import Log, never, plan_for

LLAMA_8B = Shape(32, 4096, 32, 8, 128, 14336, 128256, 8_030_261_248, 6_979_321_856, 41_943_040)
"""Llama 3.1 8B: its published sizes; rank 16 on all linear layers trains 41.9 million numbers."""
NOTHING = Memory(0, 0, 0, 0, 0, 0)


def of_8b(rows: int = 2, tok: int = 512, *, recomputes: bool = True) -> Memory:
    return memory(
        LLAMA_8B, Tune(rank=16), Load(rows, tok, rows * tok, rows * tok), optimizer="paged_adamw_8bit",
        dtype_bytes=2, is_nf4_packed=True, is_lean=False, recomputes=recomputes,
    )  # fmt: skip


def test_the_weights_of_an_8b_model_in_nf4_take_what_their_bytes_say() -> None:
    found = of_8b()

    # 6.979e9 x (4 + 8/64 + 32/16384 bits...) / 8 + 1.051e9 x 2 bytes, in MiB
    bits = 4 + 8 / 64 + 32 / (64 * 256)
    wanted = (6_979_321_856 * bits / 8 + (8_030_261_248 - 6_979_321_856) * 2) / 2**20
    assert found.weights_mb == pytest.approx(wanted)
    assert found.adapters_mb == pytest.approx(160.0)
    assert found.optimizer_mb == pytest.approx(80.0)


def test_8b_qlora_fits_a_card_of_24_gb_and_full_activations_of_long_rows_do_not() -> None:
    assert of_8b().total_mb < 24_000
    assert of_8b(rows=8, tok=4096, recomputes=False).total_mb > 24_000
    assert (
        of_8b(rows=8, tok=4096).activations_mb < of_8b(rows=8, tok=4096, recomputes=False).activations_mb / 4
    )


def test_more_tokens_never_need_less() -> None:
    sizes = [of_8b(tok=tok, recomputes=False).total_mb for tok in (64, 128, 512, 1024)]

    assert sizes == sorted(sizes)


def test_logits_are_bounded_by_the_chunk() -> None:
    assert of_8b(rows=2, tok=512).logits_mb == of_8b(rows=64, tok=512).logits_mb


def test_the_shape_comes_from_the_config() -> None:
    config = SimpleNamespace(
        num_hidden_layers=2, hidden_size=64, num_attention_heads=4, num_key_value_heads=2, intermediate_size=128,
        vocab_size=264,
    )  # fmt: skip
    found = shape_of(config, parameters=10, linear=5, trainable=3)

    assert (found.head_size, found.key_heads, found.trainable) == (16, 2, 3)


def test_time_energy_and_money_follow_from_one_step() -> None:
    cost = Cost(per_hour=3.6, per_kwh=0.5, currency="EUR")
    found = estimate(10_000, Probe(2.0, 100, 100.0), NOTHING, cost, available_mb=None, recomputes=False)

    assert found.seconds == 200.0
    assert found.energy_wh == pytest.approx(10_000 / 3600, abs=1e-4)
    assert found.cost == pytest.approx(3.6 * 200 / 3600 + 0.5 * 10_000 / 3.6e6, abs=1e-6)
    assert found.fits is None


def test_what_is_unknown_stays_unknown() -> None:
    assert energy_j(10.0, None, Cost()) is None
    assert energy_j(10.0, None, Cost(watts=65)) == 650.0
    assert energy_j(10.0, 12.0, Cost(watts=65)) == 12.0
    assert price(10.0, None, Cost()) is None
    assert price(10.0, None, Cost(per_kwh=0.3)) is None
    assert price(3600.0, None, Cost(per_hour=2.0)) == 2.0


def test_an_estimate_above_the_budget_says_by_how_much() -> None:
    found = Estimate(NOTHING, None, False, 1, 7200.0, None, 5.0, "EUR")

    assert over_budget(found, Cost(max_hours=1)) == ["2.00 hours, and tune.cost.max_hours is 1"]
    assert over_budget(found, Cost(max_cost=4)) == ["5.00 EUR, and tune.cost.max_cost is 4"]
    assert over_budget(found, Cost(max_cost=6, max_hours=3)) == []
    assert over_budget(replace(found, cost=None), Cost(max_cost=4)) == []


def test_a_run_is_estimated_before_its_first_step_and_compared_at_its_end(base: Path, tmp_path: Path) -> None:
    log = Log()
    plan = plan_for(base, max_steps=3, cost={"per_hour": 60, "watts": 100, "currency": "EUR"})
    result = train(plan, tmp_path, on_event=log, should_stop=never)

    names = [name for name, _ in log.events]
    assert names.index("train.estimate") < names.index("train.step")
    told = log.of("train.actual")[0]
    assert told == {"expected": result.expected, "actual": result.actual}
    weights = sum(t.numel() * t.element_size() for t in _tensors(base)) / 2**20
    dtype_ratio = {2: 0.5, 4: 1.0}[_dtype_bytes()]
    assert result.expected["weights_mb"] == pytest.approx(weights * dtype_ratio, abs=0.02)
    assert result.actual["weights_mb"] == pytest.approx(result.expected["weights_mb"], abs=0.02)
    assert result.actual["optimizer_mb"] == pytest.approx(result.expected["optimizer_mb"], abs=0.02)
    assert result.actual["cost"] == pytest.approx(result.actual["seconds"] / 60, abs=0.001)
    assert "training took" in log.of("note")[-1]["text"]
    assert "expected" in log.of("note")[-1]["text"]


def _tensors(base: Path) -> list[torch.Tensor]:
    from safetensors.torch import load_file

    return list(load_file(base / "model.safetensors").values())


def _dtype_bytes() -> int:
    from harness.train.methods import compute_dtype

    return compute_dtype(torch.device("cpu")).itemsize


def test_a_run_above_its_budget_is_refused_before_its_first_step(base: Path, tmp_path: Path) -> None:
    log = Log()
    with pytest.raises(RefusedError, match=r"tune\.cost\.max_hours is 1e-09"):
        train(plan_for(base, cost={"max_hours": 1e-9}), tmp_path, on_event=log, should_stop=never)
    assert log.of("train.step") == []


def loop_of(base: Path, folder: Path, **tune: object) -> Loop:
    plan = plan_for(base, dropout=0.0, **tune)
    loop = Loop(prepare(plan, folder, "b", plan_digest(plan, "b")), Ranks(), lambda *_: None, None)
    loop._prepare()
    return loop


def test_activations_are_computed_again_where_they_do_not_fit(base: Path, tmp_path: Path) -> None:
    log = Log()
    plan = plan_for(base, max_steps=1, cost={"memory_mb": 64})
    train(plan, tmp_path / "fits", on_event=log, should_stop=never)
    estimate_of = read_json(tmp_path / "fits" / "estimate.json")
    assert (estimate_of["fits"], estimate_of["recomputes"]) == (True, False)

    train(
        plan_for(base, max_steps=1, recompute="always"), tmp_path / "again", on_event=log, should_stop=never
    )
    assert read_json(tmp_path / "again" / "estimate.json")["recomputes"] is True


def test_computing_activations_again_changes_no_gradient(base: Path, tmp_path: Path) -> None:
    from harness.train.loss import accumulate

    def gradients(*, again: bool) -> list[torch.Tensor]:
        loop = loop_of(base, tmp_path / str(again))
        torch.manual_seed(3)
        for parameter in loop.adapted.parameters.values():
            parameter.data = torch.randn_like(parameter) * 0.05
        if again:
            recompute(loop)
            layers = loop.adapted.model.get_submodule("model.layers")
            assert all(getattr(layer, "gradient_checkpointing", False) for layer in layers.children())
        accumulate(loop.adapted, loop.work.objective, loop.work.rows[:4], micro=2, pad_id=2)
        return [p.grad for p in loop.adapted.parameters.values() if p.grad is not None]

    for one, other in zip(gradients(again=False), gradients(again=True), strict=True):
        assert torch.equal(one, other)


def test_energy_counters_are_read_through_their_wrap(tmp_path: Path) -> None:
    package = tmp_path / "intel-rapl:0"
    package.mkdir()
    (package / "max_energy_range_uj").write_text("1000000\n")
    (package / "energy_uj").write_text("900000\n")
    meter = EnergyMeter(tmp_path)

    (package / "energy_uj").write_text("950000\n")
    assert meter.joules() == pytest.approx(0.05)
    (package / "energy_uj").write_text("50000\n")
    assert meter.joules() == pytest.approx(0.15)


def test_without_counters_energy_is_unknown(tmp_path: Path) -> None:
    assert EnergyMeter(tmp_path).joules() is None
    (tmp_path / "intel-rapl:0").mkdir()
    (tmp_path / "intel-rapl:0" / "energy_uj").write_text("?")
    assert EnergyMeter(tmp_path).joules() is None


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the system can't forget a peak")
def test_the_peak_is_that_since_the_last_reset() -> None:
    held = bytearray(96 * 2**20)
    high = peak_memory_mb()
    del held
    reset_peak_memory()

    assert peak_memory_mb() <= high - 64
    assert math.isfinite(high)
