"""The lock of a recipe or suite as it is now, for whoever freezes it or looks at what was frozen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.evals.lock import make_lock
from harness.jobs.orders import load_order, read_splits
from harness.specs.load import LoadedSuite, load_suite
from harness.specs.yaml import read_yaml


def lock_of(document: Path, data_root: Path | None) -> dict[str, Any]:
    """What `harness.evals.lock.make_lock` says of the recipe with its suites, or of the suite alone.

    Raises:
        SpecError: problems of the documents, all at once.
        DataError: problems of the records.
    """
    if "recipe" in read_yaml(document).data:
        return load_order(document, data_root).lock
    suite = load_suite(document, data_root=data_root)
    splits = read_splits(LoadedSuite(suite, document), data_root)
    return make_lock([], {suite.suite: suite}, {suite.suite: splits})
