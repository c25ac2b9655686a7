"""Ed25519 key pairs that sign releases, and the store that says whose signature counts.

A keys folder holds `trust.json`, which may be carried to a device, and `private/`, which may not.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import DataError, IntegrityError, RefusedError
from harness.files import read_json, write_json

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from securesystemslib.signer import CryptoSigner, SSlibKey

FORMAT = "dragongate.trust/1"
TRUST = "trust.json"
MAX_PEM_BYTES = 16 * 1024


class KeyState(StrEnum):
    """What a signature by the key is worth here."""

    TRUSTED = "trusted"
    REVOKED = "revoked"
    """For good: a revoked key is never trusted again."""


@dataclass(frozen=True, slots=True)
class KnownKey:
    """A public key with what is thought of it."""

    id: str
    """sha256 hex of the key in canonical JSON, as TUF and in-toto compute it."""
    name: str
    public: str
    """32 bytes as hex."""
    state: KeyState
    since: str
    """When it came to its state, ISO 8601 in UTC."""
    reason: str = ""
    """Why it was revoked."""

    def key(self) -> SSlibKey:
        """What checks a signature."""
        return _sslib_key(self.public)


@dataclass(frozen=True, slots=True)
class Trust:
    """Whose signatures count in one verification."""

    known: Mapping[str, KnownKey]
    """By key id; the revoked ones too."""
    is_demanded: bool
    """Whether a release without a valid signature by a trusted key is refused."""

    @classmethod
    def of_nobody(cls) -> Trust:
        """No key is known and none is demanded: signatures show nothing."""
        return cls({}, is_demanded=False)


def keys_folder() -> Path:
    """`$HARNESS_KEYS`, else `dragongate/keys` in the person's configuration folder. It need not exist.

    Source: XDG Base Directory Specification 0.8 for the latter.
    """
    named = os.environ.get("HARNESS_KEYS")
    if named:
        return Path(named).absolute()
    configuration = os.environ.get("XDG_CONFIG_HOME")
    return (Path(configuration) if configuration else Path.home() / ".config") / "dragongate" / "keys"


class KeyStore:
    """One keys folder."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or keys_folder()

    def new(self, name: str, passphrase: bytes | None = None) -> KnownKey:
        """A fresh pair, trusted here. The private half is written with mode 0600, encrypted under the passphrase.

        Raises:
            DataError: a name that is empty or taken.
        """
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        private = Ed25519PrivateKey.generate()
        entry = self._entry(name, private.public_key())
        with self._locked():
            known = self._with(entry)
            self._write_private(entry.id, _private_pem(private, passphrase))
            self._write(known)
        return entry

    def known(self) -> dict[str, KnownKey]:
        """All keys of the trust store by id, oldest first; none where there is no store.

        Raises:
            DataError: it can't be read.
            IntegrityError: an id that is not its key's.
        """
        path = self.folder / TRUST
        return read_trust(path) if path.exists() else {}

    def trust(self, pem: Path, name: str) -> KnownKey:
        """Takes somebody's public key in, from a PEM file.

        Raises:
            DataError: no Ed25519 public key, or a name that is taken.
            RefusedError: the key was revoked here.
        """
        entry = self._entry(name, _read_public(pem))
        with self._locked():
            before = self.known().get(entry.id)
            if before and before.state is KeyState.REVOKED:
                raise RefusedError(f"key {entry.id[:16]}… was revoked on {before.since}: {before.reason}")
            self._write(self._with(entry))
        return entry

    def revoke(self, key: str, reason: str) -> KnownKey:
        """The key as it stands afterwards: nothing that it signed is accepted here any more.

        Raises:
            DataError: no such key, or no reason.
        """
        if not reason.strip():
            raise DataError("--reason is empty", hint="a key is revoked for a reason, such as `laptop lost`")
        with self._locked():
            known = self.known()
            entry = self.find(key)
            if entry.state is not KeyState.REVOKED:
                entry = replace(entry, state=KeyState.REVOKED, since=_now(), reason=reason)
                self._write({**known, entry.id: entry})
        return entry

    def find(self, key: str) -> KnownKey:
        """The key with this name, id or unique beginning of an id.

        Raises:
            DataError: none, or several.
        """
        known = self.known().values()
        found = [entry for entry in known if entry.name == key] or [
            entry for entry in known if len(key) >= 4 and entry.id.startswith(key)
        ]
        if len(found) != 1:
            what = "several keys begin so" if found else "no such key"
            raise DataError(f"{key}: {what} in {self.folder}", hint="harness keys list")
        return found[0]

    def signing_keys(self) -> list[KnownKey]:
        """The trusted keys whose private half is here."""
        return [
            entry
            for entry in self.known().values()
            if entry.state is KeyState.TRUSTED and self._private(entry.id).is_file()
        ]

    def needs_passphrase(self, entry: KnownKey) -> bool:
        """Whether the private half is encrypted."""
        return b"ENCRYPTED PRIVATE KEY" in self._private_bytes(entry)

    def signer(self, entry: KnownKey, passphrase: bytes | None = None) -> CryptoSigner:
        """What signs with the key.

        Raises:
            DataError: no private half here, one that others may read, or a wrong passphrase.
            RefusedError: the key is revoked.
        """
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key
        from securesystemslib.signer import CryptoSigner

        if entry.state is KeyState.REVOKED:
            raise RefusedError(f"key {entry.name} is revoked: {entry.reason}")
        try:
            private = load_pem_private_key(self._private_bytes(entry), passphrase)
        except (TypeError, ValueError) as error:
            hint = "set HARNESS_KEY_PASSPHRASE, or sign at a terminal: harness sign RELEASE"
            raise DataError(f"key {entry.name}: the passphrase is missing or wrong", hint=hint) from error
        if not isinstance(private, Ed25519PrivateKey) or _hex(private.public_key()) != entry.public:
            raise IntegrityError(f"{self._private(entry.id)}: not the private half of key {entry.name}")
        return CryptoSigner(private, entry.key())

    def _private(self, key_id: str) -> Path:
        return self.folder / "private" / f"{key_id}.pem"

    def _private_bytes(self, entry: KnownKey) -> bytes:
        path = self._private(entry.id)
        try:
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        except OSError as error:
            raise DataError(f"{path}: {error.strerror}", hint="the private half is elsewhere") from error
        with os.fdopen(handle, "rb") as file:
            if os.fstat(handle).st_mode & 0o077:
                raise DataError(f"{path}: others can read it", hint=f"chmod 600 {path}")
            return file.read(MAX_PEM_BYTES)

    def _write_private(self, key_id: str, pem: bytes) -> None:
        path = self._private(key_id)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(handle)

    def _entry(self, name: str, public: Ed25519PublicKey) -> KnownKey:
        raw = _hex(public)
        return KnownKey(_sslib_key(raw).keyid, name, raw, KeyState.TRUSTED, _now())

    def _with(self, entry: KnownKey) -> dict[str, KnownKey]:
        if not entry.name.strip() or not entry.name.isprintable() or len(entry.name) > 100:
            raise DataError(f"{entry.name!r} is no name for a key", hint='such as --name "A. Lee"')
        known = self.known()
        if any(other.name == entry.name and other.id != entry.id for other in known.values()):
            raise DataError(f"{entry.name}: another key has this name", hint="harness keys list")
        return {**known, entry.id: entry}

    def _write(self, known: Mapping[str, KnownKey]) -> None:
        rows = {key: {k: v for k, v in asdict(entry).items() if k != "id"} for key, entry in known.items()}
        write_json(self.folder / TRUST, {"format": FORMAT, "keys": rows})

    @contextmanager
    def _locked(self) -> Iterator[None]:
        import fcntl

        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (self.folder / ".lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def trust_of(store: KeyStore, pem: Path | None, *, is_demanded: bool) -> Trust:
    """The store's keys; with a PEM file its key alone, which is then demanded, unless the store has revoked it.

    Raises:
        DataError: the file holds no public key.
    """
    known = store.known()
    if pem is None:
        return Trust(known, is_demanded)
    named = key_of_pem(pem)
    revoked = {key: entry for key, entry in known.items() if entry.state is KeyState.REVOKED}
    return Trust({named.id: named, **revoked}, is_demanded=True)


def read_trust(path: Path) -> dict[str, KnownKey]:
    """The keys of a trust file by id.

    Raises:
        DataError: it can't be read, or is in another format.
        IntegrityError: an id that is not its key's.
    """
    document = read_json(path)
    try:
        if document["format"] != FORMAT:
            raise DataError(f"{path}: wanted format {FORMAT}")
        known = {
            key: KnownKey(id=key, **{**row, "state": KeyState(row["state"])})
            for key, row in document["keys"].items()
        }
        wrong = [key for key, entry in known.items() if entry.key().keyid != key]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path}: no trust store: {type(error).__name__} {error}") from error
    if wrong:
        raise IntegrityError(f"{path}: {wrong[0][:16]}… is not the id of its key: somebody edited it")
    return known


