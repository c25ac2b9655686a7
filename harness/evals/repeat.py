"""The noise floor: how many answers change when nothing but their company in a batch does."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.data.splits import ranked
from harness.evals.answers import AnswerLog, Header, ShouldStop, ask, requests_digest
from harness.evals.tasks import read
from harness.evals.work import Work
from harness.models.base import Answer, Identity, Model, Requests
from harness.models.cache import uncached
from harness.stats.proportions import upper_bound
from harness.stats.scatter import scatter_upper_bound

SEED = 17
GROUPS = (1, 3, 2, 5)
"""Sizes of the batches, over and over: nobody keeps the neighbours that it had."""
UPPER_BETA = 0.05


@dataclass(frozen=True, slots=True)
class Noise:
    """How far answers move by themselves."""

    items: int
    flips: int
    """Items whose answer was another one."""
    upper: float
    """One-sided 95 % upper bound for the share that flips, Clopper-Pearson."""
    max_difference: float | None
    """The largest change of a log-probability, of a choice or of a token of an equal text; None where none is known."""
    is_sampled: bool
    """The suite draws answers at a temperature, so that flips are also what chance draws."""
    margin_sd: float | None = None
    """Upper 95 % bound for the standard deviation of how far the log-probability of an item's best choice moved
    against its second; None where choices have no log-probabilities."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def measure_noise(
    model: Model,
    work: Work,
    requests: Requests,
    answers: Mapping[str, Answer],
    folder: Path,
    *,
    should_stop: ShouldStop,
) -> Noise | None:
    """The noise floor on `suite.repeat` of the work's items; None where the suite wants none.

    The items are drawn by seed and asked again, backwards and in batches of other sizes, of the model itself and
    never of a cache. Each answer is kept in `folder`, so that a run that is resumed asks none twice.

    Raises:
        CancelledError: `should_stop` said so between two batches.
    """
    chosen = {record.id for record in ranked(work.records, SEED)[: work.suite.repeat]}
    if not chosen:
        return None
    asked: Sequence[Any] = requests
    again = [request for request in reversed(asked) if request.id in chosen]
    log = AnswerLog(folder / "repeat.jsonl", Header(model.identity.digest, requests_digest(again)))
    try:
        found = ask(_Regrouped(uncached(model)), again, log, should_stop=should_stop, on_disk=lambda: None)
    finally:
        log.close()
    return compare_answers(work, answers, found)


def compare_answers(work: Work, before: Mapping[str, Answer], again: Mapping[str, Answer]) -> Noise:
    """The noise floor between two answers to the same requests, by record."""
    records = {record.id: record for record in work.records}
    pairs = [(records[id_], before[id_], answer) for id_, answer in again.items()]
    said = [[read(work.suite, record, work.labels, one) for one in (a, b)] for record, a, b in pairs]
    is_weight = work.suite.task == "perplexity"
    flips = sum(
        (a.error is None) != (b.error is None) or (not is_weight and a.answer != b.answer) for a, b in said
    )
    differences = [gap for _, a, b in pairs for gap in _gaps(a, b)]
    upper = upper_bound(flips, len(pairs), UPPER_BETA)
    moves = [move for _, a, b in pairs if (move := _margin_move(a, b)) is not None]
    return Noise(
        len(pairs), flips, 1.0 if upper is None else upper, max(differences, default=None),
        work.suite.generation.temperature > 0.0 and pairs[0][1].choice_logprobs is None,
        scatter_upper_bound(moves, UPPER_BETA),
    )  # fmt: skip


def _margin_move(a: Answer, b: Answer) -> float | None:
    """How far the best choice of `a` came nearer to or went from its second one; None where that is not known."""
    if not a.choice_logprobs or not b.choice_logprobs or len(a.choice_logprobs) != len(b.choice_logprobs):
        return None
    pairs = sorted(zip(a.choice_logprobs, b.choice_logprobs, strict=True), reverse=True)[:2]
    if len(pairs) < 2 or not all(math.isfinite(value) for pair in pairs for value in pair):
        return None
    (first, first_again), (second, second_again) = pairs
    return (first_again - second_again) - (first - second)


def _gaps(a: Answer, b: Answer) -> Iterator[float]:
    """How far each log-probability moved, where both speak of the same choices or the same text."""
    if a.choice_logprobs and b.choice_logprobs:
        yield from _distances(a.choice_logprobs, b.choice_logprobs)
    elif a.token_logprobs and b.token_logprobs and a.text == b.text:
        yield from _distances(a.token_logprobs, b.token_logprobs)


def _distances(a: Sequence[float], b: Sequence[float]) -> list[float]:
    if len(a) != len(b):
        return []
    return [abs(x - y) for x, y in zip(a, b, strict=True) if math.isfinite(x) and math.isfinite(y)]


class _Regrouped:
    """A model that is asked in batches of other sizes. What its own plan set up, such as a shared prefix, stays."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self.score_choices, self.generate = model.score_choices, model.generate
        self.token_ids, self.close = model.token_ids, model.close

    @property
    def identity(self) -> Identity:
        return self._model.identity

    def plan(self, requests: Requests) -> list[list[int]]:
        self._model.plan(requests)
        batches: list[list[int]] = []
        start = 0
        while start < len(requests):
            size = GROUPS[len(batches) % len(GROUPS)]
            batches.append(list(range(start, min(start + size, len(requests)))))
            start += size
        return batches
