"""Examples as token ids with their supervised tail, in length-bucketed batches that depend on the seed alone."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from harness.errors import DataError
from harness.models.base import Prompt
from harness.models.prompts import PromptTooLong

if TYPE_CHECKING:
    import torch

    from harness.models.chat import Chat

WINDOW_BATCHES = 16
"""Batches whose records are sorted by length together: enough to save padding, few enough to stay random."""


@dataclass(frozen=True, slots=True)
class Example:
    """A prompt and the answer to learn."""

    id: str
    prompt: Prompt
    answer: str
    text: str | None = None
    """The record's own text, without the prompt around it; the preflight compares it with the gate's."""
    context: str = ""
    """What the record is asked about, where that is a part of it; compared too."""
    unit: str | None = None
    """What the record is a part of, such as its document; None when unknown."""
    rejected: str | None = None
    """The worse of two answers, for preference tuning; `answer` is the better one."""
    every_turn: bool = False
    """The assistant's earlier turns in the prompt carry loss too, each with its end."""


class Encoded(NamedTuple):
    """An example as it is trained on. Only `ids[supervised_from:]` carry loss, and of these only `spans`."""

    id: str
    ids: tuple[int, ...]
    """Prompt, answer and end of turn."""
    supervised_from: int
    is_prompt_truncated: bool
    is_answer_truncated: bool
    is_end_supervised: bool
    answer_tok: int
    """Supervised tokens without the end of turn."""
    spans: tuple[tuple[int, int], ...] = ()
    """Of several supervised turns: first token, and the one after the last; empty for one tail."""

    @property
    def supervised_tok(self) -> int:
        return sum(end - start for start, end in self.spans) or len(self.ids) - self.supervised_from

    @property
    def supervised_at(self) -> list[int]:
        """The places of the supervised tokens; the first token has nothing before it to be predicted from."""
        spans = self.spans or ((self.supervised_from, len(self.ids)),)
        return [at for start, end in spans for at in range(max(1, start), end)]


class TooLong(NamedTuple):
    """An example that does not fit and may not be cut."""

    id: str
    reason: str
    is_skipped: bool
    """Its prompt says `skip`; otherwise it is an error."""


class Position(NamedTuple):
    """The next batch to train on."""

    epoch: int
    batch: int
    """Index into the epoch's batches."""


class Batch(NamedTuple):
    """Records of one optimizer step."""

    position: Position
    rows: tuple[Encoded, ...]

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(row.id for row in self.rows)

    @property
    def tokens(self) -> int:
        return sum(len(row.ids) for row in self.rows)

    @property
    def supervised_tok(self) -> int:
        return sum(row.supervised_tok for row in self.rows)


class Tensors(NamedTuple):
    """A padded micro-batch. Causal attention never looks right, so right padding needs no mask."""

    input_ids: torch.Tensor  # (batch, time), int64
    rows: torch.Tensor  # (supervised,), index into (batch * time): the position before each supervised token
    targets: torch.Tensor  # (supervised,), int64


def encode(example: Example, chat: Chat, *, max_tokens: int) -> Encoded | TooLong:
    """The example's ids: the prompt in the model's own chat format, then the answer and its end of turn.

    The prompt gives way, never the answer: `over_length="truncate"` cuts the middle of the prompt until
    both fit into `max_tokens`. An answer that does not fit on its own is cut and marked.
    """
    if example.every_turn:
        from harness.train.turns import encode_turns

        return encode_turns(example, chat, max_tokens=max_tokens)
    tail = chat.answer_ids(example.answer)
    room = max_tokens - len(tail)
    asked = example.prompt.max_tokens
    budget = max(1, room if asked is None else min(asked, room))
    try:
        fitted = chat.fit(replace(example.prompt, max_tokens=budget))
    except PromptTooLong as error:
        return _without_room(example, error, tail, chat, max_tokens)
    return _joined(example.id, list(fitted.ids), tail, chat, max_tokens, is_truncated=fitted.is_truncated)


