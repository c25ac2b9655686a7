"""Examples before the question: drawn by seed from the training split, and from nothing else."""

from __future__ import annotations

from collections.abc import Sequence

from harness.data.records import Record
from harness.data.splits import ranked
from harness.errors import DataError
from harness.specs.suite import Suite


class Examples:
    """The training records in the order of the draw."""

    def __init__(self, suite: Suite, train: Sequence[Record], asked: Sequence[Record]) -> None:
        """`asked` are the records that will be evaluated.

        Raises:
            DataError: there are too few training records, or one of them is evaluated.
        """
        self._n = suite.prompt.few_shot
        self._drawn = ranked(train, suite.prompt.few_shot_seed) if self._n else []
        if not self._n:
            return
        if len(train) < self._n:
            raise DataError(
                f"suite {suite.suite}: {self._n} examples wanted, and training has {len(train)} records",
                hint="lower prompt.few_shot, or give the suite more training records",
            )
        if both := {record.id for record in train} & {record.id for record in asked}:
            raise DataError(
                f"suite {suite.suite}: record {min(both)!r} is evaluated, and could be an example with its answer",
                hint="evaluate a split that shares no record with training, or set prompt.few_shot to 0",
            )

    def first(self) -> tuple[Record, ...]:
        """The examples of a record that shares unit and text with none."""
        return tuple(self._drawn[: self._n])

    def of(self, record: Record) -> tuple[Record, ...]:
        """The first examples of the draw that are of another unit than the record, and of another text.

        Almost always the same ones, so that prompts share a prefix.

        Raises:
            DataError: there are too few of those.
        """
        found: list[Record] = []
        for example in self._drawn:
            if len(found) == self._n:
                break
            if example.unit != record.unit and example.input != record.input:
                found.append(example)
        if len(found) < self._n:
            raise DataError(
                f"record {record.id!r}: only {len(found)} training records are of another unit, wanted {self._n}",
                hint="lower prompt.few_shot",
            )
        return tuple(found)
