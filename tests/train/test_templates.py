"""Masks on conversations of several turns, for the three shapes of template that bases of this size have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.models.base import Message, Prompt
from harness.models.chat import Chat, load_chat
from harness.train.batches import Encoded, Example, encode, tensors

LLAMA = (
    "{{ bos_token }}{% for message in messages %}<|start_header_id|>{{ message['role'] }}<|end_header_id|>\n\n"
    "{{ message['content'] }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
QWEN = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou help.<|im_end|>\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SMOLLM = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\nA small model.<|im_end|>\n{% endif %}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SHAPES = {
    "llama": (
        LLAMA,
        "<|eot_id|>",
        ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
    ),
    "qwen": (QWEN, "<|im_end|>", ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]),
    "smollm": (SMOLLM, "<|im_end|>", ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]),
}
TALK = (
    Message("user", "Which state's law?"), Message("assistant", "Ohio."), Message("user", "And who insures?"),
)  # fmt: skip


@pytest.fixture(scope="module", params=list(SHAPES))
def chat_of(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Chat]:
    template, end, special = SHAPES[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    save_tokenizer(folder, template, end, special)
    return request.param, load_chat(folder)


def save_tokenizer(folder: Path, template: str, end: str, special: list[str]) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: at for at, token in enumerate([*special, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    extra: dict[str, Any] = {"bos_token": special[0]} if "bos_token" in template else {}
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=end, pad_token=end, additional_special_tokens=special, **extra
    )
    fast.chat_template = template
    fast.save_pretrained(folder)


def spelled(chat: Chat, ids: Any) -> str:
    return str(chat.tokenizer.decode(list(ids), skip_special_tokens=False))


def test_only_the_last_answer_and_its_end_carry_loss(chat_of: tuple[str, Chat]) -> None:
    name, chat = chat_of
    row = encode(Example("r", Prompt(TALK), "The supplier."), chat, max_tokens=500)

    assert isinstance(row, Encoded)
    assert row.is_end_supervised
    assert spelled(chat, row.ids[row.supervised_from :]) == f"The supplier.{SHAPES[name][1]}"
    before = spelled(chat, row.ids[: row.supervised_from])
    assert "Ohio." in before
    assert before.endswith("assistant<|end_header_id|>\n\n" if name == "llama" else "<|im_start|>assistant\n")


def test_the_training_text_is_the_templates_own(chat_of: tuple[str, Chat]) -> None:
    _, chat = chat_of
    row = encode(Example("r", Prompt(TALK), "The supplier."), chat, max_tokens=500)

    assert isinstance(row, Encoded)
    messages = [message._asdict() for message in (*TALK, Message("assistant", "The supplier."))]
    whole = chat.tokenizer.apply_chat_template(messages, tokenize=False)
    assert whole.startswith(spelled(chat, row.ids))
    assert whole.removeprefix(spelled(chat, row.ids)).strip() == ""


def test_the_beginning_of_text_stands_once(chat_of: tuple[str, Chat]) -> None:
    name, chat = chat_of
    row = encode(Example("r", Prompt(TALK), "x"), chat, max_tokens=500)

    assert isinstance(row, Encoded)
    assert list(row.ids).count(0) == (1 if name == "llama" else 0)


def test_targets_are_what_follows_each_place(chat_of: tuple[str, Chat]) -> None:
    _, chat = chat_of
    rows = [encode(Example(str(n), Prompt(TALK), "y" * n), chat, max_tokens=500) for n in (1, 5, 9)]
    found = tensors([row for row in rows if isinstance(row, Encoded)])
    flat = found.input_ids.flatten()

    assert (flat[found.rows + 1] == found.targets).all()
    assert len(found.targets) == 2 + 6 + 10
    assert [int(id_) for id_ in found.targets].count(chat.end_id) == 3
