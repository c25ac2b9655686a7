"""A checkpoint's tokenizer and chat template."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import ModelError
from harness.models import template
from harness.models.base import Message, Prompt
from harness.models.prompts import Fitted, fit

NO_TEMPLATE = "the tokenizer has no chat template"
NO_TEMPLATE_HINT = "take an instruct model, put chat_template.jinja into the folder, or set prompt.raw"
_SENTINEL = "ANSWER"


@dataclass(frozen=True, slots=True)
class Chat:
    """Conversation → text → token ids, the same way for training and for every stage."""

    template: str
    tokens: Mapping[str, str]
    """What the template may name: `bos_token`, `eos_token`, …"""
    encode: Callable[[str], list[int]]
    """Text → ids. Adds nothing; special tokens that stand in the text become their ids."""
    decode: Callable[[Sequence[int]], str]
    """Ids → text, special tokens left out."""
    end_text: str
    """What ends the assistant's turn, such as `<|im_end|>`."""
    end_id: int
    end_ids: tuple[int, ...]
    """All ids that end an answer; `end_id`, which training supervises, is the first."""
    pad_id: int
    bos_ids: tuple[int, ...] = ()
    """What the tokenizer itself begins a raw text with; empty where its settings say nothing."""
    start_id: int | None = None
    """Stands for an empty text, such as BOS or EOS; None takes `end_id`."""
    tokenizer: Any = field(repr=False, compare=False, default=None)
    """The Transformers tokenizer, where there is one."""

    def render(self, messages: Sequence[Message], add_generation_prompt: bool = True) -> str:
        """The conversation as text; with the generation prompt it ends where the answer begins.

        Raises:
            ModelError: there is no template, or it refuses the conversation.
        """
        if not self.template:
            raise ModelError(NO_TEMPLATE, hint=NO_TEMPLATE_HINT)
        return template.render(
            self.template, messages, add_generation_prompt=add_generation_prompt, tokens=self.tokens
        )

    def fit(self, prompt: Prompt) -> Fitted:
        """The prompt's ids within its budget.

        Raises:
            PromptTooLong: it does not fit and may not, or can't, be cut.
        """
        return fit(prompt, self.render, self.encode, self.text_ids)

    def answer_ids(self, text: str) -> list[int]:
        """The ids of an answer with the token that ends the turn: what training supervises, what scoring sums."""
        return [*self.encode(text), self.end_id]

    def text_ids(self, text: str) -> list[int]:
        """The ids of raw text: what the tokenizer begins a text with, once; for "" one token all the same."""
        ids = self.encode(text)
        begin = list(self.bos_ids)
        if ids[: len(begin)] != begin:
            ids = begin + ids
        return ids or [self.end_id if self.start_id is None else self.start_id]

    def continuation_ids(self, text: str, continuation: str) -> list[int]:
        """The ids of what follows raw text: both are encoded as one, and cut where the text's own ids end.

        `text` must not end in whitespace: it belongs to the continuation (`split_spaces`).

        Source: lm-evaluation-harness 0.4, `TemplateLM._encode_pair` and `loglikelihood`.
        """
        begin = self.text_ids(text)
        if text:
            return self.text_ids(text + continuation)[len(begin) :]
        ids = self.encode(continuation)
        return ids[len(begin) :] if ids[: len(begin)] == begin else ids


def split_spaces(text: str) -> tuple[str, str]:
    """The text without the whitespace at its end, and that whitespace."""
    bare = text.rstrip()
    return bare, text[len(bare) :]


