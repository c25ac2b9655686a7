"""Logs of inspect_ai, `.eval` and `.json`, as logs of ours.

Source: the schema of log version 2 (inspect_ai 0.3, `log/_log.py` and `log/_recorders/eval.py`). An `.eval`
file is a ZIP with `header.json` and `samples/{id}_epoch_{epoch}.json`; a `.json` file holds both in one object.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from harness.errors import DataError
from harness.evals.results import Sample
from harness.formats.archive import MAX_MEMBERS, read_members
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

VERSION = 2
MAX_EPOCHS = 1000
MAX_SECONDS = 1e9
MAX_COUNT = 2**53
"""More tokens or seconds than these are no measurement."""
HEADER = "header.json"
GRADES = {"C": 1.0, "P": 0.5, "I": 0.0, "N": 0.0, "yes": 1.0, "true": 1.0, "no": 0.0, "false": 0.0}
"""What inspect's own `value_to_float` makes of texts."""
_ATTACHMENT = "attachment://"


class Key(NamedTuple):
    """What tells one sample of a log from another."""

    id: str
    epoch: int


def read_inspect(path: Path, wanted: Wanted) -> Log:
    """The log's samples. With several epochs each is a sample of its own, and the inspect id is their unit.

    Samples that ended in an error, that were not scored or that the log lacks although its data set has them
    stay in the denominator with score 0 and say why.

    Raises:
        DataError: the file is no finished inspect log, a sample is there twice, or the wanted score is not
            a number from 0 to 1.
    """
    source = log_file(path)
    header, raw = _load(path)
    _check_header(path, header)
    if not raw:
        raise DataError(f"{path}: the log holds no samples", hint="run inspect without --no-log-samples")
    metric = wanted.metric or _first_metric(path, header, raw)
    epochs = max(_epochs(header), *(_key(path, data).epoch for data in raw), 1)
    samples = [_sample(path, data, metric, wanted, epochs) for data in raw]
    samples += _left_out(header, {_key(path, data) for data in raw}, epochs)
    refuse_repeats(str(path), [sample.id for sample in samples])
    spec = header["eval"]
    return Log(
        task=whole(str(spec["task"])), model=whole(str(spec.get("model", ""))), metric=metric, samples=tuple(samples),
        tool=f"inspect {at(spec, 'packages.inspect_ai') or ''}".strip(), created=str(spec.get("created", "")),
        files=(source,), settings=finite(all_whole({"status": header["status"], "config": spec.get("config")})),
    )  # fmt: skip


def is_inspect_json(data: Mapping[str, Any]) -> bool:
    return isinstance(data.get("eval"), dict) and "version" in data and "status" in data


