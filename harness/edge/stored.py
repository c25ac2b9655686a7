"""States of prefixes on disk: computed once, read back after a restart, trusted only as far as their digests go."""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from harness.errors import DataError, IntegrityError
from harness.files import digest_json, parse_json, write_atomic

MAGIC = b"HPREFIX1"
MAX_HEADER_BYTES = 2**22
MAX_BYTES = 512 * 2**20
SUFFIX = ".prefix"
_LENGTH = struct.Struct(">I")


class Key(NamedTuple):
    """All that a state depends on; the number of threads is not among it."""

    model: str
    """sha256 hex of the GGUF."""
    adapter: str
    """sha256 hex of the LoRA file; empty for none."""
    kv: str
    """Type of keys and values in the cache."""
    library: str
    """llama.cpp's version, whose layout of states it is."""
    ids: tuple[int, ...]

    def digest(self) -> str:
        """sha256 hex over all of it."""
        return digest_json([*self[:4], list(self.ids)])


class StoredPrefixes:
    """A folder of states. Files are whole or absent; the least recently used go when it grows over its bound.

    A digest finds what was damaged, not what was forged: whoever may write to the folder may write to the device.
    """

    def __init__(self, folder: Path, *, max_bytes: int = MAX_BYTES) -> None:
        self._folder = folder
        self._max_bytes = max_bytes

    def read(self, key: Key) -> bytes | None:
        """The state, or None where there is none.

        Raises:
            IntegrityError: a file is there, and is not what was written; it is removed.
        """
        path = self._path(key)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise IntegrityError(f"{path}: {error.strerror or error}") from error
        try:
            state = _state_of(data, key)
        except (DataError, IntegrityError) as error:
            path.unlink(missing_ok=True)
            raise IntegrityError(f"{path}: {error.message}; it is left out") from error
        os.utime(path)  # the folder's order of use
        return state

    def write(self, key: Key, state: bytes | memoryview) -> bool:
        """Keeps the state, unless it alone is over the bound; whether it did.

        Raises:
            OSError: the disk can't take it.
        """
        head = json.dumps({"key": _key_json(key), "sha256": hashlib.sha256(state).hexdigest()}).encode()
        data = b"".join((MAGIC, _LENGTH.pack(len(head)), head, state))
        if len(data) > self._max_bytes:
            return False
        self._make_room(len(data))
        write_atomic(self._path(key), data)
        return True

    def _path(self, key: Key) -> Path:
        return self._folder / f"{key.digest()}{SUFFIX}"

    def _make_room(self, more_bytes: int) -> None:
        files = [(path.stat(), path) for path in self._folder.glob(f"*{SUFFIX}")]
        files.sort(key=lambda one: one[0].st_mtime_ns)
        total = sum(stat.st_size for stat, _ in files)
        for stat, path in files:
            if total + more_bytes <= self._max_bytes:
                return
            path.unlink(missing_ok=True)
            total -= stat.st_size


def _key_json(key: Key) -> dict[str, Any]:
    return {**key._asdict(), "ids": list(key.ids)}


def _state_of(data: bytes, key: Key) -> bytes:
    start = len(MAGIC) + _LENGTH.size
    if data[: len(MAGIC)] != MAGIC or len(data) < start:
        raise IntegrityError("not a prefix file")
    (size,) = _LENGTH.unpack_from(data, len(MAGIC))
    if size > MAX_HEADER_BYTES:
        raise IntegrityError("its header is over the limit")
    head = parse_json(data[start : start + size], name="its header")
    state = data[start + size :]
    if not isinstance(head, Mapping) or head.get("key") != _key_json(key):
        raise IntegrityError("it is of another prefix")
    if hashlib.sha256(state).hexdigest() != head.get("sha256"):
        raise IntegrityError("its bytes changed")
    return state
