from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.specs.recipe import Tune
from harness.train.backward import lora_products
from harness.train.batches import Encoded
from harness.train.lean import make_lean
from harness.train.loss import accumulate
from harness.train.methods import Adapted, adapt
from harness.train.objectives import Supervised, summed_loss
from harness.train.packed import shared_prefix
from tests.export.tiny_models import save_checkpoint


def row(at: int, ids: Sequence[int], supervised: int) -> Encoded:
    return Encoded(f"r{at}", tuple(ids), len(ids) - supervised, False, False, True, supervised)


def ready(base: Path, **tune: Any) -> Adapted:
    """Adapters that are no longer zero, over a float32 base."""
    adapted = adapt(base, Tune(rank=4, **tune), device=torch.device("cpu"), dtype=torch.float32)
    torch.manual_seed(5)
    for parameter in adapted.parameters.values():
        parameter.data = torch.randn_like(parameter) * 0.1
    return adapted


def gradients(adapted: Adapted, rows: Sequence[Encoded]) -> tuple[float, dict[str, torch.Tensor]]:
    for parameter in adapted.parameters.values():
        parameter.grad = None
    loss = summed_loss(adapted, rows, pad_id=2)
    loss.backward()
    return float(loss.detach()), {name: p.grad.clone() for name, p in adapted.parameters.items()}  # type: ignore[union-attr]


def assert_same(
    one: tuple[float, dict[str, torch.Tensor]], other: tuple[float, dict[str, torch.Tensor]]
) -> None:
    assert other[0] == pytest.approx(one[0], rel=1e-5)
    for name, grad in one[1].items():
        # A gradient that cancels to nothing is the rounding of what cancelled.
        torch.testing.assert_close(
            other[1][name], grad, rtol=1e-3, atol=1e-4 * float(grad.abs().max()) + 1e-7
        )


@pytest.fixture(scope="module")
def packed(base: Path) -> Adapted:
    found = ready(base)
    assert found.is_packed
    return found


@pytest.fixture(scope="module")
def padded(base: Path) -> Adapted:
    return ready_for_padding(base)


def ready_for_padding(base: Path, **tune: Any) -> Adapted:
    """The same adapters in the forwards of PEFT and Transformers, over padded rows."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("harness.train.lean.make_lean", lambda model: 0)
        patch.setattr("harness.train.methods.can_pack", lambda model, device: False)
        found = ready(base, **tune)
    assert not any("forward" in vars(module) for module in found.model.modules())
    assert not found.is_packed
    return found


token_rows = st.integers(0, 9).flatmap(
    lambda prefix: st.lists(
        st.tuples(st.lists(st.integers(3, 200), min_size=2, max_size=40), st.integers(1, 4)),
        min_size=1,
        max_size=5,
    ).map(
        lambda own: [
            row(at, [*range(10, 10 + prefix), *ids], min(supervised, len(ids) - 1))
            for at, (ids, supervised) in enumerate(own)
        ]
    )
)


@given(token_rows)
@settings(max_examples=25, deadline=None)
def test_rows_side_by_side_have_the_loss_and_gradients_of_padded_rows(
    packed: Adapted, padded: Adapted, rows: list[Encoded]
) -> None:
    assert_same(gradients(padded, rows), gradients(packed, rows))


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3"])
@pytest.mark.parametrize("tune", [{}, {"targets": ("q_proj", "up_proj")}, {"dora": True}], ids=str)
def test_each_family_computes_what_peft_and_transformers_compute(
    family: str, tune: dict[str, Any], tmp_path: Path
) -> None:
    base = save_checkpoint(tmp_path, family=family)
    rows = [row(at, [at + 3, *range(20, 40 + at)], 4) for at in range(3)]

    assert_same(
        gradients(ready_for_padding(base, method="lora", **tune), rows),
        gradients(ready(base, method="lora", **tune), rows),
    )


def test_no_row_sees_another(packed: Adapted) -> None:
    first, second, other = (row(at, [1, 5, 6, *([at + 7] * 20)], 3) for at in range(3))

    def of_first(rows: list[Encoded]) -> torch.Tensor:
        return packed.hidden_and_targets(rows, pad_id=2)[0][:3].detach()

    torch.testing.assert_close(of_first([first, second]), of_first([first, other]), rtol=0, atol=1e-6)


def test_the_common_beginning_stops_before_the_place_that_predicts_the_answer() -> None:
    same = [row(at, [1, 2, 3, 4, 5, 6], 2) for at in range(2)]

    assert shared_prefix(same) == 3
    assert shared_prefix(same[:1]) == 0
    assert shared_prefix([row(0, [1, 2, 9, 4], 1), row(1, [1, 2, 8, 4], 1)]) == 2


def test_layers_with_dropout_keep_pefts_forward(base: Path) -> None:
    assert make_lean(ready(base, dropout=0.1).model) == 0
    assert make_lean(ready(base).model) == 2 * 7


@pytest.mark.parametrize("micro", [1, 2, 3, 5])
def test_the_gradient_does_not_depend_on_how_the_batch_is_cut(packed: Adapted, micro: int) -> None:
    rows = [row(at, [at + 3, *range(20, 30 + 7 * at)], 1 + at) for at in range(8)]

    def all_at_once(size: int) -> tuple[float, dict[str, torch.Tensor]]:
        for parameter in packed.parameters.values():
            parameter.grad = None
        loss = accumulate(packed, Supervised(), rows, micro=size, pad_id=2)
        return loss, {name: p.grad.clone() for name, p in packed.parameters.items()}  # type: ignore[union-attr]

    whole, cut = all_at_once(8), all_at_once(micro)

    assert cut[0] == pytest.approx(whole[0], abs=1e-6)
    for name, grad in whole[1].items():
        torch.testing.assert_close(cut[1][name], grad, rtol=1e-4, atol=1e-6)


def test_logits_in_chunks_give_the_same_loss(packed: Adapted, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [row(at, [at + 3, *range(20, 50)], 9) for at in range(3)]
    whole = gradients(packed, rows)
    monkeypatch.setattr("harness.train.objectives.LOGIT_ROWS", 5)

    assert_same(whole, gradients(packed, rows))


def test_small_updates_are_not_rounded_away_in_bfloat16() -> None:
    """A change of an eighth of y's last bit moves the mean of y, as it does in float32."""
    generator = torch.Generator().manual_seed(3)
    x, weight = (torch.randn(shape, generator=generator).bfloat16() for shape in ((256, 128), (64, 128)))
    a = torch.full((4, 128), 0.0)
    a[0] = x.float().mean(0)
    b = torch.zeros(64, 4)
    inner = x.float() @ a.t()
    y = x.float() @ weight.float().t()  # about 11, whose last bit is 2**-4
    b[:, 0] = 2**-7 / float(inner[:, 0].mean())

    (found,) = lora_products()(x, (1.0,), weight, None, a, b)

    wanted = float((inner @ b.t()).mean())
    assert wanted == pytest.approx(2**-7, rel=1e-3)
    assert float((found.float() - y).mean()) == pytest.approx(wanted, rel=0.25)
