"""What is wrong with one suite: its prompt, its labels, its slices, its records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, get_args

from harness.data.records import MAX_SHOWN, Record, RecordsError
from harness.data.sources import SPLITS, load_split, split_file
from harness.data.template import render_turns, template_problems
from harness.errors import DataError, Problem, SpecError
from harness.specs.load import validate
from harness.specs.suite import Split, Suite
from harness.specs.yaml import YamlDocument, describe
from harness.text import nearest, visible

MAX_NAMES = 5
"""Labels that a problem names."""

Splits = Mapping[str, Sequence[Record]]


class Checked(NamedTuple):
    """A suite, as far as it could be read, and what is wrong with it."""

    yaml: YamlDocument
    suite: Suite | None
    splits: Splits | None
    """Records by split; None when they can't be read, or a public set has no `data_root`."""
    problems: list[Problem]


def check_suite(yaml: YamlDocument, data_root: Path | None) -> Checked:
    """The suite with all its problems."""
    try:
        suite = validate(yaml, Suite)
    except SpecError as error:
        return Checked(yaml, None, None, list(error.problems))
    problems = [*_check_prompt(yaml, suite), *_check_labels(yaml, suite), *_check_scorers(yaml, suite)]
    has_template = not problems
    splits: Splits | None = None
    if suite.records.public is None or data_root is not None:
        splits = _read_splits(yaml, suite, data_root, problems)
    if splits is not None:
        problems += _check_records(yaml, suite, splits)
        problems += _check_rendering(yaml, suite, splits) if has_template else []
    return Checked(
        yaml, suite, splits, sorted(problems, key=lambda p: (p.file != yaml.file, p.file, p.line or 0))
    )


def labels_of(suite: Suite, train: Sequence[Record]) -> tuple[str, ...]:
    """The suite's labels in their order; where it lists none, the sorted labels of the training records."""
    return suite.labels or tuple(sorted({target for record in train for target in record.targets}))


def _check_prompt(yaml: YamlDocument, suite: Suite) -> Iterator[Problem]:
    for key in ("system", "user"):
        source = getattr(suite.prompt, key)
        for problem in template_problems(source) if source is not None else ():
            where = f"line {problem.line} of it: " if "\n" in source else ""
            yield yaml.problem(("prompt", key), f"{where}{problem.text}", "", problem.hint)


def _check_labels(yaml: YamlDocument, suite: Suite) -> Iterator[Problem]:
    for index, label in enumerate(suite.labels):
        if not label.strip() or label != label.strip():
            yield yaml.problem(("labels", index), describe(label), "text without spaces around it")
        elif suite.labels.index(label) < index:
            yield yaml.problem(("labels", index), describe(label), "each label once")
    if suite.task == "classify" and len(suite.labels) == 1:
        yield yaml.problem(
            ("labels",), describe(list(suite.labels)), "at least two labels, or none to take training's"
        )


def _check_scorers(yaml: YamlDocument, suite: Suite) -> Iterator[Problem]:
    for index, scorer in enumerate(suite.scorers):
        if scorer.name == "label" and suite.task == "generate":
            yield yaml.problem(
                ("scorers", index), "label", "exact or normalised", "free answers are no labels"
            )


def _read_splits(
    yaml: YamlDocument, suite: Suite, data_root: Path | None, problems: list[Problem]
) -> Splits | None:
    """The records by split, or None after what stands in the way was noted."""
    before = len(problems)
    path = Path(yaml.file)
    splits: dict[str, list[Record]] = {}
    for split in SPLITS:
        try:
            file = split_file(suite, split, suite_path=path, data_root=data_root)
            if file is not None and not file.is_file():
                key = "public" if suite.records.public else split
                found = describe(getattr(suite.records, key))
                problems.append(
                    yaml.problem(("records", key), found, "a file that is there", f"no file {file}")
                )
                continue
            splits[split] = load_split(suite, split, suite_path=path, data_root=data_root)
        except RecordsError as error:
            problems += [problem for problem in _shortened(error) if problem not in problems]
        except DataError as error:
            problems.append(yaml.problem(("records",), error.message, "", error.hint))
            break
    return splits if len(problems) == before else None


