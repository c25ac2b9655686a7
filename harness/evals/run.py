"""Runs a suite's records through a model, batch by batch, and never twice."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.data.records import Record
from harness.data.template import render_turns
from harness.errors import CancelledError
from harness.evals.results import Sample
from harness.evals.samples import Header, SampleLog
from harness.files import digest_json
from harness.models.base import Answer, ChoiceRequest, GenerateRequest, Message, Model, Prompt, Requests
from harness.scoring.item import Item
from harness.scoring.labels import choose
from harness.scoring.scorers import checked_score, default_scorer, prove_scorer
from harness.specs.suite import Suite

OnEvent = Callable[..., None]
ShouldStop = Callable[[], bool]


@dataclass(frozen=True, slots=True)
class Work:
    """What is asked of a model at one stage."""

    stage: str
    suite: Suite
    labels: tuple[str, ...]
    records: tuple[Record, ...]

    @property
    def scorer(self) -> str:
        return self.suite.scorers[0].name if self.suite.scorers else default_scorer(self.suite.task)


def evaluate(
    model: Model, work: Work, path: Path, *, on_event: OnEvent, should_stop: ShouldStop
) -> list[Sample]:
    """The samples of all records, in the records' order; those that the log already holds are not computed.

    Raises:
        CancelledError: `should_stop` said so between two batches; finished batches are kept.
        StatsError: the suite's scorer can't tell right from wrong.
    """
    prove_scorer(work.scorer, [Item(None, record.targets, options=work.labels) for record in work.records])
    requests = build_requests(work)
    log = SampleLog(path, Header(model.identity.digest, _requests_digest(work, requests)))
    try:
        _run_batches(model, work, requests, log, on_event, should_stop)
        by_id = {sample.id: sample for batch in log.batches.values() for sample in batch}
    finally:
        log.close()
    return [by_id[record.id] for record in work.records]


def build_requests(work: Work) -> Requests:
    """One request a record, in their order."""
    prompts = [(record.id, make_prompt(work.suite, record, work.labels)) for record in work.records]
    if work.suite.task == "classify":
        return [ChoiceRequest(id_, prompt, work.labels) for id_, prompt in prompts]
    how = work.suite.generation
    return [
        GenerateRequest(id_, prompt, how.max_new_tokens, stop=how.stop, temperature=how.temperature)
        for id_, prompt in prompts
    ]


def make_prompt(suite: Suite, record: Record, labels: Sequence[str]) -> Prompt:
    """The record as a conversation that ends where the answer begins."""
    turns = render_turns(suite.prompt, record, labels)
    messages = tuple(Message(role, content) for role, content in turns)
    return Prompt(messages, suite.prompt.max_tokens, suite.prompt.over_length)


def to_sample(work: Work, record: Record, answer: Answer) -> Sample:
    """The record with its answer, parsed and scored. An error scores 0 and stays in the denominator."""
    parsed, confidence, probs = _parse(work, answer)
    error = answer.error or (None if parsed is not None else "no answer could be read")
    return Sample(
        id=record.id, gold=record.targets, answer=parsed,
        score=checked_score(work.scorer, Item(parsed, record.targets, options=work.labels)).value,
        slices=record.slices, unit=record.unit, confidence=confidence, label_probs=probs,
        output=answer.text, prompt_digest=answer.prompt_digest, prompt_tok=answer.prompt_tok,
        output_tok=answer.output_tok, latency_ms=answer.latency_ms, is_truncated=answer.is_truncated,
        error=error,
    )  # fmt: skip


def _parse(work: Work, answer: Answer) -> tuple[str | None, float | None, dict[str, float] | None]:
    if answer.error is not None:
        return None, None, None
    if work.suite.task == "generate":
        return answer.text, _mean_probability(answer.token_logprobs), None
    choice = choose(work.labels, answer.choice_logprobs) if answer.choice_logprobs is not None else None
    return (choice.label, choice.confidence, choice.probs) if choice else (None, None, None)


def _mean_probability(logprobs: tuple[float, ...] | None) -> float | None:
    return math.exp(math.fsum(logprobs) / len(logprobs)) if logprobs else None


def _requests_digest(work: Work, requests: Requests) -> str:
    golds = [list(record.targets) for record in work.records]
    asked = [[r.id, r.prompt.messages, r.prompt.max_tokens, r.prompt.over_length] for r in requests]
    settings = work.suite.generation.model_dump()
    return digest_json([work.scorer, work.suite.task, work.labels, settings, asked, golds])


def _run_batches(
    model: Model,
    work: Work,
    requests: Requests,
    log: SampleLog,
    on_event: OnEvent,
    should_stop: ShouldStop,
) -> None:
    tally = Tally(work)
    for samples in log.batches.values():
        tally.add(samples)
    on_event("eval.batch", **tally.event())
    for number, batch in enumerate(model.plan(requests)):
        if number in log.batches:
            continue
        if should_stop():
            raise CancelledError(f"stopped after {tally.done} of {tally.total} samples of {work.stage}")
        answers = _ask(model, work, [requests[index] for index in batch])
        samples = [to_sample(work, work.records[i], a) for i, a in zip(batch, answers, strict=True)]
        log.commit(number, samples)
        tally.add(samples)
        on_event("eval.batch", **tally.event())


def _ask(model: Model, work: Work, requests: list[Any]) -> list[Answer]:
    """One answer a request; replies that are shuffled, missing or doubled are refused, not realigned by luck."""
    answers = list(
        model.score_choices(requests) if work.suite.task == "classify" else model.generate(requests)
    )
    by_id = {answer.id: answer for answer in answers}
    if len(by_id) != len(answers) or set(by_id) != {request.id for request in requests}:
        raise RuntimeError(f"{model.identity.kind} model: replies do not match the requests one to one")
    return [by_id[request.id] for request in requests]


class Tally:
    """Running totals of a stage, for whoever watches."""

    def __init__(self, work: Work) -> None:
        self.total = len(work.records)
        self.done = self.correct = self.errors = 0
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
