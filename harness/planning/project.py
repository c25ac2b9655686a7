"""A project to begin with: a planned recipe, its suites with records to replace, and the commands that come next."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from harness.errors import DataError, SpecError
from harness.files import bundled_root, folder_written_whole, write_atomic
from harness.planning.document import recipe_yaml
from harness.planning.estimates import base_mb
from harness.planning.facts import read_suite, with_suites
from harness.specs.domains import DOMAINS
from harness.specs.load import LoadedSuite
from harness.specs.obligations import Case, obligations_of, unmet
from harness.specs.plan import plan
from harness.specs.recipe import Recipe
from harness.specs.situation import Plan, Situation
from harness.specs.suite import Domain, Suite
from harness.specs.yaml import read_yaml

BECAUSE = "A starting project on the records that come with the harness, which measure no such thing; see README.md."


class Project(NamedTuple):
    """What was written."""

    folder: Path
    recipe: Path
    suites: tuple[Path, ...]
    open: tuple[str, ...]
    """What a person has to do before a release that counts."""


def bundled_suites(domain: Domain) -> dict[str, LoadedSuite]:
    """The domain's suites that come with the harness, by path from its root; the one that trains first.

    Suites on public data are left out: their records are not here.
    """
    root = bundled_root()
    found: dict[str, LoadedSuite] = {}
    for path in sorted((root / "suites" / domain).glob("*.yaml")):
        try:
            loaded = read_suite(path)
        except SpecError:
            continue
        if loaded.suite.records.public is None:
            found[str(path.relative_to(root))] = loaded
    gating = _gating(root / "recipes" / f"{domain}.yaml")
    return dict(sorted(found.items(), key=lambda item: _rank(item[0], item[1].suite, gating)))


def choose_suites(situation: Situation, candidates: Mapping[str, LoadedSuite]) -> dict[str, LoadedSuite]:
    """The first suite, and each further one that meets an obligation which those before it do not."""
    chosen = dict(list(candidates.items())[:1])
    still_open = _open_with(situation, chosen)
    for name, loaded in list(candidates.items())[1:]:
        tried = {**chosen, name: loaded}
        left = _open_with(situation, tried)
        if len(left) < len(still_open):
            chosen, still_open = tried, left
    return chosen


def propose(situation: Situation) -> Plan:
    """The plan on the suites that come with the harness for the domain; the situation's own ones go before.

    Raises:
        DataError: there are none for the domain.
    """
    if situation.suites:
        return plan(situation)
    candidates = {**bundled_suites(situation.domain), **_privacy_suite(situation)}
    if not candidates:
        raise DataError(
            f"no suite for {situation.domain} comes with the harness", hint="name yours: --suite FILE"
        )
    known = replace(situation, base_mb=situation.base_mb or base_mb(situation.base))
    return plan(with_suites(known, choose_suites(known, candidates)))


def start_project(domain: Domain, folder: Path) -> Project:
    """Writes the project, whole or not at all.

    Raises:
        DataError: the folder holds something, or no suite comes with the harness for the domain.
    """
    if folder.exists() and any(folder.iterdir()):
        raise DataError(f"{folder}: is not empty", hint="name an empty or absent folder")
    candidates = bundled_suites(domain)
    if not candidates:
        raise DataError(f"no suite for {domain} comes with the harness")
    situation = Situation(domain, name=f"my-{domain}", base_mb=base_mb(Situation(domain).base))
    chosen = choose_suites(situation, candidates)
    named = {f"suites/{loaded.path.name}": loaded for loaded in chosen.values()}
    found = plan(with_suites(situation, named))
    found = replace(found, recipe=_with_deviations(found.recipe, named))
    with folder_written_whole(folder) as part:
        for loaded in named.values():
            _copy_suite(loaded, part / "suites")
        write_atomic(part / f"{domain}.yaml", recipe_yaml(found, f"{domain}.yaml"))
        write_atomic(part / "README.md", _readme(domain, found, named))
    return Project(folder, folder / f"{domain}.yaml", tuple(folder / name for name in named), found.open)


def _gating(recipe: Path) -> list[str]:
    """File names of the suites that the domain's own recipe gates, in its order."""
    if not recipe.is_file():
        return []
    names = read_yaml(recipe).data.get("suites")
    return [Path(name).name for name in names if isinstance(name, str)] if isinstance(names, list) else []


