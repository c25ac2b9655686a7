"""Small random checkpoints in the real layouts, with tokenizers trained on the spot."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from harness.export.native import Native
from harness.models.base import Message, Prompt

TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CORPUS = [
    "The licensee shall pay 1,250.00 dollars within 30 days.\n\nSection 12.3 survives termination.",
    "it's we're they'll I've naïve café – “quoted” … 東京都 привет 🙂 don't",
    "def add(a, b):\n    return a + b\n\n\tif x == 10:   # two  spaces",
    "This Agreement is governed by the laws of the State of New York, without regard to conflicts.",
] * 4
PIECES = (
    "0", "1", "23", "456", "a", "Z", "é", "ß", "東京", "привет", "🙂", "👩\u200d💻", "don't", "WE'LL", "the", "clause",
    "Section", "§", "–", "“", "”", "…", "(", ")", "{", "}", "==", "->", "$", "%", "\\", "/", "_", "__init__",
    " ", "  ", "   ", "\n", "\n\n", "\t", "\r\n", "\u00a0", "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|", "|>",
)  # fmt: skip
"""Multi-byte text, whitespace, special tokens and code."""
LLAMA3_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
QWEN2_WORDS = LLAMA3_WORDS.replace(r"\p{N}{1,3}", r"\p{N}")


@dataclass(frozen=True)
class Item:
    """A conversation, as `fidelity` takes them."""

    id: str
    prompt: Prompt
    answer: str


def item(name: str, text: str, answer: str = "yes", max_tokens: int | None = None) -> Item:
    return Item(name, Prompt((Message("user", text),), max_tokens), answer)


def thousand_strings() -> list[str]:
    """Random strings of `PIECES`, the same ones each time."""
    draw = random.Random(11)
    return ["".join(draw.choices(PIECES, k=draw.randint(1, 24))) for _ in range(1000)]


def save_tokenizer(folder: Path, kind: str = "smollm") -> int:
    """Trains and saves a tokenizer; the size of its vocabulary."""
    from tokenizers import AddedToken
    from transformers import PreTrainedTokenizerFast

    tokenizer = _trained(kind)
    tokenizer.add_special_tokens(
        [AddedToken(text, special=True) for text in ("<|im_start|>", "<|im_end|>", "<|endoftext|>")]
    )
    tokenizer.add_tokens([AddedToken("<custom>", special=False, normalized=False)])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|im_start|>",
        eos_token="<|endoftext|>",
        unk_token="<unk>" if kind in ("sentencepiece", "gemma") else "<|endoftext|>",
        chat_template=TEMPLATE,
    )
    fast.save_pretrained(folder)
    return len(fast)


def begin_with_bos(checkpoint: Path) -> None:
    """Makes the checkpoint's tokenizer put its BOS before every text."""
    from tokenizers.processors import TemplateProcessing

    from harness.models.chat import load_chat

    tokenizer = load_chat(checkpoint).tokenizer
    bos = tokenizer.bos_token
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        f"{bos} $A", special_tokens=[(bos, tokenizer.bos_token_id)]
    )
    tokenizer.save_pretrained(checkpoint)


