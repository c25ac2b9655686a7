"""A tiny random model with a real tokenizer and chat template, built in a second."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.models.base import Message, Prompt
from harness.train.batches import Example

TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WORDS = "the party shall pay law of state governs insurance assign audit records term notice ends each year"
LABELS = ("Governing Law", "Insurance", "Audit Rights")


def build_base(folder: Path, *, seed: int = 0, heads: int = 4) -> Path:
    """A random Llama of 2 layers, 64 wide, whose tokenizer knows bytes and two chat tokens."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: at for at, token in enumerate(["<|endoftext|>", "<|im_start|>", "<|im_end|>", *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
    )
    fast.chat_template = TEMPLATE
    fast.save_pretrained(folder)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(vocab) + 5,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=heads,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=2,
        pad_token_id=2,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def build_example(at: int, *, words: int | None = None, **prompt: Any) -> Example:
    """A short clause of varying length, told apart by its number."""
    vocabulary = WORDS.split()
    length = words if words is not None else 3 + at * 7 % 11
    text = " ".join(vocabulary[(at * 5 + j * (at % 3 + 1)) % len(vocabulary)] for j in range(length))
    turns = (Message("system", "Name the clause."), Message("user", f"{at} {text}"))
    return Example(f"r{at:03d}", Prompt(turns, **prompt), LABELS[at % len(LABELS)])


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="session")
def chat(base: Path) -> Any:
    from harness.models.chat import load_chat

    return load_chat(base)


@pytest.fixture
def example() -> Callable[..., Example]:
    return build_example