def load_chat(folder: Path, *, needs_template: bool = True) -> Chat:
    """The chat of a checkpoint folder.

    Without a template, and `needs_template` False, it encodes raw text and renders no conversation.

    Raises:
        ModelError: no tokenizer, no chat template, a first token that template or tokenizer doubles, or no
            token that ends a turn.
    """
    tokenizer = _load_tokenizer(folder)
    source = tokenizer.chat_template
    if isinstance(source, dict):
        source = source.get("default")
    if not source and needs_template:
        raise ModelError(f"{folder}: {NO_TEMPLATE}", hint=NO_TEMPLATE_HINT)
    source = source or ""

    def encode(text: str) -> list[int]:
        return list(tokenizer.encode(text, add_special_tokens=False))

    def decode(ids: Sequence[int]) -> str:
        return str(tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))

    special = {
        name: str(text) for name, text in tokenizer.special_tokens_map.items() if isinstance(text, str)
    }
    end_text = find_end_text(source, special, _special_texts(tokenizer))
    end_id = _single_id(encode, end_text, folder)
    if source:
        _check_single_bos(source, special, encode)
    start_id = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    also = _stop_ids(folder, tokenizer)
    return Chat(
        template=source,
        tokens=special,
        encode=encode,
        decode=decode,
        end_text=end_text,
        end_id=end_id,
        end_ids=(end_id, *sorted(also - {end_id})),
        pad_id=end_id if tokenizer.pad_token_id is None else int(tokenizer.pad_token_id),
        bos_ids=_bos_ids(tokenizer),
        start_id=None if start_id is None else int(start_id),
        tokenizer=tokenizer,
    )


def _load_tokenizer(folder: Path) -> Any:
    from harness.models.quiet import quiet_transformers

    quiet_transformers()
    from transformers import AutoTokenizer  # 2 s: only a process that loads a model pays them

    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ModelError(f"{folder}: no tokenizer can be read: {error}") from error


def find_end_text(source: str, tokens: Mapping[str, str], special: Sequence[str]) -> str:
    """The special token that the template writes after an answer; the end-of-text token where it writes none.

    Raises:
        ModelError: neither is there, so no answer could ever end.
    """
    turns = [Message("user", "question"), Message("assistant", _SENTINEL)]
    text = template.render(source, turns, add_generation_prompt=False, tokens=tokens) if source else ""
    _, found, tail = text.rpartition(_SENTINEL)
    if found:
        places = [(tail.find(token), -len(token), token) for token in special if token in tail]
        if places:
            return min(places)[2]
    if tokens.get("eos_token"):
        return tokens["eos_token"]
    raise ModelError(
        "the chat template writes no token after an answer, and the tokenizer has no eos_token",
        hint="set eos_token in tokenizer_config.json",
    )


def _special_texts(tokenizer: Any) -> list[str]:
    return [str(token) for token in tokenizer.added_tokens_decoder.values() if str(token).strip()]


def _single_id(encode: Callable[[str], list[int]], end_text: str, folder: Path) -> int:
    ids = encode(end_text)
    if len(ids) != 1:
        raise ModelError(f"{folder}: the end of turn {end_text!r} is {len(ids)} tokens, wanted one")
    return ids[0]


def _check_single_bos(source: str, tokens: Mapping[str, str], encode: Callable[[str], list[int]]) -> None:
    text = template.render(source, [Message("user", "question")], add_generation_prompt=True, tokens=tokens)
    ids = encode(text)
    bos = tokens.get("bos_token")
    if bos and ids[:2] == encode(bos) * 2:
        raise ModelError(f"the chat template begins with {bos!r} twice", hint="take one out of the template")


def _bos_ids(tokenizer: Any) -> tuple[int, ...]:
    """What the tokenizer puts before a text when it is asked for its special tokens."""
    plain = list(tokenizer.encode("a", add_special_tokens=False))
    whole = list(tokenizer.encode("a", add_special_tokens=True))
    places = [at for at in range(len(whole)) if whole[at : at + len(plain)] == plain]
    begin = tuple(whole[: places[0]]) if places else ()
    if len(begin) > 1 and len(set(begin)) == 1:
        raise ModelError(
            f"the tokenizer begins a text with {tokenizer.decode(begin[:1])!r} {len(begin)} times",
            hint="set add_bos_token to false in tokenizer_config.json, or take one out of its post-processor",
        )
    return begin


def _stop_ids(folder: Path, tokenizer: Any) -> set[int]:
    from harness.files import read_json

    found: set[int] = set() if tokenizer.eos_token_id is None else {int(tokenizer.eos_token_id)}
    path = folder / "generation_config.json"
    if path.is_file():
        eos = read_json(path).get("eos_token_id")
        found |= set(eos if isinstance(eos, list) else [eos] if isinstance(eos, int) else [])
    return found
