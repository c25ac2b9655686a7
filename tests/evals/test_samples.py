from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.evals.samples import Header, SampleLog, read_header, read_samples, write_samples
from tests.evals.builders import sample

HEADER = Header("model", "requests", "scoring")
GOLDEN = Path(__file__).parent.parent / "golden" / "runs" / "demo"


def write(path: Path, groups: int = 3) -> None:
    log = SampleLog(path, HEADER)
    for number in range(groups):
        log.commit(number, [sample(2 * number), sample(2 * number + 1, output="tab\t\u2028 \ud800 é")])
    log.close()


def test_samples_come_back_as_they_were(tmp_path: Path) -> None:
    full = sample(
        9, parsed={"a": [1, None]}, scores={"x": 0.5}, counts={"f": (1, 0, 2)}, confidences={"p_true": 0.25},
        choice_logprobs=(-1.0, -2.0), error_class="unit_slip", label_probs={"a": 1.0},
    )  # fmt: skip
    write_samples(tmp_path / "s.jsonl", HEADER, [sample(0), full])

    assert read_samples(tmp_path / "s.jsonl") == [sample(0), full]
    assert read_header(tmp_path / "s.jsonl") == HEADER


@given(cut=st.integers(0, 3000))
def test_a_log_cut_anywhere_keeps_exactly_its_whole_groups(tmp_path_factory, cut: int) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path_factory.mktemp("cut") / "s.jsonl"
    write(path)
    data = path.read_bytes()[:cut]
    path.write_bytes(data)

    whole = sum(line.startswith(b'{"batch"') for line in data.split(b"\n")[:-1])
    assert [s.id for s in read_samples(path)] == [f"r{n}" for n in range(2 * whole)]


def test_a_run_that_begins_again_leaves_no_sample_of_the_one_before(tmp_path: Path) -> None:
    write(tmp_path / "s.jsonl")

    SampleLog(tmp_path / "s.jsonl", HEADER).close()

    assert read_samples(tmp_path / "s.jsonl") == []


def test_garbage_in_the_middle_ends_the_log(tmp_path: Path) -> None:
    write(tmp_path / "s.jsonl")
    lines = (tmp_path / "s.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "s.jsonl").write_bytes(b"".join([*lines[:5], b"\x00\xff\n", *lines[5:]]))

    assert [s.id for s in read_samples(tmp_path / "s.jsonl")] == ["r0", "r1"]


@pytest.mark.parametrize(
    "path", sorted(GOLDEN.rglob("samples.jsonl")), ids=lambda path: path.parent.parent.name
)
def test_samples_of_a_recorded_run_are_read(path: Path) -> None:
    samples = read_samples(path)

    assert samples
    assert all(s.label_probs for s in samples if s.error is None)
    header = read_header(path)
    assert header is not None
    assert header.scoring == ""
