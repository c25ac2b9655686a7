"""Do answers move when nothing moves that matters? Each item again, with one thing changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from harness.data.records import Record
from harness.data.splits import ranked
from harness.data.variants import PAIRED, Renaming, Variant, make_variant, prompt_shows_labels, variants_of
from harness.evals.answers import AnswerLog, Header, ShouldStop, ask, requests_digest
from harness.evals.results import Sample
from harness.evals.tasks import make_request, read
from harness.evals.work import Prompts, Work
from harness.models.base import Answer, Model
from harness.scoring.text import normalise

SEED = 17


class _Asked(NamedTuple):
    """A variant beside the record that it was made of."""

    record: Record
    variant: Variant


def measure_invariance(
    model: Model, work: Work, samples: Sequence[Sample], folder: Path, *, should_stop: ShouldStop
) -> list[Sample]:
    """The samples with their answers to the suite's variants, and which of those were other answers.

    An item that a change does not fit, such as other names where there are none, has no answer of that kind. What
    is asked is kept in `folder`, as the first phase's answers are.

    Raises:
        CancelledError: `should_stop` said so between two batches.
    """
    wanted = work.suite.invariance
    said: dict[str, dict[str, str | None]] = {sample.id: {} for sample in samples}
    records = work.records if wanted.items is None else ranked(work.records, SEED)[: wanted.items]
    for kind in wanted.kinds:
        found = (
            _paired(work, samples)
            if kind == PAIRED
            else _answered(model, work, kind, records, folder, should_stop)
        )
        for id_, answer in found.items():
            said[id_][kind] = answer
    return [_with_variants(work, sample, said[sample.id]) for sample in samples]


def _with_variants(work: Work, sample: Sample, said: Mapping[str, str | None]) -> Sample:
    """An item without an answer of its own has none that could stay: each change counts as moving it."""
    own = None if sample.error is not None else sample.answer
    moved = tuple(kind for kind, answer in said.items() if not is_same_answer(work.suite.task, own, answer))
    return replace(sample, variants=dict(said), moved=moved)


def is_same_answer(task: str, one: str | None, other: str | None) -> bool:
    """Whether two answers are one: whatever their case and spaces, and for free texts their punctuation and articles.

    None is no answer, and the same as nothing.
    """
    if one is None or other is None:
        return False
    if task in ("answer", "generate"):
        return normalise(one) == normalise(other)
    return " ".join(one.casefold().split()) == " ".join(other.casefold().split())


def _paired(work: Work, samples: Sequence[Sample]) -> dict[str, str | None]:
    """By the id of each record in other words: what was answered to the record that it says it is."""
    own = {sample.id: None if sample.error is not None else sample.answer for sample in samples}
    originals = variants_of(work.suite, work.records)
    return {id_: own[original] for id_, original in originals.items() if id_ in own and original in own}


def _answered(
    model: Model, work: Work, kind: str, records: Sequence[Record], folder: Path, should_stop: ShouldStop
) -> dict[str, str | None]:
    """The answers to the records' variants in the records' own names, by id."""
    shows_labels = prompt_shows_labels(work.suite)
    made = [(one, make_variant(kind, one, work.labels, shows_labels=shows_labels)) for one in records]
    asked = {record.id: _Asked(record, variant) for record, variant in made if variant is not None}
    if not asked:
        return {}
    answers = _ask(model, work, list(asked.values()), folder / f"variant-{kind}.jsonl", should_stop)
    return {id_: _read(work, asked[id_].variant, answer) for id_, answer in answers.items()}


def _ask(
    model: Model, work: Work, asked: Sequence[_Asked], path: Path, should_stop: ShouldStop
) -> dict[str, Answer]:
    labels = asked[0].variant.labels
    prompts = Prompts(replace(work, labels=labels, records=tuple(one.variant.record for one in asked)))
    requests = [
        make_request(work.suite, one.variant.record, labels, prompts.of(one.variant.record)) for one in asked
    ]
    log = AnswerLog(path, Header(model.identity.digest, requests_digest(requests)))  # type: ignore[arg-type]
    try:
        return ask(model, requests, log, should_stop=should_stop, on_disk=lambda: None)  # type: ignore[arg-type]
    finally:
        log.close()


def _read(work: Work, variant: Variant, answer: Answer) -> str | None:
    found = read(work.suite, variant.record, variant.labels, answer)
    return None if found.error is not None else _own_names(variant.renaming, found.answer)


def _own_names(renaming: Renaming, answer: str | None) -> str | None:
    return None if answer is None else renaming.undo(answer)
