"""Training examples as the tokens that the model sees, and which of them carry loss."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from harness.specs.tune import Tune
from harness.train.batches import Encoded, Example, TooLong, encode
from harness.train.dpo import Pair, encode_pairs

if TYPE_CHECKING:
    from harness.models.chat import Chat


class Token(NamedTuple):
    """One token as the tokenizer cuts it."""

    text: str
    is_supervised: bool


class Shown(NamedTuple):
    """One example as it is trained on."""

    id: str
    tokens: tuple[Token, ...]
    """Empty where the example does not fit."""
    note: str
    """What happened to it for its length; empty where nothing did."""

    @property
    def supervised_tok(self) -> int:
        return sum(token.is_supervised for token in self.tokens)


def show(examples: Sequence[Example], chat: Chat, tune: Tune) -> list[Shown]:
    """The examples in their order; of preferences both answers."""
    return [shown for example in examples for shown in _show(example, chat, tune)]


def _show(example: Example, chat: Chat, tune: Tune) -> Iterator[Shown]:
    if tune.objective == "dpo":
        pairs, too_long = encode_pairs([example], chat, max_tokens=tune.max_tokens)
        rows: list[Encoded | TooLong] = [*too_long]
        rows += [row for pair in pairs for row in _both(pair)]
    else:
        rows = [encode(example, chat, max_tokens=tune.max_tokens)]
    for row in rows:
        if isinstance(row, TooLong):
            yield Shown(row.id, (), f"{'left out' if row.is_skipped else 'refused'}: {row.reason}")
        else:
            yield Shown(row.id, tuple(_tokens(row, chat)), _note(row))


def _both(pair: Pair) -> tuple[Encoded, Encoded]:
    named = zip(pair[1:], ("chosen", "rejected"), strict=True)
    chosen, rejected = (row._replace(id=f"{pair.id} ({what})") for row, what in named)
    return chosen, rejected


def _tokens(row: Encoded, chat: Chat) -> Iterator[Token]:
    supervised = frozenset(row.supervised_at)
    for at, id_ in enumerate(row.ids):
        text = chat.tokenizer.decode([id_], clean_up_tokenization_spaces=False)
        # Part of a character decodes to nothing that can be read; the vocabulary's own spelling tells it apart.
        is_part = "\ufffd" in text
        yield Token(chat.tokenizer.convert_ids_to_tokens(id_) if is_part else text, at in supervised)


def _note(row: Encoded) -> str:
    notes = {
        "the prompt is cut": row.is_prompt_truncated,
        "the answer is cut": row.is_answer_truncated,
        "its end carries no loss": not row.is_end_supervised,
    }
    return ", ".join(text for text, is_so in notes.items() if is_so)
