"""Records of lm-evaluation-harness tasks: each holds the very prompt, choices and gold that lm-eval would use.

Follows `lm_eval/api/task.py` and `api/samplers.py` (0.4.13): description, examples, question; examples are drawn
document by document from one generator, so that the same documents get the same examples.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from harness.data.lm_docs import Doc, read_docs
from harness.data.lm_template import lm_template_problems, render
from harness.data.records import MAX_SHOWN, Record, RecordsError
from harness.data.targets import scalar_text
from harness.errors import DataError, Problem
from harness.specs.lm_task import LmTask, LoadedTask, read_lm_task
from harness.specs.yaml import Loc, describe, read_yaml

FEW_SHOT_SEED = 1234
"""lm-eval's default for `--seed`'s fourth number."""
TEMPLATES = ("description", "doc_to_text", "doc_to_target", "doc_to_choice")
LOADERS = ("json", "csv", "parquet")


class Turn(NamedTuple):
    """A document, rendered."""

    text: str
    choices: tuple[str, ...] | None
    target: Any
    """A text, the number of a choice, or a list of either."""


def task_records(path: Path, data_root: Path | None) -> list[Record]:
    """The documents of the split that the task evaluates, in their order.

    The id is the document's own `id` where each has one of its own, else its number; `unit` and `slices` are the
    document's, where it has them.

    Raises:
        SpecError: the task has problems.
        RecordsError: documents can't be read or rendered: all that there are, up to ten.
    """
    loaded = read_lm_task(read_yaml(path))
    task = loaded.task
    _check_templates(loaded)
    docs = _split(loaded, str(task.eval_split), data_root)
    shots = _Shots(loaded, docs, data_root)
    ids = _ids(docs)
    problems: list[Problem] = []
    records = []
    for id_, doc in zip(ids, docs, strict=True):
        try:
            records.append(_record(task, id_, doc, shots))
        except DataError as error:
            where = f"document {id_}: {error.message}"
            problems.append(Problem(str(path), None, "", where, "", error.hint))
        if len(problems) >= MAX_SHOWN:
            break
    if problems:
        raise RecordsError(problems)
    return records


def _record(task: LmTask, id_: str, doc: Doc, shots: _Shots) -> Record:
    turn = _turn(task, doc)
    prompt = _field_or_template(doc, task.description) + shots.before(doc) + turn.text
    if not prompt.strip():
        raise DataError("an empty prompt")
    golds, choices = _golds(turn), turn.choices if task.output_type == "multiple_choice" else None
    slices = doc.get("slices")
    raw = {
        "id": id_, "input": prompt, "target": list(golds), "options": list(choices or ()), "doc": doc,
    }  # fmt: skip
    return Record(
        id=id_, input=prompt, targets=golds, slices=_texts_only(slices) if isinstance(slices, dict) else {},
        unit=scalar_text(doc.get("unit")) or id_, raw=raw, options=choices or (), target=list(golds),
    )  # fmt: skip


def _turn(task: LmTask, doc: Doc) -> Turn:
    choices = _choices(task, doc)
    return Turn(_text(task, doc), choices, _target(task, doc))


def _text(task: LmTask, doc: Doc) -> str:
    is_field = task.doc_to_text in doc
    text = doc[task.doc_to_text] if is_field else render(task.doc_to_text, doc)
    if not isinstance(text, str) or (not is_field and text.isdigit() and task.doc_to_choice is not None):
        raise DataError(f"doc_to_text gives {describe(text)}: a choice's number as the text is not supported")
    return text


def _target(task: LmTask, doc: Doc) -> Any:
    """The target in the type that lm-eval gives it."""
    wanted = task.doc_to_target
    if not isinstance(wanted, str):
        return list(wanted) if isinstance(wanted, tuple) else wanted
    if wanted in doc:
        return doc[wanted]
    text = render(wanted, doc)
    if text.isdigit() and task.doc_to_choice is not None:
        return int(text)
    return _literal(text, text) if len(text) >= 2 and text[0] == "[" and text[-1] == "]" else text


def _choices(task: LmTask, doc: Doc) -> tuple[str, ...] | None:
    wanted = task.doc_to_choice
    if wanted is None:
        return None
    if isinstance(wanted, dict):
        wanted = tuple(wanted.values())
    found: Any = wanted
    if isinstance(wanted, str):
        found = doc[wanted] if wanted in doc else _literal(render(wanted, doc), None)
    if (
        not isinstance(found, list | tuple)
        or len(found) < 2
        or not all(isinstance(one, str) and one for one in found)
    ):
        raise DataError(f"doc_to_choice gives {describe(found)}, wanted at least two texts")
    if len(set(found)) < len(found):
        raise DataError(f"doc_to_choice gives one choice twice: {describe(found)}")
    return tuple(found)


def _literal(text: str, otherwise: Any) -> Any:
    """The Python literal that a template spells, such as a list."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return otherwise


