"""Scoring a model must leave the weights that are trained and merged as they were.

On a processor with AVX512-BF16, bitsandbytes repacks 4-bit weights in place at the first forward in eval mode.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from harness.models.base import ChoiceRequest, Prompt
from harness.models.load import open_model
from harness.specs.tune import Tune
from harness.train.batches import Encoded
from harness.train.loss import accumulate
from harness.train.methods import Adapted, adapt, four_bits, keep_packed_weights_in_place
from harness.train.objectives import Supervised
from tests.train.conftest import build_example


def row(at: int) -> Encoded:
    ids = tuple(range(10 + at, 30 + at))
    return Encoded(f"r{at}", ids, len(ids) - 4, False, False, True, 3)


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def score(base: Path) -> None:
    """What a gate inside training does: another model, opened from files, answers in eval mode."""
    model = open_model(str(base), nf4=True)
    request = ChoiceRequest("r", Prompt(build_example(1).prompt.messages), ("yes", "no"))
    assert [answer.error for answer in model.score_choices([request])] == [None]
    model.close()


def train_one(adapted: Adapted) -> None:
    accumulate(adapted, Supervised(), [row(at) for at in range(4)], micro=2, pad_id=2)
    for parameter in adapted.parameters.values():
        assert parameter.grad is not None
        parameter.data -= 0.1 * parameter.grad
        parameter.grad = None


@pytest.mark.parametrize("scores", [False, True])
def test_scoring_before_and_during_training_changes_no_weight(base: Path, scores: bool) -> None:
    threads = torch.get_num_threads()
    adapted = adapt(base, Tune(method="qlora", rank=4))
    fresh = weights(adapted.model)
    if scores:
        adapted.model.eval()
        with torch.no_grad():
            adapted.hidden_and_targets([row(0)], pad_id=2)
        adapted.model.train()
        score(base)
        torch.set_num_threads(threads)
    train_one(adapted)
    after = weights(adapted.model)

    frozen = [name for name in fresh if ".lora_" not in name]
    assert all(torch.equal(fresh[name], after[name]) for name in frozen)
    trained = {name: value for name, value in after.items() if ".lora_" in name}
    kept = TRAINED.setdefault("weights", trained)
    assert all(torch.equal(kept[name], trained[name]) for name in kept)


TRAINED: dict[str, dict[str, torch.Tensor]] = {}
"""The adapter of the first of the two runs, which must be that of the other one."""


def test_packed_weights_answer_in_eval_mode_and_stay_what_they_were(base: Path) -> None:
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    settings = BitsAndBytesConfig(**four_bits(torch.bfloat16))
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16, quantization_config=settings)
    keep_packed_weights_in_place(model)
    packed = {
        name: parameter.detach().clone() for name, parameter in model.named_parameters() if "proj" in name
    }
    model.eval()
    with torch.no_grad():
        model(torch.arange(10, 30)[None])

    for name, parameter in model.named_parameters():
        if name in packed:
            assert parameter.dtype == packed[name].dtype
            assert parameter.shape == packed[name].shape
            # Bytes: packed ones, read as bfloat16, may be NaN.
            assert torch.equal(parameter.view(torch.uint8), packed[name].view(torch.uint8))
