"""A release that may be served: its folder was verified, and what it asks and promises is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from harness.device.layout import Device, release_digest
from harness.edge.questions import Question
from harness.errors import DataError, IntegrityError, RefusedError
from harness.evals.calibrate import Calibration
from harness.evals.results import State
from harness.export.keys import Trust
from harness.export.verify import MANIFEST, PICK, RECIPE, SUITES, Order, order_of, verify
from harness.files import read_json
from harness.specs.suite import Suite


class CacheVerdict(NamedTuple):
    """What the file was found to be with one type of keys and values."""

    verdict: str | None
    """None where llama.cpp could not run it."""
    reason: str


@dataclass(frozen=True, slots=True)
class Release:
    """What can be served of a release folder."""

    folder: Path
    digest: str
    """See `release_digest`."""
    recipe: str
    stage: str
    """Whose file ships, such as `q4_0`."""
    model: Path
    sha256: str
    order: Order
    signature: str
    """What the signatures show, in one line."""
    questions: Mapping[str, Question]
    """By suite."""
    threads: int
    is_sensitive: bool
    """The recipe says that its data are."""
    caches: Mapping[str, CacheVerdict] = field(default_factory=dict)
    """By type of keys and values, those that the file was judged with."""

    def source(self) -> dict[str, str]:
        """What every line of the request log says of it."""
        return {"release": self.digest, "model": self.sha256, "stage": self.stage}

    def require_cache(self, kv: str) -> None:
        """Returns where the verdict is about answers with keys and values of this type; it always is with `f16`.

        Raises:
            RefusedError: the file was not judged with it, or did not pass.
        """
        found = self.caches.get(kv)
        if kv == "f16" or (found is not None and found.verdict == State.PASS):
            return
        if found is None:
            raise RefusedError(
                f"{self.recipe} {self.stage} was not judged with a {kv} cache: no verdict is about its answers",
                hint=f"export: {{caches: [f16, {kv}]}} in the recipe, then harness release",
            )
        raise RefusedError(
            f"{self.recipe} {self.stage} is {found.verdict or 'unjudged'} with a {kv} cache: {found.reason}",
            hint="--kv f16 is what it passed with",
        )

    def question(self, suite: str) -> Question:
        """What the suite asks.

        Raises:
            DataError: the release carries no such suite.
        """
        if suite not in self.questions:
            known = (
                ", ".join(sorted(self.questions)) or "none: it was made before releases carried their suites"
            )
            raise DataError(
                f"{self.recipe} has no suite {suite!r}; it has {known}",
                hint="harness release RECIPE makes a release with its suites",
            )
        return self.questions[suite]


def open_release(folder: Path, trust: Trust) -> Release:
    """The release in the folder, after every byte and claim of it was checked.

    Raises:
        RefusedError: it does not verify; the message names each check.
        DataError: what it says of its suites can't be read.
    """
    folder = folder.resolve()
    report = verify(folder, trust)
    if not report.ok:
        raise RefusedError(
            f"{folder}: not a release to serve: {report.failures()}", hint=f"harness verify {folder}"
        )
    manifest, recipe = read_json(folder / MANIFEST), read_json(folder / RECIPE)
    model = manifest["model"]
    return Release(
        folder=folder, digest=release_digest(folder), recipe=manifest["recipe"], stage=model["stage"],
        model=folder / model["file"], sha256=model["sha256"], order=order_of(manifest),
        signature=report.signature, questions=_questions(folder, model["stage"]),
        threads=int(recipe.get("device", {}).get("threads", 2)),
        is_sensitive=bool(recipe.get("constraints", {}).get("data_sensitive", False)), caches=_caches(folder),
    )  # fmt: skip


def open_installed(device: Path, trust: Trust, *, name: str | None = None) -> Release:
    """The release that is in place on a device, checked where it lies; signed if it was when it came.

    Raises:
        DataError: no device's folder, no such model, or several and no name.
        RefusedError, IntegrityError: it is not what was installed.
    """
    model = Device(device).model(name or only_name(device))
    digest = model.current()
    if digest is None:
        raise DataError(
            f"{device}: nothing is installed as {model.name}", hint=f"harness install RELEASE {device}"
        )
    record = model.record(digest)
    found = open_release(Device(device).release(digest), Trust(trust.known, bool(record.signers)))
    if found.digest != digest:
        raise IntegrityError(
            f"{found.folder}: is release {found.digest[:16]}…, wanted {digest[:16]}…", hint="harness rollback"
        )
    return found


def is_device(folder: Path) -> bool:
    """Whether the folder is a device's, as `harness install` makes them."""
    return (folder / "store").is_dir() and (folder / "models").is_dir()


def only_name(device: Path) -> str:
    """The one model's name on the device.

    Raises:
        DataError: there are several, or none.
    """
    names = Device(device).names()
    if len(names) != 1:
        raise DataError(
            f"{device}: which model? {', '.join(names) or 'none is installed'}", hint="--name NAME"
        )
    return names[0]


def _caches(folder: Path) -> dict[str, CacheVerdict]:
    rows = read_json(folder / PICK).get("caches", ())
    return {row["type"]: CacheVerdict(row["verdict"], row["reason"]) for row in rows}


def _questions(folder: Path, stage: str) -> dict[str, Question]:
    found = {}
    for path in sorted((folder / SUITES).glob("*.json")):
        document = read_json(path)
        name = path.stem
        calibration = folder / "calibration" / stage / path.name
        found[name] = _question(path, document, calibration)
    return found


def _question(path: Path, document: Mapping[str, Any], calibration: Path) -> Question:
    from pydantic import ValidationError

    try:
        examples = tuple((role, text) for turns in document["examples"] for role, text in turns)
        suite = Suite.model_validate_json(_json(document["suite"]))
        fitted = Calibration.from_json(read_json(calibration)) if calibration.is_file() else None
        return Question(suite, tuple(document["labels"]), examples, fitted)
    except (KeyError, TypeError, ValueError, ValidationError) as error:
        raise DataError(f"{path}: this version can't read the suite or its calibration: {error}") from error


def _json(value: Any) -> str:
    from harness.files import canonical_json

    return canonical_json(value)
