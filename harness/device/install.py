"""Puts a release in place on a device, or takes the last one back.

At every moment, power cuts included, a model's `current` leads to a release that is whole and was verified on this
device, from its copy: whatever happens to the source while it is read.
"""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any, NamedTuple

from harness.device.layout import Device, Model, Record, release_digest
from harness.errors import DataError, HarnessError, IntegrityError, RefusedError
from harness.export.keys import Trust
from harness.export.signing import MAX_ENVELOPE_BYTES
from harness.export.statements import FILES as STATEMENTS
from harness.export.verify import MANIFEST, VerifyReport, order_of, verify, verify_head
from harness.files import MAX_JSON_BYTES, folder_written_whole, read_json, sha256_file

_CHUNK_BYTES = 2**20
_SPARE_BYTES = 4 * 2**20
"""For the records, the audit log and the file system's own books."""


class Installed(NamedTuple):
    """What is in place now."""

    name: str
    release: str
    """Its `release_digest`."""
    before: str | None
    """What it took the place of; `rollback` brings it back."""
    current: Path
    """What a runtime opens."""
    signature: str
    """What its signatures show, in one line."""
    is_changed: bool
    """False where the release was in place already."""


def install(
    release: Path, folder: Path, trust: Trust, *, name: str | None = None, downgrade_reason: str = ""
) -> Installed:
    """Verifies the release, copies it, verifies the copy, and switches the model to it.

    `name` is the recipe's by default. With a `downgrade_reason`, which goes into the audit log, it need not be newer
    than everything that was ever installed under the name.

    Raises:
        RefusedError: it does not verify, is not shown to be newer, or is of another recipe.
        HarnessError: the disk has no room; nothing has changed.
    """
    head = verify_head(release, trust)
    _require(head, release)
    manifest = read_json(release / MANIFEST)
    digest = release_digest(release)
    device = Device(folder)
    with device.locked():
        model = device.model(name or manifest["recipe"])
        _reconcile(model)
        before = model.current()
        if before == digest:
            return Installed(
                model.name, digest, model.record(digest).before, model.link, head.signature, False
            )
        _refuse(model, manifest, sha256_file(release / MANIFEST), downgrade_reason)
        report = _bring_in(release, device, manifest, digest, trust)
        device.note("install", model.name, digest, before, downgrade_reason)
        known = sha256_file(device.release(digest) / MANIFEST), manifest["recipe"], *order_of(manifest)
        model.keep(Record(digest, *known, before, report.signers))
        model.switch(digest)
        device.prune()
    return Installed(model.name, digest, before, model.link, report.signature, True)


def rollback(folder: Path, trust: Trust, *, name: str | None = None, reason: str = "") -> Installed:
    """Brings back the release before, in one rename. Its signatures and sizes are looked at, its bytes are not read.

    A release that was let in unsigned is brought back as such; one whose key was revoked since is not.

    Raises:
        DataError: no such model, or nothing before.
        RefusedError: the release before does not verify any more.
    """
    device = Device(folder)
    if not device.store.is_dir():
        raise DataError(f"{folder}: no device's folder", hint=f"harness install RELEASE {folder}")
    with device.locked():
        model = device.model(name or _only_name(device))
        _reconcile(model)
        current = model.current()
        if current is None:
            raise DataError(
                f"{model.name}: nothing is installed", hint=f"installed: {', '.join(device.names())}"
            )
        target = model.record(current).before
        if target is None:
            raise DataError(f"{model.name}: no release before {current[:16]}…")
        record = model.record(target)
        report = _look_at(device.release(target), Trust(trust.known, bool(record.signers)))
        device.note("rollback", model.name, target, current, reason)
        model.switch(target)
    return Installed(model.name, target, record.before, model.link, report.signature, True)


