"""What is wrong with the gates inside training: suites that the recipe lacks, or that have nothing to score with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from harness.data.check_suite import Checked
from harness.errors import Problem
from harness.specs.recipe import Recipe
from harness.specs.yaml import Loc, YamlDocument


def check_train_gates(
    yaml: YamlDocument, recipe: Recipe, suites: Sequence[Checked], *, knows_all_suites: bool
) -> Iterator[Problem]:
    """Each suite that `tune.gates` names and that can't score a checkpoint; the first one where it names none."""
    gates = recipe.tune.gates
    if gates is None or not knows_all_suites:
        return
    by_name = {checked.suite.suite: checked for checked in suites if checked.suite is not None}
    named: list[tuple[Loc, str]] = [
        (("tune", "gates", "suites", at), name) for at, name in enumerate(gates.suites)
    ]
    if gates.forgetting is not None:
        named.append((("tune", "gates", "forgetting"), gates.forgetting))
    if not gates.suites and by_name:
        named.append((("tune", "gates"), next(iter(by_name))))
    for loc, name in named:
        if name not in by_name:
            wanted = f"one of the recipe's suites: {', '.join(by_name)}"
            yield yaml.problem(
                loc, f'"{name}"', wanted, "a suite that steers training stands in `suites` too"
            )
        elif not _has_dev(by_name[name]):
            hint = f"give {name} a records.dev; eval records are sealed until training has ended"
            yield yaml.problem(loc, f'"{name}"', "a suite with development records", hint)


def _has_dev(checked: Checked) -> bool:
    """Unknown records, such as a public set that is not here, may have some."""
    if checked.splits is not None:
        return bool(checked.splits.get("dev"))
    return checked.suite is None or checked.suite.records.public is not None
