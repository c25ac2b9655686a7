"""A device's folder: releases by content, and for each model by name the one that runs.

    store/<release digest>/              a release, whole and verified, never written again
    models/<name>/current                a link to a release in the store: what a runtime opens
    models/<name>/releases/<digest>.json  what was ever installed under the name, and what it took the place of
    audit.jsonl                          who was put in place of whom, when and why; a chain of digests

`current` is switched by renaming a link over it, so it names the one release or the other at every moment.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness.errors import DataError, IntegrityError
from harness.evals.chain import Chain
from harness.export.statements import FILES as STATEMENTS
from harness.export.verify import MANIFEST, Order
from harness.files import digest_json, fsync_folder, read_json, sha256_file, write_json

AUDIT = "audit.jsonl"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_KEYS = ("time", "event", "model", "release", "replaced", "reason")


@dataclass(frozen=True, slots=True)
class Record:
    """What was installed under a name."""

    release: str
    """Its `release_digest`."""
    manifest: str
    """sha256 hex of its manifest: the same release signed anew has another digest and the same manifest."""
    recipe: str
    version: int
    sequence: int | None
    before: str | None
    """The release that it took the place of."""
    signers: tuple[str, ...]
    """Ids of the trusted keys that signed it; empty for one that was let in unsigned."""

    @property
    def order(self) -> Order:
        return Order(self.version, self.sequence)


class Device:
    """One device's folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = folder / "store"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Makes the folder where there is none, and keeps other installs out; the kernel drops the lock of the dead."""
        _make_folder(self.store)
        with (self.folder / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            self._sweep()
            yield

    def names(self) -> list[str]:
        """The models that have a release in place."""
        return sorted(path.parent.name for path in self.folder.glob("models/*/current"))

    def model(self, name: str) -> Model:
        """The model with this name, installed or not.

        Raises:
            DataError: no name for a model.
        """
        if not _NAME.fullmatch(name):
            raise DataError(f"{name!r} is no name for a model", hint="letters, digits, dot, dash, at most 64")
        return Model(self, name)

    def release(self, digest: str) -> Path:
        """Where a release is, or would be."""
        return self.store / digest

    def audit(self) -> list[dict[str, Any]]:
        """All that was switched, oldest first.

        Raises:
            IntegrityError: a line was changed, removed or put in.
        """
        return self._chain().entries()

    def note(self, event: str, model: str, release: str, replaced: str | None, reason: str = "") -> None:
        """Puts an entry into the audit log, on disk before this returns."""
        when = datetime.now(UTC).isoformat(timespec="seconds")
        entry = dict(zip(_KEYS, (when, event, model, release, replaced, reason), strict=True))
        self._chain().append_unless(entry, lambda _known: False)

    def prune(self) -> None:
        """Removes the releases that are neither in place under some name nor the one before."""
        kept = set()
        for name in self.names():
            model = self.model(name)
            current = model.current()
            kept |= {current, model.record(current).before} if current else set()
        for path in self.store.iterdir():
            if _DIGEST.fullmatch(path.name) and path.name not in kept:
                # Renamed first: what is half removed must not have a release's name.
                gone = self.store / f".{path.name}.gone.part"
                path.rename(gone)
                shutil.rmtree(gone, ignore_errors=True)

    def _sweep(self) -> None:
        """Removes what a crash left."""
        for path in self.store.glob(".*.part"):
            shutil.rmtree(path, ignore_errors=True)
        for path in self.folder.glob("models/*/.current.*"):
            path.unlink()

    def _chain(self) -> Chain:
        return Chain(self.folder / AUDIT, keys=_KEYS, hint="keep the file as it is for whoever looks into it")


@dataclass(frozen=True, slots=True)
class Model:
    """What runs under one name on a device."""

    device: Device
    name: str

    @property
    def folder(self) -> Path:
        return self.device.folder / "models" / self.name

    @property
    def link(self) -> Path:
        """What a runtime opens."""
        return self.folder / "current"

    def current(self) -> str | None:
        """The digest of the release in place; None before the first.

        Raises:
            IntegrityError: the link leads elsewhere than into the store.
        """
        try:
            target = self.link.readlink()
        except FileNotFoundError:
            return None
        if target != _target(target.name) or not _DIGEST.fullmatch(target.name):
            raise IntegrityError(f"{self.link}: leads to {target}, which is no release of this device")
        return target.name

    def records(self) -> dict[str, Record]:
        """All that was ever installed under the name, by digest.

        Raises:
            DataError: a record can't be read.
        """
        found = sorted(self.folder.glob("releases/*.json"))
        return {path.stem: self.record(path.stem) for path in found}

    def record(self, digest: str) -> Record:
        """What is known of one release.

        Raises:
            DataError: there is no record, or it can't be read.
        """
        path = self._record(digest)
        document = read_json(path)
        try:
            return Record(**{**document, "signers": tuple(document["signers"])})
        except (KeyError, TypeError) as error:
            raise DataError(f"{path}: no record of a release: {error}") from error

    def keep(self, record: Record) -> None:
        """Writes a record down."""
        _make_folder(self.folder / "releases")
        write_json(self._record(record.release), asdict(record))

    def switch(self, digest: str) -> None:
        """Puts a release of the store in place, in one rename; on disk before this returns."""
        _make_folder(self.folder)
        part = self.folder / f".current.{os.getpid()}"
        part.symlink_to(_target(digest))
        part.replace(self.link)
        fsync_folder(self.folder)

    def _record(self, digest: str) -> Path:
        return self.folder / "releases" / f"{digest}.json"


def release_digest(folder: Path) -> str:
    """Names a release by content: the manifest, which holds every file's digest, and the signed statements."""
    signed = [path for path in STATEMENTS.values() if (folder / path).is_file()]
    return digest_json({path: sha256_file(folder / path) for path in (MANIFEST, *signed)})


def _target(digest: str) -> Path:
    return Path("..", "..", "store", digest)


def _make_folder(folder: Path) -> None:
    """Makes it with all above it, so that a power cut can't take it away again."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    fsync_folder(folder.parent)
