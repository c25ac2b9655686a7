"""Results of lm-evaluation-harness as logs of ours: `results_*.json` with the `samples_*.jsonl` beside it.

Source: `lm_eval/result_schema.py` and `loggers/evaluation_tracker.py` of lm_eval 0.4.13, run with
`--log_samples --output_path`. A task's file holds one line a document and filter.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from harness.errors import DataError
from harness.evals.results import Sample
from harness.formats.log import (
    Log,
    Wanted,
    all_whole,
    at,
    finite,
    items,
    log_file,
    mapping,
    parse_object,
    read_bytes,
    refuse_metric,
    refuse_repeats,
    scalar_text,
    slices_of,
    unit_of,
    usable_scores,
    whole,
)
from harness.text import visible

MAX_LINE_BYTES = 64 * 2**20
MAX_LIST_CHARS = 2**16
"""A target's list in Python's spelling: longer ones stay text."""
TOLERANCE = 1e-6
MEANS = ("acc", "acc_norm", "acc_bytes", "exact_match")
"""Metrics that lm-eval averages unless a task says otherwise."""
_SAMPLES = re.compile(r"samples_(?P<task>.+)_(?P<date>\d{4}-\d{2}-\d{2}T[\d.-]+)\.jsonl")
_RESULTS = re.compile(r"results_(?P<date>\d{4}-\d{2}-\d{2}T[\d.-]+)\.json")


class Metric(NamedTuple):
    """A score of one filter, which lm-eval writes as `exact_match,strict-match`."""

    name: str
    filter: str

    def __str__(self) -> str:
        return f"{self.name},{self.filter}"


class Line(NamedTuple):
    """One document under one filter."""

    where: str
    data: dict[str, Any]


def read_lm_eval(path: Path, wanted: Wanted) -> list[Log]:
    """The logs of all tasks that a results file has samples of.

    Raises:
        DataError: the file holds no results, no task's samples are beside it, a samples file has more or fewer
            documents than the results say or another mean, or `read_lm_eval_samples` refuses one.
    """
    results = parse_object(read_bytes(path), str(path))
    if not is_lm_eval_results(results):
        raise DataError(f"{path}: no results of lm-eval: `results` and `configs` are missing")
    match = _RESULTS.fullmatch(path.name)
    files = sorted(path.parent.glob(f"samples_*_{match['date']}.jsonl")) if match else []
    logs = [
        read_lm_eval_samples(file, wanted, results)
        for file in files
        if (found := _SAMPLES.fullmatch(file.name)) and found["task"] in results["results"]
    ]
    if not logs:
        raise DataError(
            f"{path}: no samples_TASK_DATE.jsonl of the same date beside it",
            hint="lm-eval writes them with --log_samples",
        )
    return logs


def is_lm_eval_results(data: Mapping[str, Any]) -> bool:
    return isinstance(data.get("results"), dict) and isinstance(data.get("configs"), dict)


def read_lm_eval_samples(path: Path, wanted: Wanted, results: Mapping[str, Any] | None = None) -> Log:
    """The samples of one task under one filter.

    The id is the document's `id` where each has one of its own, else its number. Scores are the metrics from
    0 to 1.

    Raises:
        DataError: a line can't be read, a document is there twice, the metric is not a number from 0 to 1 for
            each, or the results say something else.
    """
    source = log_file(path)
    lines = list(_lines(path))
    if not lines:
        raise DataError(f"{path}: no samples")
    metric = _metric(wanted.metric, lines)
    chosen = [line for line in lines if line.data.get("filter") == metric.filter]
    ids = _ids(chosen)
    refuse_repeats(str(path), ids)
    task = _task(path)
    config = mapping(mapping((results or {}).get("configs")).get(task))
    samples = [_sample(line, id_, metric, wanted, config) for line, id_ in zip(chosen, ids, strict=True)]
    if results is not None:
        _check_totals(path, task, metric, samples, results)
    return Log(
        task=task, model=whole(str((results or {}).get("model_name") or "")), metric=str(metric),
        samples=tuple(samples), tool=f"lm-eval {(results or {}).get('lm_eval_version') or ''}".strip(),
        created=_date(path), files=(source,),
        inputs={id_: text for line, id_ in zip(chosen, ids, strict=True) if (text := _input(line)) is not None},
        settings=_settings(task, results or {}),
    )  # fmt: skip


def _lines(path: Path) -> Iterator[Line]:
    try:
        with path.open("rb") as file:
            number = 0
            while line := file.readline(MAX_LINE_BYTES + 1):
                number += 1
                where = f"{path}: line {number}"
                if len(line) > MAX_LINE_BYTES:
                    raise DataError(f"{where}: longer than {MAX_LINE_BYTES:,} bytes")
                if line.strip():
                    yield Line(where, parse_object(line, where))
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error


def _metric(wanted: str | None, lines: Sequence[Line]) -> Metric:
    """The metric that is asked for, of the first filter unless it names one; by default the first metric."""
    filters = list(dict.fromkeys(str(line.data.get("filter")) for line in lines))
    names = lines[0].data.get("metrics")
    if not isinstance(names, list) or not names or not all(isinstance(one, str) for one in names):
        raise DataError(f"{lines[0].where}: no `metrics`: no sample of lm-eval")
    name, _, filter_ = (wanted or str(names[0])).partition(",")
    metric = Metric(name, filter_ or filters[0])
    if name not in names or metric.filter not in filters:
        there = ", ".join(str(Metric(str(one), other)) for one in names for other in filters)
        raise DataError(
            f"{lines[0].where}: no metric {metric}", hint=f"there are {visible(there, limit_chars=300)}"
        )
    return metric


def _ids(lines: Sequence[Line]) -> list[str]:
    own = [scalar_text(at(line.data, "doc.id")) for line in lines]
    if all(own) and len(set(own)) == len(own):
        return [str(id_) for id_ in own]
    ids = [scalar_text(line.data.get("doc_id")) for line in lines]
    for line, id_ in zip(lines, ids, strict=True):
        if id_ is None:
            raise DataError(f"{line.where}: no `doc_id`: no sample of lm-eval")
    return [str(id_) for id_ in ids]


def _sample(line: Line, id_: str, metric: Metric, wanted: Wanted, config: Mapping[str, Any]) -> Sample:
    data = line.data
    doc = all_whole(mapping(data.get("doc")))
    error = whole(data["error"]) if isinstance(data.get("error"), str) else None
    scores = usable_scores(
        {name: data.get(name) for name in items(data.get("metrics")) if isinstance(name, str)}
    )
    if metric.name not in scores:
        raise refuse_metric(line.where, metric.name, data.get(metric.name), list(scores))
    read = _read_choices(data, metric, config) or _read_text(data)
    return Sample(
        id=id_, gold=read.gold, answer=None if error else read.answer, score=0.0 if error else scores[metric.name],
        slices=slices_of(doc, wanted.slices, line.where), unit=unit_of(doc, wanted.unit, id_, line.where),
        confidence=read.confidence, output=read.output, error=error, scores={} if error else scores,
        choice_logprobs=read.logprobs,
    )  # fmt: skip


class Read(NamedTuple):
    """What a line says of the answer."""

    gold: tuple[str, ...]
    answer: str | None
    output: str | None
    confidence: float | None = None
    logprobs: tuple[float, ...] | None = None


def _read_choices(data: Mapping[str, Any], metric: Metric, config: Mapping[str, Any]) -> Read | None:
    """The choice that the metric counts as the answer, where the responses are log-probabilities of choices."""
    logprobs = _logprobs(data.get("filtered_resps"))
    arguments = _arguments(data)
    if logprobs is None or len(arguments) != len(logprobs):
        return None
    delimiter = config.get("target_delimiter", " ")
    choices = [text.removeprefix(str(delimiter)) for _, text in arguments]
    best = max(range(len(choices)), key=lambda i: logprobs[i] / _weight(choices[i], metric.name))
    top = max(logprobs)
    total = math.fsum(math.exp(value - top) for value in logprobs)
    return Read(
        _golds(data, choices), choices[best], None, math.exp(logprobs[best] - top) / total, tuple(logprobs)
    )


def _weight(choice: str, metric: str) -> float:
    """What lm-eval divides a choice's log-probability by."""
    lengths = {"acc_norm": len(choice), "acc_bytes": len(choice.encode("utf-8"))}
    return float(lengths.get(metric, 1) or 1)