def _shortened(error: RecordsError) -> list[Problem]:
    """The first problems of a file, and one that counts the others."""
    first = list(error.problems[:MAX_SHOWN])
    left_out = len(error.problems) - len(first)
    if left_out:
        first.append(Problem(first[0].file, None, "", f"{left_out:,} more problems", "", "mend these first"))
    return first


def _check_records(yaml: YamlDocument, suite: Suite, splits: Splits) -> Iterator[Problem]:
    yield from _check_shares(yaml, suite, splits)
    if suite.task == "classify":
        yield from _check_targets(yaml, suite, splits)
    known = Counter(key for record in splits["eval"] for key in record.slices)
    for index, name in enumerate(suite.slices):
        if name not in known:
            close = nearest(name, list(known))
            hint = f"nearest: {close}" if close else f"there are {', '.join(sorted(known)) or 'none'}"
            yield yaml.problem(
                ("slices", index), describe(name), "a slice that eval records have", visible(hint)
            )
    for split in suite.limit:
        if not splits[split]:
            known_splits = ", ".join(name for name in get_args(Split) if splits[name])
            yield yaml.problem(
                ("limit", split), "no records", "a split that has some", f"there are {known_splits}"
            )


def _check_shares(yaml: YamlDocument, suite: Suite, splits: Splits) -> Iterator[Problem]:
    """Shares of the training units that came out empty."""
    trained = [record for split in ("train", "dev", "calibration") for record in splits[split]]
    units = len({record.unit for record in trained})
    for split, key in (("dev", "dev_frac"), ("calibration", "calibration_frac")):
        frac = getattr(suite.records, key)
        if frac and trained and not splits[split]:
            yield yaml.problem(
                ("records", key), f"{frac:g}", "", f"none of the {units} training units falls into {split}"
            )
    if trained and not splits["train"]:
        yield yaml.problem(("records",), "no training records left", "smaller dev_frac and calibration_frac")


def _check_targets(yaml: YamlDocument, suite: Suite, splits: Splits) -> Iterator[Problem]:
    """Records that can't be right with the suite's labels, and labels that training never sees."""
    learned = {target for record in splits["train"] for target in record.targets}
    labels = set(suite.labels) or learned
    for split in SPLITS:
        lost = [record for record in splits[split] if labels and not labels & set(record.targets)]
        if lost:
            names = sorted({target for record in lost for target in record.targets})
            found = f"{len(lost)} {split} record{'s' if len(lost) > 1 else ''} with {_some(names)}"
            ids = _some([record.id for record in lost])
            yield yaml.problem(("labels",), found, "", f"labels that the suite does not have; ids: {ids}")
    if not labels:
        yield yaml.problem(
            (), "no labels", "", "list them under `labels`, or give a training split that has them"
        )
    everywhere = {target for split in SPLITS for record in splits[split] for target in record.targets}
    for index, label in enumerate(suite.labels):
        if not label.strip():
            continue
        if label not in everywhere:
            yield yaml.problem(
                ("labels", index), describe(label), "a label that a record has", _near(label, everywhere)
            )
        elif splits["train"] and label not in learned:
            yield yaml.problem(("labels", index), describe(label), "a label that a training record has")


def _check_rendering(yaml: YamlDocument, suite: Suite, splits: Splits) -> Iterator[Problem]:
    """The first record of each split that the prompt can't be rendered for."""
    labels = labels_of(suite, splits["train"])
    for split in SPLITS:
        for record in splits[split]:
            try:
                render_turns(suite.prompt, record, labels)
            except DataError as error:
                yield yaml.problem(("prompt",), error.message, f"a prompt that fits every {split} record")
                break


def _near(label: str, known: set[str]) -> str:
    close = nearest(label, sorted(known))
    return f"nearest: {visible(close, limit_chars=60)}" if close else ""


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(visible(name, keep_newlines=False, limit_chars=60) for name in names[:MAX_NAMES])
    return f"{shown} and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else shown
