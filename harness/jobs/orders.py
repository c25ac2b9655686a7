"""From what a person asks for to a run folder: the command line and the terminal both come through here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from harness.data import targets
from harness.data.overlap import shared
from harness.data.records import Record
from harness.data.sources import load_split
from harness.errors import DataError
from harness.evals.lock import code_digest, make_lock, require_frozen
from harness.files import digest_json, sha256_file
from harness.jobs import launch
from harness.models.openai_reference import PREFIX, parse_endpoint
from harness.specs.load import LoadedSuite, load_release
from harness.specs.recipe import Recipe
from harness.specs.suite import LABELLED, Limit, Split, Suite

Until = Literal["train", "export", "release"]
SPLITS: tuple[Split, ...] = ("train", "dev", "calibration", "eval")
MAKING_ROOMS = ("data", "evals", "retrieval", "scoring", "stats", "models", "train", "export", "specs")
"""Rooms whose code can change what a run makes; a run of other code is another run."""


class Loaded(NamedTuple):
    """A recipe with all that it names, read and locked."""

    recipe: Recipe
    suites: dict[str, Suite]
    labels: dict[str, tuple[str, ...]]
    """Allowed labels by suite; empty for suites that generate."""
    splits: dict[str, dict[Split, list[Record]]]
    lock: dict[str, Any]
    data: tuple[Path, ...] = ()
    """The recipe's own training files, in its order."""
    left_out: tuple[str, ...] = ()
    """Ids of the suites' records that could have taught, and that the gate judges with or nearly."""

    @property
    def first(self) -> str:
        """The suite whose training split trains, and that rules without a suite read."""
        return next(iter(self.suites))


def load_order(recipe_path: Path, data_root: Path | None) -> Loaded:
    """The recipe with its suites, records and lock.

    Raises:
        SpecError: problems of the documents, all at once.
        DataError: problems of the records.
    """
    found = load_release(recipe_path, data_root=data_root)
    splits = {loaded.suite.suite: read_splits(loaded, data_root) for loaded in found.suites}
    suites = {loaded.suite.suite: loaded.suite for loaded in found.suites}
    labels = {name: labels_of(suite, splits[name]) for name, suite in suites.items()}
    data = tuple(data_file(file.path, found.path) for file in found.recipe.data)
    left_out = _leave_out(splits) if found.recipe.preflight.overlaps == "drop" else ()
    lock = make_lock(found.recipe.gates, suites, splits)
    return Loaded(found.recipe, suites, labels, splits, lock, data, left_out)


def _leave_out(splits: dict[str, dict[Split, list[Record]]]) -> tuple[str, ...]:
    """Takes out of all splits but `eval` what has its like in any suite's `eval`; what went."""
    judging = [record for by_split in splits.values() for record in by_split["eval"]]
    gone: list[str] = []
    for by_split in splits.values():
        for split in SPLITS[:-1]:
            ids = {left for left, _ in shared(by_split[split], judging)}
            gone += [record.id for record in by_split[split] if record.id in ids]
            by_split[split] = [record for record in by_split[split] if record.id not in ids]
    return tuple(dict.fromkeys(gone))


def data_file(name: str, recipe_path: Path) -> Path:
    """The training file that a recipe names.

    Raises:
        DataError: it is not there.
    """
    if name.startswith("hub:"):
        from harness.train.formats import hub_file

        return hub_file(name)
    path = recipe_path.parent / name
    if not path.is_file():
        raise DataError(f"{recipe_path}: data: no file {path}")
    return path


def whole_suite(options: Mapping[str, Any], suite: str) -> list[Record]:
    """All evaluation records of a suite of the run that has these options, before any limit.

    Raises:
        SpecError: the documents have problems by now.
        DataError: the records do.
    """
    root = Path(options["data_root"]) if options.get("data_root") else None
    found = next(
        one for one in load_release(options["recipe"], data_root=root).suites if one.suite.suite == suite
    )
    unlimited = found.suite.model_copy(update={"limit": {}})
    return load_split(unlimited, "eval", suite_path=found.path, data_root=root)


