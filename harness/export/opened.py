"""A release folder while it is being looked at: its parts by name, and which of two is newer."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from harness.errors import DataError
from harness.evals.results import Verdict
from harness.export.attestation import Attested
from harness.export.keys import Trust
from harness.export.statements import FILES as STATEMENTS
from harness.files import read_json, sha256_file

FORMAT = "dragongate.release/1"
MANIFEST = "manifest.json"
LOCK = "lock.json"
LINEAGE = "lineage.json"
RECIPE = "recipe.json"
FIDELITY = "fidelity.json"
PICK = "pick.json"
SUITES = "suites"
"""Folder with what the suites ask, a file each."""


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


def order_of(manifest: Mapping[str, Any]) -> Order:
    """Where a release stands among those of its recipe."""
    return Order(manifest["version"], manifest.get("sequence"))


def file_identity(sha256: str) -> str:
    """The identity digest of a GGUF file with these bytes; verdicts and scorecards carry it."""
    from harness.models.identity import identity_of

    return identity_of(kind="gguf", weights=sha256, tokenizer="in the file", template="in the file").digest


@dataclass(slots=True)
class Opened:
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