def _refuse(model: Model, manifest: dict[str, Any], manifest_sha256: str, downgrade_reason: str) -> None:
    records = model.records()
    recipes = {record.recipe for record in records.values()} - {manifest["recipe"]}
    if recipes:
        raise RefusedError(
            f"{model.name} runs recipe {min(recipes)}, the release is of {manifest['recipe']}",
            hint="install it under a name of its own: --name",
        )
    order = order_of(manifest)
    others = [record for record in records.values() if record.manifest != manifest_sha256]
    blocking = next((record for record in others if not order.is_after(record.order)), None)
    if blocking and not downgrade_reason.strip():
        raise RefusedError(
            f"{order} is not shown to be newer than {blocking.order}, which was installed as {model.name}",
            hint="harness rollback brings the last one back; or give --allow-downgrade REASON",
        )


def _bring_in(
    release: Path, device: Device, manifest: dict[str, Any], digest: str, trust: Trust
) -> VerifyReport:
    """Copies the release into the store and verifies the copy; what is there already is verified where it is."""
    target = device.release(digest)
    if target.exists():
        report = verify(target, trust)
        if report.ok and read_json(target / MANIFEST) == manifest:
            return report
        if digest in {device.model(name).current() for name in device.names()}:
            raise IntegrityError(
                f"{target}: in use, and damaged: {report.failures()}", hint="harness rollback"
            )
    sizes = _sizes(release, manifest)
    needed, free = sum(sizes.values()) + _SPARE_BYTES, shutil.disk_usage(device.store).free
    if needed > free:
        raise HarnessError(
            f"{device.folder}: {needed:,} bytes are needed, {free:,} are free; nothing has changed"
        )
    try:
        with folder_written_whole(target) as part:
            for path, size in sizes.items():
                _copy(release / path, part / path, size)
            report = verify(part, trust)
            _require(report, release)
            if release_digest(part) != digest or read_json(part / MANIFEST) != manifest:
                raise RefusedError(f"{release}: it changed while it was read")
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise HarnessError(f"{device.folder}: {error.strerror}; nothing has changed") from error
        raise
    return report


def _sizes(release: Path, manifest: dict[str, Any]) -> dict[str, int]:
    """What is to be copied, with the most bytes that it may have."""
    sizes = {path: entry["bytes"] for path, entry in manifest["files"].items()}
    own = {MANIFEST: MAX_JSON_BYTES, **dict.fromkeys(STATEMENTS.values(), MAX_ENVELOPE_BYTES)}
    return sizes | {
        path: min(most, (release / path).lstat().st_size)
        for path, most in own.items()
        if os.path.lexists(release / path)
    }


def _copy(source: Path, target: Path, size: int) -> None:
    """Copies exactly so many bytes: a source that grows or is swapped for a link is no release."""
    target.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(handle, "rb") as read, target.open("xb") as written:
        left = size
        while left and (chunk := read.read(min(left, _CHUNK_BYTES))):
            written.write(chunk)
            left -= len(chunk)
        if left or read.read(1):
            raise RefusedError(f"{source}: has not the {size:,} bytes that the manifest names")
    target.chmod(0o444)


def _look_at(release: Path, trust: Trust) -> VerifyReport:
    report = verify_head(release, trust)
    _require(report, release)
    files = read_json(release / MANIFEST)["files"]
    wrong = [path for path, entry in files.items() if (release / path).lstat().st_size != entry["bytes"]]
    if wrong or release_digest(release) != release.name:
        raise RefusedError(f"{release}: damaged: {', '.join(wrong) or MANIFEST}")
    return report


def _require(report: VerifyReport, release: Path) -> None:
    if not report.ok:
        raise RefusedError(
            f"{release}: not a release to install: {report.failures()}", hint=f"harness verify {release}"
        )


def _reconcile(model: Model) -> None:
    """Writes down where a power cut fell between the log and the switch."""
    entries = [entry for entry in model.device.audit() if entry["model"] == model.name]
    current = model.current()
    if entries and entries[-1]["release"] != current:
        last = entries[-1]["release"]
        model.device.note(
            "interrupted", model.name, current or "", last, "the switch that was logged did not happen"
        )


def _only_name(device: Device) -> str:
    names = device.names()
    if len(names) != 1:
        known = ", ".join(names) or "none"
        raise DataError(f"{device.folder}: which model? {known}", hint="harness rollback DEVICE --name NAME")
    return names[0]
