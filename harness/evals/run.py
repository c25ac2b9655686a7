"""Runs a suite's records through a model, and never asks it the same thing twice."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from harness.data.lineage import records_digest
from harness.data.records import Record
from harness.errors import CancelledError
from harness.evals.answers import AnswerLog, ask, requests_digest
from harness.evals.confidence import Equivalent, measure_confidences
from harness.evals.invariance import measure_invariance
from harness.evals.repeat import measure_noise
from harness.evals.results import Sample
from harness.evals.samples import Header, SampleLog, write_samples
from harness.evals.tasks import read
from harness.evals.work import Prompts as Prompts
from harness.evals.work import Work as Work
from harness.evals.work import build_requests as build_requests
from harness.evals.work import make_prompt as make_prompt
from harness.files import digest_json, write_json
from harness.models.base import Answer, Model, Requests
from harness.scoring.item import Item, Scorer
from harness.scoring.scorers import MAX_PROVEN, checked_score, default_scorer, find_scorer, prove_scorer
from harness.specs.suite import SCORED_BY_LOGPROB, ScorerSpec, Suite, scored_fields

OnEvent = Callable[..., None]
ShouldStop = Callable[[], bool]
NOISE_FILE = "noise.json"
EVENT_S = 0.25
"""Least time between two events of running totals."""
WATCHED = 64
"""Records that are asked between two looks of a watch."""


class Watch(Protocol):
    """Says when no further record is needed."""

    order: list[int]
    """Positions of the records in the order, fixed beforehand, in which they must be asked."""

    def add(self, samples: Iterable[Sample]) -> bool:
        """Whether these are enough."""


def evaluate(
    model: Model, work: Work, path: Path, *, on_event: OnEvent, should_stop: ShouldStop,
    equivalent: Equivalent | None = None, watch: Watch | None = None,
) -> list[Sample]:  # fmt: skip
    """The samples of all records, in the records' order; no answer that is on disk is asked for again.

    With `watch`, the records are asked in its order, and those that it does not need are left out.

    Answers are kept in `answers/` beside `path`, so that scores can be made anew without the model. Where the
    work measures them, confidences are asked for in a second phase, and the noise floor is written beside
    `path` as `noise.json`. `equivalent` says whether two answers mean the same, for semantic entropy.

    Raises:
        CancelledError: `should_stop` said so between two batches; what was answered is kept.
        DataError: two records have one id, or examples are wanted and can't be had.
        StatsError: a scorer of the suite can't tell right from wrong.
    """
    proven = work.records[:: max(len(work.records) // MAX_PROVEN, 1)]
    for spec in scorers_of(work.suite):
        scorer = scorer_of(work, spec)
        prove_scorer(spec.name, [_item(work, record, spec) for record in proven], scorer=scorer)
    requests = build_requests(work)
    asked = Header(model.identity.digest, requests_digest(requests))
    header = asked._replace(scoring=_scoring_digest(work))
    folder = path.parent / "answers"
    try:
        samples, answers = _first_phase(
            model, work, requests, folder, path, header, on_event, should_stop, watch
        )
        if len(samples) < len(work.records):
            work, requests = _answered(work, requests, answers)
        if work.measures:
            kinds = work.suite.confidence.kinds
            if kinds:
                samples = measure_confidences(
                    model, work, requests, samples, folder, should_stop=should_stop, equivalent=equivalent
                )
                write_samples(path, header, samples)
            if work.suite.invariance.kinds:
                samples = measure_invariance(model, work, samples, folder, should_stop=should_stop)
                write_samples(path, header, samples)
            noise = measure_noise(model, work, requests, answers, folder, should_stop=should_stop)
            if noise is not None:
                write_json(path.parent / NOISE_FILE, noise.to_json())
    except CancelledError as stop:
        raise CancelledError(f"{stop.message} at {work.stage}", hint=stop.hint) from stop
    return samples


def _first_phase(
    model: Model, work: Work, requests: Requests, folder: Path, path: Path, header: Header,
    on_event: OnEvent, should_stop: ShouldStop, watch: Watch | None,
) -> tuple[list[Sample], dict[str, Answer]]:  # fmt: skip
    """The samples in the records' order, and the answers by record; scored as they reach the disk."""
    records = {record.id: record for record in work.records}
    samples: dict[str, Sample] = {}
    tally = Tally(work)
    log = AnswerLog(folder / "asked.jsonl", header._replace(scoring=""))
    shown = SampleLog(path, header)

    def score() -> None:
        fresh = islice(log.answers.values(), len(samples), log.synced)  # both grow in one order
        made = [to_sample(work, records[answer.id], answer) for answer in fresh]
        if made:
            shown.commit(len(samples), made)
        samples.update((sample.id, sample) for sample in made)
        tally.add(made)
        tally.tell(on_event)

    try:
        score()
        for asked in _in_order(requests, watch):
            if watch is not None and watch.add(samples.values()):
                break
            ask(model, asked, log, should_stop=should_stop, on_disk=score)
    finally:
        tally.tell(on_event, is_last=True)
        log.close()
        shown.close()
    return [samples[record.id] for record in work.records if record.id in samples], log.answers


