from __future__ import annotations

from pathlib import Path

import pytest
import torch

from harness.errors import IntegrityError
from harness.train.batches import Position
from harness.train.checkpoints import Progress, load_optimizer, newest, restore_random, save

PLAN = "p" * 64


def write(folder: Path, step: int, value: float = 1.0, keep: int = 2) -> Path:
    def adapter(part: Path) -> None:
        (part / "adapter.bin").write_bytes(bytes([step]) * 100)

    progress = Progress(step=step, position=Position(0, step))
    optimizer = {"exp_avg/a": torch.full((3,), value)}
    return save(
        folder, progress, plan_digest=PLAN, optimizer=optimizer, write_adapter=adapter, keep=keep
    ).path


def test_the_newest_checkpoint_comes_back_whole(tmp_path: Path) -> None:
    write(tmp_path, 1)
    path = write(tmp_path, 2, value=7.0)

    found = newest(tmp_path, plan_digest=PLAN)

    assert (found.path, found.rejected) == (path, ())
    assert found.progress == Progress(step=2, position=Position(0, 2))
    assert load_optimizer(path)["exp_avg/a"].tolist() == [7.0, 7.0, 7.0]


def test_nothing_is_found_where_nothing_was_saved(tmp_path: Path) -> None:
    found = newest(tmp_path / "none", plan_digest=PLAN)

    assert (found.path, found.progress, found.rejected) == (None, None, ())


def test_every_flipped_byte_is_noticed(tmp_path: Path) -> None:
    good, bad = write(tmp_path, 1), write(tmp_path, 2)
    for file in sorted(bad.iterdir()):
        whole = file.read_bytes()
        for at in range(0, len(whole), max(1, len(whole) // 23)):
            file.write_bytes(whole[:at] + bytes([whole[at] ^ 0x01]) + whole[at + 1 :])
            found = newest(tmp_path, plan_digest=PLAN)
            assert found.path == good, f"{file.name} byte {at}"
            assert str(bad) in found.rejected[0]
        file.write_bytes(whole)
    assert newest(tmp_path, plan_digest=PLAN).path == bad


@pytest.mark.parametrize("file", ["adapter.bin", "optimizer.safetensors", "progress.json", "manifest.json"])
def test_a_missing_or_empty_file_means_the_one_before(tmp_path: Path, file: str) -> None:
    good, bad = write(tmp_path, 1), write(tmp_path, 2)
    (bad / file).write_bytes(b"")
    assert newest(tmp_path, plan_digest=PLAN).path == good
    (bad / file).unlink()
    assert newest(tmp_path, plan_digest=PLAN).path == good


def test_where_none_verifies_each_is_reported(tmp_path: Path) -> None:
    for step in (1, 2):
        (write(tmp_path, step) / "adapter.bin").unlink()

    found = newest(tmp_path, plan_digest=PLAN)

    assert found.path is None
    assert len(found.rejected) == 2


def test_a_save_that_breaks_leaves_what_was_there(tmp_path: Path) -> None:
    good = write(tmp_path, 1)

    def broken(part: Path) -> None:
        (part / "adapter.bin").write_bytes(b"half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        save(tmp_path, Progress(step=2), plan_digest=PLAN, optimizer={}, write_adapter=broken)
    assert [path.name for path in tmp_path.iterdir()] == [good.name]


def test_half_written_folders_of_a_killed_process_are_never_resumed(tmp_path: Path) -> None:
    good = write(tmp_path, 1)
    left_over = tmp_path / ".step-0000002.x1.part"
    left_over.mkdir()
    (left_over / "adapter.bin").write_bytes(b"half")

    assert newest(tmp_path, plan_digest=PLAN).path == good
    write(tmp_path, 2)
    assert not left_over.exists()


def test_older_checkpoints_go_when_the_next_is_safe(tmp_path: Path) -> None:
    for step in range(1, 6):
        write(tmp_path, step, keep=3)

    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "step-0000003",
        "step-0000004",
        "step-0000005",
    ]


def test_a_checkpoint_of_another_plan_is_refused(tmp_path: Path) -> None:
    write(tmp_path, 1)

    with pytest.raises(IntegrityError, match="another training run"):
        newest(tmp_path, plan_digest="q" * 64)


def test_the_generators_go_on_where_they_were(tmp_path: Path) -> None:
    torch.manual_seed(3)
    torch.rand(5)
    path = write(tmp_path, 1)
    expected = torch.rand(4)
    torch.manual_seed(99)

    restore_random(path)

    assert torch.equal(torch.rand(4), expected)
