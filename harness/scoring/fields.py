"""Extracted objects, field by field."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from harness.scoring.counts import Cells, as_counts, f1_value, total
from harness.scoring.item import Item, Score
from harness.scoring.number_match import is_right
from harness.scoring.numbers import Quantity, read_quantity
from harness.scoring.parse import read_object
from harness.scoring.text import normalise

OTHER = "(other)"
"""Fields that the gold object does not have: one name, whatever a model invents."""

Values = dict[str, list[Any]]


def fields(item: Item) -> Score:
    """F1 of the fields' values; counts by field, nested ones by dotted path, lists as sets.

    Null, "" and [] say that there is nothing: a value where the gold has none is hallucinated, a false
    positive. A wrong value is one false positive and one false negative. A text is compared normalised
    (setting `strings: exact`), a gold number as a quantity, with the settings of `number`.
    `gold_lists: any` takes a gold list as values of which any is right; `ignore_extra` leaves fields
    out that the gold does not name. Of several gold objects the one that fits best counts.
    """
    said = _said_object(item)
    return max((_against(gold, said, item) for gold in gold_objects(item)), key=lambda score: score.value)


def _against(gold: Mapping[str, Any], said: Mapping[str, Any] | None, item: Item) -> Score:
    is_any = item.settings.get("gold_lists") == "any"
    meant = dict(_flatten(gold, is_any))
    named = dict(_flatten(said or {}, False))
    counts = {path: _cells(named.get(path, []), values, item, is_any) for path, values in meant.items()}
    if not item.settings.get("ignore_extra"):
        extra = sum(len(values) for path, values in named.items() if path not in meant)
        counts[OTHER] = Cells(0, extra, 0)
    counts = {path: cells for path, cells in counts.items() if any(cells)}
    if said is None:
        return Score(0.0, as_counts(counts), "not_json")
    value = f1_value(total(as_counts(counts)))
    return Score(value, as_counts(counts), None if value == 1.0 else _error_class(counts, meant))


def valid_json(item: Item) -> Score:
    """1 if the answer is one JSON object, alone or in a code fence, with the keys of the setting `required`."""
    said = _said_object(item)
    if said is None:
        return Score(0.0, error_class="not_json")
    required = item.settings.get("required", ())
    names = [required] if isinstance(required, str) else list(required)
    missing = [name for name in names if name not in said]
    return Score(float(not missing), error_class="missing_keys" if missing else None, note=", ".join(missing))


def gold_objects(item: Item) -> list[dict[str, Any]]:
    """The record's object, or objects of which any is right, or those that its gold texts spell; never empty."""
    values = item.target if isinstance(item.target, list | tuple) else [item.target]
    objects = [dict(value) for value in values if isinstance(value, Mapping)]
    return objects or [found for text in item.targets if (found := read_object(text)) is not None] or [{}]


def _said_object(item: Item) -> dict[str, Any] | None:
    if isinstance(item.parsed, Mapping):
        return dict(item.parsed)
    return read_object(item.answer) if item.answer is not None else None


def _flatten(value: Mapping[str, Any], is_any: bool, path: str = "") -> Iterator[tuple[str, list[Any]]]:
    """(dotted path, values) of all leaves; an object in a list is a value as a whole."""
    for key, child in value.items():
        here = f"{path}.{key}" if path else str(key)
        if isinstance(child, Mapping) and child:
            yield from _flatten(child, is_any, here)
        else:
            yield here, _set_of(child if isinstance(child, list) else [child])


def _set_of(values: list[Any]) -> list[Any]:
    """The values that say something, each once."""
    kept = [value for value in values if value not in (None, "", [], {}) and not _is_blank(value)]
    return list({_spelled(value): value for value in kept}.values())


def _is_blank(value: Any) -> bool:
    return isinstance(value, str) and not value.strip()


def _cells(said: list[Any], gold: list[Any], item: Item, is_any: bool) -> Cells:
    left = list(gold)
    tp = 0
    for value in said:
        match = next((other for other in left if _is_same(value, other, item)), None)
        if match is not None:
            tp += 1
            left = [] if is_any else [other for other in left if other is not match]
    n_gold = min(len(gold), 1) if is_any else len(gold)
    return Cells(tp, len(said) - tp, n_gold - tp)


def _is_same(said: Any, gold: Any, item: Item) -> bool:
    if isinstance(gold, bool) or isinstance(said, bool):
        return str(said).strip().casefold() == str(gold).casefold()
    if isinstance(gold, int | float):
        quantity = read_quantity(said) if isinstance(said, str) else _plain_quantity(said)
        return quantity is not None and is_right(quantity, Quantity(float(gold)), item.settings)
    if isinstance(gold, str):
        return _is_same_text(str(said) if isinstance(said, int | float) else said, gold, item)
    return isinstance(said, type(gold)) and _canonical(said) == _canonical(gold)


def _plain_quantity(value: Any) -> Quantity | None:
    return Quantity(float(value)) if isinstance(value, int | float) else None


def _is_same_text(said: Any, gold: str, item: Item) -> bool:
    if not isinstance(said, str):
        return False
    if item.settings.get("strings") == "exact":
        return said == gold
    a, b = normalise(said), normalise(gold)
    return a == b if a or b else said.strip() == gold.strip()


def _canonical(value: Any) -> str:
    """An object's spelling with its texts normalised and its lists in one order."""
    if isinstance(value, Mapping):
        return _spelled({str(key): _canonical(child) for key, child in value.items()})
    if isinstance(value, list):
        return _spelled(sorted(_canonical(child) for child in value))
    return _spelled(normalise(value) if isinstance(value, str) else value)


def _spelled(value: Any) -> str:
    """One spelling for one value, of whatever a caller parsed: NaN too."""
    return json.dumps(value, sort_keys=True, default=str)


def _error_class(counts: Mapping[str, Cells], meant: Values) -> str:
    if any(cells.fp and not meant.get(path) for path, cells in counts.items()):
        return "hallucinated_field"
    cells = total(as_counts(counts))
    return "wrong_value" if cells.fp else "missing_field"
