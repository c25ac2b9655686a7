"""The release folder: the file that passed, and all that shows that it did."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from harness.errors import IntegrityError, RefusedError
from harness.evals.results import Scorecard, State, Verdict
from harness.export.bom import BOM, bill_of_materials
from harness.export.card import model_card
from harness.export.header import read_header
from harness.export.keys import Trust
from harness.export.modelfile import modelfile
from harness.export.verify import (
    FIDELITY,
    FORMAT,
    LINEAGE,
    LOCK,
    MANIFEST,
    PICK,
    RECIPE,
    SUITES,
    VerifyReport,
    file_identity,
    verify,
)
from harness.files import canonical_json, folder_written_whole, sha256_file, write_atomic, write_json

if TYPE_CHECKING:
    from securesystemslib.signer import Signer

__all__ = ["ReleaseContents", "ReleaseReport", "VerifyReport", "sign_release", "verify", "write_release"]

CARD = "MODEL_CARD.md"
MODELFILE = "Modelfile"
REFERENCE = "reference.json"


@dataclass(frozen=True, slots=True)
class ReleaseContents:
    """All that goes into a release."""

    recipe: Mapping[str, Any]
    """The recipe's whole document, as JSON holds it."""
    picked: str
    """The stage whose file ships, such as `q4_k_m`."""
    gguf: Path
    gguf_sha256: str
    """Of the bytes that were judged."""
    verdicts: Mapping[str, Verdict]
    """By stage, from `base` to each quant."""
    scorecards: Mapping[str, Mapping[str, Scorecard]]
    """By stage, then suite."""
    lock: Mapping[str, Any]
    """The gate lock, with its `digest`."""
    lineage: Mapping[str, Any]
    """What it was made of: at least `base`, `data`, `code` and `libraries`."""
    fidelity: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """By stage: how far it is from its parent."""
    pick: Mapping[str, Any] = field(default_factory=dict)
    """`pick.Choice` as JSON: why this file, and why each other one not."""
    notes: tuple[str, ...] = ()
    """What a reader must know; each becomes a line of the model card."""
    calibrations: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Of the stage that ships, by suite: what `harness.evals.calibrate.Calibration` writes."""
    suites: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """By suite: {"suite": its whole document, "labels", "examples": turns before the question}, so that a device can
    ask what was evaluated."""
    reference: Mapping[str, Any] = field(default_factory=dict)
    """Of the stage that ships, by suite: what `harness.evals.reference.reference_of` gives."""
    sequence: int | None = None
    """Counts up from release to release, such as the second of the run's start; None when unknown."""


class ReleaseReport(NamedTuple):
    """What was written."""

    folder: Path
    model: Path
    manifest_sha256: str
    """Names the whole release: every file's digest is in the manifest."""
    bytes: int
    """Of all files together."""


def write_release(folder: Path, contents: ReleaseContents) -> ReleaseReport:
    """Writes the folder, whole or not at all, and verifies it before anyone can see it.

    The same contents give the same bytes. An earlier release in the folder is replaced.

    Raises:
        RefusedError: the verdict is not PASS, or not on exactly these bytes and this lock, or the folder
            holds something that is no release.
        IntegrityError: the GGUF is not the file that was judged.
    """
    _refuse(folder, contents)
    name = f"{contents.recipe['recipe']}-{contents.picked}.gguf"
    with folder_written_whole(folder) as part:
        shutil.copyfile(contents.gguf, part / name)
        _write_documents(part, name, contents)
        write_json(part / MANIFEST, _manifest(part, name, contents))
        report = verify(part)
        if not report.ok:
            raise RefusedError(f"the release does not verify: {report.failures()}")
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return ReleaseReport(folder, folder / name, sha256_file(folder / MANIFEST), size)


def sign_release(folder: Path, signer: Signer, trust: Trust | None = None) -> VerifyReport:
    """Signs the three statements about a release that verifies; what was signed before is replaced.

    The report is of the signed release, held against `trust`.

    Raises:
        IntegrityError: the folder does not verify.
    """
    from harness.export.signing import seal
    from harness.export.statements import FILES, statements

    verify(folder).raise_if_failed()
    with folder_written_whole(folder / "statements") as part:
        for name, statement in statements(folder).items():
            write_json(part / Path(FILES[name]).name, seal(canonical_json(statement).encode(), signer))
    report = verify(folder, trust)
    report.raise_if_failed()
    return report


def _refuse(folder: Path, contents: ReleaseContents) -> None:
    verdict = contents.verdicts.get(contents.picked)
    if verdict is None:
        raise RefusedError(f"no verdict on {contents.picked}: only a file that passed its gate is released")
    if verdict.verdict is not State.PASS:
        raise RefusedError(f"the verdict on {contents.picked} is {verdict.verdict}: only PASS is released")
    found = sha256_file(contents.gguf)
    if found != contents.gguf_sha256:
        raise IntegrityError(
            f"{contents.gguf}: sha256 is {found[:16]}…, the file that was judged had "
            f"{contents.gguf_sha256[:16]}…: its bytes changed"
        )
    if verdict.identity != file_identity(found):
        raise RefusedError(
            f"the verdict on {contents.picked} is about another file than {contents.gguf.name}"
        )
    if folder.exists() and not (folder / MANIFEST).is_file() and any(folder.iterdir()):
        raise RefusedError(f"{folder}: holds files and is no release", hint="name an empty or absent folder")


def _write_documents(part: Path, name: str, contents: ReleaseContents) -> None:
    write_json(part / RECIPE, dict(contents.recipe))
    write_json(part / LOCK, dict(contents.lock))
    write_json(part / LINEAGE, dict(contents.lineage))
    write_json(part / FIDELITY, {stage: dict(found) for stage, found in contents.fidelity.items()})
    write_json(part / PICK, dict(contents.pick))
    for stage, verdict in contents.verdicts.items():
        write_json(part / "verdicts" / f"{stage}.json", verdict.to_json())
    for stage, by_suite in contents.scorecards.items():
        for suite, card in by_suite.items():
            write_json(part / "scorecards" / stage / f"{suite}.json", card.to_json())
    for suite, calibration in contents.calibrations.items():
        write_json(part / "calibration" / contents.picked / f"{suite}.json", dict(calibration))
    for suite, asked in contents.suites.items():
        write_json(part / SUITES / f"{suite}.json", dict(asked))
    if contents.reference:
        write_json(part / REFERENCE, {"stage": contents.picked, "suites": dict(contents.reference)})
    header = read_header(part / name)
    write_json(part / BOM, bill_of_materials(name, contents, header))
    write_atomic(part / CARD, model_card(name, contents))
    write_atomic(part / MODELFILE, modelfile(name, header))


def _manifest(part: Path, name: str, contents: ReleaseContents) -> dict[str, Any]:
    files = sorted(path for path in part.rglob("*") if path.is_file())
    entries = {
        path.relative_to(part).as_posix(): {"sha256": sha256_file(path), "bytes": path.stat().st_size}
        for path in files
    }
    verdict = contents.verdicts[contents.picked]
    numbers = {} if contents.sequence is None else {"sequence": contents.sequence}
    return {
        "format": FORMAT,
        "recipe": contents.recipe["recipe"],
        "version": contents.recipe.get("version", 1),
        **numbers,
        "model": {"file": name, "stage": contents.picked, "identity": verdict.identity, **entries[name]},
        "lock": contents.lock["digest"],
        "files": entries,
    }