def key_of_pem(pem: Path) -> KnownKey:
    """The key of a PEM file, trusted by whoever names the file.

    Raises:
        DataError: no Ed25519 public key.
    """
    raw = _hex(_read_public(pem))
    return KnownKey(_sslib_key(raw).keyid, pem.stem, raw, KeyState.TRUSTED, _now())


def public_pem(entry: KnownKey) -> str:
    """The public half as PEM, for `harness keys trust` elsewhere."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(entry.public))
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def _read_public(path: Path) -> Ed25519PublicKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    hint = "harness keys show NAME prints one"
    try:
        with path.open("rb") as file:
            public = load_pem_public_key(file.read(MAX_PEM_BYTES))
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}", hint=hint) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise DataError(f"{path}: no public key in PEM", hint=hint) from error
    if not isinstance(public, Ed25519PublicKey):
        raise DataError(f"{path}: wanted an Ed25519 key", hint=hint)
    return public


def _private_pem(private: object, passphrase: bytes | None) -> bytes:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        Encoding,
        KeySerializationEncryption,
        NoEncryption,
        PrivateFormat,
    )

    assert isinstance(private, Ed25519PrivateKey)
    cipher: KeySerializationEncryption = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    return private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, cipher)


def _sslib_key(public_hex: str) -> SSlibKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from securesystemslib.signer import SSlibKey

    return SSlibKey.from_crypto(Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_hex)))


def _hex(public: Ed25519PublicKey) -> str:
    return public.public_bytes_raw().hex()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
