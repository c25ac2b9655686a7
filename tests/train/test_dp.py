from __future__ import annotations

import json
import math
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.errors import CancelledError, ModelError, RefusedError
from harness.specs.tune import Privacy, Tune
from harness.train import privacy_dp
from harness.train.batches import Position
from harness.train.plan import TrainPlan
from harness.train.privacy_dp import Budget, Mechanism, check_clipping, plan_budget, require_opacus, secret_of
from harness.train.sft import train
from tests.train.conftest import build_example
from tests.train.trained import encoded, fresh, tuned

pytest.importorskip("opacus", reason="the extra dp is not installed")

DP = {"noise": 1.0, "delta": 1e-3}


def model_of(base: Path, **dp: Any) -> Any:
    model = fresh(base, tuned(method="lora", dp={**DP, **dp}))
    model.model.train()
    return model


def mechanism(noise: float, clip: float, *, rate: float = 1.0, records: int = 6) -> Mechanism:
    return Mechanism(Budget("record", records, None, 1.0, 1.0, 1e-3, noise, clip, rate, 1), b"secret")


def test_without_noise_and_clipping_it_is_the_plain_loop(base: Path, chat: Any) -> None:
    import torch

    model, rows = model_of(base), encoded(chat, 6)
    loss = mechanism(0.0, 1e9).accumulate(model, rows, micro=4, pad_id=2, step=0)

    plain = fresh(base, tuned(method="lora"))
    losses = [
        torch.nn.functional.cross_entropy(
            plain.model.get_output_embeddings()(plain.hidden_and_targets([row], pad_id=2)[0]).float(),
            torch.tensor(row.ids[row.supervised_from :]),
        )
        for row in rows
    ]
    torch.stack(losses).mean().backward()

    assert loss == pytest.approx(float(torch.stack(losses).mean().detach()), rel=1e-5)
    for name, parameter in plain.parameters.items():
        torch.testing.assert_close(model.parameters[name].grad, parameter.grad, rtol=1e-4, atol=1e-7)


def test_the_clipped_sum_is_that_of_an_explicit_loop(base: Path, chat: Any) -> None:
    assert check_clipping(model_of(base), encoded(chat, 8), clip=0.01, pad_id=2) < 1e-5


def test_no_record_moves_the_sum_by_more_than_the_clip(base: Path, chat: Any) -> None:
    import torch

    model, rows, clip = model_of(base), encoded(chat, 6), 0.01
    noiseless = mechanism(0.0, clip)

    def released(some: Any) -> dict[str, Any]:
        noiseless.accumulate(model, some, micro=3, pad_id=2, step=0)
        return {name: 6 * p.grad.clone() for name, p in model.parameters.items()}

    whole, without = released(rows), released(rows[1:])

    moved = math.sqrt(sum(float((whole[name] - without[name]).square().sum()) for name in whole))
    assert moved == pytest.approx(clip, rel=1e-3)  # the gradients are larger, so the clip decides
    assert torch.isfinite(torch.tensor(moved))


