"""The gold answer of a record, as the texts that a model could give for it."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from harness.specs.suite import LABELLED, Suite, Task

if TYPE_CHECKING:
    from harness.data.records import Record

NUMBER_KEYS = ("value", "unit")


def gold_texts(task: Task | None, value: Any, options: Sequence[str]) -> tuple[str, ...]:
    """The answers that are right, as a model would write them; never empty.

    A list of labels, quotes or an object becomes one JSON text, so that it can stand as an example answer.

    Raises:
        ValueError: the value is no gold answer of such a task; the message says what is wanted.
    """
    match task:
        case "choice" | "rank":
            return _among(value, options)
        case "multi_label":
            return (_json_list(value, "a list of labels"),)
        case "spans":
            return (_quotes(value),)
        case "extract":
            return _objects(value)
        case "number":
            return _numbers(value)
    return _texts(value)


def gold_labels(task: Task, record: Record) -> tuple[str, ...]:
    """The labels that are right for the record: all of them together where the task takes several."""
    if task == "multi_label":
        return tuple(dict.fromkeys(map(str, record.target or ())))
    return record.targets


def labels_of(suite: Suite, train: Sequence[Record]) -> tuple[str, ...]:
    """The suite's labels in their order; where it lists none, the sorted labels of the training records."""
    if suite.labels or suite.task not in LABELLED:
        return suite.labels
    return tuple(sorted({label for record in train for label in gold_labels(suite.task, record)}))


def scalar_text(value: Any) -> str | None:
    """The value as text; a number or a truth value as JSON spells it; None where it is no scalar."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
        return json.dumps(value)
    return None


def _texts(value: Any) -> tuple[str, ...]:
    """The texts; one that is empty beside others is left out, as an empty answer is never right."""
    texts = [scalar_text(item) for item in (value if isinstance(value, list) else [value])]
    found = [text for text in texts if text is not None and text.strip()]
    if not found or None in texts:
        raise ValueError("a text, or a list of texts of which any is right")
    return tuple(dict.fromkeys(found))


def _among(value: Any, options: Sequence[str]) -> tuple[str, ...]:
    """The golds among the options, by text or by position from 0."""
    if not options:
        raise ValueError("one of the options, and the record has none")
    golds = []
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, int) and not isinstance(item, bool) and 0 <= item < len(options):
            golds.append(options[item])
        elif (text := scalar_text(item)) is not None and not isinstance(item, int) and text in options:
            golds.append(text)
        else:
            raise ValueError(f"one of the {len(options)} options, by its text or its position from 0")
    if not golds:
        raise ValueError("at least one of the options")
    return tuple(dict.fromkeys(golds))


def _quotes(value: Any) -> str:
    """The spans as JSON: quotes, label and quote where they have labels, or offsets where they have no text."""
    spans = [_span(item) for item in (value if isinstance(value, list) else [None])]
    if None in spans:
        raise ValueError("a list of quotes, or of objects with `text`, or with `start` and `end`")
    return json.dumps(spans, ensure_ascii=False)


def _span(item: Any) -> Any:
    """The span as a model would write it; None where it is none."""
    if isinstance(item, dict) and "text" not in item:
        ends = [item.get("start"), item.get("end")]
        is_place = all(type(end) is int and end >= 0 for end in ends) and ends[0] < ends[1]  # type: ignore[operator]
        return {key: item[key] for key in ("label", "start", "end") if key in item} if is_place else None
    text = item.get("text") if isinstance(item, dict) else item
    if not isinstance(text, str) or not text.strip():
        return None
    return {"label": item["label"], "text": text} if isinstance(item, dict) and "label" in item else text


def _json_list(value: Any, wanted: str) -> str:
    """The list as JSON; an empty one says that there is nothing to find."""
    if not isinstance(value, list) or not all(isinstance(item, str) and item.strip() for item in value):
        raise ValueError(wanted)
    return json.dumps(value, ensure_ascii=False)


def _objects(value: Any) -> tuple[str, ...]:
    found = value if isinstance(value, list) else [value]
    if not found or not all(isinstance(item, dict) and item for item in found):
        raise ValueError("an object, or a list of objects of which any is right")
    return tuple(json.dumps(item, ensure_ascii=False) for item in found)


def _numbers(value: Any) -> tuple[str, ...]:
    texts = []
    for item in value if isinstance(value, list) else [value]:
        parts = [item.get(key) for key in NUMBER_KEYS] if isinstance(item, dict) else [item]
        text = " ".join(part for part in map(scalar_text, parts) if part)
        if isinstance(item, bool) or not any(char.isdigit() for char in text):
            raise ValueError("a number, a text with one, {value, unit}, or a list of these")
        texts.append(text)
    if not texts:
        raise ValueError("a number, a text with one, {value, unit}, or a list of these")
    return tuple(dict.fromkeys(texts))
