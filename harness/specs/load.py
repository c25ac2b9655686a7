"""Documents from files: found by name, read strictly, checked whole, all problems at once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, TypeVar

from harness.errors import Problem, SpecError
from harness.files import bundled_root
from harness.specs.base import Document
from harness.specs.gate import Gate, GateFile
from harness.specs.lm_task import is_lm_task, lm_suite, read_lm_task
from harness.specs.problems import translate
from harness.specs.recipe import Recipe
from harness.specs.suite import Suite
from harness.specs.yaml import YamlDocument, read_yaml
from harness.text import nearest

DocumentT = TypeVar("DocumentT", bound=Document)
_SUFFIXES = (".yaml", ".yml")


class LoadedSuite(NamedTuple):
    """A suite and the file that it came from."""

    suite: Suite
    path: Path


class LoadedRecipe(NamedTuple):
    """A recipe with the suites that it names, in their order."""

    recipe: Recipe
    path: Path
    suites: tuple[LoadedSuite, ...]


def load_suite(path: str | Path, *, data_root: Path | None = None) -> Suite:
    """The suite in the file; a name that is no file is looked for as `find_document` does.

    With `data_root`, a public set that is not there is a problem too.

    Raises:
        SpecError: all problems of the document.
    """
    found = find_document(path)
    yaml = read_yaml(found)
    suite = as_suite(yaml)
    if data_root is not None and (problem := _missing_public_set(suite, yaml, data_root)):
        raise SpecError([problem])
    return suite


def load_recipe(path: str | Path) -> Recipe:
    """The recipe in the file, without its suites.

    Raises:
        SpecError: all problems of the document.
    """
    return validate(read_yaml(find_document(path)), Recipe)


def load_gates(path: str | Path) -> tuple[Gate, ...]:
    """The rules of a recipe, or of a file that has nothing but `gates`.

    Raises:
        SpecError: all problems of the document.
    """
    yaml = read_yaml(find_document(path))
    return validate(yaml, Recipe).gates if "recipe" in yaml.data else validate(yaml, GateFile).gates


def load_release(path: str | Path, *, data_root: Path | None = None) -> LoadedRecipe:
    """The recipe and all its suites.

    Raises:
        SpecError: all problems of the recipe and of its suites together.
    """
    found = find_document(path)
    yaml = read_yaml(found)
    problems: list[Problem] = []
    recipe: Recipe | None = None
    try:
        recipe = validate(yaml, Recipe)
    except SpecError as error:
        problems.extend(error.problems)
    suites = list(_suites_of(yaml, data_root, problems))
    if problems or recipe is None:
        raise SpecError(
            sorted(problems, key=lambda problem: (problem.file != yaml.file, problem.file, problem.line or 0))
        )
    return LoadedRecipe(recipe, found, tuple(suites))


def find_document(name: str | Path, *, near: Path | None = None) -> Path:
    """The file that the name means.

    Looked for in this order: beside `near` (the document that names it), in the folder above that, in
    the working directory, and among the suites and recipes that come with the harness.

    Raises:
        SpecError: there is none; the hint is the nearest name that there is.
    """
    wanted = Path(name).expanduser()
    for folder in _folders(near):
        for candidate in _spellings(folder / wanted):
            if candidate.is_file():
                return candidate
    close = nearest(wanted.stem, sorted({path.stem for path in _known_documents(near)}))
    hint = f"nearest: {close}" if close else "`harness check FILE` looks into one"
    raise SpecError([Problem(str(name), None, "", "no such file", "a suite or recipe", hint)])


def as_suite(yaml: YamlDocument) -> Suite:
    """The suite that the document is, or that a task of lm-evaluation-harness means.

    Raises:
        SpecError: all problems.
    """
    if is_lm_task(yaml.data):
        return lm_suite(read_lm_task(yaml))
    return validate(yaml, Suite)


def validate(yaml: YamlDocument, model: type[DocumentT]) -> DocumentT:
    """The document as a model, strictly: text is no number, 1 is not true.

    Raises:
        SpecError: all problems.
    """
    from pydantic import ValidationError

    try:
        # JSON's strict mode takes a list for a tuple and a whole number for a float, and nothing else.
        return model.model_validate_json(json.dumps(yaml.data), strict=True)
    except ValidationError as error:
        raise SpecError(translate(error, yaml, model)) from error


def _suites_of(yaml: YamlDocument, data_root: Path | None, problems: list[Problem]) -> Iterator[LoadedSuite]:
    """The suites that load; what is wrong with the others goes to `problems`."""
    names = yaml.data.get("suites")
    for index, name in enumerate(names if isinstance(names, list) else []):
        if not isinstance(name, str):
            continue
        try:
            path = resolve_suite(yaml, index, name)
            yield LoadedSuite(load_suite(path, data_root=data_root), path)
        except SpecError as error:
            problems.extend(error.problems)


def resolve_suite(recipe: YamlDocument, index: int, name: str) -> Path:
    """The file of the recipe's suite number `index`.

    Raises:
        SpecError: there is none, at the recipe's line.
    """
    try:
        return find_document(name, near=Path(recipe.file))
    except SpecError as error:
        hint = f"no such file; {error.problems[0].hint}"
        raise SpecError([recipe.problem(("suites", index), f'"{name}"', "a suite file", hint)]) from error


def _missing_public_set(suite: Suite, yaml: YamlDocument, data_root: Path) -> Problem | None:
    name = suite.records.public
    if name is None or (data_root / name).is_dir():
        return None
    return yaml.problem(
        ("records", "public"), f'"{name}"', f"a folder in {data_root}", "pass its parent as --data"
    )


def _folders(near: Path | None) -> Iterator[Path]:
    if near is not None:
        yield near.parent
        yield near.parent.parent
    yield Path()
    root = bundled_root()
    yield from (root, root / "suites", root / "recipes")


def _spellings(path: Path) -> Iterator[Path]:
    yield path
    if path.suffix not in _SUFFIXES:
        yield from (path.with_name(path.name + suffix) for suffix in _SUFFIXES if path.name)


def _known_documents(near: Path | None) -> Iterator[Path]:
    root = bundled_root()
    folders = [root / "suites", root / "recipes", Path()] + ([near.parent] if near else [])
    for folder in folders:
        pattern = "*.yaml" if folder == Path() else "**/*.yaml"
        yield from (path for path in folder.glob(pattern) if path.is_file())
