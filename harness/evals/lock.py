"""The gate lock: what a verdict stands on, frozen before a run and looked at again after it.

A run takes its lock when it starts. A person can freeze one before, in a file beside the recipe or suite that goes into
version control: then every run of that recipe must stand on it.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import harness
from harness.errors import DataError, IntegrityError
from harness.files import digest_json, read_json, sha256_file, write_json

if TYPE_CHECKING:
    from harness.data.records import Record
    from harness.specs.gate import Gate
    from harness.specs.suite import Split, Suite

DECIDING_ROOMS = ("data", "evals", "retrieval", "scoring", "stats")
"""Rooms whose code can change a verdict."""
LOCK_SUFFIX = ".lock.json"


def make_lock(
    gates: Sequence[Gate], suites: Mapping[str, Suite], splits: Mapping[str, Mapping[Split, list[Record]]]
) -> dict[str, Any]:
    """The lock: digests of thresholds, and by suite of its document, template, scorers, calibration and records.

    `splits` is records by suite and split. `digest` covers all the rest.
    """
    parts = {
        "format": 1,
        "gates": digest_json([gate.model_dump() for gate in gates]),
        "suites": {name: _suite_part(suite, splits[name]) for name, suite in suites.items()},
        "calibration": {name: _calibration_part(gates, splits[name]) for name in suites},
        "code": code_digest(DECIDING_ROOMS),
    }
    return {**parts, "digest": digest_json(parts)}


def check_lock(taken: Mapping[str, Any], now: Mapping[str, Any], *, where: Path | None = None) -> None:
    """Returns when nothing that the gate stands on has changed.

    `where` is the lock file that a person has frozen; None for the lock of a run.

    Raises:
        IntegrityError: something has; the message names it.
    """
    if taken == now:
        return
    changed = [f"{path}" for path in _differences(taken, now) if path != "digest"]
    named = ", ".join(changed) or "the digest"
    if where is not None:
        recipe = document_of(where)
        raise IntegrityError(
            f"TAMPERED: not what {where} froze: {named}",
            hint=f"harness lock {recipe} freezes what is there now",
        )
    raise IntegrityError(
        f"TAMPERED: changed since the gate was locked: {named}",
        hint="run the same command with --fresh to evaluate against what is there now",
    )


def lock_file_of(document: Path) -> Path:
    """The lock file that stands beside a recipe or suite, whether it is there or not."""
    return document.with_name(document.stem + LOCK_SUFFIX)


def document_of(lock_file: Path) -> Path:
    """The recipe or suite that a lock file stands beside."""
    return lock_file.with_name(lock_file.name.removesuffix(LOCK_SUFFIX) + ".yaml")


def write_lock_file(document: Path, lock: Mapping[str, Any]) -> Path:
    """Freezes the lock beside the document; what was frozen before is replaced."""
    path = lock_file_of(document)
    versions = {"harness": harness.__version__, "python": platform.python_version()}
    when = datetime.now(UTC).isoformat(timespec="seconds")
    write_json(
        path, {"format": 1, "document": document.name, "frozen": when, "by": versions, "lock": dict(lock)}
    )
    return path


def read_lock_file(document: Path) -> dict[str, Any]:
    """The lock that was frozen beside the document.

    Raises:
        DataError: there is none, or it can't be read.
        IntegrityError: TAMPERED: the file was edited.
    """
    path = lock_file_of(document)
    frozen = read_json(path)
    lock = frozen.get("lock") if isinstance(frozen, dict) else None
    if not isinstance(lock, dict):
        raise DataError(f"{path}: not a lock file", hint=f"harness lock {document} makes one")
    if digest_json({key: part for key, part in lock.items() if key != "digest"}) != lock.get("digest"):
        raise IntegrityError(
            f"TAMPERED: {path} was edited: its digest is not that of its parts",
            hint=f"harness lock {document}",
        )
    return lock


def require_frozen(document: Path, lock: Mapping[str, Any]) -> None:
    """Returns when the lock is what was frozen beside the document, or nothing was.

    Raises:
        IntegrityError: TAMPERED, with the parts that differ.
    """
    path = lock_file_of(document)
    if path.exists():
        check_lock(read_lock_file(document), lock, where=path)


def code_digest(rooms: Sequence[str]) -> str:
    """The digest of the rooms' source files, by name and bytes."""
    root = Path(harness.__file__).parent
    files = sorted(path for room in rooms for path in (root / room).rglob("*.py"))
    return digest_json([[str(path.relative_to(root)), sha256_file(path)] for path in files])


def _suite_part(suite: Suite, splits: Mapping[Split, list[Record]]) -> dict[str, Any]:
    # Reading records takes much that looking at a lock doesn't: a tenth of a second at start-up.
    from harness.data.lineage import records_digest, snapshot_of_records
    from harness.specs.suite import scored_fields

    also = scored_fields(suite)
    return {
        "document": digest_json(suite.model_dump()),
        "template": digest_json(suite.prompt.model_dump()),
        "scorers": digest_json([scorer.model_dump() for scorer in suite.scorers]),
        "records": {
            split: {"n": len(rs), "digest": records_digest(rs, also)} for split, rs in splits.items()
        },
        # Of all documents: one that no question finds today is part of what was judged, too.
        **({"snapshot": snapshot_of_records(splits)} if suite.retrieval is not None else {}),
    }


def _calibration_part(gates: Sequence[Gate], splits: Mapping[Split, Sequence[Record]]) -> dict[str, Any]:
    """What prediction sets, abstention and temperatures are fitted by: the rules that ask for it, and the records."""
    from harness.data.lineage import records_digest
    from harness.specs.gate import CALIBRATED_METRICS

    asking = [gate for gate in gates if gate.metric in CALIBRATED_METRICS or gate.calibrated]
    records = splits.get("calibration", [])
    return {
        "rules": digest_json([gate.model_dump() for gate in asking]),
        "n": len(records),
        "digest": records_digest(records),
    }


def _differences(a: Any, b: Any, path: str = "") -> list[str]:
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        keys = sorted(set(a) | set(b))
        return [
            found
            for key in keys
            for found in _differences(a.get(key), b.get(key), f"{path}.{key}" if path else str(key))
        ]
    return [] if a == b else [path]
