"""A file with stand-ins: nothing else in it changes, nothing personal is left, and the key alone leads back."""

from __future__ import annotations

import csv
import io
import json
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.data.protection import is_protected, report_path
from harness.errors import DataError, HarnessError, IntegrityError
from harness.files import sha256_file
from harness.privacy.alias_map import read_map
from harness.privacy.find import by_pattern
from harness.privacy.keys import derive, read_key, write_key
from harness.privacy.rewrite import map_path, pseudonymise, restore
from harness.privacy.scan import scan

KEY = derive(b"k" * 32)
OTHER = derive(b"o" * 32)


def run(
    source: Path, output: Path, fields: dict[str, str] | None = None, way_back: Path | None = None
) -> dict[str, Any]:
    back = way_back or map_path(output)
    return pseudonymise(
        source, output, KEY, by_pattern, finders={"harness": "test"}, fields=fields, way_back=back
    )


def write(path: Path, rows: list[dict[str, Any]], **options: Any) -> Path:
    path.write_text("".join(json.dumps(row, **options) + "\n" for row in rows))
    return path


def test_values_go_and_all_else_stays_byte_for_byte(tmp_path: Path) -> None:
    source = tmp_path / "a.jsonl"
    source.write_bytes(
        b'{"id": 1,  "input":"mail ann@corp.test \\u00e9\\n ok", "n": 1.50}\r\n\r\n{"id":2,"input":"none"}'
    )

    report = run(source, tmp_path / "b.jsonl")

    text = (tmp_path / "b.jsonl").read_bytes()
    assert b"corp.test" not in text
    assert text.startswith(b'{"id": 1,  "input":"mail ')
    assert text.endswith(b'\\u00e9\\n ok", "n": 1.50}\r\n\r\n{"id":2,"input":"none"}')
    assert report["kinds"] == {"email": {"replaced": 1, "distinct": 1}}
    assert (report["records"], report["records_changed"]) == (3, 1)


def test_one_value_has_one_stand_in_in_all_records_and_files(tmp_path: Path) -> None:
    rows = [{"id": str(i), "input": f"call (415) 867-5309, ticket {i}"} for i in range(3)]
    shared = tmp_path / "shared.map"
    run(write(tmp_path / "a.jsonl", rows), tmp_path / "a2.jsonl", way_back=shared)

    run(write(tmp_path / "b.jsonl", rows), tmp_path / "b2.jsonl", way_back=shared)

    lines = [
        json.loads(line)["input"] for name in ("a2", "b2") for line in (tmp_path / f"{name}.jsonl").open()
    ]
    assert len({line.split(",")[0] for line in lines}) == 1


def test_a_gold_answer_keeps_agreeing_with_its_text(tmp_path: Path) -> None:
    rows = [{"id": "1", "input": "my account number is 12345678 thanks", "target": {"account": "12345678"}}]

    run(write(tmp_path / "a.jsonl", rows), tmp_path / "b.jsonl")

    (row,) = [json.loads(line) for line in (tmp_path / "b.jsonl").open()]
    assert row["target"]["account"] != "12345678"
    assert row["target"]["account"] in row["input"]


def test_a_field_that_is_personal_as_a_whole_is_replaced_as_its_kind(tmp_path: Path) -> None:
    rows = [{"id": "1", "meta": {"patient": "Ann Lee"}, "input": "Ann Lee has a cough"}]

    report = run(write(tmp_path / "a.jsonl", rows), tmp_path / "b.jsonl", {"meta.patient": "person"})

    (row,) = [json.loads(line) for line in (tmp_path / "b.jsonl").open()]
    assert "Ann" not in json.dumps(row)
    assert row["input"] == f"{row['meta']['patient']} has a cough"
    assert report["kinds"]["person"] == {"replaced": 2, "distinct": 1}


def test_numbers_without_quotes_stay_numbers(tmp_path: Path) -> None:
    source = tmp_path / "a.jsonl"
    source.write_text('{"id": "1", "card": 4111111111111111, "n": 12}\n')

    run(source, tmp_path / "b.jsonl")

    row = json.loads((tmp_path / "b.jsonl").read_text())
    assert isinstance(row["card"], int)
    assert row["card"] != 4111111111111111
    assert row["n"] == 12


