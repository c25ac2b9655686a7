"""Is a release folder what it says it is? Trusts nothing in the folder, loads no model, runs nothing."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from harness.errors import HarnessError, IntegrityError
from harness.export import attestation, claims
from harness.export.keys import Trust
from harness.export.opened import FIDELITY as FIDELITY
from harness.export.opened import FORMAT as FORMAT
from harness.export.opened import LINEAGE as LINEAGE
from harness.export.opened import LOCK as LOCK
from harness.export.opened import MANIFEST as MANIFEST
from harness.export.opened import PICK as PICK
from harness.export.opened import RECIPE as RECIPE
from harness.export.opened import SUITES as SUITES
from harness.export.opened import Opened
from harness.export.opened import Order as Order
from harness.export.opened import file_identity as file_identity
from harness.export.opened import order_of as order_of
from harness.export.statements import FILES as STATEMENTS
from harness.files import read_json, sha256_file

MAX_FILES = 4096
MAX_BYTES = 1 << 40
"""Of all files together, by what the folder claims before anything is read."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


class Check(NamedTuple):
    """One question and its answer."""

    name: str
    """Stable, such as `digests`: scripts may compare it."""
    ok: bool
    detail: str


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """All checks in their order. Where the manifest can't be read, nothing after it is asked."""

    folder: Path
    checks: tuple[Check, ...]
    signature: str = attestation.UNSIGNED
    """What the signatures show, in one line."""
    signers: tuple[str, ...] = ()
    """Ids of the known keys whose valid signatures are on every statement."""

    @property
    def ok(self) -> bool:
        """Every check holds, and there was something to check."""
        return bool(self.checks) and all(check.ok for check in self.checks)

    @property
    def failed(self) -> tuple[Check, ...]:
        return tuple(check for check in self.checks if not check.ok)

    def failures(self) -> str:
        """What does not hold, in one line."""
        return "; ".join(f"{check.name}: {check.detail}" for check in self.failed)

    def raise_if_failed(self) -> None:
        """Returns when all holds.

        Raises:
            IntegrityError: something does not; the message names each check.
        """
        if not self.ok:
            raise IntegrityError(f"{self.folder}: not a release to trust: {self.failures()}")

    def to_json(self) -> dict[str, Any]:
        checks = [check._asdict() for check in self.checks]
        signature = {"signature": self.signature, "signers": list(self.signers)}
        return {"release": str(self.folder), "ok": self.ok, **signature, "checks": checks}


def verify(folder: Path, trust: Trust | None = None, *, after: Order | None = None) -> VerifyReport:
    """Every check with its outcome; raises nothing for whatever the folder holds.

    `trust` says whose signatures count and whether one is demanded; then nothing is read of what no trusted key
    vouches for. With `after`, the release must be newer than that.
    """
    return _report(Opened(folder, trust or Trust.of_nobody(), after), _CHECKS)


def verify_head(folder: Path, trust: Trust | None = None, *, after: Order | None = None) -> VerifyReport:
    """The checks that read no large file: names, sizes, signatures, order. Milliseconds, whatever the model's size."""
    checks = {name: check for name, check in _CHECKS.items() if name in _OF_THE_HEAD}
    return _report(Opened(folder, trust or Trust.of_nobody(), after), checks)


def _report(release: Opened, wanted: Mapping[str, Callable[[Opened], Iterator[str]]]) -> VerifyReport:
    checks: list[Check] = []
    for name, check in wanted.items():
        is_blocked = name not in _OF_THE_HEAD and not all(check.ok for check in checks)
        if is_blocked and release.trust.is_demanded:
            break
        checks.append(_outcome(name, check, release))
        if name in _NEEDED_BY_ALL and not checks[-1].ok:
            break
    if release.attested is None:
        return VerifyReport(release.folder, tuple(checks))
    signers = tuple(key.id for key in release.attested.signers())
    return VerifyReport(release.folder, tuple(checks), release.attested.note(), signers)


def _outcome(name: str, check: Callable[[Opened], Iterator[str]], release: Opened) -> Check:
    from harness.text import visible

    try:
        problems = list(check(release))
    except HarnessError as error:
        problems = [error.message]
    except OSError as error:
        problems = [f"{error.filename}: {error.strerror}"]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        problems = [f"not in the format of {FORMAT}: {type(error).__name__} {error}"]
    shown = visible("; ".join(problems[:5]), keep_newlines=False, limit_chars=1000)
    more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
    return Check(name, not problems, shown + more if problems else _promise(name, release))


def _promise(name: str, release: Opened) -> str:
    if name in attestation.CHECKS and not release.statements().is_signed:
        return attestation.UNSIGNED if name == "statements" else "nothing is signed"
    if name == "trust":
        return release.statements().note()
    if name == "newer":
        return f"{order_of(release.manifest)}" + (f", after {release.after}" if release.after else "")
    return _PROMISES[name]


