"""The way back: what stood in each place of a pseudonymised file, encrypted under the key.

Lines of Fernet tokens (AES-128-CBC, HMAC-SHA256): blocks of edits, then one that ends the map. A block that is
missing, twice, changed or in another order is noticed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from harness.errors import IntegrityError
from harness.files import parse_json
from harness.privacy.aliases import Value
from harness.privacy.keys import PrivacyKey

FORMAT = "harness-alias-map-1"
BLOCK = 1_000
"""Edits an encrypted block."""
MAX_BLOCK_BYTES = 64 * 2**20


class Edit(NamedTuple):
    """What was replaced in the output."""

    line: int
    """1-based, of the first line of its record."""
    start: int
    """In characters of the output's record."""
    length: int
    original: str
    """As it was written in the source, escapes and all."""


class MapWriter:
    """Writes edits as they come, and the end when all is known."""

    def __init__(self, file: BinaryIO, key: PrivacyKey) -> None:
        from cryptography.fernet import Fernet

        self._file = file
        self._fernet = Fernet(key.map)
        self._waiting: list[Edit] = []
        self._n_blocks = 0

    def add(self, edits: Iterable[Edit]) -> None:
        self._waiting += edits
        if len(self._waiting) >= BLOCK:
            self._flush()

    def end(self, output_sha256: str, values: Iterable[Value]) -> None:
        """The last block: of which file it is the way back, and which value had which stand-in."""
        self._flush()
        self._write(
            {"format": FORMAT, "output": output_sha256, "values": list(values), "blocks": self._n_blocks}
        )

    def _flush(self) -> None:
        if self._waiting:
            self._write({"at": self._n_blocks, "edits": self._waiting})
            self._n_blocks += 1
            self._waiting = []

    def _write(self, block: Any) -> None:
        text = json.dumps(block, ensure_ascii=True, separators=(",", ":"))
        self._file.write(self._fernet.encrypt(text.encode()) + b"\n")


class AliasMap(NamedTuple):
    """A map, opened."""

    output_sha256: str
    values: tuple[Value, ...]
    path: Path
    key: PrivacyKey

    def edits(self) -> Iterator[Edit]:
        """All edits, in the order of the file."""
        for block in _blocks(self.path, self.key):
            yield from (Edit(*edit) for edit in block.get("edits", ()))


def read_map(path: Path, key: PrivacyKey) -> AliasMap:
    """The map, checked to its end.

    Raises:
        IntegrityError: it is of another key, was changed, or is not whole.
    """
    last: dict[str, Any] = {}
    n_blocks = 0
    for block in _blocks(path, key):
        if last:
            raise IntegrityError(f"{path}: goes on after its end")
        if "edits" not in block:
            last = block
        elif block["at"] != n_blocks:
            raise IntegrityError(f"{path}: block {n_blocks} is missing or out of its place")
        else:
            n_blocks += 1
    if last.get("format") != FORMAT or last["blocks"] != n_blocks:
        raise IntegrityError(f"{path}: the map is not whole", hint="take a copy that is")
    return AliasMap(last["output"], tuple(Value(*value) for value in last["values"]), path, key)


def _blocks(path: Path, key: PrivacyKey) -> Iterator[dict[str, Any]]:
    from cryptography.fernet import Fernet, InvalidToken

    fernet = Fernet(key.map)
    with path.open("rb") as file:
        while token := file.readline(MAX_BLOCK_BYTES):
            try:
                text = fernet.decrypt(token.rstrip(b"\n"))
            except InvalidToken as error:
                raise IntegrityError(
                    f"{path}: does not open with this key, or was changed",
                    hint="--key-file: the key that made it",
                ) from error
            yield parse_json(text, name=str(path))
