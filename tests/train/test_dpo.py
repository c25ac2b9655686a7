from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.errors import DataError
from harness.specs.tune import Preferences, Tune
from harness.train.batches import TooLong
from harness.train.dpo import DirectPreference, Pair, encode_pairs, preference_losses
from harness.train.methods import parameter_groups
from harness.train.plan import TrainPlan
from harness.train.sft import train
from tests.train.conftest import LABELS, build_example
from tests.train.trained import fresh, tuned

VARIANTS = [
    {},
    {"beta": 0.5, "label_smoothing": 0.2},
    {"beta": 2.0, "length_normalised": True},
]


def preference(at: int) -> Any:
    return replace(build_example(at), rejected=LABELS[(at + 1) % len(LABELS)])


def pairs_of(chat: Any, count: int = 5) -> list[Pair]:
    return encode_pairs([preference(at) for at in range(count)], chat, max_tokens=300)[0]


def answer_log_probs(model: Any, row: Any) -> list[float]:
    """Each answer token's log-probability, from the whole logits of one unpadded row."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([row.ids])).logits[0].double()
    log_probs = logits.log_softmax(-1)
    return [float(log_probs[at - 1, row.ids[at]]) for at in range(row.supervised_from, len(row.ids))]


def formula(policy: Any, reference: Any, pair: Pair, settings: Preferences) -> float:
    """Equation 7 of Rafailov et al. (2023) in plain floats, with the two options."""

    def gain(row: Any) -> float:
        now, before = answer_log_probs(policy, row), answer_log_probs(reference, row)
        return (sum(now) - sum(before)) / (len(now) if settings.length_normalised else 1)

    h = settings.beta * (gain(pair.chosen) - gain(pair.rejected))
    right, wrong = math.log1p(math.exp(-h)), math.log1p(math.exp(h))
    return (1 - settings.label_smoothing) * right + settings.label_smoothing * wrong


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_loss_is_the_published_formula_on_whole_logits(
    variant: dict[str, Any], base: Path, chat: Any, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    from harness.export.merge import merge
    from harness.train.adapters import save_adapter

    settings, pairs = Preferences(**variant), pairs_of(chat)
    model = fresh(base, tuned(method="lora", objective="dpo"))
    with torch.no_grad():
        for at, parameter in enumerate(model.parameters.values()):
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(at)) * 0.1)

    found = DirectPreference(settings).summed_loss(model, pairs, pad_id=2)

    save_adapter(model, tmp_path / "adapter", base_identity=identity(base), method="lora")
    merge(base, tmp_path / "adapter", tmp_path / "merged", onto="16bit")
    policy, reference = (
        AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        for folder in (tmp_path / "merged", base)
    )
    wanted = sum(formula(policy, reference, pair, settings) for pair in pairs)
    assert float(found.detach()) == pytest.approx(wanted, rel=2e-3)
    assert abs(wanted - len(pairs) * math.log(2)) > 0.01


def identity(base: Path) -> str:
    from harness.models.identity import checkpoint_identity

    return checkpoint_identity(base).digest


def test_before_training_every_pair_is_even(base: Path, chat: Any) -> None:
    model, pairs = fresh(base, tuned(method="lora", objective="dpo")), pairs_of(chat)

    loss = DirectPreference(Preferences()).summed_loss(model, pairs, pad_id=2)

    assert float(loss.detach()) == pytest.approx(len(pairs) * math.log(2), rel=1e-6)


def test_smoothing_has_its_least_where_the_wrong_share_says() -> None:
    margins = torch.linspace(-8, 8, 3201)

    losses = preference_losses(margins, Preferences(beta=1.0, label_smoothing=0.1))

    # d/dh: sigmoid(h) = 1 - 0.1, so h = ln 9.
    assert float(margins[losses.argmin()]) == pytest.approx(math.log(9), abs=0.01)


def test_both_answers_follow_the_same_prompt_and_end_their_turn(chat: Any) -> None:
    (pair,) = pairs_of(chat, 1)

    for row, text in ((pair.chosen, LABELS[0]), (pair.rejected, LABELS[1])):
        assert list(row.ids[row.supervised_from :]) == chat.answer_ids(text)
        assert row.ids[-1] == chat.end_id
    assert (
        pair.chosen.ids[: pair.chosen.supervised_from] == pair.rejected.ids[: pair.rejected.supervised_from]
    )


def test_the_longer_answer_decides_how_much_prompt_both_keep(chat: Any) -> None:
    example = replace(build_example(3, words=60, over_length="truncate"), answer="a", rejected="b" * 40)

    (pair,), too_long = encode_pairs([example], chat, max_tokens=200)

    assert not too_long
    assert len(pair.rejected.ids) <= 200
    assert pair.chosen.supervised_from == pair.rejected.supervised_from
    assert pair.chosen.is_prompt_truncated


def test_an_answer_is_never_cut(chat: Any) -> None:
    example = replace(build_example(3, over_length="truncate"), answer="a", rejected="b" * 400)

    pairs, (left_out,) = encode_pairs([example], chat, max_tokens=200)

    assert not pairs
    assert isinstance(left_out, TooLong)
    assert "does not fit" in left_out.reason


@pytest.mark.parametrize(("rejected", "said"), [(None, "no rejected answer"), (LABELS[0], "the same answer")])
def test_a_record_without_two_answers_is_named(rejected: str | None, said: str, chat: Any) -> None:
    with pytest.raises(DataError, match=f"record r000 has {said}"):
        encode_pairs([replace(build_example(0), rejected=rejected)], chat, max_tokens=300)


def test_training_on_preferences_makes_the_chosen_answers_likelier(base: Path, chat: Any) -> None:
    tune = tuned(method="lora", objective="dpo", learning_rate=5e-3)
    model, pairs, objective = fresh(base, tune), pairs_of(chat), DirectPreference(Preferences())
    optimizer = torch.optim.AdamW(parameter_groups(model, tune), lr=tune.learning_rate)
    losses = []
    for _ in range(6):
        optimizer.zero_grad()
        loss = objective.summed_loss(model, pairs, pad_id=2) / objective.count(pairs)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))

    assert losses[-1] < losses[0] - 0.01


def test_the_same_loop_trains_preferences(base: Path, tmp_path: Path) -> None:
    tune = Tune(method="lora", rank=4, objective="dpo", batch=4, epochs=4, learning_rate=2e-2, max_tokens=300)
    examples = [preference(at) for at in range(8)]
    plan = TrainPlan(base, examples, examples[:2], tune)

    result = train(plan, tmp_path, on_event=lambda *_: None, should_stop=lambda: False)

    assert result.steps == 8
    assert result.held_out_loss is not None
    assert result.held_out_loss < math.log(2)
