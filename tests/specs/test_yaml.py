"""YAML 1.2, read strictly: what a person typed is what the harness sees."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import Problem, SpecError
from harness.specs.yaml import MAX_BYTES, MAX_PROBLEMS, parse_yaml, read_yaml, resolve


def problems_of(data: bytes) -> tuple[Problem, ...]:
    with pytest.raises(SpecError) as caught:
        parse_yaml(data, file="x.yaml")
    return caught.value.problems


def test_scalars_mean_what_yaml_1_2_says() -> None:
    source = b"[no, yes, on, 1e-4, 1_000, 0o17, 0x1F, 012, 2024-01-01, .5, ~, null, True, '1', -.inf, 1:30]"

    values = parse_yaml(b"all: " + source, file="x.yaml").data["all"]

    assert values == [
        "no", "yes", "on", 1e-4, "1_000", 15, 31, 12, "2024-01-01", 0.5, None, None, True, "1", float("-inf"), "1:30",
    ]  # fmt: skip


def test_each_key_and_item_knows_its_line() -> None:
    document = parse_yaml(b"a: 1\nb:\n  - x\n  - c: 2\n    d: 3\n", file="x.yaml")

    assert document.line(("b", 0)) == 3
    assert document.line(("b", 1, "d")) == 5
    assert document.line(("b", 1, "absent")) == 4
    assert document.line(("absent",)) == 1


def test_crlf_and_a_byte_order_mark_change_nothing() -> None:
    plain = parse_yaml(b"a: 1\nb:\n  - 2\n", file="x.yaml")
    windows = parse_yaml(b"\xef\xbb\xbfa: 1\r\nb:\r\n  - 2\r\n", file="x.yaml")

    assert (windows.data, windows.lines) == (plain.data, plain.lines)


def test_duplicate_keys_are_refused_with_both_lines() -> None:
    (problem,) = problems_of(b"gate: FAIL\nother: 1\ngate: PASS\n")

    assert (problem.line, problem.key) == (3, "gate")
    assert "line 1" in problem.hint


@pytest.mark.parametrize(
    ("source", "line", "words"),
    [
        (b"a: &x 1\n", 1, "anchor"),
        (b"b: 2\na: *x\n", 2, "alias"),
        (b"a: !!python/object:os.system x\n", 1, "tag"),
        (b"a: ! 3\n", 1, "tag"),
        (b"%YAML 1.1\n---\na: no\n", 2, "directive"),
        (b"a: 1\n---\nb: 2\n", 2, "second document"),
        (b"a: 1\n? [1, 2]\n: 3\n", 2, "a key that is a list"),
        (b"1: 2\n", 1, "key 1"),
        (b"ok: 1\nb: \xff\n", 2, "0xff"),
        (b"a: 1\nb: \x00\n", 2, "special characters"),
        (b'a: "\\ud800"\n', 1, "surrogate"),
        (b"", 1, "empty"),
        (b"# nothing\n", 1, "empty"),
        (b"- 1\n- 2\n", 1, "[1, 2]"),
        (b"a: {b: 1,\n", 2, "expected"),
        (b"a: b: c\n", 1, "mapping values"),
        (b"\ta: 1\n", 1, "\\t"),
    ],
)
def test_what_is_refused_and_where(source: bytes, line: int, words: str) -> None:
    problem = problems_of(source)[0]

    assert problem.line == line
    assert words in f"{problem.found} {problem.wanted} {problem.hint}"


def test_an_alias_bomb_costs_nothing() -> None:
    lines = [b'a0: &a0 ["lol"]\n']
    lines += [b"a%d: &a%d [%s]\n" % (n, n, b",".join([b"*a%d" % (n - 1)] * 9)) for n in range(1, 10)]
    start = time.perf_counter()

    problems = problems_of(b"".join(lines))

    assert len(problems) == MAX_PROBLEMS
    assert time.perf_counter() - start < 2


@pytest.mark.parametrize("source", [b"a: " + b"[" * 50_000, b"a: " + b"{b: " * 50_000])
def test_deep_nesting_is_a_problem_and_no_crash(source: bytes) -> None:
    assert "levels" in problems_of(source)[0].found


def test_a_document_over_the_limit_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "big.yaml"
    path.write_bytes(b"a: " + b"x" * 10 * MAX_BYTES)

    with pytest.raises(SpecError, match="at most 1,048,576 bytes"):
        read_yaml(path)


def test_a_key_cannot_write_to_the_terminal() -> None:
    with pytest.raises(SpecError) as caught:
        parse_yaml(b'"\\e]0;owned\\a": 1\n"\\e]0;owned\\a": 2\n', file="x.yaml")

    assert "\x1b" not in str(caught.value)
    assert "\x07" not in str(caught.value)


def test_a_missing_file_and_a_folder_are_problems(tmp_path: Path) -> None:
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(SpecError):
            read_yaml(path)


@given(st.binary(max_size=200))
def test_any_bytes_give_a_document_or_problems(data: bytes) -> None:
    with contextlib.suppress(SpecError):
        assert isinstance(parse_yaml(data, file="x.yaml").data, dict)


@given(st.text(alphabet="{}[]:,-&*!|>'\"#%@`ab1 \n\t", max_size=60))
def test_any_yaml_like_text_gives_a_document_or_problems(text: str) -> None:
    with contextlib.suppress(SpecError):
        assert isinstance(parse_yaml(text.encode(), file="x.yaml").data, dict)


@given(st.integers(min_value=-(10**20), max_value=10**20) | st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_survive(number: float) -> None:
    assert resolve(repr(number)) == number