def test_csv_keeps_its_cells_and_its_quotes(tmp_path: Path) -> None:
    source = tmp_path / "a.csv"
    rows = [["id", "note", "who"], ["1", 'said "hi",\nto ann@corp.test', "Ann Lee"], ["2", "plain", ""]]
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    source.write_text(text.getvalue(), newline="")

    run(source, tmp_path / "b.csv", {"who": "person"})

    with (tmp_path / "b.csv").open(newline="") as file:
        head, first, second = csv.reader(file)
    assert head == rows[0]
    assert first[1].startswith('said "hi",\nto ')
    assert "corp.test" not in first[1]
    assert first[2] not in ("", "Ann Lee")
    assert second == rows[2]


def test_a_scan_of_the_output_finds_nothing(tmp_path: Path) -> None:
    texts = [
        "ann@corp.test",
        "(415) 867-5309",
        "4111 1111 1111 1111",
        "GB29 NWBK 6016 1331 9268 19",
        "93.184.216.34",
    ]
    source = write(
        tmp_path / "a.jsonl", [{"id": str(i), "input": f"it is {text}."} for i, text in enumerate(texts)]
    )
    assert len(scan([source], by_pattern).places) == len(texts)

    run(source, tmp_path / "b.jsonl")

    assert scan([tmp_path / "b.jsonl"], by_pattern).places == ()


def test_who_holds_the_key_gets_the_source_back_byte_for_byte(tmp_path: Path) -> None:
    rows = [
        {"id": "1", "input": "Ann LEE ann@corp.test and ANN@corp.test, \u2028 415-867-5309 / (415) 867 5309"}
    ]
    source = write(tmp_path / "a.jsonl", rows)
    run(source, tmp_path / "b.jsonl")

    assert restore(tmp_path / "b.jsonl", tmp_path / "c.jsonl", tmp_path / "b.jsonl.map", KEY) is True

    assert (tmp_path / "c.jsonl").read_bytes() == source.read_bytes()


def test_nobody_without_the_key_goes_back(tmp_path: Path) -> None:
    source = write(tmp_path / "a.jsonl", [{"id": "1", "input": "ann@corp.test"}])
    run(source, tmp_path / "b.jsonl")

    with pytest.raises(IntegrityError, match="does not open with this key"):
        restore(tmp_path / "b.jsonl", tmp_path / "c.jsonl", tmp_path / "b.jsonl.map", OTHER)

    assert not (tmp_path / "c.jsonl").exists()
    assert b"corp.test" not in (tmp_path / "b.jsonl.map").read_bytes()


def test_a_map_that_was_cut_or_reordered_is_noticed(tmp_path: Path) -> None:
    rows = [{"id": str(i), "input": f"mail person{i}@corp.test"} for i in range(2_500)]
    run(write(tmp_path / "a.jsonl", rows), tmp_path / "b.jsonl")
    blocks = (tmp_path / "b.jsonl.map").read_bytes().splitlines(keepends=True)
    assert len(blocks) > 3

    for broken in (blocks[:-1], blocks[1:], [blocks[1], blocks[0], *blocks[2:]], [*blocks, blocks[0]]):
        (tmp_path / "broken.map").write_bytes(b"".join(broken))
        with pytest.raises(IntegrityError):
            read_map(tmp_path / "broken.map", KEY)


def test_answers_that_hold_stand_ins_are_put_back_by_the_table(tmp_path: Path) -> None:
    source = write(tmp_path / "a.jsonl", [{"id": "1", "input": "mail ann@corp.test"}])
    run(source, tmp_path / "b.jsonl")
    alias = json.loads((tmp_path / "b.jsonl").read_text())["input"].removeprefix("mail ")
    (tmp_path / "answer.txt").write_text(f"I wrote to {alias} today.")

    assert restore(tmp_path / "answer.txt", tmp_path / "back.txt", tmp_path / "b.jsonl.map", KEY) is False

    assert (tmp_path / "back.txt").read_text() == "I wrote to ann@corp.test today."


def test_the_report_counts_and_names_no_value_and_no_key(tmp_path: Path) -> None:
    source = write(tmp_path / "a.jsonl", [{"id": "1", "input": "ann@corp.test and ann@corp.test"}])

    report = run(source, tmp_path / "b.jsonl")

    text = report_path(tmp_path / "b.jsonl").read_text()
    assert json.loads(text) == report
    assert "corp.test" not in text
    assert report["source"]["sha256"] == sha256_file(source)
    assert report["output"]["sha256"] == sha256_file(tmp_path / "b.jsonl")
    assert report["map"]["sha256"] == sha256_file(tmp_path / "b.jsonl.map")
    assert report["key"] == KEY.id
    assert is_protected(tmp_path / "b.jsonl")


