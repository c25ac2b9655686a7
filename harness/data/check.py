"""What is wrong with recipes and suites, and with the records that they name. Loads no model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from harness.data.check_gates import check_gates
from harness.data.check_plan import check_plan
from harness.data.check_suite import Checked, check_suite
from harness.data.check_train_gates import check_train_gates
from harness.data.overlap import Overlap, find_overlaps
from harness.errors import Problem, SpecError
from harness.specs.gate import GateFile
from harness.specs.lm_task import is_lm_task
from harness.specs.load import find_document, resolve_suite, validate
from harness.specs.recipe import Export, Preflight, Recipe
from harness.specs.suite import Suite
from harness.specs.yaml import YamlDocument, dotted, read_yaml

MAX_IDS = 5
"""Overlapping records that a problem names."""


def check(paths: Sequence[str | Path], data_root: Path | None = None) -> list[Problem]:
    """All problems of the recipes and suites, and of the suites that the recipes name; empty when sound.

    A folder stands for the YAML files below it. Without `data_root`, the records of public sets are
    not looked at.
    """
    problems: list[Problem] = []
    for path in _documents(paths, problems):
        try:
            problems += _check_document(read_yaml(path), data_root)
        except SpecError as error:
            problems += error.problems
    return list(dict.fromkeys(problems))


def _documents(paths: Sequence[str | Path], problems: list[Problem]) -> Iterator[Path]:
    for path in paths:
        if Path(path).is_dir():
            yield from sorted(Path(path).rglob("*.yaml"))
            continue
        try:
            yield find_document(path)
        except SpecError as error:
            problems += error.problems


def _check_document(yaml: YamlDocument, data_root: Path | None) -> list[Problem]:
    if "recipe" in yaml.data:
        return _check_recipe(yaml, data_root)
    if "suite" in yaml.data or is_lm_task(yaml.data):
        return check_suite(yaml, data_root).problems
    if "gates" in yaml.data:
        validate(yaml, GateFile)
        return []
    wanted = "a key `recipe` or `suite` with its name, or `gates` alone"
    return [yaml.problem((), "neither a recipe nor a suite", wanted)]


def _check_recipe(yaml: YamlDocument, data_root: Path | None) -> list[Problem]:
    """Problems of the recipe as far as it can be read, so that one mistake hides no other."""
    problems: list[Problem] = []
    recipe: Recipe | None = None
    try:
        recipe = validate(yaml, Recipe)
    except SpecError as error:
        problems += error.problems
    suites, has_all = _check_suites(yaml, data_root, problems)
    problems += _missing_data(yaml)
    problems += _repeated(yaml, ("suites",), "suite")
    problems += _repeated(yaml, ("export", "quants"), "quant")
    problems += _same_names(yaml, suites)
    problems += [
        problem for index, checked in suites.items() for problem in _ungradable(yaml, index, checked)
    ]
    problems += check_gates(
        yaml, list(suites.values()), _quants(yaml), knows_all_suites=has_all, trains=_trains(yaml)
    )
    if recipe is not None:
        read = [suites[at] for at in sorted(suites)]
        problems += check_plan(yaml, recipe, read, data_root, knows_all_suites=has_all)
        problems += check_train_gates(yaml, recipe, read, knows_all_suites=has_all)
    if 0 in suites and (first := suites[0]).suite is not None:
        look = _check_training if _trains(yaml) else _check_measuring
        problems += look(yaml, first.suite, first)
    return sorted(problems, key=lambda problem: (problem.file != yaml.file, problem.file, problem.line or 0))


def _check_suites(
    yaml: YamlDocument, data_root: Path | None, problems: list[Problem]
) -> tuple[dict[int, Checked], bool]:
    """The suites that could be read, by their position, and whether those are all."""
    names = yaml.data.get("suites")
    names = names if isinstance(names, list) else []
    found: dict[int, Checked] = {}
    for index, name in enumerate(names):
        if not isinstance(name, str):
            continue
        try:
            checked = check_suite(read_yaml(resolve_suite(yaml, index, name)), data_root)
        except SpecError as error:
            problems += error.problems
            continue
        problems += checked.problems
        if checked.suite is not None:
            found[index] = checked
    return found, bool(names) and len(found) == len(names)


def _missing_data(yaml: YamlDocument) -> list[Problem]:
    """Training files that are not there; those of the hub are looked for when they are read."""
    files = yaml.data.get("data")
    paths = [
        (at, file.get("path"))
        for at, file in enumerate(files if isinstance(files, list) else [])
        if isinstance(file, dict)
    ]
    return [
        yaml.problem(("data", at, "path"), f'"{path}"', f"a file, from {Path(yaml.file).parent}")
        for at, path in paths
        if isinstance(path, str)
        and not path.startswith("hub:")
        and not (Path(yaml.file).parent / path).is_file()
    ]


def _repeated(yaml: YamlDocument, loc: tuple[str, ...], what: str) -> list[Problem]:
    items: object = yaml.data
    for part in loc:
        items = items.get(part) if isinstance(items, dict) else None
    if not isinstance(items, list):
        return []
    return [
        yaml.problem(
            (*loc, index), f'"{item}"', f"each {what} once", f"{dotted((*loc, items.index(item)))} is it too"
        )
        for index, item in enumerate(items)
        if isinstance(item, str) and items.index(item) < index
    ]


def _same_names(yaml: YamlDocument, suites: dict[int, Checked]) -> list[Problem]:
    names = {index: checked.suite.suite for index, checked in suites.items() if checked.suite}
    files = {index: checked.yaml.file for index, checked in suites.items()}
    return [
        yaml.problem(
            ("suites", later),
            f'"{names[later]}"',
            "suites with names of their own",
            f"{files[first]} is it too",
        )
        for first in names
        for later in names
        if first < later and names[first] == names[later] and files[first] != files[later]
    ]


def _ungradable(yaml: YamlDocument, index: int, checked: Checked) -> Iterator[Problem]:
    """A suite that not every stage of a release can answer in the same way."""
    if checked.suite is not None and checked.suite.generation.grammar is not None:
        hint = "a checkpoint can't be held to one; leave generation.grammar to `harness eval` of a GGUF"
        yield yaml.problem(("suites", index), f'"{checked.suite.suite}"', "a suite without a grammar", hint)


def _quants(yaml: YamlDocument) -> tuple[str, ...]:
    export = yaml.data.get("export")
    quants = export.get("quants") if isinstance(export, dict) else None
    return tuple(map(str, quants)) if isinstance(quants, list) else Export().quants


def _trains(yaml: YamlDocument) -> bool:
    tune = yaml.data.get("tune")
    return not (isinstance(tune, dict) and tune.get("method") == "none")


def _check_measuring(yaml: YamlDocument, suite: Suite, checked: Checked) -> list[Problem]:
    """Where nothing trains, the files are still held against their parent on records that don't judge them."""
    if checked.splits is None or checked.splits.get("dev") or checked.splits.get("train"):
        return []
    hint = f"give {suite.suite} a records.dev: on it, each file is measured against the 16-bit one"
    return [yaml.problem(("suites", 0), f'"{suite.suite}"', "a suite with development records", hint)]


