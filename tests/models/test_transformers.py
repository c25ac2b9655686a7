"""Scores and texts of a Transformers checkpoint, against the textbook computation."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.errors import ModelError
from harness.models.base import ChoiceRequest, GenerateRequest, Message, Prompt
from harness.models.transformers import TransformersModel
from harness.models.trie import PRUNE_NATS

TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=0, max_size=24)
LOOSE = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def ask(text: str, **limits: Any) -> Prompt:
    return Prompt((Message("system", "Be brief."), Message("user", text)), **limits)


@LOOSE
@given(
    texts=st.lists(TEXT, min_size=1, max_size=5),
    choices=st.lists(TEXT, min_size=1, max_size=6).flatmap(
        lambda found: st.just([*found, found[0] + "x", found[0] + "xy", "é🙂", ""])
    ),
)
def test_choices_score_as_one_by_one(
    texts: list[str], choices: list[str], tiny_model: Any, naive: Any
) -> None:
    tiny_model._exact = True
    requests = [ChoiceRequest(str(i), ask(text), tuple(choices)) for i, text in enumerate(texts)]
    tiny_model.plan(requests)

    answers = list(tiny_model.score_choices(requests))

    for request, answer in zip(requests, answers, strict=True):
        assert answer.error is None and answer.id == request.id
        ids = tiny_model.token_ids(request.prompt)
        for choice, found in zip(choices, answer.choice_logprobs, strict=True):
            assert found == pytest.approx(naive(ids, tiny_model.chat.answer_ids(choice)), abs=1e-4)


@LOOSE
@given(text=TEXT, choices=st.lists(TEXT, min_size=2, max_size=8, unique=True))
def test_pruning_moves_no_probability_by_a_millionth(
    text: str, choices: list[str], tiny_model: Any, naive: Any
) -> None:
    tiny_model._exact = False
    request = ChoiceRequest("a", ask(text), tuple(choices))

    (answer,) = tiny_model.score_choices([request])

    ids = tiny_model.token_ids(request.prompt)
    exact = [naive(ids, tiny_model.chat.answer_ids(choice)) for choice in choices]
    for found, wanted in zip(softmax(answer.choice_logprobs), softmax(exact), strict=True):
        assert found == pytest.approx(wanted, abs=1e-6 + 1e-4 * wanted)
    for found, wanted in zip(answer.choice_logprobs, exact, strict=True):
        assert found >= wanted - 1e-4
        assert found <= max(wanted, max(exact) - PRUNE_NATS) + 1e-3 or found <= max(exact)


def softmax(values: Any) -> list[float]:
    top = max(values)
    weights = [math.exp(value - top) for value in values]
    return [weight / sum(weights) for weight in weights]
