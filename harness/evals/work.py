"""What is asked of a model at one stage, and the prompts it is asked with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness.data.records import Record
from harness.data.template import render_turns
from harness.errors import DataError
from harness.evals.fewshot import Examples
from harness.evals.tasks import example_answer, make_request
from harness.models.base import Message, Model, Prompt, Requests
from harness.specs.suite import Suite

EXAMPLE_SEPARATOR = "\n\n"
"""Between the examples of raw text, and before the question."""


@dataclass(frozen=True, slots=True)
class Work:
    """Records to answer, and what they are answered and scored by."""

    stage: str
    suite: Suite
    labels: tuple[str, ...]
    records: tuple[Record, ...]
    train: tuple[Record, ...] = ()
    """Where examples are drawn from; needed where the suite wants any."""
    judge: Model | None = None
    """What the suite's judging scorers ask; needed where it has any."""
    measures: bool = True
    """Also measure the suite's confidences, its invariance and the noise floor; not for records that only steer."""


class Prompts:
    """Records as prompts, behind the same examples."""

    def __init__(self, work: Work) -> None:
        """Puts the training records in the order of the draw.

        Raises:
            DataError: two records have one id, or examples are wanted and can't be had.
        """
        self._suite, self._labels = work.suite, work.labels
        self._examples = Examples(work.suite, work.train, work.records)
        self._shown: dict[str, tuple[tuple[str, str], ...]] = {}
        ids = Counter(record.id for record in work.records)
        if len(ids) < len(work.records):
            raise DataError(
                f"record id {ids.most_common(1)[0][0]!r} is there twice: an answer needs one record"
            )

    def of(self, record: Record) -> Prompt:
        """The record's prompt; ends where the answer begins."""
        return _prompt(
            self._suite, record, self._labels, [self._turns(one) for one in self._examples.of(record)]
        )

    def example_turns(self) -> list[list[tuple[str, str]]]:
        """The turns of each example that a record of no known unit and text gets, in their order."""
        return [list(self._turns(example)) for example in self._examples.first()]

    def _turns(self, example: Record) -> tuple[tuple[str, str], ...]:
        if example.id not in self._shown:
            asked = render_turns(self._suite.prompt, example, self._labels)[-1]
            self._shown[example.id] = (asked, ("assistant", example_answer(self._suite, example)))
        return self._shown[example.id]


def build_requests(work: Work) -> Requests:
    """One request a record, in their order; all of one kind, which the task decides."""
    prompts = Prompts(work)
    made: list[Any] = []
    for record in work.records:
        made.append(make_request(work.suite, record, work.labels, prompts.of(record)))
    return made


def make_prompt(
    suite: Suite,
    record: Record,
    labels: Sequence[str],
    examples: Sequence[tuple[tuple[str, str], ...]] = (),
) -> Prompt:
    """The record as a prompt; without examples, as it is trained on."""
    return _prompt(suite, record, labels, examples)


def _prompt(
    suite: Suite, record: Record, labels: Sequence[str], examples: Sequence[tuple[tuple[str, str], ...]]
) -> Prompt:
    spec = suite.prompt
    *before, asked = render_turns(spec, record, labels)
    if not spec.raw:
        turns = [*before, *(turn for example in examples for turn in example), asked]
        messages = tuple(Message(role, content) for role, content in turns)
        return Prompt(messages, spec.max_tokens, spec.over_length)
    shown = [question + spec.answer_prefix + answer for (_, question), (_, answer) in examples]
    text = EXAMPLE_SEPARATOR.join([*shown, asked[1]])
    return Prompt((), spec.max_tokens, spec.over_length, text=text)