def _golds(turn: Turn) -> tuple[str, ...]:
    """The gold texts: choices by their number or text, or what the document holds."""
    values = turn.target if isinstance(turn.target, list) else [turn.target]
    if turn.choices is None and isinstance(turn.target, list) and not all(isinstance(v, str) for v in values):
        raise DataError(f"doc_to_target gives {describe(values)}, wanted texts")
    golds = [_gold(value, turn.choices) for value in values]
    if not golds:
        raise DataError("doc_to_target gives nothing")
    return tuple(dict.fromkeys(golds))


def _gold(value: Any, choices: Sequence[str] | None) -> str:
    if choices is None:
        return str(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(choices):
        return choices[value]
    if isinstance(value, str) and value in choices:
        return value
    raise DataError(f"doc_to_target gives {describe(value)}, which is none of the {len(choices)} choices")


class _Shots:
    """The examples before each question, drawn in the order of the questions."""

    def __init__(self, loaded: LoadedTask, docs: Sequence[Doc], data_root: Path | None) -> None:
        task = loaded.task
        self._task, self._n = task, task.num_fewshot or 0
        self._random = Random(FEW_SHOT_SEED)  # noqa: S311 - lm-eval's draw is repeated, nothing is secret
        self._pool: list[Doc] = []
        config = task.fewshot_config
        own = config.split or task.fewshot_split
        # lm-eval compares with test_split alone, also where neither is named.
        self._may_ask_itself = own == task.test_split
        if not self._n:
            return
        if own is None and config.samples is not None:
            self._pool = [dict(sample) for sample in config.samples]
        else:
            split = str(task.few_shot_split)
            if split == task.eval_split and not self._may_ask_itself:
                hint = "a question could stand among its own examples with its answer"
                raise RecordsError(
                    [loaded.problem(("num_fewshot",), f"examples from {split}", "another split", hint)]
                )
            self._pool = list(docs) if split == task.eval_split else _split(loaded, split, data_root)
        if len(self._pool) < self._n + self._may_ask_itself:
            found = f"{self._n} of {len(self._pool)} documents"
            raise RecordsError([loaded.problem(("num_fewshot",), found, "fewer examples, or more documents")])

    def before(self, doc: Doc) -> str:
        """The examples for the document, each with what stands behind it."""
        return "".join(self._shown(example) for example in self._drawn(doc)) if self._n else ""

    def _drawn(self, doc: Doc) -> Sequence[Doc]:
        """As lm-eval draws: one more where the document itself may be among them, and then left out."""
        if self._task.fewshot_config.sampler == "first_n":
            return list(islice(self._others(doc), self._n))
        if not self._may_ask_itself:
            return self._random.sample(self._pool, self._n)
        found = [one for one in self._random.sample(self._pool, self._n + 1) if one != doc][: self._n]
        return found if len(found) == self._n else self._random.sample(list(self._others(doc)), self._n)

    def _others(self, doc: Doc) -> Iterator[Doc]:
        return (one for one in self._pool if not self._may_ask_itself or one != doc)

    def _shown(self, example: Doc) -> str:
        turn = _turn(self._task, example)
        targets = turn.target if isinstance(turn.target, list) else [turn.target]
        answer = targets[0] if targets else None
        if turn.choices is not None and isinstance(answer, int):
            answer = _gold(answer, turn.choices)
        if not isinstance(answer, str):
            raise DataError(f"an example's answer is {describe(answer)}, wanted text")
        delimiter = self._task.target_delimiter if turn.target != "" else ""
        end = self._task.fewshot_delimiter if turn.target != "" else ""
        return f"{turn.text}{delimiter}{answer}{end}"


def _field_or_template(doc: Doc, text: str) -> str:
    return "" if not text else str(doc[text]) if text in doc else render(text, doc)


def _check_templates(loaded: LoadedTask) -> None:
    """All templates of the task at once, before a document is read.

    Raises:
        RecordsError: one may not stand in a task.
    """
    problems = [
        loaded.problem((key,), f"line {problem.line} of it: {problem.text}", "", problem.hint)
        for key in TEMPLATES
        if isinstance(source := getattr(loaded.task, key), str)
        for problem in lm_template_problems(source)
    ]
    if problems:
        raise RecordsError(problems)


def _split(loaded: LoadedTask, split: str, data_root: Path | None) -> list[Doc]:
    """The documents of the split.

    Raises:
        RecordsError: no such split, or files that are missing or can't be read.
    """
    docs: list[Doc] = []
    for loc, path in _files(loaded, split, data_root):
        if not path.is_file():
            raise RecordsError(
                [loaded.problem(loc, "no such file", "a file that is there", f"no file {path}")]
            )
        try:
            docs += read_docs(path)
        except DataError as error:
            raise RecordsError([Problem(str(path), None, "", error.message, "", error.hint)]) from error
    return docs


def _files(loaded: LoadedTask, split: str, data_root: Path | None) -> Iterator[tuple[Loc, Path]]:
    task = loaded.task
    if task.dataset_path not in LOADERS:
        yield ("dataset_path",), _public_file(loaded, split, data_root)
        return
    files = task.dataset_kwargs.data_files if task.dataset_kwargs else {}
    by_split: Mapping[str, str | tuple[str, ...]] = files if isinstance(files, dict) else {"train": files}
    loc: Loc = ("dataset_kwargs", "data_files")
    if split not in by_split:
        there = ", ".join(by_split)
        raise RecordsError(
            [loaded.problem(loc, f"no split {split}", f"files for {split}", f"there are {there}")]
        )
    names = by_split[split]
    for name in [names] if isinstance(names, str) else names:
        yield loc, Path(loaded.yaml.file).parent / name


def _public_file(loaded: LoadedTask, split: str, data_root: Path | None) -> Path:
    """The split's file of a public set. Nothing is downloaded: what is judged must be on this machine."""
    name = loaded.task.dataset_path
    wanted = "json, csv or parquet with data_files, or folder/name of a public set"
    loc: Loc = ("dataset_path",)
    if any(part in ("", ".", "..") for part in name.split("/")) or "\\" in name:
        raise RecordsError([loaded.problem(loc, describe(name), wanted)])
    if data_root is None:
        raise RecordsError(
            [loaded.problem(loc, describe(name), wanted, "pass --data FOLDER for a public set")]
        )
    return data_root / name / f"{split}.jsonl"


def _ids(docs: Sequence[Doc]) -> list[str]:
    own = [scalar_text(doc.get("id")) for doc in docs]
    if all(own) and len(set(own)) == len(own):
        return [str(id_) for id_ in own]
    return [str(number) for number in range(len(docs))]


def _texts_only(slices: Mapping[str, Any]) -> dict[str, str | list[str]]:
    texts: dict[str, str | list[str]] = {}
    as_text: Callable[[Any], str | None] = scalar_text
    for key, value in slices.items():
        if isinstance(value, list):
            texts[str(key)] = [text for one in value if (text := as_text(one)) is not None]
        elif (text := as_text(value)) is not None:
            texts[str(key)] = text
    return texts
