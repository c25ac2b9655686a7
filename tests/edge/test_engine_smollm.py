"""The edge engine on a real model: its answers are those that the evaluation's engine gives."""

from __future__ import annotations

import pytest

from harness.edge.base import Ask
from harness.edge.engine import EdgeEngine
from harness.models.base import ChoiceRequest, GenerateRequest, Message, Prompt
from harness.models.embedded import EMBEDDED, embedded_gguf
from harness.models.gguf import GgufModel
from tests.edge.conftest import Heard

pytestmark = pytest.mark.slow
LABELS = ("governing law", "insurance", "audit rights", "license grant", "termination for convenience")
TEXTS = (
    "This Agreement is governed by the laws of Delaware.",
    "Supplier shall let Customer inspect its books once a year.",
    "Either party may end this Agreement on thirty days' notice.",
)


def test_a_real_model_answers_on_the_device_as_it_was_evaluated() -> None:
    path = embedded_gguf("smollm2-135m")
    prompts = [Prompt((Message("user", f"Which clause is this?\n\n{text}"),)) for text in TEXTS]
    model = GgufModel(path, threads=1, exact=True)
    scored = list(
        model.score_choices([ChoiceRequest(f"c{at}", prompt, LABELS) for at, prompt in enumerate(prompts)])
    )
    written = list(
        model.generate([GenerateRequest(f"g{at}", prompt, 8) for at, prompt in enumerate(prompts)])
    )
    model.close()

    engine = EdgeEngine(path, EMBEDDED["smollm2-135m"].sha256, threads=1, slots=4)
    labelled = [Heard(engine, Ask(f"c{at}", one.messages, labels=LABELS)) for at, one in enumerate(prompts)]
    free = [Heard(engine, Ask(f"g{at}", one.messages, max_new_tokens=8)) for at, one in enumerate(prompts)]
    for heard, answer in zip(labelled, scored, strict=True):
        found = heard.done()
        assert found.prompt_tok == answer.prompt_tok
        assert list((found.label_logprobs or {}).values()) == pytest.approx(answer.choice_logprobs, abs=0.25)
    for heard, answer in zip(free, written, strict=True):
        assert heard.done().text == answer.text
    engine.close()