def _in_order(requests: Requests, watch: Watch | None) -> Iterator[Requests]:
    """All requests at once, or in groups in the order that was fixed for the watch."""
    if watch is None:
        yield requests
        return
    asked: Sequence[Any] = requests
    for start in range(0, len(watch.order), WATCHED):
        yield [asked[position] for position in watch.order[start : start + WATCHED]]


def _answered(work: Work, requests: Requests, answers: Mapping[str, Answer]) -> tuple[Work, Requests]:
    """The work and its requests as far as they were needed."""
    asked: Sequence[Any] = requests
    records = tuple(record for record in work.records if record.id in answers)
    return replace(work, records=records), [request for request in asked if request.id in answers]


def to_sample(work: Work, record: Record, answer: Answer) -> Sample:
    """The record with its answer, read and scored. An error scores 0 and stays in the denominator."""
    found = read(work.suite, record, work.labels, answer)
    specs = scorers_of(work.suite)
    said = answer.text if work.suite.task not in SCORED_BY_LOGPROB and found.error is None else found.answer
    scores = [
        checked_score(
            spec.name,
            _item(work, record, spec, answer=said, parsed=found.parsed),
            scorer=scorer_of(work, spec),
        )
        for spec in specs
    ]
    value = 0.0 if found.error is not None else scores[0].value
    return Sample(
        id=record.id, gold=record.targets, answer=found.answer, score=value, slices=record.slices, unit=record.unit,
        confidence=found.confidence, label_probs=found.label_probs, output=answer.text,
        prompt_digest=answer.prompt_digest, prompt_tok=answer.prompt_tok, output_tok=answer.output_tok,
        latency_ms=answer.latency_ms, is_truncated=answer.is_truncated, error=found.error, parsed=found.parsed,
        scores={spec.score_name: score.value for spec, score in zip(specs, scores, strict=True)},
        counts=next((dict(score.counts) for score in scores if score.counts), {}), confidences=found.confidences,
        choice_logprobs=found.choice_logprobs, error_class=scores[0].error_class,
        retrieved={} if record.retrieved is None else {one.id: one.digest for one in record.retrieved.chunks},
    )  # fmt: skip


def scorer_of(work: Work, spec: ScorerSpec) -> Scorer:
    """The scorer of that name, built around the work's judge where it needs one.

    Raises:
        StatsError: no scorer has the name, or it needs a judge and the suite names none.
    """
    return find_scorer(spec.name, spec.settings, judge=work.judge)


def scorers_of(suite: Suite) -> tuple[ScorerSpec, ...]:
    """The suite's scorers; the first one's score is the sample's."""
    return suite.scorers or _default_scorers(suite.task)


@lru_cache(maxsize=16)
def _default_scorers(task: str) -> tuple[ScorerSpec, ...]:
    names = [default_scorer(task), *(["hits_at"] if task == "rank" else [])]
    return tuple(ScorerSpec(name=name) for name in names)


def _item(
    work: Work, record: Record, spec: ScorerSpec, *, answer: str | None = None, parsed: Any = None
) -> Item:
    return Item(
        answer=answer, targets=record.targets, parsed=parsed,
        target=record.targets if record.target is None else record.target, input=record.input,
        context=record.context, options=record.options or work.labels, meta=record.raw, settings=spec.settings,
    )  # fmt: skip


def _scoring_digest(work: Work) -> str:
    """The digest of scorers and records: samples of another one are not the same scores."""
    specs = [spec.model_dump() for spec in scorers_of(work.suite)]
    read_by_scorers = records_digest(work.records, scored_fields(work.suite))
    judge = [] if work.judge is None else [work.judge.identity.digest]
    return digest_json([work.suite.task, work.labels, specs, read_by_scorers, *judge])


class Tally:
    """Running totals of a stage, for whoever watches."""

    def __init__(self, work: Work) -> None:
        self.total = len(work.records)
        self.done = self.correct = self.errors = 0
        self._told, self._told_at = -1, -math.inf
        self._work = work
        self._slices: dict[str, list[float]] = {}

    def add(self, samples: Iterable[Sample]) -> None:
        for sample in samples:
            self.done += 1
            self.correct += sample.score == 1.0
            self.errors += sample.error is not None
            for name in slice_names(sample, self._work.suite.slices):
                counts = self._slices.setdefault(name, [0, 0])
                counts[0] += 1
                counts[1] += sample.score

    def tell(self, on_event: OnEvent, *, is_last: bool = False) -> None:
        """Tells what has not been told, at most once in `EVENT_S` but for the last time."""
        now = time.monotonic()
        if self.done > self._told and (is_last or now - self._told_at >= EVENT_S):
            self._told, self._told_at = self.done, now
            on_event("eval.batch", **self.event())

    def event(self) -> dict[str, Any]:
        return {
            "stage": self._work.stage, "suite": self._work.suite.suite, "done": self.done, "total": self.total,
            "correct": self.correct, "errors": self.errors, "slices": self._slices,
        }  # fmt: skip


def slice_names(sample: Sample, keys: Sequence[str]) -> list[str]:
    """The slices that the sample is in, as `key=value`; a record can be in several values of one key."""
    names = []
    for key in keys:
        values = sample.slices.get(key, ())
        names += [f"{key}={value}" for value in ([values] if isinstance(values, str) else values)]
    return names
