"""A tokenizer as llama.cpp keeps it: tokens, types, merges or scores, and how text is cut before merging."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import ModelError
from harness.models.chat import Chat, load_chat

if TYPE_CHECKING:
    from gguf import GGUFWriter

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
"""Token types, as llama.cpp numbers them."""

_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
_QWEN2 = _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")

PRE_TOKENIZERS: Mapping[tuple[str, ...], str] = {
    ("bytes with words",): "gpt-2",
    ("digits", "bytes with words"): "smollm",
    (f"split {_LLAMA3}", "bytes"): "llama-bpe",
    (f"split {_QWEN2}", "bytes"): "qwen2",
}
"""What a byte-level tokenizer does before it merges → llama.cpp's name for doing the same."""

_MERGES_WHOLE_WORDS = {"llama-bpe": True, "gpt-2": False, "smollm": False, "qwen2": False}
"""Whether llama.cpp takes a word that is itself a token without merging its way there."""

_SPACE = "▁"


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """All that llama.cpp needs to turn text into the ids that the model was trained on."""

    model: str
    """`gpt2` for byte-level BPE, `llama` for SentencePiece."""
    pre: str
    tokens: tuple[str, ...]
    types: tuple[int, ...]
    merges: tuple[str, ...]
    scores: tuple[float, ...]
    """SentencePiece only: the better a merge, the higher its token's score."""
    special: Mapping[str, int]
    """`bos`, `eos` (the end of a turn), `unk`, `pad` → id, where there is one."""
    is_bos_added: bool
    is_eos_added: bool
    is_space_added: bool
    """SentencePiece only: a space is put before the text."""
    template: str
    """Empty where the model was made for raw text only."""


def read_vocabulary(
    checkpoint: Path, *, size: int, pre: str | None = None, normalizers: Sequence[str] = ()
) -> Vocabulary:
    """The checkpoint's tokenizer exactly as Transformers runs it, padded to `size` tokens.

    `pre` names llama.cpp's pre-tokenizer where the table does not know the tokenizer's own.

    Raises:
        ModelError: no tokenizer, a kind that llama.cpp can't reproduce, or more tokens than embeddings.
    """
    chat = load_chat(checkpoint, needs_template=False)
    # Not tokenizer.json: some tokenizer classes replace parts of it when they load.
    document = json.loads(chat.tokenizer.backend_tokenizer.to_str())
    if document["model"]["type"] != "BPE":
        raise ModelError(
            f"{checkpoint}: tokenizer is {document['model']['type']}; GGUF can be written for BPE"
        )
    if document["model"].get("byte_fallback"):
        return _sentence_piece(checkpoint, document, chat, size)
    return _byte_level(checkpoint, document, chat, size, pre, normalizers)


def _byte_level(
    checkpoint: Path,
    document: dict[str, Any],
    chat: Chat,
    size: int,
    pre: str | None,
    normalizers: Sequence[str],
) -> Vocabulary:
    for normalizer in _flat(document["normalizer"], "normalizers"):
        if normalizer["type"] not in normalizers:
            raise ModelError(
                f"{checkpoint}: llama.cpp has no {normalizer['type']} normalizer for this tokenizer"
            )
    pre = pre or _pre_tokenizer(checkpoint, document)
    tokens, types = _tokens(checkpoint, document, size)
    return Vocabulary(
        "gpt2",
        pre,
        tokens,
        types,
        _merges(document),
        (),
        **_conventions(chat),
        is_space_added=False,
    )


def _pre_tokenizer(checkpoint: Path, document: dict[str, Any]) -> str:
    steps = tuple(_describe(step) for step in _flat(document["pre_tokenizer"], "pretokenizers"))
    name = PRE_TOKENIZERS.get(steps)
    is_whole = bool(document["model"].get("ignore_merges"))
    if name is None or _MERGES_WHOLE_WORDS[name] != is_whole:
        whole = ", taking whole words" if is_whole else ""
        raise ModelError(
            f"{checkpoint}: llama.cpp's name for this pre-tokenizer is not known: {' → '.join(steps)}{whole}",
            hint=f"name it with pre=…; known: {', '.join(sorted(_MERGES_WHOLE_WORDS))}",
        )
    return name


def _flat(step: dict[str, Any] | None, key: str) -> list[dict[str, Any]]:
    if step is None:
        return []
    return (
        [part for inner in step[key] for part in _flat(inner, key)] if step["type"] == "Sequence" else [step]
    )


def _describe(step: dict[str, Any]) -> str:
    """One step of a pre-tokenizer, so that two that do the same read the same."""
    kind = str(step["type"])
    if kind == "Digits" and step.get("individual_digits"):
        return "digits"
    if kind == "ByteLevel" and not step.get("add_prefix_space"):
        return "bytes with words" if step.get("use_regex", True) else "bytes"
    if kind == "Split" and step.get("behavior") == "Isolated" and not step.get("invert"):
        return f"split {next(iter(step['pattern'].values()))}"
    return json.dumps(step, sort_keys=True)


