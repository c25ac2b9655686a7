"""The contract clauses that come with the harness: what their README promises."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from itertools import combinations, combinations_with_replacement
from pathlib import Path
from typing import Any

import pytest

from harness.data.overlap import find_overlaps, near_duplicates
from harness.data.records import Record
from harness.data.sources import load_split
from harness.specs.load import load_suite
from harness.specs.suite import Split, Suite

ROOT = Path(__file__).resolve().parents[2]
SUITE_FILE = ROOT / "suites/legal/clauses.yaml"
SIZES: dict[Split, int] = {"train": 288, "dev": 48, "calibration": 48, "eval": 160}


@pytest.fixture(scope="module")
def suite() -> Suite:
    return load_suite(SUITE_FILE)


@pytest.fixture(scope="module")
def splits(suite: Suite) -> dict[Split, list[Record]]:
    return {name: load_split(suite, name, suite_path=SUITE_FILE, data_root=None) for name in SIZES}


@pytest.fixture(scope="module")
def records(splits: dict[Split, list[Record]]) -> list[Record]:
    return [record for split in splits.values() for record in split]


def slice_counts(records: list[Record], key: str) -> Counter[str]:
    return Counter(str(record.slices[key]) for record in records)


def test_each_split_has_the_size_that_the_readme_states(splits: dict[Split, list[Record]]) -> None:
    assert {name: len(records) for name, records in splits.items()} == SIZES


def test_labels_are_those_of_the_suite_and_balanced_in_every_split(
    suite: Suite, splits: dict[Split, list[Record]]
) -> None:
    for records in splits.values():
        counts = Counter(target for record in records for target in record.targets)
        assert set(counts) == set(suite.labels)
        assert max(counts.values()) - min(counts.values()) <= 1
        assert all(len(record.targets) == 1 for record in records)


def test_no_label_begins_another(suite: Suite) -> None:
    assert len(suite.labels) == 10
    assert not [pair for pair in combinations(sorted(suite.labels), 2) if pair[1].startswith(pair[0])]


def test_ids_are_stable_names_and_occur_once(records: list[Record]) -> None:
    assert [record.id for record in records] == [f"legal-clause-{n:04d}" for n in range(1, 545)]


@pytest.mark.parametrize("pair", list(combinations(SIZES, 2)), ids="-".join)
def test_splits_share_no_contract_id_or_text(
    pair: tuple[Split, Split], splits: dict[Split, list[Record]]
) -> None:
    assert find_overlaps(splits[pair[0]], splits[pair[1]]) == []


@pytest.mark.parametrize("pair", list(combinations_with_replacement(SIZES, 2)), ids="-".join)
def test_no_two_clauses_are_nearly_the_same(
    pair: tuple[Split, Split], splits: dict[Split, list[Record]]
) -> None:
    found = near_duplicates(splits[pair[0]], splits[pair[1]], threshold=0.5)
    assert [overlap for overlap in found if overlap.left != overlap.right] == []


def test_a_contract_has_one_type_and_style_and_no_clause_type_twice(records: list[Record]) -> None:
    contracts: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        contracts[record.unit].append(record)
    assert len(contracts) == 68
    for clauses in contracts.values():
        assert len({(clause.slices["style"], clause.slices["contract_type"]) for clause in clauses}) == 1
        assert len({clause.targets for clause in clauses}) == len(clauses) == 8


def test_every_record_has_every_slice_that_the_suite_reports(suite: Suite, records: list[Record]) -> None:
    assert all(set(suite.slices) == set(record.slices) for record in records)
    assert set(slice_counts(records, "style")) == {"traditional", "plain", "terse"}
    assert set(slice_counts(records, "edge")) == {"hard", "plain"}
    assert set(slice_counts(records, "contract_type")) == {
        "employment", "lease", "nda", "services", "software licence", "supply",
    }  # fmt: skip


def test_styles_and_contract_types_are_large_enough_to_judge(splits: dict[Split, list[Record]]) -> None:
    assert min(slice_counts(splits["eval"], "style").values()) >= 40
    assert min(slice_counts(splits["eval"], "contract_type").values()) >= 24
    assert min(slice_counts(splits["eval"], "edge").values()) >= 30
    assert set(slice_counts(splits["train"], "contract_type").values()) == {48}


def test_length_is_counted_in_words(records: list[Record]) -> None:
    for record in records:
        words = len(record.input.split())
        assert 12 <= words <= 60, record.id
        expected = "short" if words <= 22 else "medium" if words <= 35 else "long"
        assert record.slices["length"] == expected, record.id


def test_hard_clauses_are_found_in_every_style(records: list[Record]) -> None:
    hard = [record for record in records if record.slices["edge"] == "hard"]
    assert min(slice_counts(hard, "style").values()) >= 50
    assert len(hard) == 326


def test_clauses_are_clean_text(records: list[Record]) -> None:
    for record in records:
        assert record.input == " ".join(record.input.split()), record.id
        assert all(char.isascii() or char in "€£" for char in record.input), record.id
        assert not any(mark in record.input for mark in (" ,", " ;", "..", ",,", "!")), record.id


def test_lines_are_json_with_the_documented_keys_alone() -> None:
    for name in SIZES:
        lines = (ROOT / f"suites/legal/{name}.jsonl").read_text(encoding="utf-8").splitlines()
        rows: list[dict[str, Any]] = [json.loads(line) for line in lines]
        assert {tuple(row) for row in rows} == {("id", "input", "target", "slices", "unit")}
