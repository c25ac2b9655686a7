"""What a suite's search finds, measured without a model: recall and rank of the passages that answers stand on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from harness.data.records import Record
from harness.data.sources import load_split
from harness.errors import DataError
from harness.scoring.item import Item
from harness.scoring.scorers import find_scorer
from harness.specs.load import find_document, load_suite
from harness.specs.suite import ScorerSpec
from harness.stats.clusters import clustered_bounds

SCORERS = ("retrieval_recall", "retrieval_rank")


class Measured(NamedTuple):
    """One score's mean over the records, with its 95 % interval."""

    mean: float
    low: float | None
    """None with fewer than two units: nothing is known of how they differ."""
    high: float | None


class SearchMeasure(NamedTuple):
    """What the search found for a suite's evaluation records."""

    suite: str
    snapshot: str
    k: int
    n: int
    scores: dict[str, Measured]
    missed: dict[str, list[str]]
    """Ids of the records that scored 0, by score."""

    def to_json(self) -> dict[str, Any]:
        return {**self._asdict(), "scores": {name: one._asdict() for name, one in self.scores.items()}}


def measure_retrieval(suite_path: Path, data_root: Path | None) -> SearchMeasure:
    """The suite's scores of retrieval over its evaluation records, by the names that the suite gives them.

    Intervals are 95 %, two-sided, by cluster-robust errors over the records' units.

    Raises:
        SpecError: the suite has problems.
        DataError: the records do, or the suite retrieves nothing or has no scorer of retrieval.
        StatsError: a record names nothing that could be found.
    """
    path = find_document(suite_path)
    suite = load_suite(path, data_root=data_root)
    specs = [spec for spec in suite.scorers if spec.name in SCORERS]
    if suite.retrieval is None or not specs:
        lacks = "retrieves nothing" if suite.retrieval is None else f"has no scorer {' or '.join(SCORERS)}"
        raise DataError(f"{path}: {lacks}", hint="suites/support/retrieval.yaml does")
    records = load_split(suite, "eval", suite_path=path, data_root=data_root)
    scores = {spec.score_name: [_score(spec, record) for record in records] for spec in specs}
    units = [record.unit for record in records]
    missed = {
        name: [record.id for record, value in zip(records, values, strict=True) if value == 0.0]
        for name, values in scores.items()
    }
    return SearchMeasure(
        suite.suite, _snapshot(records), suite.retrieval.k, len(records),
        {name: _measured(values, units) for name, values in scores.items()}, missed,
    )  # fmt: skip


def _score(spec: ScorerSpec, record: Record) -> float:
    item = Item(None, record.targets, meta=record.raw, settings=spec.settings)
    return find_scorer(spec.name)(item).value


def _snapshot(records: Sequence[Record]) -> str:
    return next(record.retrieved.snapshot for record in records if record.retrieved is not None)


def _measured(scores: Sequence[float], units: Sequence[str]) -> Measured:
    found = clustered_bounds(scores, units, 0.025, 0.025)
    mean = sum(scores) / len(scores)
    return (
        Measured(mean, None, None)
        if found is None
        else Measured(mean, max(0.0, found.low), min(1.0, found.high))
    )
