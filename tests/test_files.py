import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import DataError, IntegrityError, Problem, describe_problems
from harness.files import (
    canonical_json,
    check_digest,
    folder_written_whole,
    parse_json,
    sha256_text,
    write_atomic,
)
from harness.text import nearest, visible


@pytest.mark.parametrize(
    "hostile",
    [
        '{"gate": "FAIL", "gate": "PASS"}', '{"a": {"b": 1, "b": 2}}', '{"x": NaN}', '{"x": Infinity}', "{", "",
        b'{"x": "\xff"}', "[" * 100 + "]" * 100, "[" * 100_000,
    ],
)  # fmt: skip
def test_json_that_could_mean_two_things_is_refused(hostile: str | bytes) -> None:
    with pytest.raises(DataError):
        parse_json(hostile)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda s: st.lists(s) | st.dictionaries(st.text(), s),
        max_leaves=20,
    )
)
def test_strict_json_reads_what_json_writes(value: object) -> None:
    assert parse_json(json.dumps(value)) == value


def test_equal_values_have_one_spelling() -> None:
    assert canonical_json({"b": 1, "a": [1.5, None]}) == canonical_json({"a": [1.5, None], "b": 1})


def test_a_failed_write_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "f"
    write_atomic(path, "before")
    monkeypatch.setattr("os.fsync", lambda _fd: (_ for _ in ()).throw(OSError(28, "No space left on device")))

    with pytest.raises(OSError, match="No space"):
        write_atomic(path, "after")

    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_is_whole_or_absent(tmp_path: Path) -> None:
    def fail_half_way() -> None:
        with folder_written_whole(tmp_path / "out") as part:
            (part / "a").write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()
    assert list(tmp_path.iterdir()) == []
    with folder_written_whole(tmp_path / "out") as part:
        (part / "a").write_text("all")
    assert (tmp_path / "out" / "a").read_text() == "all"


def test_one_flipped_byte_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_text("weights")
    check_digest(path, sha256_text("weights"))
    path.write_text("weighTs")

    with pytest.raises(IntegrityError, match="bytes changed"):
        check_digest(path, sha256_text("weights"))


@given(st.text())
def test_visible_text_holds_nothing_that_a_terminal_obeys(text: str) -> None:
    shown = visible(text)

    assert all(char == "\n" or char.isprintable() for char in shown)
    assert "\x1b" not in shown


def test_hostile_text_is_shown_not_obeyed() -> None:
    assert visible("\x1b]0;owned\x07 [/INST]\x9b2J\u202eab\u200b") == (
        "\\x1b]0;owned\\x07 [/INST]\\x9b2J\\u{202e}ab\\u{200b}"
    )
    assert visible("a\nb\tc", keep_newlines=False) == "a⏎b    c"
    assert visible("x" * 1_000_000, limit_chars=5) == "xxxxx… (999,995 more characters)"


def test_the_nearest_name_is_offered() -> None:
    assert nearest("finance-tabels", ["finance-tables", "legal"]) == "finance-tables"
    assert nearest("zzz", ["legal"]) is None


def test_problems_are_listed_together_with_their_lines() -> None:
    text = describe_problems(
        [
            Problem("r.yaml", 14, "tune.rank", "0", "1 to 256"),
            Problem(
                "r.yaml",
                22,
                "gates[0].suite",
                '"finance-tabels"',
                "",
                "no such suite; nearest: finance-tables",
            ),
        ]
    )

    assert text.splitlines() == [
        "r.yaml has 2 problems",
        "  line 14  tune.rank = 0                      wanted 1 to 256",
        '  line 22  gates[0].suite = "finance-tabels"  no such suite; nearest: finance-tables',
    ]
