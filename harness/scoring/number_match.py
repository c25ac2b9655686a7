"""Is a number right, and if not, how is it wrong."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from harness.scoring.counts import Cells, as_counts, f1_value
from harness.scoring.item import Item, Score
from harness.scoring.numbers import UNITS, Quantity, read_quantities, read_quantity, scale_of

SLACK = 1e-9
"""Relative difference that floating point alone explains."""


def number(item: Item) -> Score:
    """1 if the answer's quantity is a gold one, within the tolerance; else 0 and how it is wrong.

    Settings: `tolerance` (relative, 0 unless told), `absolute`, `decimals` (`gold`: the answer may be off
    by half of the gold's last digit; or a count of digits), `scale` (of the gold: `million`, `percent`) or
    `scale_field` (where the record says it), `assume_scale` (`answer`: an answer without scale or percent
    takes the gold's; `both`: a gold too; `none`), `sign` (`strict` or `ignore`), `decimal_mark`, and
    `list` (all gold numbers are wanted: F1 of them).
    """
    golds = gold_quantities(item)
    if item.settings.get("list"):
        return _list_score(item, golds)
    said = answered(item)
    if not said:
        return Score(0.0, error_class="unread")
    if any(is_right(said[0], gold, item.settings) for gold in golds):
        return Score(1.0)
    context = f"{item.context}\n{item.input}"
    error_class = classify_error(said[0], golds[0], context, item.settings) if golds else "no_gold"
    return Score(0.0, error_class=error_class)


def gold_quantities(item: Item) -> list[Quantity]:
    """The gold quantities, with the scale that settings or the record state."""
    mark = str(item.settings.get("decimal_mark", "."))
    if isinstance(item.target, Mapping) and "number" in item.target:
        return [Quantity.from_json({**_NO_SCALE, **item.target})]
    golds = [gold for text in item.targets if (gold := read_quantity(text, decimal_mark=mark)) is not None]
    stated = scale_of(_stated_scale(item)) or (1.0, False)
    return [_with_scale(gold, *stated) if gold.is_bare else gold for gold in golds]


def answered(item: Item) -> list[Quantity]:
    """The answer's quantities: what was parsed, else all of its text's."""
    parsed = item.parsed
    if isinstance(parsed, Mapping):
        parsed = [parsed]
    if isinstance(parsed, list | tuple) and all(isinstance(part, Mapping) for part in parsed):
        return [quantity for part in parsed if (quantity := _from_json(part)) is not None]
    if isinstance(parsed, int | float) and not isinstance(parsed, bool):
        return [Quantity(float(parsed))] if math.isfinite(parsed) else []
    return read_quantities(item.answer or "", decimal_mark=str(item.settings.get("decimal_mark", ".")))


def is_right(said: Quantity, gold: Quantity, settings: Mapping[str, Any]) -> bool:
    """Whether the quantities are the same one, as far as the settings ask."""
    if said.dimension and gold.dimension and said.dimension != gold.dimension:
        return False
    return any(
        _is_close(said_value, gold_value, unit_of_gold, gold.decimals, settings)
        for said_value, gold_value, unit_of_gold in _readings(said, gold, settings)
    )


def classify_error(said: Quantity, gold: Quantity, context: str, settings: Mapping[str, Any]) -> str:
    """How a wrong quantity is wrong: the first that explains it of `unit_slip`, `percent_slip`,
    `scale_slip`, `sign_slip`, `rounding`, `wrong_row` (another number of the context) and `wrong`."""
    loose = {**settings, "assume_scale": "both"}
    if _is_unit_slip(said, gold, settings):
        return "unit_slip"
    if said.is_percent != gold.is_percent and any(
        _is_ratio(said.number, gold.number, ratio) for ratio in (1.0, 100.0, 0.01)
    ):
        return "percent_slip"
    if any(_is_ratio(said.value, gold.value, ratio) for ratio in (100.0, 0.01)):
        return "percent_slip"
    if _is_ratio(said.number, gold.number, 1.0) and said.scale != gold.scale:
        return "scale_slip"
    if any(_is_ratio(a, b, 10.0**power) for power in (-12, -9, -6, -3, 3, 6, 9, 12)
           for a, b in ((said.value, gold.value), (said.number, gold.number))):  # fmt: skip
        return "scale_slip"
    if said.value and is_right(_negated(said), gold, loose):
        return "sign_slip"
    if _is_rounding(said, gold):
        return "rounding"
    others = read_quantities(context)
    if any(_is_ratio(abs(said.number), abs(other.number), 1.0) for other in others):
        return "wrong_row"
    return "wrong"


_NO_SCALE = {"scale": 1.0, "is_percent": False, "unit": "", "decimals": 0}


def _from_json(part: Mapping[str, Any]) -> Quantity | None:
    """The quantity; None where a part of it is none, or it is no finite number."""
    try:
        quantity = Quantity.from_json({**_NO_SCALE, **part})
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    return quantity if math.isfinite(quantity.value) else None


def _stated_scale(item: Item) -> str:
    if field := item.settings.get("scale_field"):
        return str(_at_path(item.meta, str(field)) or "")
    return str(item.settings.get("scale", ""))


def _at_path(data: Any, path: str) -> Any:
    for part in path.split("."):
        data = data.get(part) if isinstance(data, Mapping) else None
    return data


def _with_scale(gold: Quantity, scale: float, is_percent: bool) -> Quantity:
    return Quantity(gold.number, scale, is_percent, gold.unit, gold.decimals, gold.start, gold.end)


def _negated(quantity: Quantity) -> Quantity:
    return Quantity(-quantity.number, quantity.scale, quantity.is_percent, quantity.unit, quantity.decimals)


def _readings(
    said: Quantity, gold: Quantity, settings: Mapping[str, Any]
) -> Iterable[tuple[float, float, float]]:
    """(said, gold, what 1 of the gold's last whole digit is worth), as values and where allowed as written."""
    gold_unit = (
        abs(gold.value / gold.number) if gold.number else gold.scale * (0.01 if gold.is_percent else 1.0)
    )
    yield said.value, gold.value, gold_unit
    if said.unit and gold.unit and said.unit != gold.unit:
        return
    assume = settings.get("assume_scale", "answer")
    if (assume in ("answer", "both") and said.is_bare) or (assume == "both" and gold.is_bare):
        yield said.number, gold.number, 1.0


def _is_close(said: float, gold: float, unit: float, decimals: int, settings: Mapping[str, Any]) -> bool:
    if settings.get("sign") == "ignore":
        said, gold = abs(said), abs(gold)
    allowed = max(
        SLACK * max(abs(said), abs(gold)),
        float(settings.get("tolerance", 0.0)) * abs(gold),
        float(settings.get("absolute", 0.0)),
    )
    wanted = settings.get("decimals")
    if wanted is not None:
        digits = decimals if wanted == "gold" else int(wanted)
        allowed = max(allowed, 0.5 * 10.0**-digits * unit * (1 + 1e-6))
    return abs(said - gold) <= allowed


def _is_ratio(said: float, gold: float, ratio: float) -> bool:
    """Whether `said` is `ratio` times `gold`, both not 0; a thousandth more or less is somebody's rounding."""
    return bool(said and gold) and math.isclose(said, gold * ratio, rel_tol=1e-3 if ratio != 1.0 else SLACK)


def _is_unit_slip(said: Quantity, gold: Quantity, settings: Mapping[str, Any]) -> bool:
    if not (said.unit and gold.unit and said.unit != gold.unit):
        return False
    bare = Quantity(said.number, said.scale, said.is_percent, "", said.decimals)
    plain_gold = Quantity(gold.number, gold.scale, gold.is_percent, "", gold.decimals)
    if is_right(bare, plain_gold, settings):
        return True
    return said.dimension == gold.dimension and any(
        _is_ratio(said.value, gold.value, UNITS[a][1] / UNITS[b][1])
        for a, b in ((said.unit, gold.unit), (gold.unit, said.unit))
        if a in UNITS and b in UNITS
    )


def _is_rounding(said: Quantity, gold: Quantity) -> bool:
    """Off by no more than one of the last digit that either writes, and by no more than 5 %."""
    pairs = [(said.number, gold.number), (said.value, gold.value)]
    last = max(10.0**-said.decimals, 10.0**-gold.decimals)
    close = [abs(a - b) <= 0.05 * abs(b) for a, b in pairs]
    return (close[0] and abs(said.number - gold.number) <= last * (1 + 1e-6)) or (
        close[1] and abs(said.value - gold.value) <= 0.005 * abs(gold.value)
    )


def _list_score(item: Item, golds: Sequence[Quantity]) -> Score:
    """F1 of the gold numbers, each matched once, in the answer's order."""
    said, left = answered(item), list(golds)
    tp = 0
    for quantity in said:
        match = next((gold for gold in left if is_right(quantity, gold, item.settings)), None)
        if match is not None:
            left.remove(match)
            tp += 1
    cells = Cells(tp, len(said) - tp, len(golds) - tp)
    return Score(f1_value(cells), as_counts({"number": cells}), None if said else "unread")
