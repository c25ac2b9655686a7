"""What a recipe owes to its domain and constraints, and does neither meet nor give a reason for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from harness.data.check_suite import Checked
from harness.data.protection import is_protected
from harness.data.sources import split_file
from harness.errors import Problem
from harness.specs.obligations import OBLIGATIONS, Case, Obligation, obligations_of
from harness.specs.recipe import Recipe
from harness.specs.yaml import YamlDocument, describe
from harness.text import nearest


def check_plan(
    yaml: YamlDocument,
    recipe: Recipe,
    suites: Sequence[Checked],
    data_root: Path | None,
    *,
    knows_all_suites: bool,
) -> list[Problem]:
    """Obligations without a rule or a reason, and reasons for what nobody obliges.

    With `knows_all_suites` false nothing can be said of obligations, and only the deviations' names are looked at.
    """
    owed = {one.name: one for one in obligations_of(recipe.domain, recipe.constraints)}
    excused = {deviation.from_: at for at, deviation in enumerate(recipe.deviations)}
    problems = list(_check_names(yaml, recipe))
    if not knows_all_suites:
        return problems
    case = Case(recipe, tuple(checked.suite for checked in suites if checked.suite is not None))
    open_ones = _unmet(case, yaml, suites, data_root, owed)
    problems += [
        _unmet_problem(yaml, owed[name], extra) for name, extra in open_ones.items() if name not in excused
    ]
    problems += [
        _needless(yaml, at, name, name in owed)
        for name, at in excused.items()
        if name in OBLIGATIONS and name not in open_ones
    ]
    return problems


def _unmet(
    case: Case,
    yaml: YamlDocument,
    suites: Sequence[Checked],
    data_root: Path | None,
    owed: Mapping[str, Obligation],
) -> dict[str, str]:
    """The names of what is not met, and what more there is to say of it."""
    found = {name: "" for name, one in owed.items() if one.is_met is not None and not one.is_met(case)}
    if "pseudonymised_data" in owed and (bare := _unprotected(case.recipe, yaml, suites, data_root)):
        found["pseudonymised_data"] = f"missing for {', '.join(bare)}: "
    return found


def training_files(
    recipe: Recipe, recipe_path: Path, suites: Sequence[Checked], data_root: Path | None
) -> list[Path]:
    """The files that train; those of the hub, and of public sets without `data_root`, are left out."""
    if not recipe.tune.trains:
        return []
    if recipe.data:
        named = [file.path for file in recipe.data if not file.path.startswith("hub:")]
        return [recipe_path.parent / name for name in named]
    if not suites or (first := suites[0].suite) is None:
        return []
    path = split_file(first, "train", suite_path=Path(suites[0].yaml.file), data_root=data_root)
    return [] if path is None else [path]


def _unprotected(
    recipe: Recipe, yaml: YamlDocument, suites: Sequence[Checked], data_root: Path | None
) -> list[str]:
    """Names of training files whose bytes are not those that a pseudonymisation wrote."""
    hub = [file.path for file in recipe.data if file.path.startswith("hub:")]
    is_unseen = bool(suites and suites[0].suite and suites[0].suite.records.public and data_root is None)
    if is_unseen and not recipe.data:
        return []
    files = training_files(recipe, Path(yaml.file), suites, data_root)
    return [*hub, *(path.name for path in files if path.is_file() and not is_protected(path))]


def _check_names(yaml: YamlDocument, recipe: Recipe) -> Iterator[Problem]:
    names = [deviation.from_ for deviation in recipe.deviations]
    for at, name in enumerate(names):
        here = ("deviations", at, "from")
        if name not in OBLIGATIONS:
            close = nearest(name, list(OBLIGATIONS))
            hint = f"nearest: {close}" if close else f"there are {', '.join(OBLIGATIONS)}"
            yield yaml.problem(here, describe(name), "an obligation", hint)
        elif names.index(name) < at:
            yield yaml.problem(here, describe(name), "each obligation once")


def _unmet_problem(yaml: YamlDocument, one: Obligation, extra: str) -> Problem:
    hint = f"{extra}add {one.add}; or say why not: deviations: [{{from: {one.name}, because: …}}]"
    return yaml.problem(("constraints",), one.because, one.wants, hint)


def _needless(yaml: YamlDocument, at: int, name: str, is_owed: bool) -> Problem:
    found = "the recipe meets it" if is_owed else "neither the domain nor the constraints oblige it"
    return yaml.problem(("deviations", at), describe(name), "a deviation from something", found)
