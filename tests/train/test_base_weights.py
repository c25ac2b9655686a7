"""Scoring a model must leave the weights that are trained and merged as they were.

On a processor with AVX512-BF16, bitsandbytes repacks 4-bit weights in place at the first forward in eval mode.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from harness.export.merge import merge
from harness.models.base import ChoiceRequest, Prompt
from harness.models.identity import checkpoint_identity
from harness.models.load import open_model
from harness.specs.tune import Tune
from harness.train.adapters import save_adapter
from harness.train.batches import Encoded
from harness.train.loss import accumulate
from harness.train.methods import Adapted, adapt, four_bits, keep_packed_weights_in_place
from harness.train.objectives import Supervised
from tests.train.conftest import build_example


def row(at: int) -> Encoded:
    ids = tuple(range(10 + at, 30 + at))
    return Encoded(f"r{at}", ids, len(ids) - 4, False, False, True, 3)


def score(base: Path, adapted: Adapted) -> None:
    """What a gate inside training does: a model from files answers; and the trained one's own eval forward."""
    threads = torch.get_num_threads()
    model = open_model(str(base), nf4=True)
    request = ChoiceRequest("r", Prompt(build_example(1).prompt.messages), ("yes", "no"))
    assert [answer.error for answer in model.score_choices([request])] == [None]
    model.close()
    torch.set_num_threads(threads)
    adapted.model.eval()
    with torch.no_grad():
        adapted.hidden_and_targets([row(0)], pad_id=2)
    adapted.model.train()


def train_one(adapted: Adapted) -> None:
    accumulate(adapted, Supervised(), [row(at) for at in range(4)], micro=2, pad_id=2)
    for parameter in adapted.parameters.values():
        assert parameter.grad is not None
        parameter.data -= 0.1 * parameter.grad
        parameter.grad = None


def train_and_merge(base: Path, folder: Path, *, scores: bool) -> dict[str, bytes]:
    """Every tensor of both merges, and of the base below the adapters, after two steps."""
    adapted = adapt(base, Tune(method="qlora", rank=4))
    for _ in range(2):
        if scores:
            score(base, adapted)
        train_one(adapted)
    identity = checkpoint_identity(base).digest
    save_adapter(adapted, folder / "adapter", base_identity=identity, method="qlora")
    frozen = {name: p for name, p in adapted.model.named_parameters() if ".lora_" not in name}
    merges = {
        f"{onto}/{name}": tensor
        for onto in ("16bit", "nf4")
        for name, tensor in load_file(
            merge(base, folder / "adapter", folder / onto, onto=onto).path / "model.safetensors"
        ).items()
    }
    return {name: raw(tensor) for name, tensor in {**frozen, **merges}.items()}


def raw(tensor: torch.Tensor) -> bytes:
    return tensor.detach().contiguous().view(torch.uint8).numpy().tobytes()


def test_eval_then_train_then_merge_gives_the_bytes_of_train_then_merge(base: Path, tmp_path: Path) -> None:
    quiet = train_and_merge(base, tmp_path / "quiet", scores=False)
    scored = train_and_merge(base, tmp_path / "scored", scores=True)

    assert len(scored) > 40
    assert [name for name in quiet if quiet[name] != scored[name]] == []


def packed(base: Path, *, is_kept: bool) -> torch.nn.Module:
    """The base with packed 4-bit layers, as it is trained on a GPU."""
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    settings = BitsAndBytesConfig(**four_bits(torch.bfloat16))
    model: Any = AutoModelForCausalLM.from_pretrained(
        base, dtype=torch.bfloat16, quantization_config=settings
    )
    if is_kept:
        keep_packed_weights_in_place(model)
    return model  # type: ignore[no-any-return]


def evaluate(model: torch.nn.Module) -> None:
    model.eval()
    with torch.no_grad():
        model(torch.arange(10, 30)[None])
    model.train()


def bytes_of_layers(model: torch.nn.Module) -> dict[str, bytes]:
    return {name: raw(p) for name, p in model.named_parameters() if "proj" in name}


def input_gradient(model: Any) -> torch.Tensor:
    """Of the loss by the embedded tokens: what reaches adapters below goes through every packed layer."""
    ids = torch.arange(10, 30)[None]
    embedded = model.get_input_embeddings()(ids).detach().requires_grad_()
    model(inputs_embeds=embedded, labels=ids).loss.backward()
    assert embedded.grad is not None
    return embedded.grad


def test_packed_weights_answer_in_eval_mode_and_stay_what_they_were(base: Path) -> None:
    model = packed(base, is_kept=True)
    before, gradient = bytes_of_layers(model), input_gradient(model)

    evaluate(model)

    assert len(before) == 2 * 7
    assert bytes_of_layers(model) == before
    assert torch.equal(input_gradient(model), gradient)
    assert float(gradient.norm()) > 0


def test_without_care_the_processor_repacks_them(base: Path) -> None:
    """That the trap is there: where this fails, `keep_packed_weights_in_place` may go."""
    from bitsandbytes.functional import has_avx512bf16

    if not has_avx512bf16():
        pytest.skip("this processor has no AVX512-BF16")
    model = packed(base, is_kept=False)
    before = bytes_of_layers(model)

    evaluate(model)

    assert bytes_of_layers(model) != before