def _load(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The header, and the samples in the order of their data set."""
    if path.suffix == ".json":
        whole_log = parse_object(read_bytes(path), str(path))
        samples = items(whole_log.pop("samples", None))
        if not all(isinstance(data, dict) for data in samples):
            raise DataError(f"{path}: a sample that is no JSON object")
        return whole_log, samples
    header: dict[str, Any] | None = None
    found = []
    for name, data in read_members(path, lambda name: name == HEADER or _is_sample(name)):
        document = parse_object(data, f"{path}: {visible(name, keep_newlines=False, limit_chars=80)}")
        if name == HEADER:
            header = document
        else:
            found.append(document)
    if header is None:
        raise DataError(f"{path}: no {HEADER}: the evaluation was not finished, or this is no inspect log")
    return header, found


def _is_sample(name: str) -> bool:
    return name.startswith("samples/") and name.endswith(".json")


def _check_header(path: Path, header: Mapping[str, Any]) -> None:
    if not is_inspect_json(header) or not isinstance(at(header, "eval.task"), str):
        raise DataError(f"{path}: no inspect log: `eval.task` is missing")
    if header["version"] != VERSION:
        raise DataError(f"{path}: log version {header['version']!r}, wanted {VERSION}")
    if header["status"] == "started":
        raise DataError(f"{path}: the evaluation was not finished")


def _first_metric(path: Path, header: Mapping[str, Any], raw: Iterable[Mapping[str, Any]]) -> str:
    """The first score that the results name, else the first that a sample has."""
    for entry in items(at(header, "results.scores")):
        if isinstance(entry, dict) and isinstance(entry.get("name"), str):
            return str(entry["name"])
    name = next((name for data in raw for name in _values(data)), None)
    if name is None:
        raise DataError(f"{path}: no sample has a score", hint="inspect score, then import the log it writes")
    return name


def _sample(path: Path, data: Mapping[str, Any], metric: str, wanted: Wanted, epochs: int) -> Sample:
    key = _key(path, data)
    where = f"{path}: sample {visible(key.id, keep_newlines=False, limit_chars=80)}"
    values = _values(data)
    error = _error(data, values, metric)
    scores = usable_scores(values) if error is None else {}
    if error is None and metric not in scores:
        raise refuse_metric(where, metric, values[metric], list(scores))
    metadata = all_whole(mapping(data.get("metadata")))
    output = mapping(data.get("output"))
    return Sample(
        id=_sample_id(key, epochs), gold=_targets(data), answer=_answer(data, metric) if error is None else None,
        score=scores.get(metric, 0.0), slices=slices_of(metadata, wanted.slices, where),
        unit=unit_of(metadata, wanted.unit, key.id, where), output=_completion(data, output),
        prompt_tok=_count(output, "usage.input_tokens"), output_tok=_count(output, "usage.output_tokens"),
        latency_ms=_latency_ms(output), error=error, scores=scores,
    )  # fmt: skip


def _key(path: Path, data: Mapping[str, Any]) -> Key:
    id_, epoch = scalar_text(data.get("id")), data.get("epoch", 1)
    if id_ is None or not isinstance(epoch, int) or not 1 <= epoch <= MAX_EPOCHS:
        raise DataError(f"{path}: a sample without an id, or with an epoch that is none of 1 to {MAX_EPOCHS}")
    return Key(id_, epoch)


def _sample_id(key: Key, epochs: int) -> str:
    return key.id if epochs == 1 else f"{key.id} epoch {key.epoch}"


def _values(data: Mapping[str, Any]) -> dict[str, Any]:
    """Each score's value by name; a score that holds several gives one for each of its keys."""
    found: dict[str, Any] = {}
    for name, score in mapping(data.get("scores")).items():
        value = score.get("value") if isinstance(score, dict) else None
        if isinstance(value, dict):
            found.update({whole(str(key)): _number(item) for key, item in value.items()})
        else:
            found[whole(name)] = _number(value)
    return found


def _number(value: Any) -> Any:
    """The value as inspect's metrics count it: a grade or a number in a text is its number."""
    if not isinstance(value, str):
        return value
    if (grade := GRADES.get(value, GRADES.get(value.lower()) if len(value) > 1 else None)) is not None:
        return grade
    try:
        return float(value)
    except ValueError:
        return value


def _error(data: Mapping[str, Any], values: Mapping[str, Any], metric: str) -> str | None:
    """Why the sample has no result that counts."""
    if error := data.get("error"):
        return whole(str(mapping(error).get("message") or "an error without a message"))
    if data.get("invalidation"):
        return "invalidated after the evaluation"
    value = values.get(metric)
    if value is None or (isinstance(value, float) and math.isnan(value)):
        reason = at(data, f"scores.{metric}.reason")
        return f"not scored: {whole(str(reason))}" if reason else "not scored"
    return None


def _epochs(header: Mapping[str, Any]) -> int:
    epochs = at(header, "eval.config.epochs")
    return epochs if isinstance(epochs, int) and 1 <= epochs <= MAX_EPOCHS else 1


def _left_out(header: Mapping[str, Any], there: set[Key], epochs: int) -> Iterator[Sample]:
    """Samples of the data set that the log has not: an evaluation that broke off must not look better for it."""
    ids = [scalar_text(id_) for id_ in items(at(header, "eval.dataset.sample_ids"))]
    if len(ids) * epochs > MAX_MEMBERS:
        raise DataError(
            f"a data set of {len(ids):,} samples in {epochs:,} epochs, wanted at most {MAX_MEMBERS:,}"
        )
    for key in (Key(id_, epoch) for id_ in ids if id_ is not None for epoch in range(1, epochs + 1)):
        if key not in there:
            why = f"not in the log, whose evaluation ended with status {header['status']!r}"
            yield Sample(_sample_id(key, epochs), (), None, 0.0, {}, key.id, error=why)


def _targets(data: Mapping[str, Any]) -> tuple[str, ...]:
    target = data.get("target")
    texts = [scalar_text(item) for item in (target if isinstance(target, list) else [target])]
    return tuple(dict.fromkeys(text for text in texts if text))


def _answer(data: Mapping[str, Any], metric: str) -> str | None:
    """What the scorer read as the answer, where it says so."""
    scores = mapping(data.get("scores"))
    found = scores.get(metric) or next(
        (score for score in scores.values() if metric in mapping(mapping(score).get("value"))), None
    )
    answer = mapping(found).get("answer")
    return whole(answer) if isinstance(answer, str) else None


def _completion(data: Mapping[str, Any], output: Mapping[str, Any]) -> str | None:
    """The text as the model wrote it; long ones are kept apart and referred to."""
    text = output.get("completion")
    if not isinstance(text, str):
        return None
    if text.startswith(_ATTACHMENT):
        text = mapping(data.get("attachments")).get(text.removeprefix(_ATTACHMENT), text)
    return whole(str(text))


def _latency_ms(output: Mapping[str, Any]) -> float | None:
    seconds = output.get("time")
    return (
        float(seconds) * 1000.0 if isinstance(seconds, int | float) and 0.0 <= seconds < MAX_SECONDS else None
    )


def _count(output: Mapping[str, Any], path: str) -> int:
    value = at(output, path)
    return int(value) if isinstance(value, int) and 0 <= value < MAX_COUNT else 0