def order_release(
    home: Path,
    recipe_path: Path,
    *,
    data_root: Path | None,
    until: Until,
    out: Path,
    command: Sequence[str],
    fresh: bool = False,
) -> Path:
    """The folder of the run that does this; the same question always gets the same folder, unless `fresh`.

    Raises:
        IntegrityError: TAMPERED: what stands beside the recipe as its lock was frozen of something else.
    """
    loaded = load_order(recipe_path, data_root)
    require_frozen(recipe_path, loaded.lock)
    document = {
        "recipe": loaded.recipe.model_dump(mode="json"),
        "suites": {name: suite.model_dump(mode="json") for name, suite in loaded.suites.items()},
    }
    options = {
        "recipe": str(recipe_path.absolute()), "data_root": str(data_root.absolute()) if data_root else None,
        "until": until, "out": str(out.absolute()), "base": base_stamp(loaded.recipe.base), "fresh": fresh,
    }  # fmt: skip
    data = [sha256_file(path) for path in loaded.data]
    key = digest_json(
        [
            document,
            loaded.lock["digest"],
            options["base"],
            code_digest(MAKING_ROOMS),
            *([data] if data else []),
        ]
    )
    run = (
        fresh_name(home, f"{loaded.recipe.recipe}-{key[:8]}")
        if fresh
        else f"{loaded.recipe.recipe}-{key[:8]}"
    )
    return launch.prepare(
        home, run, job="release", title=f"{until} {loaded.recipe.recipe}", command=list(command),
        document=document, lock=loaded.lock["digest"], options=options,
    )  # fmt: skip


def order_eval(
    home: Path,
    suite_path: Path,
    *,
    model: str,
    data_root: Path | None,
    split: Split,
    command: Sequence[str],
    limit: Limit | None = None,
    repeat: bool = True,
    cache: bool = True,
    fresh: bool = False,
) -> Path:
    """The folder of the run that scores one model on one suite.

    `limit` takes a random subset of the split, `repeat` false leaves the noise floor out, and `cache` false
    computes every answer; all three are recorded.
    """
    from harness.specs.load import find_document, load_suite

    suite = load_suite(suite_path, data_root=data_root)
    splits = read_splits(LoadedSuite(suite, find_document(suite_path)), data_root)
    lock = make_lock([], {suite.suite: suite}, {suite.suite: splits})
    options = {
        "suite": str(suite_path.absolute()) if suite_path.exists() else str(suite_path), "model": model,
        "split": split, "data_root": str(data_root.absolute()) if data_root else None, "base": base_stamp(model),
        "limit": limit.model_dump() if limit else None, "repeat": repeat,
        "cache": cache,
    }  # fmt: skip
    key = digest_json([suite.model_dump(mode="json"), lock["digest"], options, code_digest(MAKING_ROOMS)])
    run = f"eval-{suite.suite}-{key[:8]}"
    return launch.prepare(
        home, fresh_name(home, run) if fresh else run, job="eval", title=f"eval {suite.suite} with {model}",
        command=list(command), document={"suite": suite.model_dump(mode="json")}, lock=lock["digest"],
        options=options,
    )  # fmt: skip


def base_stamp(reference: str) -> str:
    """What tells one base from another without loading it: the reference, and a file's or folder's digest.

    Raises:
        ModelError: the reference is to an endpoint and holds what must not be written down, such as a key.
    """
    if reference.startswith(PREFIX):
        parse_endpoint(reference)
    path = Path(reference)
    if path.is_file():
        return f"{reference}@{sha256_file(path)}"
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        return (
            f"{reference}@{digest_json([[str(file.relative_to(path)), sha256_file(file)] for file in files])}"
        )
    return reference


def fresh_name(home: Path, run: str) -> str:
    """The name with the first number behind it that no run has."""
    number = 2
    while (home / "runs" / f"{run}-{number}").exists():
        number += 1
    return f"{run}-{number}"


def read_splits(loaded: LoadedSuite, data_root: Path | None) -> dict[Split, list[Record]]:
    return {
        split: load_split(loaded.suite, split, suite_path=loaded.path, data_root=data_root)
        for split in SPLITS
    }


def labels_of(suite: Suite, splits: Mapping[Split, Sequence[Record]]) -> tuple[str, ...]:
    """The suite's labels, or those of its training records.

    Raises:
        DataError: the task needs labels, and there are none.
    """
    found = targets.labels_of(suite, splits["train"])
    if not found and suite.task in LABELLED:
        raise DataError(
            f"suite {suite.suite}: no labels",
            hint="list them under `labels`, or give a training split that has them",
        )
    return found
