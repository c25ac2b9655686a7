"""The operating curves of recipes, from their documents and records."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.data.sources import load_split
from harness.errors import DataError
from harness.evals.curve import Curve, curve_of
from harness.evals.ledger import Attempt
from harness.specs.load import find_document, load_release
from harness.specs.yaml import read_yaml


def curves_of(documents: Sequence[str | Path], data_root: Path | None) -> dict[str, list[Curve]]:
    """The curves by recipe, at what a first attempt may spend. Suites alone have no rules.

    A suite whose public records are not at hand is left out.

    Raises:
        SpecError: problems of a document.
    """
    paths = [path for document in documents for path in _recipes(Path(document))]
    return {path.stem: found for path in paths if (found := _curves(path, data_root))}


def _recipes(document: Path) -> list[Path]:
    files = sorted(document.rglob("*.yaml")) if document.is_dir() else [find_document(document)]
    return [path for path in files if "recipe" in read_yaml(path).data]


def _curves(path: Path, data_root: Path | None) -> list[Curve]:
    found = load_release(path, data_root=data_root)
    attempt = Attempt(1, "", "", found.recipe.attempts == "spend")
    gates = attempt.hold(found.recipe.gates)
    first = found.suites[0].suite.suite
    curves = []
    for suite, suite_path in found.suites:
        try:
            records = load_split(suite, "eval", suite_path=suite_path, data_root=data_root)
        except DataError:
            continue
        mine = [gate for gate in gates if (gate.suite or first) == suite.suite]
        curves += [curve for gate in mine if (curve := curve_of(gate, suite.suite, records))]
    return curves