def _logprobs(responses: Any) -> list[float] | None:
    """The log-probabilities of choices: responses that are pairs of a number and a truth value."""
    if not isinstance(responses, list) or not responses:
        return None
    found = []
    for pair in responses:
        if not isinstance(pair, list) or len(pair) != 2 or str(pair[1]) not in ("True", "False"):
            return None
        try:
            found.append(float(pair[0]))
        except (TypeError, ValueError, OverflowError):
            return None
    return found if all(math.isfinite(value) for value in found) else None


def _arguments(data: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(context, continuation) of each request that has both as texts."""
    arguments = data.get("arguments")
    each = arguments.values() if isinstance(arguments, dict) else ()
    pairs = [(one.get("arg_0"), one.get("arg_1")) for one in each if isinstance(one, dict)]
    return [(whole(a), whole(b)) for a, b in pairs if isinstance(a, str) and isinstance(b, str)]


def _read_text(data: Mapping[str, Any]) -> Read:
    filtered, output = _first_text(data.get("filtered_resps")), _first_text(data.get("resps"))
    return Read(_golds(data, ()), filtered, output)


def _first_text(value: Any) -> str | None:
    while isinstance(value, list) and value:
        value = value[0]
    return whole(value) if isinstance(value, str) else None


def _golds(data: Mapping[str, Any], choices: Sequence[str]) -> tuple[str, ...]:
    """The gold texts: a target may be a text, the number of a choice, or a list of either spelled as Python does."""
    target = data.get("target")
    if isinstance(target, str) and target.startswith("[") and len(target) <= MAX_LIST_CHARS:
        with suppress(ValueError, SyntaxError, MemoryError, RecursionError):
            target = ast.literal_eval(target)
    texts = [scalar_text(one) for one in (target if isinstance(target, list) else [target])]
    numbered = [
        choices[int(text)]
        if text and text.isascii() and text.isdigit() and int(text) < len(choices)
        else text
        for text in texts
    ]
    return tuple(dict.fromkeys(text for text in numbered if text))


def _input(line: Line) -> str | None:
    context = at(line.data, "arguments.gen_args_0.arg_0")
    return whole(context) if isinstance(context, str) else None


def _check_totals(
    path: Path, task: str, metric: Metric, samples: Sequence[Sample], results: Mapping[str, Any]
) -> None:
    """What the results say of the task must be what its samples say."""
    effective = mapping(mapping(results.get("n-samples")).get(task)).get("effective")
    if isinstance(effective, int) and effective != len(samples):
        raise DataError(f"{path}: {len(samples)} samples, and the results say {effective}")
    reported = mapping(results["results"].get(task)).get(str(metric))
    mean = math.fsum(sample.score for sample in samples) / len(samples)
    if (
        metric.name in MEANS
        and isinstance(reported, int | float)
        and not mean - TOLERANCE <= reported <= mean + TOLERANCE  # no float could hold some integers
    ):
        raise DataError(
            f"{path}: the samples' mean {metric} is {mean:.6f}, and the results say {str(reported)[:24]}"
        )


def _task(path: Path) -> str:
    found = _SAMPLES.fullmatch(path.name)
    return found["task"] if found else path.stem


def _date(path: Path) -> str:
    """The time in the file's name, whose colons lm-eval writes as hyphens."""
    found = _SAMPLES.fullmatch(path.name)
    day, _, time = found["date"].partition("T") if found else ("", "", "")
    return f"{day}T{time.replace('-', ':')}" if found else ""


def _settings(task: str, results: Mapping[str, Any]) -> dict[str, Any]:
    sections = {"version": "versions", "n_shot": "n-shot", "task_hash": "task_hashes"}
    kept = {name: mapping(results.get(section)).get(task) for name, section in sections.items()}
    kept |= {name: results.get(name) for name in ("config", "chat_template_sha")}
    found: dict[str, Any] = finite(all_whole(kept))
    return {name: value for name, value in found.items() if value is not None}
