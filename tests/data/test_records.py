"""Records from files: right to the letter, or refused with the line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.data.records import MAX_LINE_BYTES, RecordsError, at_path, read_records
from harness.errors import DataError, Problem
from harness.specs.suite import Fields

DEEP = Fields(input="input", target="target.labels", unit="meta.contract", slices="slices")


def write(path: Path, *lines: bytes | dict[str, Any]) -> Path:
    encoded = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
    path.write_bytes(b"\n".join(encoded) + b"\n")
    return path


def row(**changes: Any) -> dict[str, Any]:
    return {"id": "a", "input": "text", "target": "x", **changes}


def problems_of(path: Path, fields: Fields = Fields()) -> tuple[Problem, ...]:  # noqa: B008 - frozen
    with pytest.raises(RecordsError) as caught:
        read_records(path, fields)
    return caught.value.problems


def test_dotted_paths_find_targets_units_and_slices(tmp_path: Path) -> None:
    data = {
        "id": "c1", "input": "The law of France.", "target": {"labels": ["Law", "Court", "Law"]},
        "slices": {"group": ["a", "b"], "year": 2016, "is_long": False, "unknown": None}, "meta": {"contract": "K"},
    }  # fmt: skip

    (record,) = read_records(write(tmp_path / "r.jsonl", data), DEEP)

    assert (record.id, record.input, record.unit) == ("c1", "The law of France.", "K")
    assert record.targets == ("Law", "Court")
    assert record.slices == {"group": ["a", "b"], "year": "2016", "is_long": "false"}
    assert record.raw == data


def test_the_unit_is_the_id_where_nothing_else_is_said(tmp_path: Path) -> None:
    (record,) = read_records(write(tmp_path / "r.jsonl", row()), Fields())

    assert (record.unit, record.slices) == ("a", {})


@pytest.mark.parametrize(
    ("value", "targets"), [(3, ("3",)), (0.5, ("0.5",)), (True, ("true",)), (["a", 1], ("a", "1"))]
)
def test_numbers_and_truth_values_become_texts(tmp_path: Path, value: Any, targets: tuple[str, ...]) -> None:
    (record,) = read_records(write(tmp_path / "r.jsonl", row(target=value)), Fields())

    assert record.targets == targets


def test_a_byte_order_mark_crlf_and_empty_lines_change_nothing(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_bytes(
        b'\xef\xbb\xbf{"id": "a", "input": "t", "target": "x"}\r\n\r\n{"id": "b", "input": "t", "target": "x"}'
    )

    assert [record.id for record in read_records(path, Fields())] == ["a", "b"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b'{"id": "b", "input": "t", "target": "x"', "Expecting"),
        (b"not json", "Expecting value"),
        (b"[1, 2]", "JSON object"),
        (b"null", "JSON object"),
        (b'{"id": "b", "id": "c", "input": "t", "target": "x"}', "duplicate key 'id'"),
        (b'{"id": "b", "input": "t", "target": NaN}', "NaN"),
        (b'{"id": "b", "input": "t", "target": "x", "p": Infinity}', "Infinity"),
        (b'{"id": "b", "input": "t\xff", "target": "x"}', "0xff"),
        (b'{"id": "b", "input": "t\x00", "target": "x"}', "control character"),
        (b'{"id": "b", "input": "\\ud800", "target": "x"}', "surrogate"),
        (b'{"id": "b", "input": "t", "target": "x", "deep": ' + b"[" * 100_000, ""),
        (b'{"id": "b", "input": "t", "target": "x", "deep": ' + b"[" * 90 + b"]" * 90 + b"}", "deeper"),
    ],
)
def test_a_line_that_is_not_one_sound_object_is_refused(tmp_path: Path, line: bytes, words: str) -> None:
    (problem,) = problems_of(write(tmp_path / "r.jsonl", row(), line, row(id="c")))

    assert problem.line == 2
    assert words in f"{problem.found} {problem.wanted}"


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"id": None}, "id"),
        ({"id": ""}, "id"),
        ({"input": "  \n"}, "input"),
        ({"input": ["a"]}, "input"),
        ({"target": None}, "target"),
        ({"target": ""}, "target"),
        ({"target": []}, "target"),
        ({"target": ["a", None]}, "target"),
        ({"target": {"label": "a"}}, "target"),
        ({"slices": ["a"]}, "slices"),
        ({"slices": {"k": {"deep": 1}}}, "slices.k"),
    ],
)
def test_a_field_that_is_not_what_it_should_be_is_named(
    tmp_path: Path, change: dict[str, Any], key: str
) -> None:
    (problem,) = problems_of(write(tmp_path / "r.jsonl", row(**change)))

    assert (problem.line, problem.key) == (1, key)


def test_all_missing_fields_of_a_record_come_at_once(tmp_path: Path) -> None:
    problems = problems_of(write(tmp_path / "r.jsonl", {"id": "a"}), DEEP)

    assert [(p.key, p.found) for p in problems] == [
        ("input", "missing"), ("target.labels", "missing"), ("meta.contract", "missing"),
    ]  # fmt: skip


def test_a_repeated_id_names_both_lines(tmp_path: Path) -> None:
    (problem,) = problems_of(write(tmp_path / "r.jsonl", row(), row(id="b"), row()))

    assert (problem.line, problem.found) == (3, '"a"')
    assert "line 1" in problem.hint


def test_the_first_ten_problems_are_spelled_out_and_all_are_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "r.jsonl", *[{"id": str(n), "input": "t"} for n in range(25)])

    with pytest.raises(RecordsError, match="has 25 problems") as caught:
        read_records(path, Fields())

    assert len(caught.value.problems) == 25
    assert len(caught.value.message.splitlines()) == 12
    assert "and 15 more" in caught.value.message


def test_a_ten_megabyte_line_is_refused_and_the_next_one_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "r.jsonl", row(input="x" * 10_000_000), b"oops")

    problems = problems_of(path)

    assert [problem.line for problem in problems] == [1, 2]
    assert f"{MAX_LINE_BYTES:,}" in problems[0].wanted


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\xef\xbb\xbf"])
def test_an_empty_file_has_no_records_and_says_so(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "r.jsonl"
    path.write_bytes(content)

    assert "no records" in problems_of(path)[0].found


def test_a_missing_file_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        read_records(tmp_path / "none.jsonl", Fields())


def test_hostile_text_in_an_error_cannot_reach_the_terminal(tmp_path: Path) -> None:
    path = write(tmp_path / "r.jsonl", row(id="\x1b]0;owned\x07"), row(id="\x1b]0;owned\x07"), b'{"\x1b[2J')

    with pytest.raises(RecordsError) as caught:
        read_records(path, Fields())

    assert "\x1b" not in caught.value.message


def test_a_table_is_read_like_the_lines_that_it_stands_for(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_text(
        'id,input,target.label,slices.kind,note\na,"one, two",x,k,\nb,"three\nfour",y,,n\n', encoding="utf-8"
    )

    first, second = read_records(path, Fields(target="target.label"))

    assert (first.input, first.targets, first.slices) == ("one, two", ("x",), {"kind": "k"})
    assert (second.input, second.targets, second.slices) == ("three\nfour", ("y",), {})


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"id,input,target\na,b\n", "2 cells under 3 columns"),
        (b"id,id,input,target\na,b,c,d\n", "there twice"),
        (b"id,input,target\na,\xff,c\n", "UTF-8"),
        (b"id,input,target,target.label\na,b,c,d\n", "under column target"),
        (b"", "no records"),
    ],
)
def test_a_broken_table_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "r.csv"
    path.write_bytes(content)

    assert words in problems_of(path)[0].found


def test_parquet_without_its_reader_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)

    assert problems_of(tmp_path / "r.parquet")[0].hint == "pip install pyarrow"


def test_parquet_is_read_where_its_reader_is(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = pyarrow.table(
        {"id": ["a", "b"], "input": ["t", "u"], "target.label": [1, 2], "slices": [{"k": "v"}, None]}
    )
    parquet.write_table(table, tmp_path / "r.parquet")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 no")

    records = read_records(tmp_path / "r.parquet", Fields(target="target.label"))

    assert [(r.id, r.targets, r.slices) for r in records] == [("a", ("1",), {"k": "v"}), ("b", ("2",), {})]
    assert "not a Parquet file" in problems_of(tmp_path / "bad.parquet")[0].found


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "a.b"]), inner, max_size=3)
    ),
)


@given(json_values, st.sampled_from(["a", "a.b", "a.b.a", "", ".", "a..b"]))
def test_looking_up_a_path_never_fails(value: Any, path: str) -> None:
    at_path({"x": value, "a": value}, path)


@given(st.lists(json_values, max_size=4))
def test_any_json_lines_give_records_or_problems(
    tmp_path_factory: pytest.TempPathFactory, values: list[Any]
) -> None:
    path = tmp_path_factory.mktemp("any") / "r.jsonl"
    write(path, *[json.dumps(value).encode() for value in values])

    assert problems_of(path)
