"""The records of a suite's split, wherever they come from."""

from __future__ import annotations

import re
from pathlib import Path

from harness.data.documents import with_documents
from harness.data.lm_task import task_records
from harness.data.records import Record, read_records
from harness.data.splits import carve, draw
from harness.errors import DataError
from harness.specs.suite import Split, Suite

SPLITS: tuple[Split, ...] = ("train", "dev", "calibration", "eval")
_PUBLIC = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)+")


def load_split(suite: Suite, split: Split, *, suite_path: Path, data_root: Path | None) -> list[Record]:
    """The records of the split, in the file's order; empty where the suite has no such split.

    Dev and calibration come from their own files, or are carved from the training records by unit.
    `suite.limit` is applied last.

    Raises:
        DataError: a file is missing or wrong, or a public set needs a `data_root`.
    """
    own = split_file(suite, split, suite_path=suite_path, data_root=data_root)
    if own is not None and own.suffix in (".yaml", ".yml"):
        records = task_records(own, data_root)
    elif own is not None and split in ("dev", "calibration", "eval"):
        records = read_records(own, suite.records.fields, suite.task)
    else:
        records = _from_training(suite, split, suite_path, data_root)
    limit = suite.limit.get(split)
    drawn = draw(records, limit.n, limit.seed) if limit else records
    searched = searched_documents(suite, suite_path=suite_path, data_root=data_root)
    if searched is not None and suite.retrieval is not None:
        from harness.data.retrieval import with_passages

        return with_passages(drawn, searched, suite.retrieval)
    documents = documents_file(suite, suite_path=suite_path, data_root=data_root)
    return drawn if documents is None else with_documents(drawn, documents, suite.records.fields)


def split_file(suite: Suite, split: Split, *, suite_path: Path, data_root: Path | None) -> Path | None:
    """The file that holds the split, or None where the suite names none. It need not exist.

    Raises:
        DataError: a public set without a `data_root`, or one that `data_root` lacks.
    """
    if suite.records.public is not None:
        return _public_file(suite, split, suite.records.public, data_root)
    name = getattr(suite.records, split)
    return None if name is None else suite_path.parent / name


def documents_file(suite: Suite, *, suite_path: Path, data_root: Path | None) -> Path | None:
    """The file that the records' documents are in, or None where they name none. It need not exist.

    Raises:
        DataError: a public set without a `data_root`, or one that `data_root` lacks.
    """
    spec = suite.records
    if spec.fields.document is None:
        return None
    if spec.public is not None:
        return _public_folder(suite, spec.public, data_root) / "documents.jsonl"
    return None if spec.documents is None else suite_path.parent / spec.documents


def searched_documents(suite: Suite, *, suite_path: Path, data_root: Path | None) -> Path | None:
    """The folder or file of documents that passages are retrieved from; None where the suite retrieves none.

    Raises:
        DataError: a public set without a `data_root`, or one that `data_root` lacks.
    """
    if suite.retrieval is None:
        return None
    if suite.retrieval.documents is not None:
        return suite_path.parent / suite.retrieval.documents
    assert suite.records.public is not None  # the suite's own check: one of the two is there
    return _public_folder(suite, suite.records.public, data_root) / "documents.jsonl"


def files_of(suite: Suite, *, suite_path: Path, data_root: Path | None) -> list[Path]:
    """All files that the suite reads, and a folder of documents itself, without repeats."""
    found = [split_file(suite, split, suite_path=suite_path, data_root=data_root) for split in SPLITS]
    found.append(documents_file(suite, suite_path=suite_path, data_root=data_root))
    searched = searched_documents(suite, suite_path=suite_path, data_root=data_root)
    if searched is not None:
        from harness.retrieval.documents import document_files

        found += document_files(searched)
    return list(dict.fromkeys(path for path in found if path is not None))


def _from_training(suite: Suite, split: Split, suite_path: Path, data_root: Path | None) -> list[Record]:
    """The part of the training records that the split gets."""
    spec = suite.records
    path = split_file(suite, "train", suite_path=suite_path, data_root=data_root)
    if path is None or split == "eval":
        return []
    dev_frac = spec.dev_frac if spec.dev is None else 0.0
    calibration_frac = spec.calibration_frac if spec.calibration is None else 0.0
    wanted = {"train": 1.0, "dev": dev_frac, "calibration": calibration_frac}[split]
    if not wanted:
        return []
    records = read_records(path, spec.fields, suite.task)
    parts = carve(records, dev_frac=dev_frac, calibration_frac=calibration_frac)
    return {"train": parts.train, "dev": parts.dev, "calibration": parts.calibration}[split]


def _public_file(suite: Suite, split: Split, name: str, data_root: Path | None) -> Path | None:
    folder = _public_folder(suite, name, data_root)
    return folder / f"{split}.jsonl" if split in ("train", "eval") else None


def _public_folder(suite: Suite, name: str, data_root: Path | None) -> Path:
    if not _PUBLIC.fullmatch(name):
        raise DataError(f"suite {suite.suite}: records.public is {name!r}, wanted folder/name")
    if data_root is None:
        raise DataError(
            f"suite {suite.suite} reads the public set {name}, which does not come with the harness",
            hint=f"pass --data FOLDER, where FOLDER/{name}/train.jsonl and eval.jsonl are",
        )
    folder = data_root / name
    if not folder.is_dir():
        raise DataError(
            f"suite {suite.suite} reads the public set {name}, and {data_root} has no {name}",
            hint=f"pass --data FOLDER, where FOLDER/{name}/train.jsonl and eval.jsonl are",
        )
    return folder
