"""Who vouches for a release folder, and for what: the checks of its signed statements."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import DataError
from harness.export.keys import KeyState, KnownKey, Trust
from harness.export.signing import MAX_ENVELOPE_BYTES, PAYLOAD_TYPE, Opened, open_envelope
from harness.export.statements import FILES, STATEMENT, TYPES, release_facts, subjects
from harness.files import parse_json

UNSIGNED = "UNSIGNED: nobody vouches for this folder"


@dataclass(slots=True)
class Attested:
    """The statements of a folder, and the keys that they are held against."""

    folder: Path
    trust: Trust
    manifest: Mapping[str, Any]
    manifest_sha256: str
    present: frozenset[str]
    """Which of the statements' files are there."""
    opened: dict[str, Opened] = field(default_factory=dict)
    read: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Statements by name, as far as they could be read."""

    @property
    def is_signed(self) -> bool:
        return bool(self.present)

    def signers(self) -> list[KnownKey]:
        """The known keys whose valid signatures are on every statement, trusted or revoked."""
        by_statement = [set(opened.valid) for opened in self.opened.values()]
        if len(by_statement) < len(FILES):
            return []
        return [self.trust.known[key] for key in sorted(set.intersection(*by_statement))]

    def note(self) -> str:
        """What the signatures show, in one line."""
        if not self.is_signed:
            return UNSIGNED
        names = [f"{key.name} ({key.id[:16]}…)" for key in self.signers()]
        if names:
            return f"all three signed by {', '.join(names)}"
        unknown = ", ".join(f"{key[:16]}…" for key in self._unknown())
        return f"UNPROVEN: signed by {unknown}, which is not in the trust store"

    def _unknown(self) -> Iterable[str]:
        return dict.fromkeys(key for opened in self.opened.values() for key in opened.unknown)


# The checks. Each yields what is wrong; nothing when all is well. They are asked in this order.


def _statements(of: Attested) -> Iterator[str]:
    if not of.is_signed:
        if of.trust.is_demanded:
            yield "unsigned, and a signature by a trusted key is demanded"
        return
    yield from (f"{path} is missing" for path in FILES.values() if path not in of.present)


def _envelopes(of: Attested) -> Iterator[str]:
    for name, path in FILES.items():
        if path in of.present:
            try:
                of.opened[name] = open_envelope(_bytes(of.folder / path), of.trust.known, name=path)
                of.read[name] = _statement(of.opened[name], name)
            except DataError as error:
                yield error.message


def _bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_ENVELOPE_BYTES + 1)


def _statement(opened: Opened, name: str) -> dict[str, Any]:
    if opened.payload_type != PAYLOAD_TYPE:
        raise DataError(f"{FILES[name]}: signed as {opened.payload_type!r}, wanted {PAYLOAD_TYPE}")
    statement = parse_json(opened.payload, name=f"the payload of {FILES[name]}")
    if not isinstance(statement, dict) or statement.get("_type") != STATEMENT:
        raise DataError(f"{FILES[name]}: its payload is no {STATEMENT}")
    if statement.keys() != {"_type", "subject", "predicateType", "predicate"}:
        raise DataError(f"{FILES[name]}: wanted _type, subject, predicateType and predicate")
    if statement["predicateType"] != TYPES[name]:
        raise DataError(f"{FILES[name]}: says {statement['predicateType']!r}, wanted {TYPES[name]}")
    return statement


def _signatures(of: Attested) -> Iterator[str]:
    for name, opened in of.opened.items():
        for key in opened.invalid:
            yield f"{FILES[name]}: not what {of.trust.known[key].name} ({key[:16]}…) signed"


def _trust(of: Attested) -> Iterator[str]:
    revoked = {
        key
        for opened in of.opened.values()
        for key in opened.valid
        if of.trust.known[key].state is KeyState.REVOKED
    }
    for key in sorted(revoked):
        known = of.trust.known[key]
        yield f"signed by {known.name} ({key[:16]}…), revoked on {known.since}: {known.reason}"
    trusted = [key for key in of.signers() if key.state is KeyState.TRUSTED]
    if of.is_signed and of.trust.is_demanded and not trusted:
        unknown = ", ".join(f"{key[:16]}…" for key in of._unknown())
        yield f"no trusted key signed all statements{f'; signed by {unknown}' if unknown else ''}"


def _subjects(of: Attested) -> Iterator[str]:
    wanted = {subject["name"]: subject["digest"] for subject in subjects(of.manifest, of.manifest_sha256)}
    for name, statement in of.read.items():
        found = {subject["name"]: subject["digest"] for subject in statement["subject"]}
        if len(found) != len(statement["subject"]):
            yield f"{FILES[name]} names a file twice"
        changed = sorted(path for path in {**found, **wanted} if found.get(path) != wanted.get(path))
        yield from (f"{FILES[name]} is about another {path}" for path in changed)


def _claims(of: Attested) -> Iterator[str]:
    """What each statement says of the release is what the manifest says."""
    wanted = release_facts(of.manifest)
    for name, statement in of.read.items():
        predicate = statement["predicate"]
        facts = predicate["buildDefinition"]["internalParameters"] if name == "provenance" else predicate
        if facts["release"] != wanted:
            yield f"{FILES[name]} is about another release"
    evaluation = of.read.get("evaluation", {}).get("predicate")
    if evaluation and evaluation["result"] not in ("PASSED", "WARNED"):
        yield f"{FILES['evaluation']} says {evaluation['result']}"


CHECKS = {
    "statements": _statements,
    "envelopes": _envelopes,
    "signatures": _signatures,
    "trust": _trust,
    "subjects": _subjects,
    "claims": _claims,
}

PROMISES = {
    "statements": "how it was judged, what it was made of, how it is calibrated",
    "envelopes": "three in-toto statements in DSSE envelopes",
    "signatures": "each is what its known keys signed",
    "subjects": "the statements are about exactly these files",
    "claims": "the statements and the manifest say the same",
}
