"""ZIP files from outside are read within bounds, or refused with a reason."""

from __future__ import annotations

import io
import random
import struct
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZIP_LZMA, ZipFile, ZipInfo

import pytest

from harness.errors import DataError
from harness.formats import archive
from harness.formats.archive import read_members


def written(path: Path, members: dict[str, bytes], method: int = ZIP_DEFLATED) -> Path:
    with ZipFile(path, "w", method) as zip_file:
        for name, data in members.items():
            zip_file.writestr(name, data)
    return path


def read(path: Path) -> dict[str, bytes]:
    return dict(read_members(path, lambda name: True))


def test_members_are_read_as_they_were_written(tmp_path: Path) -> None:
    members = {"header.json": b"{}", "samples/a/b_epoch_1.json": b"x" * 100_000}

    assert read(written(tmp_path / "a.zip", members)) == members


def test_members_in_zstandard_are_read_over_several_frames(tmp_path: Path) -> None:
    zstandard = pytest.importorskip("zstandard")
    data = random.Random(7).randbytes(50_000) + b"text " * 1000
    packed = b"".join(zstandard.ZstdCompressor().compress(part) for part in (data[:30_000], data[30_000:]))
    path = tmp_path / "a.zip"
    with ZipFile(path, "w") as zip_file:
        zip_file.writestr("before", b"1")
        info = ZipInfo("packed")
        zip_file.writestr(info, packed)
        zip_file.writestr("after", b"2")
    patched(path, b"packed", method=93, size=len(data), crc=crc(data))

    assert read(path) == {"before": b"1", "packed": data, "after": b"2"}


def crc(data: bytes) -> int:
    import zlib

    return zlib.crc32(data)


def patched(path: Path, name: bytes, *, method: int, size: int, crc: int) -> None:
    """Says of a stored member that it is compressed: APPNOTE 4.3.12, the central directory's header."""
    raw = bytearray(path.read_bytes())
    at = raw.rindex(name) - 46
    assert raw[at : at + 4] == b"PK\x01\x02"
    struct.pack_into("<H", raw, at + 10, method)
    struct.pack_into("<I", raw, at + 16, crc)
    struct.pack_into("<I", raw, at + 24, size)
    path.write_bytes(raw)


def test_a_zstandard_bomb_is_stopped_while_it_grows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zstandard = pytest.importorskip("zstandard")
    monkeypatch.setattr(archive, "MAX_MEMBER_BYTES", 1000)
    packed = zstandard.ZstdCompressor().compress(bytes(10_000_000))
    path = tmp_path / "a.zip"
    with ZipFile(path, "w") as zip_file:
        zip_file.writestr(ZipInfo("bomb"), packed)
    patched(path, b"bomb", method=93, size=10, crc=0)

    with pytest.raises(DataError, match="bomb holds more than 1,000 bytes"):
        read(path)


def test_a_member_that_says_it_is_small_and_is_not_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path / "a.zip", {"bomb": bytes(10_000_000)})
    assert path.stat().st_size < 20_000
    monkeypatch.setattr(archive, "MAX_MEMBER_BYTES", 1000)

    with pytest.raises(DataError, match="bomb holds more than 1,000 bytes"):
        read(path)


def test_many_members_that_are_large_together_are_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "MAX_TOTAL_BYTES", 2500)
    path = written(tmp_path / "a.zip", {f"m{number}": bytes(1000) for number in range(3)})

    with pytest.raises(DataError, match="m2 holds more than 500 bytes"):
        read(path)


def test_more_members_than_a_log_has_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_MEMBERS", 2)

    with pytest.raises(DataError, match="3 members, wanted at most 2"):
        read(written(tmp_path / "a.zip", {f"m{number}": b"" for number in range(3)}))


@pytest.mark.parametrize("name", ["../up.json", "/etc/passwd", "samples/../../up", "..\\up", "C:/up"])
def test_names_that_lead_out_of_the_file_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="leads out of the file"):
        read(written(tmp_path / "a.zip", {name: b"{}"}))


def test_of_two_members_with_one_name_the_last_counts(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with ZipFile(path, "w") as zip_file:
        zip_file.writestr("header.json", b"1")
        with pytest.warns(UserWarning, match="Duplicate name"):
            zip_file.writestr("header.json", b"2")

    assert list(read_members(path, lambda name: True)) == [("header.json", b"2")]


def test_an_unreadable_method_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="compression method 14"):
        read(written(tmp_path / "a.zip", {"a": b"text"}, ZIP_LZMA))


@pytest.mark.parametrize("cut", [1, 100, 400])
def test_a_file_that_is_cut_off_is_refused(tmp_path: Path, cut: int) -> None:
    path = written(tmp_path / "a.zip", {"a": bytes(range(256)) * 4})
    path.write_bytes(path.read_bytes()[:-cut])

    with pytest.raises(DataError, match="not a readable ZIP file"):
        read(path)


def test_no_changed_byte_is_read_as_something_else(tmp_path: Path) -> None:
    path = written(tmp_path / "a.zip", {"a": b"the score is 0.75", "b": b"{}"})
    whole, random_ = path.read_bytes(), random.Random(11)
    for _ in range(300):
        raw = bytearray(whole)
        raw[random_.randrange(len(raw))] ^= 1 << random_.randrange(8)
        path.write_bytes(raw)
        try:
            found = read(path)
        except DataError:
            continue
        assert set(found.values()) <= {b"the score is 0.75", b"{}"}


def test_what_is_no_file_at_all_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        read(tmp_path / "none.eval")
    (tmp_path / "text.eval").write_bytes(io.BytesIO(b"PK\x03\x04 no").getvalue())
    with pytest.raises(DataError, match="not a readable ZIP file"):
        read(tmp_path / "text.eval")
