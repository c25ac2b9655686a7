"""Tasks of lm-evaluation-harness, in the subset that needs no Python, as suites.

Keys and defaults are those of `lm_eval/config/task.py` (0.4.13). What is not in the subset is refused by name:
a task that ran without one of its keys would give another number under the same name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, model_validator

from harness.errors import Problem, SpecError
from harness.specs.base import Document
from harness.specs.problems import translate
from harness.specs.suite import Fields, Generation, PromptSpec, Records, ScorerSpec, Suite
from harness.specs.yaml import Loc, YamlDocument, describe, read_yaml

MAX_INCLUDES = 8
MAX_PROMPT_TOK = 131_072
_CODE = "Python of a task is never run"
_OTHER_INPUT = "only text is read"
REFUSED = {
    "process_docs": _CODE, "process_results": _CODE, "custom_dataset": _CODE, "unsafe_code": _CODE, "class": _CODE,
    "doc_to_image": _OTHER_INPUT, "doc_to_audio": _OTHER_INPUT, "use_prompt": "write the prompt as doc_to_text",
    "gen_prefix": "write it at the end of doc_to_text", "should_decontaminate": "harness check finds overlap",
    "doc_to_decontamination_query": "harness check finds overlap", "dataset_name": "name files in data_files",
    "task_list": "one task a file", "group": "", "aggregate_metric_list": "one task a file",
}  # fmt: skip
IGNORED = ("tag", "group", "task_alias", "group_alias", "metadata")
"""Keys that change no number."""


class Metric(Document):
    """How a document's answer is counted."""

    metric: Literal["acc", "acc_norm", "exact_match"]
    aggregation: Literal["mean"] = "mean"
    higher_is_better: Literal[True] = True
    ignore_case: bool = False
    ignore_punctuation: bool = False
    ignore_numbers: bool = False
    regexes_to_ignore: tuple[str, ...] = ()


class Step(Document):
    """One step from what the model wrote to what is counted."""

    function: Literal["regex", "take_first", "remove_whitespace", "lowercase", "uppercase"]
    regex_pattern: str = r"#### (\-?[0-9\.\,]+)"
    group_select: int = 0
    fallback: str = "[invalid]"


class Filter(Document):
    """Steps with a name; the last one takes the first answer."""

    name: str
    filter: tuple[Step, ...]

    @model_validator(mode="after")
    def _takes_first_at_last(self) -> Filter:
        if [step.function for step in self.filter].count("take_first") != 1 or (
            self.filter[-1].function != "take_first"
        ):
            raise ValueError("filter must end with take_first, which no other step is")
        return self


class GenerationKwargs(Document):
    """How the model writes."""

    until: str | tuple[str, ...] | None = None
    max_gen_toks: Annotated[int, Field(ge=1, le=8192)] = 256
    do_sample: Literal[False] = False
    temperature: Annotated[float, Field(ge=0.0, le=0.0)] = 0.0


class FewShot(Document):
    """Where examples come from."""

    sampler: Literal["default", "first_n"] = "default"
    split: str | None = None
    samples: tuple[dict[str, Any], ...] | None = None


class DatasetKwargs(Document):
    """Files of a data set, by split; one file or list alone is the split `train`."""

    data_files: str | tuple[str, ...] | dict[str, str | tuple[str, ...]]


class LmTask(Document):
    """A task of lm-evaluation-harness: multiple choice by log-likelihood, or written answers."""

    task: str
    output_type: Literal["multiple_choice", "generate_until"] = "generate_until"
    dataset_path: str
    """`json`, `csv` or `parquet` with `data_files`, or `folder/name` of a public set under `--data`."""
    dataset_kwargs: DatasetKwargs | None = None
    training_split: str | None = None
    validation_split: str | None = None
    test_split: str | None = None
    fewshot_split: str | None = None
    num_fewshot: Annotated[int, Field(ge=0, le=64)] | None = None
    fewshot_config: FewShot = FewShot()
    description: str = ""
    doc_to_text: str
    doc_to_target: str | int | tuple[str, ...]
    doc_to_choice: str | tuple[str, ...] | dict[str, str] | None = None
    target_delimiter: str = " "
    fewshot_delimiter: str = "\n\n"
    generation_kwargs: GenerationKwargs | None = None
    repeats: Literal[1] = 1
    filter_list: tuple[Filter, ...] = ()
    metric_list: tuple[Metric, ...] = ()

    @model_validator(mode="after")
    def _whole(self) -> LmTask:
        if self.eval_split is None:
            raise ValueError("test_split or validation_split must name the split that is evaluated")
        if self.dataset_path in ("json", "csv", "parquet") and self.dataset_kwargs is None:
            raise ValueError("dataset_kwargs must name the data_files")
        if self.output_type == "multiple_choice":
            self._check_choice()
        elif any(metric.metric != "exact_match" for metric in self.metric_list):
            raise ValueError("metric_list: written answers are counted by exact_match")
        if self.num_fewshot and not (self.few_shot_split or self.fewshot_config.samples):
            raise ValueError("num_fewshot needs a fewshot_split")
        return self

    def _check_choice(self) -> None:
        if self.doc_to_choice is None:
            raise ValueError("doc_to_choice is missing, and output_type is multiple_choice")
        if any(metric.metric == "exact_match" for metric in self.metric_list):
            raise ValueError("metric_list: choices are counted by acc or acc_norm")
        if self.filter_list:
            raise ValueError("filter_list means nothing for choices")

    @property
    def eval_split(self) -> str | None:
        return self.test_split or self.validation_split

    @property
    def few_shot_split(self) -> str | None:
        """As lm-eval falls back: the split for examples, training, validation."""
        own = self.fewshot_config.split or self.fewshot_split
        return own or self.training_split or self.validation_split


