"""ZIP files from outside, read member by member within bounds, and never unpacked onto the disk."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from os import SEEK_CUR
from pathlib import Path
from typing import BinaryIO
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

from harness.errors import DataError
from harness.text import visible

MAX_MEMBERS = 200_000
MAX_MEMBER_BYTES = 64 * 2**20
MAX_TOTAL_BYTES = 2**30
ZSTANDARD = 93
"""Compression method of APPNOTE 6.3.7, which `zipfile` can't read before Python 3.14."""
_LOCAL_HEADER_BYTES = 30


def read_members(path: Path, is_wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    """(name, bytes) of the wanted members; of several with one name the last, which is what writers append.

    Raises:
        DataError: no ZIP file, a name that leads out of it, encryption, a method that can't be read, a wrong
            checksum, or more members or bytes than a log has: sizes are counted, not believed.
    """
    left = MAX_TOTAL_BYTES
    try:
        with path.open("rb") as file, ZipFile(file) as archive:
            for info in _members(archive, path):
                if not is_wanted(info.filename):
                    continue
                data = _read(archive, file, info, min(left, MAX_MEMBER_BYTES))
                left -= len(data)
                yield info.filename, data
    except (BadZipFile, zlib.error, EOFError, NotImplementedError, struct.error, ValueError) as error:
        why = visible(str(error), keep_newlines=False, limit_chars=160)
        raise DataError(f"{path}: not a readable ZIP file: {why}") from error
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error


def _members(archive: ZipFile, path: Path) -> list[ZipInfo]:
    listed = archive.infolist()
    if len(listed) > MAX_MEMBERS:
        raise DataError(f"{path}: {len(listed):,} members, wanted at most {MAX_MEMBERS:,}")
    for info in listed:
        _check_name(info, path)
    return list({info.filename: info for info in listed}.values())


def _check_name(info: ZipInfo, path: Path) -> None:
    name = info.orig_filename
    parts = name.replace("\\", "/").split("/")
    if name.startswith(("/", "\\")) or ".." in parts or "\0" in name or parts[0].endswith(":"):
        shown = visible(name, keep_newlines=False, limit_chars=80)
        raise DataError(f"{path}: member {shown} leads out of the file")
    if info.flag_bits & 0x1:
        raise DataError(f"{path}: member {visible(name, keep_newlines=False, limit_chars=80)} is encrypted")


def _read(archive: ZipFile, file: BinaryIO, info: ZipInfo, limit: int) -> bytes:
    """The member's bytes with their checksum checked."""
    name = visible(info.filename, keep_newlines=False, limit_chars=80)
    if info.compress_type in (ZIP_STORED, ZIP_DEFLATED):
        with archive.open(info) as member:
            data = member.read(limit + 1)
    elif info.compress_type == ZSTANDARD:
        data = _read_zstandard(file, info, limit)
    else:
        raise NotImplementedError(f"{name} has compression method {info.compress_type}")
    if len(data) > limit:
        raise ValueError(f"{name} holds more than {limit:,} bytes")
    if zlib.crc32(data) != info.CRC:
        raise ValueError(f"{name} has a wrong checksum")
    return data


def _read_zstandard(file: BinaryIO, info: ZipInfo, limit: int) -> bytes:
    try:
        import zstandard
    except ImportError as error:
        raise DataError(
            "this log is compressed with Zstandard, and reading that needs zstandard",
            hint="pip install 'dragongate[interop]'",
        ) from error
    # The central directory says where the local header is; only that one says where the data begins.
    file.seek(info.header_offset)
    name_bytes, extra_bytes = struct.unpack("<26xHH", file.read(_LOCAL_HEADER_BYTES))
    file.seek(name_bytes + extra_bytes, SEEK_CUR)
    packed = file.read(info.compress_size)
    try:
        with zstandard.ZstdDecompressor().stream_reader(packed, read_across_frames=True) as reader:
            data: bytes = reader.read(limit + 1)
            return data
    except zstandard.ZstdError as error:
        raise ValueError(f"{info.filename}: {error}") from error
