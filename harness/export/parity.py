"""Whether two stages read the same conversations as the same token ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from harness.export.forward import Source
from harness.export.native import Native
from harness.models.base import Prompt


class Item(Protocol):
    """A conversation to compare on; training examples are such items."""

    @property
    def id(self) -> str: ...
    @property
    def prompt(self) -> Prompt: ...
    @property
    def answer(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Parity:
    """Whether parent and child turn the same conversations into the same ids."""

    n: int
    differ: tuple[str, ...]
    """Ids of the conversations whose token ids differ."""
    is_template_same: bool
    is_end_same: bool
    """The token that ends a turn."""

    @property
    def holds(self) -> bool:
        """All is the same, on at least one conversation."""
        return self.n > 0 and not self.differ and self.is_template_same and self.is_end_same


class Conversations(NamedTuple):
    """Items as one stage reads them."""

    ids: list[list[int] | None]
    """Of prompt, answer and end of turn; None where the prompt is over its budget."""
    template: str
    end_id: int


def read_conversations(stage: Source, items: Sequence[Item]) -> Conversations:
    """The items' ids by the stage's own template and tokenizer.

    Raises:
        ModelError: the stage has no readable tokenizer or template.
    """
    if stage.is_gguf:
        return _gguf_conversations(stage.path, items)
    from harness.export.kernels import conversation_ids
    from harness.models.chat import load_chat

    chat = load_chat(stage.path, needs_template=any(item.prompt.text is None for item in items))
    ids = [
        conversation_ids(item.prompt, item.answer, chat.render, chat.encode, chat.text_ids, chat.end_id)
        for item in items
    ]
    return Conversations(ids, chat.template, chat.end_id)


def _gguf_conversations(path: Path, items: Sequence[Item]) -> Conversations:
    with Native(threads=1) as native:
        opened = native.call("open_words", path=str(path.resolve())).fields
        ids = [
            native.call(
                "conversation",
                messages=[tuple(message) for message in item.prompt.messages],
                answer=item.answer,
                max_tokens=item.prompt.max_tokens,
                over_length=item.prompt.over_length,
                text=item.prompt.text,
            ).fields["ids"]
            for item in items
        ]
    return Conversations(ids, opened["template"], opened["end_id"])


def compare_ids(parent: Conversations, child: Conversations, items: Sequence[Item]) -> Parity:
    """Where the two read the items differently."""
    rows = zip(items, parent.ids, child.ids, strict=True)
    differ = tuple(item.id for item, before, now in rows if before != now)
    return Parity(len(items), differ, parent.template == child.template, parent.end_id == child.end_id)
