"""A prompt → the token ids that are fed. Training, Transformers and GGUF all go through `fit`."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Sequence
from sys import byteorder
from typing import NamedTuple

from harness.errors import ModelError
from harness.models.base import Message, Prompt

ELLIPSIS = " … "
"""Stands where the middle of a turn was left out."""

Render = Callable[[Sequence[Message]], str]
Encode = Callable[[str], list[int]]


class Fitted(NamedTuple):
    """A prompt within its budget."""

    ids: list[int]
    is_truncated: bool
    messages: tuple[Message, ...]
    """As they were rendered: the longest user turn is shorter when `is_truncated`."""


class PromptTooLong(ModelError):  # noqa: N818 - an outcome that callers count, as StopIteration is
    """A prompt over its budget that may not, or can't, be cut."""

    def __init__(self, found_tok: int, budget_tok: int, *, is_skip: bool = False, why: str = "") -> None:
        super().__init__(
            f"prompt has {found_tok:,} tokens, its budget is {budget_tok:,}{why}",
            hint="raise prompt.max_tokens, or set prompt.over_length to truncate",
        )
        self.found_tok = found_tok
        self.budget_tok = budget_tok
        self.is_skip = is_skip
        """The suite asked to leave such records out of training."""


def fit(prompt: Prompt, render: Render, encode: Encode) -> Fitted:
    """The prompt's token ids, within its budget.

    `render` makes the text that ends where the answer begins; `encode` adds no token of its own.

    Raises:
        PromptTooLong: over the budget, and `over_length` is not `truncate` or nothing is left to cut.
    """
    ids = encode(render(prompt.messages))
    if prompt.max_tokens is None or len(ids) <= prompt.max_tokens:
        return Fitted(ids, False, prompt.messages)
    if prompt.over_length != "truncate":
        raise PromptTooLong(len(ids), prompt.max_tokens, is_skip=prompt.over_length == "skip")
    return _truncated(prompt, prompt.max_tokens, len(ids), render, encode)


def _truncated(prompt: Prompt, budget_tok: int, found_tok: int, render: Render, encode: Encode) -> Fitted:
    turn = _longest_user_turn(prompt.messages)
    if turn is None:
        raise PromptTooLong(found_tok, budget_tok, why=", and it has no user turn to cut")
    best: Fitted | None = None
    low, high = 0, len(prompt.messages[turn].content)
    while low < high:  # the most characters that fit; `best` is always one that was seen to fit
        keep = (low + high) // 2
        messages = _with_middle_cut(prompt.messages, turn, keep)
        ids = encode(render(messages))
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


def _with_middle_cut(messages: Sequence[Message], turn: int, keep_chars: int) -> tuple[Message, ...]:
    text = messages[turn].content
    head, tail = (keep_chars + 1) // 2, keep_chars // 2
    cut = text[:head] + ELLIPSIS + (text[-tail:] if tail else "")
    return (*messages[:turn], Message(messages[turn].role, cut), *messages[turn + 1 :])


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
