"""Conversations of several turns as token ids: loss on each of the assistant's turns, and on its end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from harness.errors import DataError
from harness.models.base import Message
from harness.train.batches import Encoded, Example, TooLong

if TYPE_CHECKING:
    from harness.models.chat import Chat


class Turns(NamedTuple):
    """A conversation as it is trained on."""

    ids: tuple[int, ...]
    spans: tuple[tuple[int, int], ...]
    """Of each assistant turn with its end: the first token, and the one after the last."""


def encode_turns(example: Example, chat: Chat, *, max_tokens: int) -> Encoded | TooLong:
    """The whole conversation; where it is too long and may be cut, without its oldest exchanges.

    The system turn and the last exchange always stay, and no answer is ever cut.

    Raises:
        DataError: the chat template writes an earlier turn otherwise once another follows.
    """
    messages = [*example.prompt.messages, Message("assistant", example.answer)]
    found, is_cut = encode_conversation(messages, chat, example.id), False
    while len(found.ids) > max_tokens and example.prompt.over_length.startswith("truncate"):
        shorter = _without_oldest(messages)
        if len(shorter) == len(messages):
            break
        messages, is_cut = shorter, True
        found = encode_conversation(messages, chat, example.id)
    if len(found.ids) > max_tokens:
        reason = f"{len(found.ids):,} tokens, and max_tokens is {max_tokens:,}"
        return TooLong(example.id, reason, is_skipped=example.prompt.over_length == "skip")
    supervised = sum(end - start for start, end in found.spans)
    return Encoded(
        id=example.id,
        ids=found.ids,
        supervised_from=found.spans[0][0],
        is_prompt_truncated=is_cut,
        is_answer_truncated=False,
        is_end_supervised=True,
        answer_tok=supervised - len(found.spans),
        spans=found.spans,
    )


def encode_conversation(messages: Sequence[Message], chat: Chat, id_: str) -> Turns:
    """The ids of the conversation up to the end of its last assistant turn.

    Each answer is encoded by itself after the text that would have asked for it, as at inference.

    Raises:
        DataError: what asks for a turn is not how the whole conversation begins, so that the model would be
            trained on a text that it never sees.
    """
    whole = chat.render(messages, add_generation_prompt=False)
    ids: list[int] = []
    spans: list[tuple[int, int]] = []
    done = 0
    for at, message in enumerate(messages):
        if message.role != "assistant":
            continue
        before = chat.render(messages[:at], add_generation_prompt=True)
        answer = message.content + chat.end_text
        if not whole.startswith(before + answer):
            raise DataError(
                f"record {id_}: the chat template writes turn {at + 1} otherwise once another follows",
                hint="give each turn as a record of its own, or take spaces at the ends of the turns away",
            )
        ids += chat.encode(before[done:])
        tail = chat.answer_ids(message.content)
        spans.append((len(ids), len(ids) + len(tail)))
        ids += tail
        done = len(before) + len(answer)
    return Turns(tuple(ids), tuple(spans))


def _without_oldest(messages: list[Message]) -> list[Message]:
    """Without the first exchange after the system turn; the same where it is the only one."""
    start = 1 if messages[0].role == "system" else 0
    first_answer = next(at for at, message in enumerate(messages) if message.role == "assistant")
    return messages if first_answer == len(messages) - 1 else messages[:start] + messages[first_answer + 1 :]
