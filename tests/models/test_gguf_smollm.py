"""The embedded model's F16 file against its checkpoint in float32."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.export.gguf import convert
from harness.models.base import ChoiceRequest, Message, Prompt
from harness.models.gguf import GgufModel
from harness.models.load import resolve_base
from harness.models.transformers import TransformersModel

pytestmark = pytest.mark.slow
LABELS = ("Governing Law", "Insurance", "Audit Rights", "License Grant", "Anti-Assignment")
TEXTS = (
    "This Agreement is governed by the laws of Delaware.",
    "Supplier shall let Customer inspect its books once a year.",
)


def test_the_f16_file_has_the_log_likelihoods_of_the_checkpoint(tmp_path: Path) -> None:
    base = resolve_base("embedded:smollm2-135m")
    convert(base, tmp_path / "f16.gguf", metadata={})
    network = TransformersModel(base, dtype="float32", device="cpu", threads=1, exact=True)
    asked = [Prompt((Message("user", f"Which clause is this?\n\n{text}"),)) for text in TEXTS]
    requests = [
        *(ChoiceRequest(f"closed {at}", prompt, LABELS) for at, prompt in enumerate(asked)),
        *(ChoiceRequest(f"open {at}", Prompt((), text=text), LABELS, True) for at, text in enumerate(TEXTS)),
        ChoiceRequest("whole text", Prompt((), text=""), TEXTS, True),
    ]
    wanted = list(network.score_choices(requests))

    for widened, slack in ((True, 5e-3), (False, 0.25)):  # as it ships, activations are rounded to 16 bits
        model = GgufModel(tmp_path / "f16.gguf", threads=1, widened=widened, exact=True)
        for answer, other in zip(model.score_choices(requests), wanted, strict=True):
            assert (answer.error, answer.prompt_digest) == (None, other.prompt_digest)
            assert answer.choice_tok == other.choice_tok
            assert answer.choice_logprobs == pytest.approx(other.choice_logprobs, abs=slack)
        model.close()
