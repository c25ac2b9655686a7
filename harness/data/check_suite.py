"""What is wrong with one suite: its prompt, its labels, its slices, its records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, get_args

from harness.data.records import MAX_SHOWN, Record, RecordsError
from harness.data.sources import SPLITS, load_split, split_file
from harness.data.targets import gold_labels, labels_of
from harness.data.template import render_turns, template_problems
from harness.data.variants import PAIRED, make_variant, prompt_shows_labels, variants_of
from harness.errors import DataError, ModelError, Problem, SpecError
from harness.gbnf import check_grammar
from harness.specs.load import as_suite
from harness.specs.scorers import JUDGES, KNOWN_SCORERS
from harness.specs.suite import CHOOSES_LABEL, LABELLED, SCORED_BY_LOGPROB, Split, Suite
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
        suite = as_suite(yaml)
    except SpecError as error:
        return Checked(yaml, None, None, list(error.problems))
    problems = [
        *_check_prompt(yaml, suite),
        *_check_labels(yaml, suite),
        *_check_task(yaml, suite),
        *_check_scorers(yaml, suite),
        *_check_generation(yaml, suite),
    ]
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


def _check_prompt(yaml: YamlDocument, suite: Suite) -> Iterator[Problem]:
    for key in ("system", "user"):
        source = getattr(suite.prompt, key)
        for problem in template_problems(source) if source is not None else ():
            where = f"line {problem.line} of it: " if "\n" in source else ""
            yield yaml.problem(("prompt", key), f"{where}{problem.text}", "", problem.hint)
    if suite.retrieval is not None and "context" not in f"{suite.prompt.system or ''}{suite.prompt.user}":
        yield yaml.problem(
            ("prompt", "user"), "no context", "a prompt that shows `context`: what was retrieved"
        )


def _check_labels(yaml: YamlDocument, suite: Suite) -> Iterator[Problem]:
    for index, label in enumerate(suite.labels):
        if not label.strip() or label != label.strip():
            yield yaml.problem(("labels", index), describe(label), "text without spaces around it")
        elif suite.labels.index(label) < index:
            yield yaml.problem(("labels", index), describe(label), "each label once")
    if suite.task in CHOOSES_LABEL and len(suite.labels) == 1:
        yield yaml.problem(
            ("labels",), describe(list(suite.labels)), "at least two labels, or none to take training's"
        )


def _check_task(yaml: YamlDocument, suite: Suite) -> Iterator[Problem]:
    """Keys that mean nothing for the suite's task, or that the task can't do without."""
    has_options = suite.task in ("choice", "rank")
    for key, plain in (("normalise", "none"), ("answer_with", "text")):
        if getattr(suite, key) != plain and not has_options:
            yield yaml.problem(
                (key,), describe(getattr(suite, key)), "a task choice or rank", "no record has options"
            )
    if suite.answer_with == "letter":
        if "letters" not in suite.prompt.user:
            hint = "such as {% for option in options %}{{ letters[loop.index0] }}. {{ option }}"
            yield yaml.problem(("prompt", "user"), "no letters", "a prompt that shows `letters`", hint)
        if suite.normalise != "none":
            yield yaml.problem(
                ("normalise",), describe(suite.normalise), "none", "letters are all of one length"
            )
    for index, kind in enumerate(suite.confidence.kinds):
        if suite.task == "perplexity" or (kind != "p_true" and suite.task in SCORED_BY_LOGPROB):
            hint = (
                "its log-probabilities are its confidence"
                if suite.task != "perplexity"
                else "nothing is answered"
            )
            yield yaml.problem(
                ("confidence", "kinds", index), describe(kind), "a task that writes answers", hint
            )


def _check_generation(yaml: YamlDocument, suite: Suite) -> Iterator[Problem]:
    """A grammar that is none, or that does not fit the task."""
    asked, here = suite.generation.grammar, ("generation", "grammar")
    if asked is None:
        return
    if suite.task in SCORED_BY_LOGPROB:
        yield yaml.problem(here, describe(asked), "a task that writes answers", f"{suite.task} writes none")
    elif asked == "labels" and suite.task != "multi_label":
        yield yaml.problem(
            here, "labels", "task multi_label", "classify and verify choose among labels by themselves"
        )
    elif asked == "fields" and not suite.generation.fields:
        yield yaml.problem(
            here, "fields", "generation.fields", "such as fields: {name: string, price: number}"
        )
    elif asked not in ("labels", "fields"):
        try:
            check_grammar(asked)
        except ModelError as error:
            yield yaml.problem(here, describe(asked), "GBNF, labels or fields", error.message)


def _check_scorers(yaml: YamlDocument, suite: Suite) -> Iterator[Problem]:
    """Scorers that nobody knows or that can't judge such answers, settings that they don't have, doubled names."""
    names = [scorer.score_name for scorer in suite.scorers]
    for index, scorer in enumerate(suite.scorers):
        here = ("scorers", index)
        use = KNOWN_SCORERS.get(scorer.name)
        if use is None:
            close = nearest(scorer.name, list(KNOWN_SCORERS))
            hint = f"nearest: {close}" if close else f"there are {', '.join(KNOWN_SCORERS)}"
            yield yaml.problem(here, describe(scorer.name), "a scorer", hint)
            continue
        if suite.task not in use.tasks:
            fit = ", ".join(name for name, other in KNOWN_SCORERS.items() if suite.task in other.tasks)
            yield yaml.problem(here, describe(scorer.name), f"a scorer for {suite.task}", f"one of {fit}")
        if scorer.name in JUDGES and suite.judge is None:
            hint = "such as judge: openai:http://127.0.0.1:8080/v1#NAME, a GGUF or a checkpoint folder"
            yield yaml.problem(here, describe(scorer.name), "a suite that names its judge", hint)
        for key in scorer.settings:
            if key not in use.settings:
                hint = f"it knows {', '.join(use.settings)}" if use.settings else "it has no settings"
                yield yaml.problem(
                    (*here, key), describe(scorer.settings[key]), f"a setting of {scorer.name}", hint
                )
        if names.index(scorer.score_name) < index:
            yield yaml.problem(
                here, describe(scorer.score_name), "each score once", "give one of them a `key`"
            )


def _check_few_shot(yaml: YamlDocument, suite: Suite, splits: Splits) -> Iterator[Problem]:
    """Examples that training can't give, or that would show an answer that is asked for."""
    wanted = suite.prompt.few_shot
    if not wanted:
        return
    here, train = ("prompt", "few_shot"), splits["train"]
    if len(train) < wanted:
        hint = "give records.train" if not train else f"there are {len(train)}"
        yield yaml.problem(here, str(wanted), f"a training split of at least {wanted} records", hint)
    shared = sorted({record.id for record in train} & {record.id for record in splits["eval"]})
    if shared:
        yield yaml.problem(
            here, str(wanted), "training ids that eval does not have", f"both have {_some(shared)}"
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
    yield from _check_few_shot(yaml, suite, splits)
    yield from _check_invariance(yaml, suite, splits["eval"])
    if suite.task in LABELLED:
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


def _check_invariance(yaml: YamlDocument, suite: Suite, records: Sequence[Record]) -> Iterator[Problem]:
    """Changes that fit no eval record, and records in other words of records that are not there."""
    originals = variants_of(suite, records)
    ids = {record.id for record in records}
    labels, shows_labels = suite.labels or ("a", "b"), prompt_shows_labels(suite)
    for index, kind in enumerate(suite.invariance.kinds):
        here = ("invariance", "kinds", index)
        if suite.invariance.kinds.index(kind) < index:
            yield yaml.problem(here, describe(kind), "each change once")
        elif kind != PAIRED and not any(
            make_variant(kind, record, labels, shows_labels=shows_labels) for record in records
        ):
            yield yaml.problem(here, describe(kind), "a change that fits an eval record")
        elif kind == PAIRED and not originals:
            hint = f"records.fields.variant_of is {suite.records.fields.variant_of}"
            yield yaml.problem(
                here, describe(kind), "eval records that say whose other wording they are", hint
            )
        elif kind == PAIRED and "eval" not in suite.limit and (lost := sorted(set(originals.values()) - ids)):
            yield yaml.problem(
                here, describe(kind), "originals that are eval records", f"not there: {_some(lost)}"
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
    is_carved = suite.records.train is not None or suite.records.public is not None
    if is_carved and trained and not splits["train"]:
        yield yaml.problem(("records",), "no training records left", "smaller dev_frac and calibration_frac")


def _check_targets(yaml: YamlDocument, suite: Suite, splits: Splits) -> Iterator[Problem]:
    """Records that can't be right with the suite's labels, and labels that training never sees."""
    golds = {split: [gold_labels(suite.task, record) for record in splits[split]] for split in SPLITS}
    learned = {label for gold in golds["train"] for label in gold}
    labels = set(suite.labels) or learned
    for split in SPLITS:
        lost, names = _lost(suite, splits[split], golds[split], labels)
        if lost:
            found = f"{len(lost)} {split} record{'s' if len(lost) > 1 else ''} with {_some(names)}"
            ids = _some([record.id for record in lost])
            yield yaml.problem(("labels",), found, "", f"labels that the suite does not have; ids: {ids}")
    if not labels:
        yield yaml.problem(
            (), "no labels", "", "list them under `labels`, or give a training split that has them"
        )
    everywhere = {label for split in SPLITS for gold in golds[split] for label in gold}
    for index, label in enumerate(suite.labels):
        if not label.strip():
            continue
        if label not in everywhere:
            yield yaml.problem(
                ("labels", index), describe(label), "a label that a record has", _near(label, everywhere)
            )
        elif splits["train"] and label not in learned:
            yield yaml.problem(("labels", index), describe(label), "a label that a training record has")


def _lost(
    suite: Suite, records: Sequence[Record], golds: Sequence[tuple[str, ...]], labels: set[str]
) -> tuple[list[Record], list[str]]:
    """Records that the labels can't answer, and the labels that they would need."""
    if not labels:
        return [], []
    if suite.task == "multi_label":
        lost = [index for index, gold in enumerate(golds) if not labels.issuperset(gold)]
    else:
        lost = [index for index, gold in enumerate(golds) if not labels.intersection(gold)]
    return [records[index] for index in lost], sorted({label for i in lost for label in golds[i]} - labels)


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