def _tokens(checkpoint: Path, document: dict[str, Any], size: int) -> tuple[tuple[str, ...], tuple[int, ...]]:
    by_id = {int(index): (text, NORMAL) for text, index in document["model"]["vocab"].items()}
    for added in document["added_tokens"]:
        by_id[int(added["id"])] = (added["content"], CONTROL if added["special"] else USER_DEFINED)
    if max(by_id) >= size:
        raise ModelError(f"{checkpoint}: token id {max(by_id)} has no embedding: the model has {size:,} rows")
    rows = [by_id.get(index, (f"[PAD{index}]", UNUSED)) for index in range(size)]
    return tuple(text for text, _ in rows), tuple(kind for _, kind in rows)


def _merges(document: dict[str, Any]) -> tuple[str, ...]:
    pairs = (merge.split(" ") if isinstance(merge, str) else merge for merge in document["model"]["merges"])
    return tuple(f"{left} {right}" for left, right in pairs)


def _conventions(chat: Chat) -> dict[str, Any]:
    tokenizer = chat.tokenizer
    ids = {"bos": tokenizer.bos_token_id, "unk": tokenizer.unk_token_id, "pad": tokenizer.pad_token_id}
    special = {name: int(index) for name, index in ids.items() if index is not None}
    plain = tokenizer.encode("a", add_special_tokens=False)
    framed = tokenizer.encode("a", add_special_tokens=True)
    return {
        "special": {**special, "eos": chat.end_id},
        "is_bos_added": framed[0] != plain[0],
        "is_eos_added": framed[-1] != plain[-1],
        "template": chat.template,
    }


def _sentence_piece(checkpoint: Path, document: dict[str, Any], chat: Chat, size: int) -> Vocabulary:
    """Byte-fallback BPE: what Transformers makes of a SentencePiece model."""
    tokens, types = _tokens(checkpoint, document, size)
    unknown = document["model"].get("unk_token")
    kinds = [
        UNKNOWN if text == unknown else BYTE if _is_byte(text) else kind
        for text, kind in zip(tokens, types, strict=True)
    ]
    return Vocabulary(
        "llama", "default", tokens, tuple(kinds), (), _scores(document, tokens), **_conventions(chat),
        is_space_added=_is_space_added(checkpoint, document),
    )  # fmt: skip


def _is_byte(text: str) -> bool:
    return len(text) == 6 and text.startswith("<0x") and text.endswith(">")


def _scores(document: dict[str, Any], tokens: Sequence[str]) -> tuple[float, ...]:
    """Each token's score: the negated rank of the first merge that makes it, 0 for those that none makes."""
    ranks: dict[str, int] = {}
    for rank, merge in enumerate(_merges(document), start=1):
        ranks.setdefault(merge.replace(" ", ""), rank)
    return tuple(-float(ranks.get(text, 0)) for text in tokens)


def _is_space_added(checkpoint: Path, document: dict[str, Any]) -> bool:
    steps = _flat(document["normalizer"], "normalizers") + _flat(document["pre_tokenizer"], "pretokenizers")
    kinds = {step["type"]: step for step in steps if not _is_idle(step)}
    if not kinds.keys() <= {"Prepend", "Replace", "Metaspace"}:
        odd = ", ".join(sorted(kinds.keys() - {"Prepend", "Replace", "Metaspace"}))
        raise ModelError(
            f"{checkpoint}: llama.cpp can't do what this SentencePiece tokenizer does first: {odd}"
        )
    scheme = kinds.get("Metaspace", {}).get("prepend_scheme", "never")
    return "Prepend" in kinds or scheme in ("always", "first")


def _is_idle(step: dict[str, Any]) -> bool:
    """A split at spaces, as Gemma has it: the normalizer has left none."""
    return step["type"] == "Split" and step.get("pattern") == {"String": " "}


def write_vocabulary(writer: GGUFWriter, vocabulary: Vocabulary) -> None:
    """States the tokenizer and the chat template in the file."""
    writer.add_tokenizer_model(vocabulary.model)
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    if vocabulary.model == "llama":
        writer.add_token_scores(vocabulary.scores)
        writer.add_add_space_prefix(vocabulary.is_space_added)
    else:
        writer.add_token_merges(vocabulary.merges)
    add_id = {
        "bos": writer.add_bos_token_id, "eos": writer.add_eos_token_id,
        "unk": writer.add_unk_token_id, "pad": writer.add_pad_token_id,
    }  # fmt: skip
    for name, index in vocabulary.special.items():
        add_id[name](index)
    writer.add_add_bos_token(vocabulary.is_bos_added)
    writer.add_add_eos_token(vocabulary.is_eos_added)
    if vocabulary.template:
        writer.add_chat_template(vocabulary.template)
