import os
import stat
import threading
from pathlib import Path

import pytest

from harness.errors import DataError
from harness.formats.report import deliver


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "deep" / "gate.xml"
    deliver("first ·", str(target))

    def power_cut(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", power_cut)
    with pytest.raises(DataError, match="no space left"):
        deliver("second", str(target))

    assert target.read_text() == "first ·"
    assert [path.name for path in target.parent.iterdir()] == ["gate.xml"]


def test_a_dash_is_stdout(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    deliver("· text\n", "-")

    assert capfdbinary.readouterr().out == "· text\n".encode()


def test_a_folder_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"or - for stdout|directory"):
        deliver("x", str(tmp_path))


def test_a_link_keeps_leading_to_its_file(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("before")
    (tmp_path / "link").symlink_to(tmp_path / "real")

    deliver("after", str(tmp_path / "link"))

    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "after"


def test_a_pipe_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    found: list[str] = []
    reader = threading.Thread(target=lambda: found.append(pipe.read_text()), daemon=True)
    reader.start()

    deliver("through", str(pipe))
    reader.join(timeout=10)

    assert found == ["through"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)
