"""The embedded model itself: the conversion, and what both backends make of it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.models.base import ChoiceRequest, Message, Prompt
from harness.models.chat import load_chat
from harness.models.dequantize import PROBES
from harness.models.embedded import embedded_gguf
from harness.models.gguf import GgufModel
from harness.models.load import resolve_base
from harness.models.transformers import TransformersModel

pytestmark = pytest.mark.slow
DATA = Path(os.environ.get("HARNESS_DATA") or Path(__file__).parents[2].parent / "shared" / "data")
LABELS = ("Governing Law", "Insurance", "Audit Rights", "License Grant", "Anti-Assignment")


@pytest.fixture(scope="module")
def base() -> Path:
    return resolve_base("embedded:smollm2-135m")


@pytest.fixture(scope="module")
def gguf() -> Iterator[GgufModel]:
    model = GgufModel(embedded_gguf("smollm2-135m"), threads=1)
    yield model
    model.close()


def ask(text: str) -> Prompt:
    return Prompt((Message("user", f"Which type of clause is this?\n\n{text}"),), 384, "truncate")


def test_the_checkpoint_is_whole(base: Path) -> None:
    assert {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"} <= {
        path.name for path in base.iterdir()
    }
    chat = load_chat(base)
    assert (chat.end_text, chat.end_ids) == ("<|im_end|>", (2,))


def test_token_ids_agree_on_hard_texts(base: Path, gguf: GgufModel) -> None:
    chat = load_chat(base)

    for text in PROBES:
        assert gguf.token_ids(ask(text)) == chat.fit(ask(text)).ids


@pytest.mark.real
def test_token_ids_agree_on_every_contract_clause(base: Path, gguf: GgufModel) -> None:
    path = DATA / "legal" / "cuad_clauses" / "eval.jsonl"
    if not path.is_file():
        pytest.skip("the public data is not here")
    chat = load_chat(base)

    for line in path.read_text(encoding="utf-8").splitlines():
        prompt = ask(json.loads(line)["input"])
        assert gguf.token_ids(prompt) == chat.fit(prompt).ids


def test_both_backends_give_alike_probabilities(base: Path, gguf: GgufModel) -> None:
    network = TransformersModel(base, threads=1)
    requests = [
        ChoiceRequest("law", ask("This Agreement is governed by the laws of Delaware."), LABELS),
        ChoiceRequest("audit", ask("Supplier shall let Customer inspect its books once a year."), LABELS),
    ]

    for found, wanted in zip(gguf.score_choices(requests), network.score_choices(requests), strict=True):
        assert found.prompt_digest == wanted.prompt_digest
        assert found.choice_logprobs == pytest.approx(wanted.choice_logprobs, abs=2.0)
