"""How sure a model is, asked in a second phase: P(True), self-consistency and semantic entropy.

P(True): Kadavath et al. 2022, arXiv 2207.05221. Self-consistency: Wang et al. 2022, arXiv 2203.11171. Semantic
entropy: the discrete estimate of Kuhn et al. 2023, arXiv 2302.09664, and Farquhar et al. 2024,
doi 10.1038/s41586-024-07421-0: answers that mean the same are one outcome, and its share is its probability.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.data.records import Record
from harness.evals.answers import AnswerLog, Header, ShouldStop, ask, requests_digest
from harness.evals.results import Sample
from harness.evals.tasks import read
from harness.evals.work import Work
from harness.models.base import Answer, ChoiceRequest, GenerateRequest, Message, Model, Prompt, Requests
from harness.scoring.labels import choose
from harness.scoring.text import normalise
from harness.specs.suite import Suite

Equivalent = Callable[[str, str, str], bool]
"""(question, answer, answer) → whether the two answers mean the same."""
VERDICTS = ("True", "False")
QUESTION = "Is the answer above correct? Reply with True or False alone."
PROBABILITIES = ("confidence", "p_true", "self_consistency")
"""Confidences that say how often they should be right; the others only put answers in an order."""


def same_words(question: str, a: str, b: str) -> bool:  # noqa: ARG001 - an equivalence may look at the question
    """Whether the two answers are one text but for case, punctuation and articles."""
    return normalise(a) == normalise(b)


def same_reading(question: str, a: str, b: str) -> bool:  # noqa: ARG001
    """Whether the two are one answer: for labels, numbers, objects and quotes, which have one spelling each."""
    return a == b


def mutual_entailment(entails: Callable[[str, str], bool]) -> Equivalent:
    """The equivalence of Farquhar et al.: each answer, behind its question, entails the other."""

    def is_same(question: str, a: str, b: str) -> bool:
        left, right = f"{question} {a}".strip(), f"{question} {b}".strip()
        return entails(left, right) and entails(right, left)

    return is_same


def similar_embeddings(embed: Callable[[str], Sequence[float]], at_least: float) -> Equivalent:
    """The equivalence of texts whose embeddings have at least this cosine; each text is embedded once."""
    known: dict[str, Sequence[float]] = {}

    def vector(text: str) -> Sequence[float]:
        if text not in known:
            known[text] = embed(text)
        return known[text]

    def is_same(question: str, a: str, b: str) -> bool:  # noqa: ARG001
        x, y = vector(a), vector(b)
        length = math.sqrt(math.fsum(v * v for v in x) * math.fsum(v * v for v in y))
        return length > 0.0 and math.fsum(v * w for v, w in zip(x, y, strict=True)) / length >= at_least

    return is_same


def measure_confidences(
    model: Model, work: Work, requests: Requests, samples: Sequence[Sample], folder: Path, *,
    should_stop: ShouldStop, equivalent: Equivalent | None = None,
) -> list[Sample]:  # fmt: skip
    """The samples with the suite's confidences; unknown ones are left out, never 0.

    What is asked for is kept in `folder`, as the first phase's answers are.

    Raises:
        CancelledError: `should_stop` said so between two batches.
    """
    kinds = work.suite.confidence.kinds
    found: dict[str, dict[str, float]] = {sample.id: dict(sample.confidences) for sample in samples}
    if "p_true" in kinds:
        asked = [
            _judging(work.suite, request, sample.answer)
            for request, sample in zip(requests, samples, strict=True)
            if sample.answer is not None
        ]
        for id_, answer in _asked(model, asked, folder / "p_true.jsonl", should_stop).items():
            found[id_] |= _p_true(answer)
    if {"self_consistency", "semantic_entropy"} & set(kinds):
        draws = _draws(model, work, requests, folder, should_stop)
        same = equivalent or (same_words if work.suite.task in ("answer", "generate") else same_reading)
        for record, sample in zip(work.records, samples, strict=True):
            found[record.id] |= _agreement(work, record, sample, draws[record.id], same)
    return [replace(sample, confidences=found[sample.id]) for sample in samples]


def clusters(question: str, answers: Sequence[str], equivalent: Equivalent) -> list[list[str]]:
    """The answers by meaning: each goes to the first cluster whose first answer means the same."""
    found: list[list[str]] = []
    for answer in answers:
        home = next((cluster for cluster in found if equivalent(question, cluster[0], answer)), None)
        if home is None:
            found.append([answer])
        else:
            home.append(answer)
    return found


def semantic_entropy(sizes: Sequence[int]) -> float | None:
    """Entropy in nats of the share of answers in each cluster, 0 to log(answers); None without an answer."""
    total = sum(sizes)
    return math.fsum(size / total * math.log(total / size) for size in sizes if size) if total else None


def _asked(model: Model, requests: Requests, path: Path, should_stop: ShouldStop) -> Mapping[str, Answer]:
    log = AnswerLog(path, Header(model.identity.digest, requests_digest(requests)))
    try:
        return ask(model, requests, log, should_stop=should_stop, on_disk=lambda: None)
    finally:
        log.close()


def _judging(suite: Suite, request: Any, answer: str) -> ChoiceRequest:
    """The request's prompt, the answer to it, and whether it is right."""
    prompt: Prompt = request.prompt
    room = None if prompt.max_tokens is None else prompt.max_tokens + suite.generation.max_new_tokens + 64
    if prompt.text is not None:
        text = f"{prompt.text}{suite.prompt.answer_prefix}{answer}\n\n{QUESTION}\nReply:"
        choices = tuple(f" {verdict}" for verdict in VERDICTS)
        return ChoiceRequest(request.id, replace(prompt, text=text, max_tokens=room), choices, is_open=True)
    turns = (*prompt.messages, Message("assistant", answer), Message("user", QUESTION))
    return ChoiceRequest(request.id, replace(prompt, messages=turns, max_tokens=room), VERDICTS)


