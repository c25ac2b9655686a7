"""Splits from files and public sets: no unit on two sides, and the same draw every time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.data.records import Record
from harness.data.sources import SPLITS, files_of, load_split
from harness.data.splits import carve, draw, position
from harness.errors import DataError
from harness.specs.suite import Split, Suite


def make_suite(**records: Any) -> Suite:
    return Suite.model_validate(
        {
            "suite": "s", "domain": "legal", "task": "classify", "prompt": {"user": "{{ input }}"},
            "limit": records.pop("limit", {}), "records": {"fields": {"unit": "unit"}, **records},
        }
    )  # fmt: skip


def write(path: Path, ids: range, *, units: int = 10) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [{"id": f"r{n}", "input": f"text {n}", "target": "x", "unit": f"u{n % units}"} for n in ids]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def load(suite: Suite, split: Split, folder: Path, data_root: Path | None = None) -> list[str]:
    return [
        record.id for record in load_split(suite, split, suite_path=folder / "s.yaml", data_root=data_root)
    ]


def test_each_split_has_a_file_of_its_own_beside_the_suite(tmp_path: Path) -> None:
    for place, split in enumerate(SPLITS):
        write(tmp_path / f"{split}.jsonl", range(place * 10, place * 10 + 2))
    suite = make_suite(**{split: f"{split}.jsonl" for split in SPLITS})

    assert [load(suite, split, tmp_path)[0] for split in SPLITS] == ["r0", "r10", "r20", "r30"]
    assert [p.name for p in files_of(suite, suite_path=tmp_path / "s.yaml", data_root=None)] == [
        "train.jsonl", "dev.jsonl", "calibration.jsonl", "eval.jsonl",
    ]  # fmt: skip


def test_a_split_that_the_suite_does_not_have_is_empty(tmp_path: Path) -> None:
    write(tmp_path / "eval.jsonl", range(3))
    suite = make_suite(eval="eval.jsonl")

    assert [len(load(suite, split, tmp_path)) for split in SPLITS] == [0, 0, 0, 3]


def test_dev_and_calibration_are_carved_from_training_by_unit(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", range(600), units=200)
    write(tmp_path / "eval.jsonl", range(1))
    suite = make_suite(train="train.jsonl", eval="eval.jsonl", dev_frac=0.2, calibration_frac=0.1)
    path = tmp_path / "s.yaml"

    parts = {split: load_split(suite, split, suite_path=path, data_root=None) for split in SPLITS[:3]}

    units = {split: {record.unit for record in records} for split, records in parts.items()}
    assert sum(map(len, parts.values())) == 600
    assert not (units["train"] & units["dev"])
    assert not (units["train"] & units["calibration"])
    assert not units["dev"] & units["calibration"]
    assert 25 <= len(units["dev"]) <= 55
    assert 8 <= len(units["calibration"]) <= 32


def test_a_dev_file_leaves_training_whole(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", range(50))
    write(tmp_path / "dev.jsonl", range(100, 103))
    write(tmp_path / "eval.jsonl", range(200, 201))
    suite = make_suite(train="train.jsonl", dev="dev.jsonl", eval="eval.jsonl", dev_frac=0.5)

    assert len(load(suite, "train", tmp_path)) == 50
    assert load(suite, "dev", tmp_path) == ["r100", "r101", "r102"]


def test_a_limit_draws_by_seed_and_keeps_the_order(tmp_path: Path) -> None:
    write(tmp_path / "eval.jsonl", range(100))

    drawn = [
        load(make_suite(eval="eval.jsonl", limit={"eval": {"n": n, "seed": seed}}), "eval", tmp_path)
        for n, seed in [(10, 1), (10, 1), (20, 1), (10, 2), (500, 1)]
    ]

    assert drawn[0] == drawn[1]
    assert set(drawn[0]) < set(drawn[2])
    assert drawn[0] != drawn[3]
    assert len(drawn[4]) == 100
    assert drawn[0] == sorted(drawn[0], key=lambda name: int(name[1:]))


def test_a_public_set_is_read_under_the_data_folder(tmp_path: Path) -> None:
    write(tmp_path / "data/legal/set/train.jsonl", range(40), units=40)
    write(tmp_path / "data/legal/set/eval.jsonl", range(50, 55))
    suite = make_suite(public="legal/set", dev_frac=0.3)

    sizes = [len(load(suite, split, tmp_path, tmp_path / "data")) for split in SPLITS]

    assert sizes[0] + sizes[1] == 40
    assert sizes[1] > 0
    assert sizes[2:] == [0, 5]


@pytest.mark.parametrize("data_root", [None, Path("/nonexistent")])
def test_a_public_set_without_its_data_says_what_to_pass(tmp_path: Path, data_root: Path | None) -> None:
    with pytest.raises(DataError, match="legal/set") as caught:
        load(make_suite(public="legal/set"), "eval", tmp_path, data_root)

    assert "--data" in caught.value.hint


@pytest.mark.parametrize("name", ["../secret/set", "/etc/passwd", "set", "legal/../../x", "legal/", "a/.."])
def test_a_public_set_cannot_leave_the_data_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="wanted folder/name"):
        load(make_suite(public=name), "eval", tmp_path, tmp_path)


records_lists = st.lists(
    st.tuples(st.integers(0, 10**6), st.text(max_size=4)), unique_by=lambda pair: pair[0], max_size=60
)


def to_records(pairs: list[tuple[int, str]]) -> list[Record]:
    return [Record(f"r{number}", "t", ("x",), {}, unit, {}) for number, unit in pairs]


@given(records_lists, st.floats(0, 0.5), st.floats(0, 0.5))
def test_carving_keeps_every_record_once_and_every_unit_whole(
    pairs: list[tuple[int, str]], dev_frac: float, calibration_frac: float
) -> None:
    records = to_records(pairs)

    parts = carve(records, dev_frac=dev_frac, calibration_frac=calibration_frac)

    assert sorted(r.id for part in parts for r in part) == sorted(r.id for r in records)
    units = [{record.unit for record in part} for part in parts]
    assert sum(map(len, units)) == len(set().union(*units))


@given(records_lists, records_lists)
def test_adding_records_moves_no_unit(pairs: list[tuple[int, str]], more: list[tuple[int, str]]) -> None:
    before = carve(to_records(pairs), dev_frac=0.3, calibration_frac=0.2)
    after = carve(to_records(pairs + more), dev_frac=0.3, calibration_frac=0.2)

    for part, same in zip(before, after, strict=True):
        assert {record.unit for record in part} <= {record.unit for record in same}


def test_a_unit_falls_where_it_always_fell() -> None:
    assert position("contract 1") == pytest.approx(0.8729343270027956, abs=1e-15)


@given(records_lists, st.integers(1, 70), st.integers())
def test_a_draw_does_not_depend_on_the_order(pairs: list[tuple[int, str]], n: int, seed: int) -> None:
    records = to_records(pairs)

    drawn = draw(records, n, seed)

    assert len(drawn) == min(n, len(records))
    assert {r.id for r in drawn} == {r.id for r in draw(records[::-1], n, seed)}
