"""The key of a pseudonymisation: a file for one person's eyes, from which all else is derived."""

from __future__ import annotations

import base64
import binascii
import os
import stat
from pathlib import Path
from typing import NamedTuple

from harness.errors import HarnessError

KEY_BYTES = 32


class PrivacyKey(NamedTuple):
    """What the key file's bytes are good for."""

    aliases: bytes
    """Seeds stand-ins."""
    map: bytes
    """Encrypts the way back, as Fernet takes it."""
    id: str
    """Tells keys apart, and says nothing of them."""


def write_key(path: Path) -> None:
    """Writes a random key that only its owner can read.

    Raises:
        HarnessError: the file is there; a key that is overwritten opens nothing any more.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise HarnessError(
            f"{path}: is there already", hint="a key is never overwritten: name another file"
        ) from error
    with os.fdopen(handle, "wb") as file:
        file.write(base64.urlsafe_b64encode(os.urandom(KEY_BYTES)) + b"\n")
        file.flush()
        os.fsync(file.fileno())


def read_key(path: Path, *, keep_out: Path | None = None) -> PrivacyKey:
    """The key in the file.

    `keep_out` is a folder that no key may lie in: what is written there is shown, copied and released.

    Raises:
        HarnessError: it is not there, open to others, below `keep_out`, or no key.
    """
    if keep_out is not None and path.resolve().is_relative_to(keep_out.resolve()):
        raise HarnessError(f"{path}: a key among runs and releases", hint=f"move it out of {keep_out}")
    try:
        mode = path.stat().st_mode
        text = path.read_bytes().strip()
    except OSError as error:
        raise HarnessError(f"{path}: {error.strerror or error}", hint=f"harness data key {path}") from error
    if os.name == "posix" and stat.S_IMODE(mode) & 0o077:
        raise HarnessError(f"{path}: others can read this key", hint=f"chmod 600 {path}")
    try:
        secret = base64.b64decode(text, altchars=b"-_", validate=True)
    except binascii.Error as error:
        raise HarnessError(f"{path}: no key", hint="harness data key FILE writes one") from error
    if len(secret) != KEY_BYTES:
        raise HarnessError(
            f"{path}: {len(secret)} bytes, wanted a key of {KEY_BYTES}", hint="harness data key FILE"
        )
    return derive(secret)


def derive(secret: bytes) -> PrivacyKey:
    """Keys for each purpose, so that none says anything of another (HKDF-SHA256, RFC 5869)."""
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    def part(purpose: bytes) -> bytes:
        return HKDF(SHA256(), length=KEY_BYTES, salt=None, info=b"harness privacy: " + purpose).derive(secret)

    return PrivacyKey(part(b"aliases"), base64.urlsafe_b64encode(part(b"map")), part(b"name")[:8].hex())
