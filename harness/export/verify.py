"""Is a release folder what it says it is? Trusts nothing in the folder, loads no model, runs nothing."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from harness.errors import DataError, HarnessError, IntegrityError
from harness.evals.results import Scorecard, State, Verdict
from harness.export import attestation
from harness.export.attestation import Attested
from harness.export.keys import Trust
from harness.export.statements import FILES as STATEMENTS
from harness.files import digest_json, read_json, sha256_file

FORMAT = "dragongate.release/1"
MANIFEST = "manifest.json"
LOCK = "lock.json"
LINEAGE = "lineage.json"
RECIPE = "recipe.json"
FIDELITY = "fidelity.json"
PICK = "pick.json"

MAX_FILES = 4096
MAX_BYTES = 1 << 40
"""Of all files together, by what the folder claims before anything is read."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_LINEAGE_KEYS = ("base", "data", "code", "libraries")


class Order(NamedTuple):
    """Which of two releases of a recipe is newer; compare with `is_after`."""

    version: int
    """The recipe's, which a person counts up."""
    sequence: int | None
    """Second of the run's start since 1970; None in releases that have none."""

    def is_after(self, other: Order) -> bool:
        """Whether it is shown to be newer: without a sequence, the version alone can show it."""
        if self.version != other.version or self.sequence is None or other.sequence is None:
            return self.version > other.version
        return self.sequence > other.sequence

    def __str__(self) -> str:
        return f"version {self.version}, sequence {self.sequence or 'unknown'}"


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


def file_identity(sha256: str) -> str:
    """The identity digest of a GGUF file with these bytes; verdicts and scorecards carry it."""
    from harness.models.identity import identity_of

    return identity_of(kind="gguf", weights=sha256, tokenizer="in the file", template="in the file").digest


@dataclass(slots=True)
class _Release:
    """A folder while it is being looked at."""

    folder: Path
    trust: Trust
    after: Order | None
    manifest: dict[str, Any] = field(default_factory=dict)
    attested: Attested | None = None
    present: dict[str, os.stat_result] = field(default_factory=dict)
    """Plain files by their path in the folder."""
    odd: list[str] = field(default_factory=list)
    """Links, devices, empty folders and names that no release has."""
    digests: dict[str, str] = field(default_factory=dict)

    def statements(self) -> Attested:
        """What is signed of it; read once."""
        if self.attested is None:
            present = frozenset(path for path in STATEMENTS.values() if path in self.present)
            digest = sha256_file(self.folder / MANIFEST)
            self.attested = Attested(self.folder, self.trust, self.manifest, digest, present)
        return self.attested

    @property
    def files(self) -> dict[str, Any]:
        found: dict[str, Any] = self.manifest["files"]
        return found

    def read(self, path: str) -> Any:
        if path not in self.present or path not in self.files:
            raise DataError(f"{path} is missing")
        return read_json(self.folder / path)

    def verdict(self) -> Verdict:
        """Of the stage that ships."""
        return Verdict.from_json(self.read(f"verdicts/{self.manifest['model']['stage']}.json"))


def verify(folder: Path, trust: Trust | None = None, *, after: Order | None = None) -> VerifyReport:
    """Every check with its outcome; raises nothing for whatever the folder holds.

    `trust` says whose signatures count and whether one is demanded; then nothing is read of what no trusted key
    vouches for. With `after`, the release must be newer than that.
    """
    return _report(_Release(folder, trust or Trust.of_nobody(), after), _CHECKS)


def verify_head(folder: Path, trust: Trust | None = None, *, after: Order | None = None) -> VerifyReport:
    """The checks that read no large file: names, sizes, signatures, order. Milliseconds, whatever the model's size."""
    checks = {name: check for name, check in _CHECKS.items() if name in _OF_THE_HEAD}
    return _report(_Release(folder, trust or Trust.of_nobody(), after), checks)


def order_of(manifest: Mapping[str, Any]) -> Order:
    """Where a release stands among those of its recipe."""
    return Order(manifest["version"], manifest.get("sequence"))


def _report(release: _Release, wanted: Mapping[str, Callable[[_Release], Iterator[str]]]) -> VerifyReport:
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


def _outcome(name: str, check: Callable[[_Release], Iterator[str]], release: _Release) -> Check:
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