def test_an_output_that_was_edited_is_not_protected_any_more(tmp_path: Path) -> None:
    run(write(tmp_path / "a.jsonl", [{"id": "1", "input": "ann@corp.test"}]), tmp_path / "b.jsonl")

    (tmp_path / "b.jsonl").write_text('{"id": "1", "input": "bob@corp.test"}\n')

    assert not is_protected(tmp_path / "b.jsonl")


def test_the_same_source_and_key_give_the_same_bytes(tmp_path: Path) -> None:
    source = write(tmp_path / "a.jsonl", [{"id": str(i), "input": f"p{i}@corp.test"} for i in range(20)])

    run(source, tmp_path / "b.jsonl")
    run(source, tmp_path / "c.jsonl")

    assert (tmp_path / "b.jsonl").read_bytes() == (tmp_path / "c.jsonl").read_bytes()


@pytest.mark.parametrize("bad", [b'{"id": 1\n', b'\xff\xfe{"a": 1}\n', b'{"a": 1, "a": 2}\n'])
def test_a_line_that_cannot_be_read_leaves_no_output(tmp_path: Path, bad: bytes) -> None:
    source = tmp_path / "a.jsonl"
    source.write_bytes(b'{"id": "1", "input": "ann@corp.test"}\n' + bad)

    with pytest.raises(DataError, match="line 2"):
        run(source, tmp_path / "b.jsonl")

    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl"]


def test_neither_the_source_nor_a_strange_file_is_overwritten(tmp_path: Path) -> None:
    source = write(tmp_path / "a.jsonl", [{"id": "1", "input": "x"}])
    (tmp_path / "mine.jsonl").write_text("mine")

    for output in (source, tmp_path / "mine.jsonl"):
        with pytest.raises(HarnessError):
            run(source, output)

    assert (tmp_path / "mine.jsonl").read_text() == "mine"


def test_a_key_is_random_private_and_never_overwritten(tmp_path: Path) -> None:
    write_key(tmp_path / "one.key")
    write_key(tmp_path / "two.key")

    assert read_key(tmp_path / "one.key") != read_key(tmp_path / "two.key")
    assert stat.S_IMODE((tmp_path / "one.key").stat().st_mode) == 0o600
    with pytest.raises(HarnessError, match="is there already"):
        write_key(tmp_path / "one.key")


def test_a_key_that_others_can_read_or_that_lies_among_runs_is_refused(tmp_path: Path) -> None:
    write_key(tmp_path / "runs" / "k.key")
    write_key(tmp_path / "open.key")
    (tmp_path / "open.key").chmod(0o644)

    with pytest.raises(HarnessError, match="among runs"):
        read_key(tmp_path / "runs" / "k.key", keep_out=tmp_path / "runs")
    with pytest.raises(HarnessError, match="others can read"):
        read_key(tmp_path / "open.key")


PERSONAL = st.sampled_from(["ann@corp.test", "(415) 867-5309", "4111 1111 1111 1111", "born on 3 May 1980"])
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.builds("{} {} {}".format, TEXT, PERSONAL, TEXT) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3), max_leaves=8,
)  # fmt: skip


@given(
    st.lists(st.dictionaries(TEXT, JSON, max_size=4), max_size=4),
    st.booleans(),
    st.sampled_from(["\n", "\r\n"]),
)
@settings(max_examples=60, deadline=None)
def test_any_records_come_back_and_stay_json(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]], is_ascii: bool, end: str
) -> None:
    folder = tmp_path_factory.mktemp("any")
    source = folder / "a.jsonl"
    source.write_bytes("".join(json.dumps(row, ensure_ascii=is_ascii) + end for row in rows).encode())

    run(source, folder / "b.jsonl")

    written = (folder / "b.jsonl").read_bytes().decode()
    assert len([json.loads(line) for line in written.split("\n") if line.strip()]) == len(rows)
    assert "corp.test" not in written
    restore(folder / "b.jsonl", folder / "c.jsonl", folder / "b.jsonl.map", KEY)
    assert (folder / "c.jsonl").read_bytes() == source.read_bytes()
