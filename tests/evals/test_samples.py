from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from harness.evals.samples import Header, SampleLog, read_samples
from tests.evals.builders import sample

HEADER = Header("model", "requests")


def write(path: Path, batches: int = 3) -> None:
    log = SampleLog(path, HEADER)
    for number in range(batches):
        log.commit(number, [sample(2 * number), sample(2 * number + 1, output="tab\t\u2028 \ud800 é")])
    log.close()


def test_finished_batches_are_found_again(tmp_path: Path) -> None:
    write(tmp_path / "s.jsonl")

    log = SampleLog(tmp_path / "s.jsonl", HEADER)
    log.close()

    assert sorted(log.batches) == [0, 1, 2]
    assert [s.id for s in read_samples(tmp_path / "s.jsonl")] == [f"r{n}" for n in range(6)]


@given(cut=st.integers(0, 3000))
def test_a_log_cut_anywhere_keeps_exactly_its_whole_batches(tmp_path_factory, cut: int) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path_factory.mktemp("cut") / "s.jsonl"
    write(path)
    data = path.read_bytes()[:cut]
    path.write_bytes(data)

    log = SampleLog(path, HEADER)
    whole = sorted(log.batches)
    for number in range(3):
        if number not in log.batches:
            log.commit(number, [sample(2 * number), sample(2 * number + 1)])
    log.close()

    whole_lines = data.split(b"\n")[:-1]
    assert whole == list(range(sum(line.startswith(b'{"batch"') for line in whole_lines)))
    assert sorted(s.id for s in read_samples(path)) == [f"r{n}" for n in range(6)]


def test_samples_of_another_model_are_never_used(tmp_path: Path) -> None:
    write(tmp_path / "s.jsonl")

    log = SampleLog(tmp_path / "s.jsonl", Header("another model", "requests"))
    log.close()

    assert log.batches == {}
    assert read_samples(tmp_path / "s.jsonl") == []


def test_garbage_in_the_middle_ends_the_log(tmp_path: Path) -> None:
    write(tmp_path / "s.jsonl")
    lines = (tmp_path / "s.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "s.jsonl").write_bytes(b"".join([*lines[:5], b"\x00\xff\n", *lines[5:]]))

    log = SampleLog(tmp_path / "s.jsonl", HEADER)
    log.close()

    assert sorted(log.batches) == [0]
