"""One model's answers to one task, as the logs of other tools hold them, and what all readers of logs share."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from harness.errors import DataError
from harness.evals.results import Sample
from harness.files import sha256_file
from harness.text import visible

MAX_JSON_BYTES = 512 * 2**20
"""A whole log as one JSON document."""


class LogFile(NamedTuple):
    """A file that a log was read from."""

    path: str
    sha256: str


class Wanted(NamedTuple):
    """What a person asks of a log."""

    metric: str | None = None
    """The score that counts; None takes the first that the log names."""
    slices: tuple[str, ...] = ()
    """Dotted paths into a sample's record or metadata, each of which becomes a slice."""
    unit: str | None = None
    """Dotted path to what is independent; None takes the sample's own id, one for all its epochs."""


@dataclass(frozen=True, slots=True)
class Log:
    """One model on one task."""

    task: str
    model: str
    """As the log names it: a name, which proves nothing of the bytes behind it."""
    metric: str
    """The score that `Sample.score` holds."""
    samples: tuple[Sample, ...]
    tool: str = "harness"
    """What made the log, with its version where that is known."""
    created: str = ""
    """ISO 8601; empty where unknown."""
    files: tuple[LogFile, ...] = ()
    inputs: Mapping[str, str] = field(default_factory=dict)
    """What was asked, by sample id, where that is known."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What else the log says of how the task was run, as JSON."""


def log_file(path: Path) -> LogFile:
    """The file's name and the digest of its bytes.

    Raises:
        DataError: it can't be read.
    """
    try:
        return LogFile(str(path), sha256_file(path))
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error


def read_bytes(path: Path) -> bytes:
    """The file's bytes.

    Raises:
        DataError: it can't be read, or is larger than a log may be.
    """
    try:
        if (size := path.stat().st_size) > MAX_JSON_BYTES:
            raise DataError(f"{path}: {size:,} bytes, wanted at most {MAX_JSON_BYTES:,}")
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error


def parse_object(data: bytes, where: str) -> dict[str, Any]:
    """The JSON object; NaN and infinities, which other tools write, are numbers here and never become scores.

    Raises:
        DataError: it is no JSON object in UTF-8.
    """
    try:
        value = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        why = visible(str(error), keep_newlines=False, limit_chars=160)
        raise DataError(f"{where}: not JSON: {why}") from error
    if not isinstance(value, dict):
        raise DataError(f"{where}: {type(value).__name__}, wanted a JSON object")
    return value


def whole(text: str) -> str:
    """The text with halves of surrogate pairs spelled out: no file in UTF-8 can hold them."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")


def all_whole(value: Any) -> Any:
    """The JSON value with `whole` texts and keys."""
    if isinstance(value, str):
        return whole(value)
    if isinstance(value, Mapping):
        return {whole(str(key)): all_whole(item) for key, item in value.items()}
    return [all_whole(item) for item in value] if isinstance(value, list | tuple) else value


def finite(value: Any) -> Any:
    """The JSON value without NaN and infinities, which are unknown."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    return [finite(item) for item in value] if isinstance(value, list | tuple) else value


def mapping(value: Any) -> Mapping[str, Any]:
    """The value, if it is an object; else one without entries."""
    return value if isinstance(value, Mapping) else {}


def items(value: Any) -> list[Any]:
    """The value, if it is a list; else one without items."""
    return value if isinstance(value, list) else []


def usable_scores(values: Mapping[str, Any]) -> dict[str, float]:
    """The values that are scores: finite numbers or truth values, 0 to 1."""
    return {name: float(value) for name, value in values.items() if is_score(value)}


def is_score(value: Any) -> bool:
    return isinstance(value, int | float) and 0.0 <= value <= 1.0


def refuse_metric(where: str, metric: str, value: Any, usable: Sequence[str]) -> DataError:
    """The error for a metric that gives this sample no value from 0 to 1."""
    shown = visible(json.dumps(value, default=str), keep_newlines=False, limit_chars=80)
    names = ", ".join(usable) or "none"
    return DataError(
        f"{where}: metric {metric} is {shown}, wanted a number from 0 to 1 for each sample",
        hint=f"metrics with such numbers here: {names}; choose one with --metric",
    )


def slices_of(record: Mapping[str, Any], paths: Sequence[str], where: str) -> dict[str, str | list[str]]:
    """The record's own `slices`, and a slice for each path that it has, named by the path's last part.

    Raises:
        DataError: a path leads to what is no text, number, truth value or list of those.
    """
    found: dict[str, str | list[str]] = {}
    own = record.get("slices")
    for name, value in own.items() if isinstance(own, dict) else ():
        if (texts := _texts(value)) is not None:
            found[str(name)] = texts
    for path in paths:
        if (value := at(record, path)) is None:
            continue
        if (texts := _texts(value)) is None:
            raise DataError(f"{where}: {path} is no text to slice by")
        found[path.rpartition(".")[2]] = texts
    return found


def unit_of(record: Mapping[str, Any], path: str | None, default: str, where: str) -> str:
    """What the sample belongs to: the value at the path, the record's own `unit`, or the default.

    Raises:
        DataError: the path leads nowhere: without its unit a sample would count as independent.
    """
    value = scalar_text(at(record, path or "unit"))
    if value is None and path is not None:
        raise DataError(f"{where}: nothing at {path}, which --unit names")
    return value if value is not None else default


def at(record: Mapping[str, Any], path: str) -> Any:
    """The value at the dotted path; None where there is none."""
    value: Any = record
    for part in path.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def scalar_text(value: Any) -> str | None:
    """The scalar as text, numbers and truth values as JSON spells them; None for anything else."""
    if isinstance(value, str):
        return whole(value)
    if isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return json.dumps(value)
    return None


def _texts(value: Any) -> str | list[str] | None:
    if isinstance(value, list):
        texts = [scalar_text(item) for item in value]
        return None if None in texts else [text for text in texts if text is not None]
    return scalar_text(value)


def refuse_repeats(where: str, ids: Sequence[str]) -> None:
    """Returns when each id is there once.

    Raises:
        DataError: one is there again; which of its scores counts would be luck.
    """
    seen: set[str] = set()
    for id_ in ids:
        if id_ in seen:
            raise DataError(f"{where}: sample {visible(id_, limit_chars=80)} is there twice")
        seen.add(id_)