def test_gradients_that_are_not_the_records_own_are_refused(
    base: Path, chat: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = privacy_dp.with_record_gradients

    def shifted(adapted: Any) -> Any:
        hooks = honest(adapted)
        add = privacy_dp.record_losses
        monkeypatch.setattr(
            privacy_dp, "record_losses", lambda *args, **kwargs: add(*args, **kwargs).roll(0) * 1.01
        )
        return hooks

    monkeypatch.setattr(privacy_dp, "with_record_gradients", shifted)
    with pytest.raises(RefusedError, match="are not the records' own gradients"):
        check_clipping(model_of(base), encoded(chat, 4), clip=1e3, pad_id=2)


def test_noise_has_the_size_that_the_budget_says(base: Path, chat: Any) -> None:
    model = model_of(base)

    mechanism(2.0, 0.5).accumulate(model, [], micro=4, pad_id=2, step=3)

    values = [float(v) for p in model.parameters.values() for v in (6 * p.grad).flatten()]
    mean = sum(values) / len(values)
    spread = math.sqrt(sum((v - mean) ** 2 for v in values) / len(values))
    assert spread == pytest.approx(1.0, rel=5 / math.sqrt(2 * len(values)))
    assert abs(mean) < 5 / math.sqrt(len(values))


def test_draws_are_poisson_and_go_on_from_any_position(chat: Any) -> None:
    rows = encoded(chat, 8)
    one = mechanism(1.0, 1.0, rate=0.25, records=8)
    stream = one.batches(rows, Position(0, 0), batch=2)
    batches = [next(stream) for _ in range(400)]

    later = one.batches(rows, batches[137].position, batch=2)
    sizes = [len(batch.rows) for batch in batches]

    assert [next(later) for _ in range(5)] == batches[137:142]
    assert len({batch.position for batch in batches}) == 400
    # 400 sums of 8 draws at 1/4: mean 2, variance 1.5, standard error .06.
    assert sum(sizes) / 400 == pytest.approx(2.0, abs=0.3)
    assert min(sizes) == 0
    assert max(sizes) >= 5


def test_the_budget_is_that_of_the_published_accountants() -> None:
    examples = [replace(build_example(at), unit=f"u{at // 3}") for at in range(600)]

    found = plan_budget(Privacy(noise=1.0, delta=1e-4), examples, batch=6, steps=300)

    # Mironov et al. (2019), "Rényi DP of the sampled Gaussian mechanism": at whole orders the moment is a sum.
    def moment(order: int) -> float:
        terms = [
            math.comb(order, k) * 0.99 ** (order - k) * 0.01**k * math.exp((k * k - k) / 2)
            for k in range(order + 1)
        ]
        return math.log(sum(terms)) / (order - 1)

    bound = min(
        300 * moment(order) + math.log((order - 1) / order) - (math.log(1e-4) + math.log(order)) / (order - 1)
        for order in range(2, 36)
    )
    assert found.rdp_epsilon == pytest.approx(bound, rel=0.05)
    assert 0.5 * found.rdp_epsilon < found.epsilon < found.rdp_epsilon
    assert (found.unit, found.largest_group, found.sample_rate) == ("record", 3, 0.01)


def test_the_noise_follows_from_a_budget() -> None:
    examples = [build_example(at) for at in range(200)]

    found = plan_budget(Privacy(epsilon=3.0, delta=1e-4), examples, batch=10, steps=40)

    assert found.epsilon <= 3.0
    assert found.epsilon > 2.8
    assert found.largest_group is None


def test_a_delta_that_one_published_record_would_satisfy_is_refused() -> None:
    with pytest.raises(RefusedError, match="publishing one of 50 records"):
        plan_budget(
            Privacy(noise=1.0, delta=0.05), [build_example(at) for at in range(50)], batch=5, steps=10
        )


def test_without_the_extra_the_command_that_brings_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)

    with pytest.raises(ModelError, match="needs opacus") as caught:
        require_opacus()
    assert caught.value.hint == "pip install 'dragongate[dp]'"


def test_the_secret_is_its_owners_alone_and_another_in_each_folder(tmp_path: Path) -> None:
    one, other = secret_of(tmp_path / "a"), secret_of(tmp_path / "b")

    assert one == secret_of(tmp_path / "a")
    assert one != other
    assert stat.S_IMODE((tmp_path / "a" / "dp_secret").stat().st_mode) == 0o600


def test_a_private_run_resumes_as_it_would_have_gone_on_and_forgets_its_secret(
    base: Path, tmp_path: Path
) -> None:
    tune = Tune(
        method="lora", rank=2, batch=3, epochs=1, checkpoint_every=1, max_tokens=300, dp=Privacy(**DP)
    )
    plan = TrainPlan(base, [build_example(at) for at in range(9)], [], tune)

    def run(folder: Path, should_stop: Any = lambda: False) -> Any:
        (folder / "dp_secret").parent.mkdir(exist_ok=True)
        if not (folder / "checkpoints").exists():
            (folder / "dp_secret").write_bytes(b"the same for both")
        return train(plan, folder, on_event=lambda *_: None, should_stop=should_stop)

    run(tmp_path / "whole")
    answers = iter([False, True])
    with pytest.raises(CancelledError):
        run(tmp_path / "killed", lambda: next(answers))
    run(tmp_path / "killed")

    weights = [
        (tmp_path / name / "adapter" / "adapter_model.safetensors").read_bytes()
        for name in ("whole", "killed")
    ]
    assert weights[0] == weights[1]
    assert not (tmp_path / "whole" / "dp_secret").exists()
    lineage = json.loads((tmp_path / "whole" / "privacy.json").read_text())
    assert (lineage["unit"], lineage["steps"], lineage["noise"]) == ("record", 3, 1.0)
    assert lineage["epsilon"] > 0