class LoadedTask(NamedTuple):
    """A task, and the document that each of its keys stands in: its own file or one that it includes."""

    task: LmTask
    yaml: YamlDocument
    origins: Mapping[str, YamlDocument]

    def problem(self, loc: Loc, found: str, wanted: str, hint: str = "") -> Problem:
        """A problem with the value at `loc`, where that stands."""
        return self.origins.get(str(loc[0]), self.yaml).problem(loc, found, wanted, hint)


def is_lm_task(data: Mapping[str, Any]) -> bool:
    """Whether the document is a task of lm-evaluation-harness, whole or not."""
    marks = ("dataset_path", "doc_to_text", "doc_to_target", "output_type", "include")
    return "suite" not in data and "recipe" not in data and any(mark in data for mark in marks)


def read_lm_task(yaml: YamlDocument) -> LoadedTask:
    """The task with what it includes; keys of the file stand before those of its includes.

    Raises:
        SpecError: all problems, each in the file that it stands in.
    """
    from pydantic import ValidationError

    origins = _with_includes(yaml, 0)
    if problems := [problem for key, one in origins.items() if (problem := _refused(key, one))]:
        raise SpecError(problems)
    kept = {key: one.data[key] for key, one in origins.items() if key not in (*IGNORED, *REFUSED)}
    if isinstance(kwargs := kept.get("dataset_kwargs"), dict):
        kept["dataset_kwargs"] = {key: kwargs[key] for key in kwargs if key != "trust_remote_code"}
    try:
        return LoadedTask(LmTask.model_validate_json(json.dumps(kept), strict=True), yaml, origins)
    except ValidationError as error:
        found = translate(error, YamlDocument(yaml.file, kept, yaml.lines), LmTask)
        raise SpecError([_in_its_file(problem, origins) for problem in found]) from error


def lm_suite(loaded: LoadedTask) -> Suite:
    """The suite that asks and counts what the task does; its records are rendered from the task file."""
    task = loaded.task
    is_choice = task.output_type == "multiple_choice"
    how = task.generation_kwargs or GenerationKwargs()
    return Suite(
        suite=_suite_name(task.task), domain="shared", description=f"lm-eval task {task.task}",
        task="choice" if is_choice else "answer",
        records=Records(eval=Path(loaded.yaml.file).name, fields=Fields(options="options" if is_choice else None)),
        prompt=PromptSpec(
            user="{{ input }}", raw=True, max_tokens=MAX_PROMPT_TOK, over_length="truncate_left",
            answer_prefix=task.target_delimiter if is_choice else "",
        ),
        normalise="chars" if is_choice and _first_metric(task) == "acc_norm" else "none",
        generation=Generation(max_new_tokens=how.max_gen_toks, stop=_stops(task, how)),
        scorers=() if is_choice else tuple(_scorers(task)),
    )  # fmt: skip


def _first_metric(task: LmTask) -> str:
    return task.metric_list[0].metric if task.metric_list else "acc"


def _stops(task: LmTask, how: GenerationKwargs) -> tuple[str, ...]:
    if how.until is None:
        return (task.fewshot_delimiter,)
    return (how.until,) if isinstance(how.until, str) else how.until


def _scorers(task: LmTask) -> list[ScorerSpec]:
    """One a metric and filter; settings are flat, so a step is spelled as JSON."""
    filters = task.filter_list or (Filter(name="none", filter=(Step(function="take_first"),)),)
    metrics = task.metric_list or (Metric(metric="exact_match"),)
    return [
        ScorerSpec(
            name="lm_eval_match", key=_suite_name(f"exact_match-{chosen.name}"),
            settings={
                "steps": tuple(step.model_dump_json() for step in chosen.filter if step.function != "take_first"),
                **metric.model_dump(exclude={"metric", "aggregation", "higher_is_better"}),
            },
        )
        for metric in metrics
        for chosen in filters
    ]  # fmt: skip


def _suite_name(task: str) -> str:
    return re.sub(r"[^a-z0-9_.-]+", "-", task.lower()).strip("-_.")[:64] or "task"


def _with_includes(yaml: YamlDocument, depth: int) -> dict[str, YamlDocument]:
    """Each key's document: the file's own, else the last include's that has it."""
    names = yaml.data.get("include")
    found: dict[str, YamlDocument] = {}
    for index, name in enumerate([names] if isinstance(names, str) else names or []):
        loc = ("include",) if isinstance(names, str) else ("include", index)
        if not isinstance(name, str) or depth >= MAX_INCLUDES:
            wanted = f"files, at most {MAX_INCLUDES} deep"
            raise SpecError([yaml.problem(loc, describe(name), wanted)])
        path = Path(yaml.file).parent / name
        if not path.is_file():
            raise SpecError([yaml.problem(loc, describe(name), "a file that is there", f"no file {path}")])
        found |= _with_includes(read_yaml(path), depth + 1)
    return {**found, **{key: yaml for key in yaml.data if key != "include"}}


def _refused(key: str, yaml: YamlDocument) -> Problem | None:
    value = yaml.data[key]
    if key in IGNORED or key not in REFUSED or value in (None, "", False):
        if key == "task" and not isinstance(value, str):
            return yaml.problem((key,), describe(value), "the name of one task", "one task a file")
        return None
    return yaml.problem((key,), describe(value), "a task without it", REFUSED[key])


def _in_its_file(problem: Problem, origins: Mapping[str, YamlDocument]) -> Problem:
    """The problem at the line of the file that the key came from."""
    parts = [int(part) if part.isdigit() else part for part in re.findall(r"[^.\[\]]+", problem.key)]
    yaml = origins.get(str(parts[0])) if parts else None
    return problem._replace(file=yaml.file, line=yaml.line(tuple(parts))) if yaml else problem