def encode_all(
    examples: Sequence[Example],
    chat: Chat,
    *,
    max_tokens: int,
    on_progress: Callable[[int], None] | None = None,
) -> tuple[list[Encoded], list[TooLong]]:
    """All examples in their order: those that fit, and those that do not."""
    encoded: list[Encoded] = []
    too_long: list[TooLong] = []
    for done, example in enumerate(examples, start=1):
        row = encode(example, chat, max_tokens=max_tokens)
        if isinstance(row, TooLong):
            too_long.append(row)
        else:
            encoded.append(row)
        if on_progress is not None and done % 256 == 0:
            on_progress(done)
    return encoded, too_long


def _joined(
    id_: str, prompt_ids: list[int], tail: list[int], chat: Chat, max_tokens: int, *, is_truncated: bool
) -> Encoded:
    ids = (prompt_ids + tail)[:max_tokens]
    kept = ids[len(prompt_ids) :]
    is_end_supervised = bool(kept) and kept[-1] == chat.end_id
    return Encoded(
        id=id_,
        ids=tuple(ids),
        supervised_from=min(len(prompt_ids), len(ids)),
        is_prompt_truncated=is_truncated,
        is_answer_truncated=len(kept) < len(tail),
        is_end_supervised=is_end_supervised,
        answer_tok=len(kept) - is_end_supervised,
    )


def _without_room(
    example: Example, error: Exception, tail: list[int], chat: Chat, max_tokens: int
) -> Encoded | TooLong:
    """A cut answer where the prompt may be cut and still leaves no room for it; otherwise nothing."""
    if example.prompt.over_length != "truncate":
        return TooLong(example.id, str(error), is_skipped=example.prompt.over_length == "skip")
    prompt_ids = chat.encode(chat.render(example.prompt.messages))[: max(1, max_tokens // 2)]
    return _joined(example.id, prompt_ids, tail, chat, max_tokens, is_truncated=True)


def batches_of(rows: Sequence[Encoded], *, batch: int, seed: int, epoch: int) -> list[tuple[int, ...]]:
    """Indexes into `rows`, one tuple an optimizer step, every row once; the same for the same arguments.

    Rows are shuffled, sorted by length inside windows of `WINDOW_BATCHES` batches, and the batches
    shuffled again, so that neighbours in length share a batch and the order stays random.
    """
    if not rows:
        raise DataError("no training example is left to make batches of")
    rng = random.Random(f"{seed}:{epoch}")  # noqa: S311 - an order, not a secret
    order = list(range(len(rows)))
    rng.shuffle(order)
    window = batch * WINDOW_BATCHES
    batches: list[tuple[int, ...]] = []
    for start in range(0, len(order), window):
        here = sorted(order[start : start + window], key=lambda index: (len(rows[index].ids), rows[index].id))
        batches.extend(tuple(here[at : at + batch]) for at in range(0, len(here), batch))
    rng.shuffle(batches)
    return batches


def batches_from(rows: Sequence[Encoded], position: Position, *, batch: int, seed: int) -> Iterator[Batch]:
    """Batches from the position on, epoch after epoch, without end."""
    epoch, first = position
    while True:
        order = batches_of(rows, batch=batch, seed=seed, epoch=epoch)
        for at in range(first, len(order)):
            yield Batch(Position(epoch, at), tuple(rows[row] for row in order[at]))
        epoch, first = epoch + 1, 0


def steps_an_epoch(rows: int, batch: int) -> int:
    """Optimizer steps that one epoch takes; its last batch may be smaller."""
    return -(-rows // batch)


def micro_batches(rows: Sequence[Encoded], size: int) -> Iterator[tuple[Encoded, ...]]:
    """The rows in pieces of at most `size`."""
    for start in range(0, len(rows), size):
        yield tuple(rows[start : start + size])


def tensors(rows: Sequence[Encoded], *, pad_id: int = 0) -> Tensors:
    """The rows padded on the right to the longest, with the places and targets of the supervised tokens."""
    import torch

    width = max(len(row.ids) for row in rows)
    input_ids = torch.full((len(rows), width), pad_id, dtype=torch.int64)
    places: list[int] = []
    targets: list[int] = []
    for at, row in enumerate(rows):
        input_ids[at, : len(row.ids)] = torch.tensor(row.ids, dtype=torch.int64)
        places.extend(at * width + place - 1 for place in row.supervised_at)
        targets.extend(row.ids[place] for place in row.supervised_at)
    return Tensors(input_ids, torch.tensor(places), torch.tensor(targets))
