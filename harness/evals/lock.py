"""The gate lock: what a verdict stands on, frozen before a run and looked at again after it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import harness
from harness.data.lineage import records_digest
from harness.data.records import Record
from harness.errors import IntegrityError
from harness.files import digest_json, sha256_file
from harness.specs.gate import Gate
from harness.specs.suite import Split, Suite

DECIDING_ROOMS = ("data", "evals", "scoring", "stats")
"""Rooms whose code can change a verdict."""


def make_lock(
    gates: Sequence[Gate], suites: Mapping[str, Suite], splits: Mapping[str, Mapping[Split, list[Record]]]
) -> dict[str, Any]:
    """The lock: digests of thresholds, and by suite of its document, template and the records of each split.

    `splits` is records by suite and split. `digest` covers all the rest.
    """
    parts = {
        "format": 1,
        "gates": digest_json([gate.model_dump() for gate in gates]),
        "suites": {name: _suite_part(suite, splits[name]) for name, suite in suites.items()},
        "code": code_digest(DECIDING_ROOMS),
    }
    return {**parts, "digest": digest_json(parts)}


def check_lock(taken: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Returns when nothing that the gate stands on has changed.

    Raises:
        IntegrityError: something has; the message names it.
    """
    if taken == now:
        return
    changed = [f"{path}" for path in _differences(taken, now) if path != "digest"]
    raise IntegrityError(
        f"TAMPERED: changed since the gate was locked: {', '.join(changed) or 'the digest'}",
        hint="run the same command with --fresh to evaluate against what is there now",
    )


def code_digest(rooms: Sequence[str]) -> str:
    """The digest of the rooms' source files, by name and bytes."""
    root = Path(harness.__file__).parent
    files = sorted(path for room in rooms for path in (root / room).rglob("*.py"))
    return digest_json([[str(path.relative_to(root)), sha256_file(path)] for path in files])


def _suite_part(suite: Suite, splits: Mapping[Split, list[Record]]) -> dict[str, Any]:
    return {
        "document": digest_json(suite.model_dump()),
        "template": digest_json(suite.prompt.model_dump()),
        "records": {split: {"n": len(rs), "digest": records_digest(rs)} for split, rs in splits.items()},
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
