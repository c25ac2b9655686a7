"""A GGUF file → a Transformers checkpoint in bfloat16, with a tokenizer that is checked against llama.cpp's."""

from __future__ import annotations

from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

from harness.errors import ModelError

PROBES = (
    "The Supplier shall pay $1,234,567.89 within 30 days; see §4.2(b)(iii).",
    "Requirement - -----\n100K+\t3DES  \n\n  x   y    z\r\n",
    "don't we'll I'M they've o'clock 'S",
    "Größe naïve ½ ² ﬁ №5 日本語テキスト한국어 العربية १२३",
    "🙂👩‍👩‍👧 emoji\u00a0\u200b\u2028end",
    "def f(x):\n    return x**2  # 0xFF == 255\n",
    " leading and trailing ",
    "a" * 60 + " " * 17 + "." * 33,
)
"""Texts on which tokenizers that were carried over wrongly come apart: digits, spaces, marks, scripts."""


def dequantize(source: Path, out: Path) -> None:
    """Writes config, safetensors, tokenizer and chat template into the folder `out`.

    Raises:
        ModelError: the file can't be read, its architecture is unknown, or its tokenizer can't be
            carried over so that it gives llama.cpp's ids.
    """
    from harness.models.gguf_api import Weights

    with Weights(
        source, vocab_only=True
    ) as vocab:  # llama.cpp's loader is the one that was seen to refuse crafted headers
        pre = vocab.meta("tokenizer.ggml.pre") or "default"
        wanted = [vocab.encode(text) for text in PROBES]
    tokenizer = _tokenizer(source, pre)
    for text, ids in zip(PROBES, wanted, strict=True):
        if list(tokenizer.encode(text, add_special_tokens=False)) != ids:
            raise ModelError(
                f"{source}: its tokenizer ({pre}) gives other ids in Transformers than in llama.cpp for {text!r}",
                hint="pass the original checkpoint's folder instead of the GGUF",
            )
    _model(source).save_pretrained(out)
    tokenizer.save_pretrained(out)
    for path in out.iterdir():
        path.chmod(0o644)


def _model(source: Path) -> Any:
    import torch
    from transformers import AutoModelForCausalLM, GgufConfig

    silent = redirect_stderr(StringIO())  # its progress bar heeds no setting
    try:
        with silent:
            model = AutoModelForCausalLM.from_pretrained(
                source.parent,
                gguf_file=source.name,
                quantization_config=GgufConfig(dequantize=True),
                local_files_only=True,
            )
    except (OSError, ValueError, KeyError, NotImplementedError) as error:
        raise ModelError(f"{source}: can't be turned into a Transformers checkpoint: {error}") from error
    return model.to(torch.bfloat16)


def _tokenizer(source: Path, pre: str) -> Any:
    from harness.models.quiet import quiet_transformers

    quiet_transformers()
    from tokenizers import pre_tokenizers
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name, local_files_only=True)
    except (OSError, ValueError, KeyError, NotImplementedError) as error:
        raise ModelError(f"{source}: its tokenizer can't be read: {error}") from error
    if pre == "smollm":  # Transformers' reader of GGUF files drops the split into single digits
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=True, use_regex=True),
            ]
        )
    return tokenizer
