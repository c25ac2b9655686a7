"""What every suite of records written for this project has to keep."""

from __future__ import annotations

from collections import Counter
from itertools import combinations, combinations_with_replacement
from pathlib import Path

from harness.data.overlap import find_overlaps, near_duplicates
from harness.data.records import Record
from harness.data.sources import SPLITS, load_split
from harness.specs.load import load_suite
from harness.specs.suite import Split

ROOT = Path(__file__).resolve().parents[2]
CLOSEST = 0.5
"""Jaccard index of five-word shingles from which two records are nearly the same."""

Splits = dict[Split, list[Record]]


def read_splits(path: Path) -> Splits:
    """The suite's records by split."""
    suite = load_suite(path)
    return {split: load_split(suite, split, suite_path=path, data_root=None) for split in SPLITS}


def repeated(splits: Splits) -> list[str]:
    """Units, ids and texts that two splits share, and records that are nearly the same, wherever they are."""
    pairs = list(combinations(splits, 2))
    shared = [overlap for one, other in pairs for overlap in find_overlaps(splits[one], splits[other])]
    near = [
        overlap
        for one, other in combinations_with_replacement(splits, 2)
        for overlap in near_duplicates(splits[one], splits[other], threshold=CLOSEST)
        if overlap.left != overlap.right
    ]
    return [f"{overlap.left} {overlap.kind} {overlap.right}" for overlap in (*shared, *near)]


def label_counts(records: list[Record]) -> Counter[str]:
    return Counter(record.targets[0] for record in records)


def slice_counts(records: list[Record], key: str) -> Counter[str]:
    return Counter(str(record.slices[key]) for record in records)


def untidy(records: list[Record]) -> list[str]:
    """Ids of records with doubled spaces, loose marks or control characters in their text."""
    return [
        record.id
        for record in records
        if record.input != record.input.strip()
        or "  " in record.input
        or any(mark in record.input for mark in (" ,", " ;", ",,"))
        or any(not char.isprintable() and char != "\n" for char in record.input)
    ]