def _rank(name: str, suite: Suite, gating: Sequence[str]) -> tuple[bool, int, str]:
    file = Path(name).name
    return suite.records.train is None, gating.index(file) if file in gating else len(gating), name


def _privacy_suite(situation: Situation) -> dict[str, LoadedSuite]:
    name = "suites/shared/privacy.yaml"
    if not situation.constraints.data_sensitive or not (bundled_root() / name).is_file():
        return {}
    return {name: read_suite(bundled_root() / name)}


def _open_with(situation: Situation, suites: Mapping[str, LoadedSuite]) -> list[str]:
    """Obligations that the planned recipe on these suites leaves open."""
    found = plan(with_suites(situation, suites))
    case = Case(Recipe.model_validate(found.recipe), tuple(loaded.suite for loaded in suites.values()))
    return [one.name for one in unmet(case)]


def _with_deviations(recipe: dict[str, Any], suites: Mapping[str, LoadedSuite]) -> dict[str, Any]:
    """The recipe with a reason for each obligation that the starting records can't meet."""
    case = Case(Recipe.model_validate(recipe), tuple(loaded.suite for loaded in suites.values()))
    excused = [{"from": one.name, "because": BECAUSE} for one in unmet(case)]
    items = list(recipe.items())
    at = list(recipe).index("constraints") + 1
    return dict([*items[:at], ("deviations", excused), *items[at:]]) if excused else recipe


def _copy_suite(loaded: LoadedSuite, target: Path) -> None:
    """The suite's document and each file that it names, in the same places around it."""
    target.mkdir(parents=True, exist_ok=True)
    text = loaded.path.read_text("utf-8")
    first, rest = text.split("\n", 1) if text.startswith("# harness ") else ("", text)
    write_atomic(
        target / loaded.path.name, f"# harness check suites/{loaded.path.name}\n{rest}" if first else text
    )
    for name in _record_files(loaded.suite):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(loaded.path.parent / name, target / name)


def _record_files(suite: Suite) -> Iterator[str]:
    for key in ("train", "dev", "calibration", "eval", "documents"):
        name = getattr(suite.records, key, None)
        if isinstance(name, str):
            yield name


def _readme(domain: Domain, found: Plan, suites: Mapping[str, LoadedSuite]) -> str:
    advice = DOMAINS[domain]
    owed = obligations_of(domain, Recipe.model_validate(found.recipe).constraints)
    listed = "\n".join(f"- `{name}`: {loaded.suite.description}" for name, loaded in suites.items())
    obliged = "\n".join(f"- `{one.name}` ({one.because}): {one.wants}" for one in owed)
    still_open = "\n".join(f"- {line}" for line in found.open) or "- nothing"
    return README.format(
        domain=domain,
        work=advice.work,
        matters="; ".join(advice.matters),
        suites=listed,
        obliged=obliged,
        open=still_open,
    )


README = """\
# {domain}: {work}

What matters most: {matters}.

```sh
harness check {domain}.yaml            # all problems at once, and what each rule can see
harness train {domain}.yaml            # baseline, training, the gate on the adapter
harness release {domain}.yaml          # all the way to a file that may ship; resumes where it stopped
harness                                # the same in the terminal
```

The records are those that come with the harness: they show the form and run at once. Put yours in their place, file
by file, and say in each suite what good means; then write the numbers of `{domain}.yaml` that your work needs.

## Suites

{suites}

## What the recipe owes

{obliged}

What it does not meet stands under `deviations`, with a reason that the release carries; take a deviation out when the
rule is in.

## Open

{open}
"""