def _promise(name: str, release: _Release) -> str:
    if name in attestation.CHECKS and not release.statements().is_signed:
        return attestation.UNSIGNED if name == "statements" else "nothing is signed"
    if name == "trust":
        return release.statements().note()
    if name == "newer":
        return f"{order_of(release.manifest)}" + (f", after {release.after}" if release.after else "")
    return _PROMISES[name]


# The checks. Each yields what is wrong; nothing when all is well.


def _folder(release: _Release) -> Iterator[str]:
    mode = os.lstat(release.folder).st_mode
    if not stat.S_ISDIR(mode):
        yield f"{release.folder} is no folder"
        return
    _walk(release, release.folder, "")
    if len(release.present) > MAX_FILES:
        yield f"more than {MAX_FILES:,} files"


def _walk(release: _Release, folder: Path, prefix: str) -> None:
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


def _manifest(release: _Release) -> Iterator[str]:
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


def _plain_files(release: _Release) -> Iterator[str]:
    yield from release.odd


def _missing(release: _Release) -> Iterator[str]:
    yield from (f"{path} is missing" for path in release.files if path not in release.present)


def _extra(release: _Release) -> Iterator[str]:
    known = {*release.files, *STATEMENTS.values(), MANIFEST}
    yield from (f"{path} is not in {MANIFEST}" for path in release.present if path not in known)


def _sizes(release: _Release) -> Iterator[str]:
    total = sum(found.st_size for found in release.present.values())
    if total > MAX_BYTES:
        yield f"{total:,} bytes, over the limit of {MAX_BYTES:,}"


def _attested(name: str) -> Callable[[_Release], Iterator[str]]:
    return lambda release: attestation.CHECKS[name](release.statements())


def _newer(release: _Release) -> Iterator[str]:
    found = order_of(release.manifest)
    if release.after is not None and not found.is_after(release.after):
        yield f"{found} is not shown to be newer than {release.after}"


def _digests(release: _Release) -> Iterator[str]:
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


def _model(release: _Release) -> Iterator[str]:
    model = release.manifest["model"]
    models = [path for path in release.files if path.endswith(".gguf")]
    if models != [model["file"]]:
        yield f"wanted one GGUF file, {model['file']}; found {', '.join(models) or 'none'}"
        return
    if release.digests.get(model["file"]) != model["sha256"]:
        yield f"{model['file']} is not the file with sha256 {model['sha256'][:16]}…"
    if model["file"] in release.present:
        with (release.folder / model["file"]).open("rb") as file:
            if file.read(4) != b"GGUF":
                yield f"{model['file']} is no GGUF file"


_headers: dict[str, str] = {}
"""What this process found wrong in headers, by the file's sha256; empty for a good one. A child takes .3 s."""


def _header(release: _Release) -> Iterator[str]:
    from harness.export.header import read_header

    file = release.manifest["model"]["file"]
    digest = release.digests.get(file)
    if digest is None:
        yield f"{file} was not read"
        return
    if digest not in _headers:
        try:
            header = read_header(release.folder / file)
            is_mute = header.template is not None and not any(header.rendered)
            _headers[digest] = "its chat template renders no conversation" if is_mute else ""
        except DataError as error:
            _headers[digest] = error.message
    if _headers[digest]:
        yield _headers[digest]


def _lock(release: _Release) -> Iterator[str]:
    lock = release.read(LOCK)
    digest = digest_json({key: value for key, value in lock.items() if key != "digest"})
    if digest != lock["digest"]:
        yield f"{LOCK} was edited: its parts have digest {digest[:16]}…, it says {lock['digest'][:16]}…"
    if release.manifest["lock"] != lock["digest"]:
        yield f"{MANIFEST} names another lock than {LOCK}"
    found = release.verdict().lock
    if found != lock["digest"]:
        yield f"the verdict stands on lock {found[:16]}…, the release holds {lock['digest'][:16]}…"


