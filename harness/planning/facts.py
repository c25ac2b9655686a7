"""What the records of a suite can show, before anything is asked of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.data.records import Record
from harness.data.sources import load_split
from harness.specs.load import LoadedSuite, find_document, load_suite
from harness.specs.plan_rules import MIN_LABEL_N, MIN_N
from harness.specs.situation import GroupFacts, Situation, SuiteFacts
from harness.specs.suite import LABELLED
from harness.stats.multiplicity import alpha_for_attempt
from harness.stats.planning import detectable_margin, planned_worth
from harness.stats.survey import effective_lower, effective_sample

ALPHA = 0.05


def read_suite(name: str | Path, data_root: Path | None = None) -> LoadedSuite:
    """The suite and its file.

    Raises:
        SpecError: it has problems, or there is none of that name.
    """
    return LoadedSuite(load_suite(name, data_root=data_root), find_document(name))


def suite_facts(loaded: LoadedSuite, named: str, data_root: Path | None = None) -> SuiteFacts:
    """What the suite's evaluation records can show at the first attempt; `named` is how the recipe calls it.

    Raises:
        DataError: the records can't be read.
    """
    suite, path = loaded
    records = load_split(suite, "eval", suite_path=path, data_root=data_root)
    calibration = load_split(suite, "calibration", suite_path=path, data_root=data_root)
    units = [record.unit for record in records]
    alpha = alpha_for_attempt(ALPHA, 1)
    groups = {key: found for key in suite.slices if (found := _group(_by_value(records, key), MIN_N))}
    if suite.task in LABELLED and (labels := _group(_by_label(records), MIN_LABEL_N)):
        groups["label"] = labels
    return SuiteFacts(
        named, suite, len(records), len(calibration), _best_bound(units, alpha),
        detectable_margin(planned_worth(units, alpha), alpha=alpha), groups,
    )  # fmt: skip


def n_training(loaded: LoadedSuite, data_root: Path | None = None) -> int | None:
    """Training records of the suite; None where it has none."""
    records = load_split(loaded.suite, "train", suite_path=loaded.path, data_root=data_root)
    return len(records) or None


def with_suites(
    situation: Situation, named: Mapping[str, LoadedSuite], data_root: Path | None = None
) -> Situation:
    """The situation with facts of these suites, the first of which trains."""
    from dataclasses import replace

    facts = tuple(suite_facts(loaded, name, data_root) for name, loaded in named.items())
    first = next(iter(named.values()), None)
    n_train = situation.n_train
    if n_train is None and first is not None:
        n_train = n_training(first, data_root)
    return replace(situation, suites=facts, n_train=n_train)


def _by_value(records: Sequence[Record], key: str) -> dict[str, list[str]]:
    """Units by each value of the slice key."""
    found: dict[str, list[str]] = {}
    for record in records:
        value = record.slices.get(key)
        for one in value if isinstance(value, list) else [value]:
            if one is not None:
                found.setdefault(one, []).append(record.unit)
    return found


def _by_label(records: Sequence[Record]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for record in records:
        for label in record.targets:
            found.setdefault(label, []).append(record.unit)
    return found


def _group(units_by_value: Mapping[str, Sequence[str]], least: int) -> GroupFacts | None:
    judged = [units for units in units_by_value.values() if len(units) >= least]
    if not judged:
        return None
    bounds = [_best_bound(units, alpha_for_attempt(ALPHA, 1)) for units in judged]
    return GroupFacts(len(judged), min(map(len, judged)), min(bounds))


def _best_bound(units: Sequence[str], alpha: float) -> float:
    """The lower bound that the gate gives where every item is right."""
    sample = effective_sample([1.0] * len(units), units, alpha)
    return 0.0 if sample is None else effective_lower(sample, alpha)
