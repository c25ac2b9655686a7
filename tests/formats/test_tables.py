"""Samples as tables: what a spreadsheet opens is text, and what Parquet holds is what was measured."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.formats.log import Log
from harness.formats.tables import FORMULA_STARTS, csv_text, parquet_bytes
from tests.formats.logs import log, sample, samples


@pytest.fixture(autouse=True)
def long_cells() -> Iterator[None]:
    before = csv.field_size_limit(2**22)
    yield
    csv.field_size_limit(before)


def rows(*logs: Log) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(csv_text(logs), newline="")))


def test_each_sample_is_a_row_with_its_slices_and_scores_in_columns() -> None:
    found = {row["id"]: row for row in rows(log())}

    assert found.keys() == {one.id for one in samples()}
    assert found["right"]["slices.kind"] == "short"
    assert found["right"]["slices.tags"] == '["x", "y"]'
    assert found["several"]["gold"] == '["yes", "oui"]'
    assert (found["several"]["scores.f1"], found["wrong"]["scores.f1"]) == ("0.5", "")
    assert (found["right"]["confidence"], found["wrong"]["confidence"]) == ("0.75", "")


@pytest.mark.parametrize("start", FORMULA_STARTS)
def test_no_text_is_a_formula_in_any_column(start: str) -> None:
    text = f"{start}cmd|'/C calc'!A0"
    one = sample(text, gold=(text,), answer=text, output=text, error=text, unit=text, slices={text: text})

    for row in csv.reader(io.StringIO(csv_text([log(one, task=text, model=text)]), newline="")):
        assert [cell for cell in row if cell.startswith(FORMULA_STARTS)] == []


def test_negative_numbers_stay_numbers() -> None:
    assert rows(log(sample(latency_ms=-1.5)))[0]["latency_ms"] == "-1.5"


def test_lines_quotes_and_control_characters_break_no_row() -> None:
    text = 'a "quoted"\r\nline,\x00\x1b[2J\u2028 end'

    found = rows(log(sample(output=text)))

    assert len(found) == 1
    assert found[0]["output"] == 'a "quoted"\\x0d\nline,\\x00\\x1b[2J\\u{2028} end'


def test_parquet_holds_lists_maps_and_nulls(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    (tmp_path / "a.parquet").write_bytes(parquet_bytes([log()]))

    found = {row["id"]: row for row in parquet.read_table(tmp_path / "a.parquet").to_pylist()}

    assert {id_: row["score"] for id_, row in found.items()} == {one.id: one.score for one in samples()}
    assert found["several"]["gold"] == ["yes", "oui"]
    assert dict(found["right"]["slices"]) == {"kind": ["short"], "tags": ["x", "y"]}
    assert dict(found["right"]["label_probs"]) == {"yes": 0.75, "no": 0.25}
    assert found["wrong"]["label_probs"] is None
    assert (found["wrong"]["confidence"], found["wrong"]["latency_ms"]) == (None, None)
    assert found["long"]["output"] == "x" * 2**20


def test_columns_are_the_same_for_every_run() -> None:
    parquet = pytest.importorskip("pyarrow.parquet")

    schemas = [parquet.read_schema(io.BytesIO(parquet_bytes([one]))) for one in (log(), log(sample("a")))]

    assert schemas[0] == schemas[1]


def test_without_pyarrow_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from harness.errors import DataError

    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DataError, match="writing Parquet needs pyarrow") as refused:
        parquet_bytes([log()])

    assert refused.value.hint == "pip install 'dragongate[interop]'"