def _p_true(answer: Answer) -> dict[str, float]:
    logprobs = answer.choice_logprobs if answer.error is None else None
    choice = choose(VERDICTS, logprobs) if logprobs else None
    return {} if choice is None else {"p_true": choice.probs[VERDICTS[0]]}


def _draws(
    model: Model, work: Work, requests: Requests, folder: Path, should_stop: ShouldStop
) -> dict[str, list[Answer]]:
    """Answers drawn at the suite's temperature, by record; each draw has a seed of its own."""
    spec = work.suite.confidence
    found: dict[str, list[Answer]] = {record.id: [] for record in work.records}
    for number in range(spec.samples):
        asked = [
            replace(request, temperature=spec.temperature, seed=_seed(number, request.id))
            for request in requests
            if isinstance(request, GenerateRequest)
        ]
        for id_, answer in _asked(model, asked, folder / f"draw-{number}.jsonl", should_stop).items():
            found[id_].append(answer)
    return found


def _seed(draw: int, record_id: str) -> int:
    digest = hashlib.sha256(f"draw:{draw}:{record_id}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def _agreement(
    work: Work, record: Record, sample: Sample, draws: Sequence[Answer], equivalent: Equivalent
) -> dict[str, float]:
    """What the drawn answers say of the sample's own. A draw that failed, or can't be read, agrees with none."""
    readings = [read(work.suite, record, work.labels, answer) for answer in draws]
    said = [reading.answer for reading in readings if reading.answer is not None]
    kinds, found = work.suite.confidence.kinds, {}
    if "self_consistency" in kinds and draws and sample.answer is not None:
        same = sum(equivalent(record.input, sample.answer, answer) for answer in said)
        found["self_consistency"] = same / len(draws)
    entropy = semantic_entropy([len(cluster) for cluster in clusters(record.input, said, equivalent)])
    if "semantic_entropy" in kinds and entropy is not None:
        found["semantic_entropy"] = entropy
    return found