def _trained(kind: str) -> Any:
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    if kind in ("sentencepiece", "gemma"):
        tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        if kind == "gemma":
            tokenizer.normalizer = normalizers.Replace(" ", "▁")
            tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
        tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback()])
        bytes_ = [f"<0x{value:02X}>" for value in range(256)]
        trainer = trainers.BpeTrainer(
            vocab_size=500, special_tokens=["<unk>", *bytes_], show_progress=False, max_token_length=12
        )
        tokenizer.train_from_iterator(CORPUS, trainer)
        return _without_special_bytes(tokenizer)
    tokenizer = Tokenizer(models.BPE(ignore_merges=kind == "llama-bpe"))
    byte_level, whole = pre_tokenizers.ByteLevel, pre_tokenizers.Split
    tokenizer.pre_tokenizer = {
        "gpt-2": byte_level(add_prefix_space=False),
        "smollm": pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), byte_level(add_prefix_space=False)]
        ),
        "llama-bpe": pre_tokenizers.Sequence(
            [whole(Regex(LLAMA3_WORDS), "isolated"), byte_level(add_prefix_space=False, use_regex=False)]
        ),
        "qwen2": pre_tokenizers.Sequence(
            [whole(Regex(QWEN2_WORDS), "isolated"), byte_level(add_prefix_space=False, use_regex=False)]
        ),
    }[kind]
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=600, initial_alphabet=byte_level.alphabet(), show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def _without_special_bytes(tokenizer: Any) -> Any:
    """The byte tokens as plain vocabulary, as a SentencePiece model has them."""
    from tokenizers import Tokenizer

    document = json.loads(tokenizer.to_str())
    document["added_tokens"] = [added for added in document["added_tokens"] if added["content"] == "<unk>"]
    return Tokenizer.from_str(json.dumps(document))


def save_checkpoint(
    folder: Path, *, family: str = "llama", tokenizer: str = "smollm", dtype: str = "float32", **options: Any
) -> Path:
    """A random decoder with weights large enough that attention matters; the folder."""
    import transformers

    size = save_tokenizer(folder, tokenizer)
    names = {"llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2", "qwen3": "Qwen3", "gemma": "Gemma",
             "gemma3": "Gemma3"}  # fmt: skip
    settings: dict[str, Any] = {
        "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 256, "vocab_size": size,
        "initializer_range": 0.25, "tie_word_embeddings": True,
    }  # fmt: skip
    kind = "Gemma3TextConfig" if family == "gemma3" else f"{names[family]}Config"
    config = getattr(transformers, kind)(**{**settings, **options})
    torch.manual_seed(5)
    model = getattr(transformers, f"{names[family]}ForCausalLM")(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1:  # norms of one and biases of zero would hide mistakes
                parameter.add_(torch.randn_like(parameter) * 0.2)
            assert name
    model.to(getattr(torch, dtype)).save_pretrained(folder)
    return folder


def torch_logits(folder: Path, ids: list[int], adapter: Path | None = None) -> NDArray[np.float32]:
    """Transformers' logits in float32, shape (len(ids), vocabulary)."""
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    if adapter:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, adapter)
    with torch.inference_mode():
        found: NDArray[np.float32] = model.eval()(torch.tensor([ids])).logits[0].numpy()
    return found


def gguf_logits(native: Native, path: Path, ids: list[int]) -> NDArray[np.float32]:
    """llama.cpp's logits, shape (len(ids), vocabulary)."""
    native.call("open_gguf", path=str(path), threads=1, context_tok=len(ids), is_repacked=True)
    reply = native.call("logits", ids=ids, first=0)
    return np.frombuffer(reply.payload, "<f4").reshape(reply.fields["shape"])


def mean_kl(parent: NDArray[np.float32], child: NDArray[np.float32]) -> float:
    """KL(parent ‖ child) by torch, independent of the code under test."""
    p, q = (torch.log_softmax(torch.tensor(x, dtype=torch.float64), -1) for x in (parent, child))
    return float(torch.nn.functional.kl_div(q, p, log_target=True, reduction="none").sum(-1).mean())


def save_adapter(base: Path, folder: Path, *, std: float = 0.05, **options: Any) -> Path:
    """A LoRA adapter with random A and B, saved by PEFT; the folder."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    settings: dict[str, Any] = {
        "r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "k_proj", "v_proj", "down_proj"], "bias": "none",
        "task_type": "CAUSAL_LM",
    }  # fmt: skip
    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model = get_peft_model(model, LoraConfig(**{**settings, **options}))
    torch.manual_seed(9)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn_like(parameter) * std)
    model.save_pretrained(folder)
    return folder
