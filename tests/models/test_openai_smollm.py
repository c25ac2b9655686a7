"""A real language model behind the fake server's doors scores as it does in this process."""

from __future__ import annotations

from typing import Any

import pytest

from harness.models.base import ChoiceRequest, Message, Prompt
from harness.models.load import open_model, resolve_base
from harness.models.transformers import TransformersModel
from tests.models import openai_fake as fake
from tests.models.openai_fake import Fake, served

pytestmark = pytest.mark.slow
CLAUSES = ("This agreement is governed by the laws of Ohio.", "The licensee pays within thirty days.")
LABELS = ("Governing Law", "Payment", "Audit Rights")


class RealModel(Fake):
    """The server's token endpoints over SmolLM2: what vLLM would answer for it."""

    def load(self) -> RealModel:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        folder = resolve_base("embedded:smollm2-135m")
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.network = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        return self

    def tokenize(self, body: dict[str, Any]) -> dict[str, Any]:
        if "messages" in body:
            text = self.tokenizer.apply_chat_template(
                body["messages"], tokenize=False, add_generation_prompt=body["add_generation_prompt"]
            )
            return {"tokens": self.tokenizer.encode(text, add_special_tokens=False)}
        return {
            "tokens": self.tokenizer.encode(body["prompt"], add_special_tokens=body["add_special_tokens"])
        }

    def complete(self, body: dict[str, Any]) -> dict[str, Any]:
        import torch

        ids = body["prompt"]
        with self.lock, torch.inference_mode():
            rows = self.network(torch.tensor([ids])).logits[0].log_softmax(-1)  # (time, vocab)
        whole = [*ids, int(rows[-1].argmax())]
        begin = 0 if body.get("echo") else len(ids)
        values, tops = [], []
        for at in range(begin, len(whole)):
            row = rows[at - 1] if at else None
            values.append(None if row is None else float(row[whole[at]]))
            best = [] if row is None else row.topk(body["logprobs"]).indices.tolist()
            tops.append({self.spelled(token): float(row[token]) for token in best} if row is not None else {})
        if self.echo_shift and begin == 0:
            values = [None, *values[2:], values[1]]
        logprobs = {
            "tokens": [self.spelled(token) for token in whole[begin:]], "token_logprobs": values, "top_logprobs": tops,
        }  # fmt: skip
        choice = {"index": 0, "text": "", "finish_reason": "length", "logprobs": logprobs}
        return {"choices": [choice], "usage": fake.Fake.usage(ids, whole[len(ids) :])}

    def spelled(self, token: int) -> str:
        return str(self.tokenizer.convert_ids_to_tokens(token))


REQUESTS = [
    *[
        ChoiceRequest(f"{at}", Prompt((Message("user", f"Name the kind of clause.\n\n{text}"),)), LABELS)
        for at, text in enumerate(CLAUSES)
    ],
    ChoiceRequest(
        "open", Prompt((), text="The capital of France is"), (" Paris", " a large city"), is_open=True
    ),
    ChoiceRequest("whole", Prompt((), text="Water"), (" is wet.",), is_open=True),
]


@pytest.fixture(scope="module")
def real() -> RealModel:
    return RealModel().load()


def test_scores_over_http_are_those_of_the_same_weights_here(real: RealModel) -> None:
    with served(real):
        remote = open_model(f"openai:{real.url}#tiny")
        found = list(remote.score_choices(REQUESTS))
        remote.close()
    local = TransformersModel(
        resolve_base("embedded:smollm2-135m"), dtype="float32", device="cpu", threads=1, exact=True
    )

    for answer, wanted in zip(found, local.score_choices(REQUESTS), strict=True):
        assert answer.error is None
        assert answer.choice_logprobs == pytest.approx(wanted.choice_logprobs, abs=1e-3)
        assert answer.choice_tok == wanted.choice_tok
        assert answer.prompt_tok == wanted.prompt_tok
    local.close()


def test_a_real_models_echo_that_is_off_by_one_is_found_out(real: RealModel) -> None:
    real.echo_shift = 1
    with served(real):
        remote = open_model(f"openai:{real.url}#tiny")
        answer = next(iter(remote.score_choices(REQUESTS[:1])))
        remote.close()
    real.echo_shift = 0

    assert answer.choice_logprobs is None
    assert answer.error is not None
    assert "several tokens" in answer.error or "log-probabilities are wrong" in answer.error