def _check_training(yaml: YamlDocument, suite: Suite, checked: Checked) -> list[Problem]:
    """Problems of training on the suite: nothing to train on, or what the gate will ask."""
    if yaml.data.get("data"):
        return []
    if suite.records.public is None and suite.records.train is None:
        hint = f"give {suite.suite} a records.train, or put the suite that has one first"
        return [yaml.problem(("suites", 0), f'"{suite.suite}"', "a suite with training records", hint)]
    if checked.splits is None:
        return []
    learned = [
        record for split in ("train", "dev", "calibration") for record in checked.splits.get(split, [])
    ]
    overlaps = find_overlaps(learned, checked.splits.get("eval", []))
    shared = {overlap.right: overlap for overlap in reversed(overlaps)}
    if _drops_overlaps(yaml) or len(shared) <= _max_overlaps(yaml):
        return []
    found = f"{len(shared)} eval record{'s' if len(shared) > 1 else ''} outside eval too"
    return [
        yaml.problem(("suites", 0), found, "none that overlap", _name_overlaps(list(shared.values())[::-1]))
    ]


def _drops_overlaps(yaml: YamlDocument) -> bool:
    preflight = yaml.data.get("preflight")
    return isinstance(preflight, dict) and preflight.get("overlaps") == "drop"


def _max_overlaps(yaml: YamlDocument) -> int:
    preflight = yaml.data.get("preflight")
    allowed = preflight.get("max_overlaps") if isinstance(preflight, dict) else None
    return allowed if isinstance(allowed, int) else Preflight().max_overlaps


def _name_overlaps(overlaps: Sequence[Overlap]) -> str:
    shown = "; ".join(
        f"{pair.right} has the {_KIND_WORDS[pair.kind]} of {pair.left}" for pair in overlaps[:MAX_IDS]
    )
    left_out = len(overlaps) - MAX_IDS
    return f"{shown}; and {left_out:,} more" if left_out > 0 else shown


_KIND_WORDS = {"id": "id", "unit": "unit", "text": "text", "normalised": "words", "near": "shingles"}