def _thresholds(release: _Release) -> Iterator[str]:
    from harness.evals.gate import applies

    gates = _gates(release)
    # As they were written: a rule read by a later version has fields that nobody locked.
    if digest_json(release.read(RECIPE)["gates"]) != release.read(LOCK)["gates"]:
        yield f"the gates of {RECIPE} are not those that {LOCK} froze"
    stage = release.manifest["model"]["stage"]
    judged = {rule.rule for rule in release.verdict().rules}
    for name, gate in gates.items():
        if applies(gate, stage) and gate.name not in judged:
            yield f"rule {name!r} was not judged on {stage}"


def _gates(release: _Release) -> Mapping[str, Any]:
    from harness.specs.gate import Gate

    gates = [Gate.model_validate(gate) for gate in release.read(RECIPE)["gates"]]
    return {f"{gate.name} ({index})": gate for index, gate in enumerate(gates)}


def _verdict(release: _Release) -> Iterator[str]:
    from harness.evals.gate import combine, is_borne_out

    verdict, stage = release.verdict(), release.manifest["model"]["stage"]
    if verdict.verdict is not State.PASS:
        yield f"the verdict on {stage} is {verdict.verdict}"
    if verdict.stage != stage:
        yield f"the verdict is about {verdict.stage}, the release ships {stage}"
    if combine(verdict.rules) is not State.PASS:
        yield f"the rules say {combine(verdict.rules)}"
    gates = {gate.name: gate for gate in _gates(release).values()}
    for rule in verdict.rules:
        if rule.verdict is State.PASS and rule.rule in gates and not is_borne_out(rule, gates[rule.rule]):
            yield f"{rule.rule} · {rule.slice}: its numbers don't bear out PASS"


def _identity(release: _Release) -> Iterator[str]:
    model = release.manifest["model"]
    shipped = file_identity(release.digests.get(model["file"], ""))
    named = {"the verdict": release.verdict().identity, MANIFEST: model["identity"]}
    for what, identity in named.items():
        if identity != shipped:
            yield f"{what} is about another file than {model['file']}"


def _scorecards(release: _Release) -> Iterator[str]:
    verdict, stage = release.verdict(), release.manifest["model"]["stage"]
    for suite in sorted({rule.suite for rule in verdict.rules}):
        card = Scorecard.from_json(release.read(f"scorecards/{stage}/{suite}.json"))
        if (card.identity, card.stage, card.suite) != (verdict.identity, stage, suite):
            yield f"scorecards/{stage}/{suite}.json is about another file, stage or suite"
        if card.n < 1:
            yield f"scorecards/{stage}/{suite}.json scored nothing"


def _lineage(release: _Release) -> Iterator[str]:
    lineage = release.read(LINEAGE)
    yield from (f"{LINEAGE} says nothing of {key}" for key in _LINEAGE_KEYS if not lineage.get(key))


_NEEDED_BY_ALL = ("folder", "manifest", "sizes")

_CHECKS: dict[str, Callable[[_Release], Iterator[str]]] = {
    "folder": _folder,
    "manifest": _manifest,
    "plain files": _plain_files,
    "missing files": _missing,
    "extra files": _extra,
    "sizes": _sizes,
    **{name: _attested(name) for name in attestation.CHECKS},
    "newer": _newer,
    "digests": _digests,
    "model": _model,
    "header": _header,
    "lock": _lock,
    "thresholds": _thresholds,
    "verdict": _verdict,
    "identity": _identity,
    "scorecards": _scorecards,
    "lineage": _lineage,
}

_OF_THE_HEAD = frozenset(list(_CHECKS)[: list(_CHECKS).index("digests")])

_PROMISES = {
    **attestation.PROMISES,
    "folder": "a folder that can be read",
    "manifest": f"in format {FORMAT}",
    "plain files": "no links, devices or odd names",
    "missing files": "every listed file is there",
    "extra files": "nothing but the listed files",
    "sizes": f"at most {MAX_BYTES:,} bytes together",
    "digests": "every file has its sha256",
    "model": "one GGUF file, with the sha256 that was judged",
    "header": "a GGUF header that can be read, and a chat template that renders",
    "lock": "the verdict stands on this lock, and nobody edited it",
    "thresholds": "the gates are those that were locked, and each was judged",
    "verdict": "PASS, and its numbers bear it out",
    "identity": "the verdict is about exactly these bytes",
    "scorecards": "for exactly these bytes, and not empty",
    "lineage": "base, data, code and libraries are named",
}