# The checks. Each yields what is wrong; nothing when all is well.


def _folder(release: Opened) -> Iterator[str]:
    mode = os.lstat(release.folder).st_mode
    if not stat.S_ISDIR(mode):
        yield f"{release.folder} is no folder"
        return
    _walk(release, release.folder, "")
    if len(release.present) > MAX_FILES:
        yield f"more than {MAX_FILES:,} files"


def _walk(release: Opened, folder: Path, prefix: str) -> None:
    entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    if prefix and not entries:
        release.odd.append(f"{prefix} is an empty folder")
    for entry in entries:
        path, mode = prefix + entry.name, entry.stat(follow_symlinks=False).st_mode
        if not _NAME.fullmatch(entry.name):
            release.odd.append(f"{path!r} is no name for a file of a release")
        elif stat.S_ISDIR(mode) and prefix.count("/") < 3:
            _walk(release, Path(entry.path), f"{path}/")
        elif stat.S_ISREG(mode):
            release.present[path] = entry.stat(follow_symlinks=False)
        else:
            release.odd.append(f"{path} is a link or no plain file")
        if len(release.present) > MAX_FILES:
            return


def _manifest(release: Opened) -> Iterator[str]:
    if MANIFEST not in release.present:
        yield f"{MANIFEST} is missing, or no plain file"
        return
    manifest = read_json(release.folder / MANIFEST)
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        yield f"{MANIFEST}: wanted format {FORMAT}"
        return
    wanted = {"format", "recipe", "version", "model", "lock", "files"}
    if manifest.keys() - {"sequence"} != wanted:
        yield f"{MANIFEST}: keys differ: {', '.join(sorted(manifest.keys() ^ wanted))}"
        return
    if not all(type(number) is int and number >= 0 for number in order_of(manifest) if number is not None):
        yield f"{MANIFEST}: version and sequence are whole numbers"
        return
    release.manifest = manifest
    for path, entry in release.files.items():
        if not _is_safe(path):
            yield f"{path!r} is no path inside a release"
        elif entry.keys() != {"sha256", "bytes"} or not _DIGEST.fullmatch(entry["sha256"]):
            yield f"{path} has no sha256 and bytes"


def _is_safe(path: str) -> bool:
    listed = path != MANIFEST and not path.startswith("statements/")
    return listed and all(_NAME.fullmatch(part) for part in path.split("/"))


def _plain_files(release: Opened) -> Iterator[str]:
    yield from release.odd


def _missing(release: Opened) -> Iterator[str]:
    yield from (f"{path} is missing" for path in release.files if path not in release.present)


def _extra(release: Opened) -> Iterator[str]:
    known = {*release.files, *STATEMENTS.values(), MANIFEST}
    yield from (f"{path} is not in {MANIFEST}" for path in release.present if path not in known)


def _sizes(release: Opened) -> Iterator[str]:
    total = sum(found.st_size for found in release.present.values())
    if total > MAX_BYTES:
        yield f"{total:,} bytes, over the limit of {MAX_BYTES:,}"


def _attested(name: str) -> Callable[[Opened], Iterator[str]]:
    return lambda release: attestation.CHECKS[name](release.statements())


def _newer(release: Opened) -> Iterator[str]:
    found = order_of(release.manifest)
    if release.after is not None and not found.is_after(release.after):
        yield f"{found} is not shown to be newer than {release.after}"


def _digests(release: Opened) -> Iterator[str]:
    for path, entry in release.files.items():
        if path not in release.present:
            continue
        size = release.present[path].st_size
        if size != entry["bytes"]:
            yield f"{path} has {size:,} bytes, wanted {entry['bytes']:,}"
            continue
        release.digests[path] = sha256_file(release.folder / path)
        if release.digests[path] != entry["sha256"]:
            yield f"{path}: sha256 is {release.digests[path][:16]}…, wanted {entry['sha256'][:16]}…"


_NEEDED_BY_ALL = ("folder", "manifest", "sizes")

_CHECKS: dict[str, Callable[[Opened], Iterator[str]]] = {
    "folder": _folder,
    "manifest": _manifest,
    "plain files": _plain_files,
    "missing files": _missing,
    "extra files": _extra,
    "sizes": _sizes,
    **{name: _attested(name) for name in attestation.CHECKS},
    "newer": _newer,
    "digests": _digests,
    **claims.CHECKS,
}

_OF_THE_HEAD = frozenset(list(_CHECKS)[: list(_CHECKS).index("digests")])

_PROMISES = {
    **attestation.PROMISES,
    **claims.PROMISES,
    "folder": "a folder that can be read",
    "manifest": f"in format {FORMAT}",
    "plain files": "no links, devices or odd names",
    "missing files": "every listed file is there",
    "extra files": "nothing but the listed files",
    "sizes": f"at most {MAX_BYTES:,} bytes together",
    "digests": "every file has its sha256",
}
