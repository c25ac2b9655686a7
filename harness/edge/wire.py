"""What goes between the engine and its process: frames of JSON, each with its length before it."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any, BinaryIO

from harness.edge.base import Ask
from harness.errors import ModelError
from harness.files import parse_json
from harness.models.base import Message

MAX_FRAME_BYTES = 16 * 2**20
_LENGTH = struct.Struct(">I")


def pack(document: Mapping[str, Any]) -> bytes:
    """The document as one frame: four bytes of length, big-endian, and JSON in ASCII.

    Raises:
        ModelError: it is over the limit of a frame.
    """
    body = json.dumps(document, separators=(",", ":"), allow_nan=False).encode("ascii")
    if len(body) > MAX_FRAME_BYTES:
        raise ModelError(f"a message of {len(body):,} bytes, over the limit of {MAX_FRAME_BYTES:,}")
    return _LENGTH.pack(len(body)) + body


def read_frame(file: BinaryIO) -> dict[str, Any] | None:
    """The next frame of a blocking file; None where it ends, also in the middle of a frame.

    Raises:
        DataError: what came is no frame.
    """
    head = file.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        return None
    (size,) = _LENGTH.unpack(head)
    body = file.read(_checked(size))
    return None if len(body) < size else _document(body)


class Frames:
    """Bytes as they arrive → whole frames. What sends them is not trusted: it runs native code on a foreign file."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def feed(self, data: bytes) -> Iterator[dict[str, Any]]:
        """The frames that are whole now.

        Raises:
            DataError: what came is no frame.
        """
        self._bytes += data
        while len(self._bytes) >= _LENGTH.size:
            (size,) = _LENGTH.unpack_from(self._bytes)
            end = _LENGTH.size + _checked(size)
            if len(self._bytes) < end:
                return
            body = bytes(self._bytes[_LENGTH.size : end])
            del self._bytes[:end]
            yield _document(body)


def _checked(size: int) -> int:
    from harness.errors import DataError

    if size > MAX_FRAME_BYTES:
        raise DataError(f"a frame of {size:,} bytes, over the limit of {MAX_FRAME_BYTES:,}")
    return size


def _document(body: bytes) -> dict[str, Any]:
    from harness.errors import DataError

    found = parse_json(body, name="a frame")
    if not isinstance(found, dict):
        raise DataError("a frame holds no object")
    return found


def ask_to_json(ask: Ask) -> dict[str, Any]:
    """The request as JSON values."""
    return asdict(ask) | {"messages": [list(message) for message in ask.messages]}


def ask_from_json(document: Mapping[str, Any]) -> Ask:
    """The request back."""
    values = dict(document)
    values["messages"] = tuple(Message(*pair) for pair in values["messages"])
    for name in ("labels", "stop"):
        values[name] = tuple(values[name])
    return Ask(**values)
