"""The real CUAD clauses, as they are published."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness.data.overlap import find_overlaps, near_duplicates
from harness.data.records import Record
from harness.data.sources import SPLITS, load_split
from harness.specs.suite import Suite

ROOT = Path(os.environ.get("HARNESS_DATA", Path(__file__).parents[3] / "shared" / "data"))

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not (ROOT / "legal/cuad_clauses").is_dir(), reason="no public data at $HARNESS_DATA"),
]


def splits_of(*, dev_frac: float = 0.0, calibration_frac: float = 0.0) -> dict[str, list[Record]]:
    suite = Suite.model_validate(
        {
            "suite": "cuad", "domain": "legal", "task": "classify", "prompt": {"user": "{{ input }}"},
            "records": {
                "public": "legal/cuad_clauses", "dev_frac": dev_frac, "calibration_frac": calibration_frac,
                "fields": {"target": "target.labels", "unit": "meta.contract"},
            },
        }
    )  # fmt: skip
    return {split: load_split(suite, split, suite_path=Path("s.yaml"), data_root=ROOT) for split in SPLITS}


def test_the_published_counts_and_labels() -> None:
    splits = splits_of()

    assert [len(splits[split]) for split in SPLITS] == [1500, 0, 0, 1000]
    labels = {target for records in splits.values() for record in records for target in record.targets}
    assert len(labels) == 38
    assert {target for record in splits["train"] for target in record.targets} == labels
    assert all(set(record.slices) == {"clause_group", "contract_type"} for record in splits["eval"])


def test_no_contract_is_in_two_splits() -> None:
    splits = splits_of(dev_frac=0.1, calibration_frac=0.1)
    units = {split: {record.unit for record in records} for split, records in splits.items()}

    assert all(units.values())
    assert sum(map(len, units.values())) == len(set().union(*units.values()))
    assert sum(len(splits[split]) for split in SPLITS[:3]) == 1500


def test_training_and_eval_share_the_words_of_two_clauses() -> None:
    splits = splits_of()

    exact = find_overlaps(splits["train"], splits["eval"])
    near = near_duplicates(splits["train"], splits["eval"], threshold=0.8)

    assert [(pair.kind, pair.left, pair.right) for pair in exact] == [
        ("normalised", "cuad_clauses-22981490cdf4", "cuad_clauses-d689a125e4d2"),
        ("normalised", "cuad_clauses-4642f50e74dd", "cuad_clauses-b0fa8e62b8cf"),
    ]
    assert {(pair.left, pair.right) for pair in exact} < {(pair.left, pair.right) for pair in near}
