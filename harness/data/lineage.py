"""Where data came from, as digests and counts that a release can carry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from harness.data.records import MISSING, Record, at_path
from harness.data.sources import SPLITS, files_of, load_split
from harness.files import digest_json, sha256_file
from harness.specs.suite import Suite


class FileLineage(NamedTuple):
    """A file by its content."""

    name: str
    bytes: int
    sha256: str


class SplitLineage(NamedTuple):
    """A split by its content."""

    split: str
    n_records: int
    n_units: int
    digest: str
    """See `records_digest`."""


class SuiteLineage(NamedTuple):
    """All that a suite read."""

    suite: str
    files: tuple[FileLineage, ...]
    splits: tuple[SplitLineage, ...]
    snapshot: str | None = None
    """Of the index that passages came from; None where the suite retrieves none."""

    def to_json(self) -> dict[str, Any]:
        return {
            "suite": self.suite,
            "files": [file._asdict() for file in self.files],
            "splits": [split._asdict() for split in self.splits],
            **({"snapshot": self.snapshot} if self.snapshot is not None else {}),
        }


def file_lineage(path: Path) -> FileLineage:
    """The file's name without folders, its size and digest."""
    return FileLineage(path.name, path.stat().st_size, sha256_file(path))


def records_digest(records: Sequence[Record], also: Sequence[str] = ()) -> str:
    """One digest for what the records say, in their order: id, input, context, options, golds, slices, unit.

    `also` are dotted paths of more that counts, such as what a scorer reads by the setting `scale_field`. What else
    a line holds (`raw`) has no part in it, and neither has the file's layout.
    """
    return digest_json(
        [
            [r.id, r.input, r.context, list(r.options), list(r.targets), r.target, r.slices, r.unit]
            + [None if (value := at_path(r.raw, path)) is MISSING else value for path in also]
            for r in records
        ]
    )


def snapshot_of_records(splits: Mapping[Any, Sequence[Record]]) -> str | None:
    """The snapshot of the index that the records' passages came from; None where they have none."""
    found = (record.retrieved for records in splits.values() for record in records)
    return next((retrieved.snapshot for retrieved in found if retrieved is not None), None)


def split_lineage(split: str, records: Sequence[Record]) -> SplitLineage:
    """The split's counts and digest."""
    return SplitLineage(
        split, len(records), len({record.unit for record in records}), records_digest(records)
    )


def suite_lineage(suite: Suite, *, suite_path: Path, data_root: Path | None) -> SuiteLineage:
    """The lineage of every file and split that the suite has; a split without records is left out.

    Raises:
        DataError: as `load_split`.
    """
    files = [path for path in files_of(suite, suite_path=suite_path, data_root=data_root) if path.is_file()]
    read = {split: load_split(suite, split, suite_path=suite_path, data_root=data_root) for split in SPLITS}
    splits = tuple(split_lineage(split, records) for split, records in read.items() if records)
    return SuiteLineage(
        suite.suite, tuple(file_lineage(path) for path in files), splits, snapshot_of_records(read)
    )
