"""A prompt → the token ids that are fed. Training, Transformers and GGUF all go through `fit`."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Sequence
from dataclasses import replace
from sys import byteorder
from typing import NamedTuple

from harness.errors import ModelError
from harness.models.base import Message, Prompt

ELLIPSIS = " … "
"""Stands where part of a turn was left out."""

Render = Callable[[Sequence[Message]], str]
Encode = Callable[[str], list[int]]


class Fitted(NamedTuple):
    """A prompt within its budget."""

    ids: list[int]
    is_truncated: bool
    messages: tuple[Message, ...]
    """As they were rendered: the longest user turn is shorter when `is_truncated`."""
    text: str | None = None
    """Raw text as it was encoded; None for a conversation. What `truncate_left` took away is still in it:
    only its ids are fewer."""


class PromptTooLong(ModelError):  # noqa: N818 - an outcome that callers count, as StopIteration is
    """A prompt over its budget that may not, or can't, be cut."""

    def __init__(self, found_tok: int, budget_tok: int, *, is_skip: bool = False, why: str = "") -> None:
        super().__init__(
            f"prompt has {found_tok:,} tokens, its budget is {budget_tok:,}{why}",
            hint="raise prompt.max_tokens, or set prompt.over_length to truncate or truncate_left",
        )
        self.found_tok = found_tok
        self.budget_tok = budget_tok
        self.is_skip = is_skip
        """The suite asked to leave such records out of training."""


def fit(prompt: Prompt, render: Render, encode: Encode, encode_text: Encode | None = None) -> Fitted:
    """The prompt's token ids, within its budget.

    `render` makes the text that ends where the answer begins; `encode` adds no token of its own.
    `encode_text` is for raw text, and adds what the tokenizer begins a text with.

    Raises:
        PromptTooLong: over the budget, and `over_length` is not a way to cut or nothing is left to cut.
    """
    if prompt.text is not None:
        return _fit_text(prompt, prompt.text, encode_text or encode)
    ids = encode(render(prompt.messages))
    if prompt.max_tokens is None or len(ids) <= prompt.max_tokens:
        return Fitted(ids, False, prompt.messages)
    if prompt.over_length not in CUTS:
        raise PromptTooLong(len(ids), prompt.max_tokens, is_skip=prompt.over_length == "skip")
    return _truncated(prompt, prompt.max_tokens, len(ids), lambda turns: encode(render(turns)))


def _fit_text(prompt: Prompt, text: str, encode: Encode) -> Fitted:
    ids = encode(text)
    if prompt.max_tokens is None or len(ids) <= prompt.max_tokens:
        return Fitted(ids, False, (), text)
    if prompt.over_length not in CUTS:
        raise PromptTooLong(len(ids), prompt.max_tokens, is_skip=prompt.over_length == "skip")
    if prompt.over_length == "truncate_left":
        return _without_beginning(text, ids, encode(""), prompt.max_tokens)
    turn = replace(prompt, messages=(Message("user", text),), text=None)
    cut = _truncated(turn, prompt.max_tokens, len(ids), lambda turns: encode(turns[0].content))
    return Fitted(cut.ids, True, (), cut.messages[0].content)


def _without_beginning(text: str, ids: list[int], empty: list[int], budget_tok: int) -> Fitted:
    """By tokens, as lm-evaluation-harness cuts; but the token that begins every text stays."""
    begin = len(empty) if ids[: len(empty)] == empty else 0
    if budget_tok <= begin:
        raise PromptTooLong(len(ids), budget_tok, why=", and nothing of the text would be left")
    return Fitted([*ids[:begin], *ids[len(ids) - budget_tok + begin :]], True, (), text)


def _truncated(
    prompt: Prompt, budget_tok: int, found_tok: int, encode: Callable[[Sequence[Message]], list[int]]
) -> Fitted:
    turn = _longest_user_turn(prompt.messages)
    if turn is None:
        raise PromptTooLong(found_tok, budget_tok, why=", and it has no user turn to cut")
    cut = CUTS[prompt.over_length]
    best: Fitted | None = None
    low, high = 0, len(prompt.messages[turn].content)
    while low < high:  # the most characters that fit; `best` is always one that was seen to fit
        keep = (low + high) // 2
        role, content = prompt.messages[turn]
        messages = (*prompt.messages[:turn], Message(role, cut(content, keep)), *prompt.messages[turn + 1 :])
        ids = encode(messages)
        if len(ids) <= budget_tok:
            best, low = Fitted(ids, True, messages), keep + 1
        else:
            high = keep
    if best is None:
        raise PromptTooLong(found_tok, budget_tok, why=", and the template alone is longer")
    return best


def _longest_user_turn(messages: Sequence[Message]) -> int | None:
    lengths = [len(message.content) if message.role == "user" else -1 for message in messages]
    longest = max(lengths, default=-1)
    return lengths.index(longest) if longest > 0 else None


def _middle_cut(text: str, keep_chars: int) -> str:
    head, tail = (keep_chars + 1) // 2, keep_chars // 2
    return text[:head] + ELLIPSIS + (text[-tail:] if tail else "")


def _left_cut(text: str, keep_chars: int) -> str:
    return ELLIPSIS + (text[-keep_chars:] if keep_chars else "")


CUTS = {"truncate": _middle_cut, "truncate_left": _left_cut}
"""What `over_length` may say beside `error` and `skip`: text and characters to keep → the shorter text."""


def prompt_digest(ids: Sequence[int]) -> str:
    """sha256 hex of the ids as little-endian int32: two stages that agree on it saw the same prompt."""
    values = array("i", ids)
    if byteorder == "big":
        values.byteswap()
    return hashlib.sha256(values.tobytes()).hexdigest()


def common_prefix(rows: Sequence[Sequence[int]]) -> list[int]:
    """The ids that all rows begin with; empty for no rows."""
    if not rows:
        return []
    low, high = min(list(row) for row in rows), max(list(row) for row in rows)
    length = next((i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), len(low))
    return low[:length]
