"""Quantities in text: sign, number, scale, percent and unit, as people write them.

Read are `1,234.5`, `1.234,5`, `1 234`, `1'234`, `1,23,456`, `.5`, `1.2e6`; minus signs of all kinds,
`(1,234)` and `loss of 5`; `k`, `m`, `bn`, `million`, `crore`; `%`, `percent`, `bps`; `$`, `EUR` and units.
"""

from __future__ import annotations

import math
import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

MAX_QUANTITIES = 5_000
"""More numbers than this in one text are not read."""

SCALES = {
    "thousand": 1e3, "thousands": 1e3, "k": 1e3, "lakh": 1e5, "lakhs": 1e5,
    "million": 1e6, "millions": 1e6, "mn": 1e6, "mln": 1e6, "mio": 1e6, "m": 1e6,
    "crore": 1e7, "crores": 1e7, "billion": 1e9, "billions": 1e9, "bn": 1e9, "b": 1e9,
    "trillion": 1e12, "trillions": 1e12, "tn": 1e12,
}  # fmt: skip
_PERCENTS = {"%": 1.0, "percent": 1.0, "per cent": 1.0, "pct": 1.0, "percentage points": 1.0,
             "percentage point": 1.0, "pp": 1.0, "bps": 0.01, "bp": 0.01, "basis points": 0.01,
             "basis point": 0.01, "‰": 0.1}  # fmt: skip
_CURRENCIES = {"us$": "USD", "usd": "USD", "$": "USD", "€": "EUR", "eur": "EUR", "euro": "EUR", "euros": "EUR",
               "£": "GBP", "gbp": "GBP", "¥": "JPY", "jpy": "JPY", "yen": "JPY", "chf": "CHF", "inr": "INR",
               "₹": "INR", "rs.": "INR", "cny": "CNY", "rmb": "CNY", "dollars": "USD", "dollar": "USD",
               "pounds sterling": "GBP", "a$": "AUD", "c$": "CAD", "hk$": "HKD", "krw": "KRW", "₩": "KRW"}  # fmt: skip
UNITS: dict[str, tuple[str, float]] = {
    "mcg": ("g", 1e-6), "µg": ("g", 1e-6), "μg": ("g", 1e-6), "ug": ("g", 1e-6), "mg": ("g", 1e-3),
    "g": ("g", 1.0), "gram": ("g", 1.0), "grams": ("g", 1.0), "kg": ("g", 1e3), "kilograms": ("g", 1e3),
    "lb": ("g", 453.59237), "lbs": ("g", 453.59237), "oz": ("g", 28.349523125), "tonnes": ("g", 1e6),
    "mm": ("m", 1e-3), "cm": ("m", 1e-2), "metres": ("m", 1.0), "meters": ("m", 1.0), "km": ("m", 1e3),
    "inches": ("m", 0.0254), "ft": ("m", 0.3048), "feet": ("m", 0.3048), "miles": ("m", 1609.344),
    "ml": ("l", 1e-3), "dl": ("l", 0.1), "l": ("l", 1.0), "litres": ("l", 1.0), "liters": ("l", 1.0),
    "ms": ("s", 1e-3), "s": ("s", 1.0), "sec": ("s", 1.0), "seconds": ("s", 1.0), "min": ("s", 60.0),
    "minutes": ("s", 60.0), "h": ("s", 3600.0), "hours": ("s", 3600.0), "hour": ("s", 3600.0),
    "day": ("s", 86400.0), "days": ("s", 86400.0), "weeks": ("s", 604800.0), "week": ("s", 604800.0),
    "month": ("month", 1.0), "months": ("month", 1.0), "year": ("month", 12.0), "years": ("month", 12.0),
    "mg/dl": ("g/l", 1e-2), "g/dl": ("g/l", 10.0), "g/l": ("g/l", 1.0), "mg/l": ("g/l", 1e-3),
    "ng/ml": ("g/l", 1e-6), "mcg/ml": ("g/l", 1e-3), "mg/ml": ("g/l", 1.0), "mmol/l": ("mol/l", 1e-3),
    "mg/kg": ("mg/kg", 1.0), "mcg/kg": ("mg/kg", 1e-3), "mmhg": ("mmhg", 1.0), "bpm": ("bpm", 1.0),
    "°c": ("°c", 1.0), "°f": ("°f", 1.0), "shares": ("share", 1.0), "employees": ("employee", 1.0),
}  # fmt: skip
"""Unit to (what it measures in, factor). Metres are spelled: `m` is a million."""
_SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
)
_WORDS = {word: float(value) for value, word in enumerate(_SMALL.split())} | {
    "twenty": 20.0, "thirty": 30.0, "forty": 40.0, "fifty": 50.0, "sixty": 60.0, "seventy": 70.0, "eighty": 80.0,
    "ninety": 90.0,
}  # fmt: skip
_POWERS = {"hundred": 1e2, "thousand": 1e3, "million": 1e6, "billion": 1e9, "trillion": 1e12}


@dataclass(frozen=True, slots=True)
class Quantity:
    """One number as it stands in a text."""

    number: float
    """Signed, as written, without scale and percent."""
    scale: float = 1.0
    is_percent: bool = False
    unit: str = ""
    """A currency's ISO code or a key of `UNITS`; empty where none is written."""
    decimals: int = 0
    """Digits after the decimal mark."""
    start: int = 0
    end: int = 0
    """Where it stands in the text, in characters."""

    @property
    def value(self) -> float:
        """The plain number: scale applied, percent as a fraction, unit converted to its base."""
        factor = UNITS[self.unit][1] if self.unit in UNITS else 1.0
        return self.number * self.scale * factor * (0.01 if self.is_percent else 1.0)

    @property
    def dimension(self) -> str:
        """What it measures; equal for units that convert into each other, empty where no unit is written."""
        return UNITS[self.unit][0] if self.unit in UNITS else self.unit

    @property
    def is_bare(self) -> bool:
        """Neither scale nor percent is written."""
        return self.scale == 1.0 and not self.is_percent

    def to_json(self) -> dict[str, Any]:
        return {"number": self.number, "scale": self.scale, "is_percent": self.is_percent, "unit": self.unit,
                "decimals": self.decimals}  # fmt: skip

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Quantity:
        return cls(float(data["number"]), float(data["scale"]), bool(data["is_percent"]), str(data["unit"]),
                   int(data["decimals"]))  # fmt: skip


def read_quantities(text: str, *, decimal_mark: str = ".", words: bool = True) -> list[Quantity]:
    """All quantities of the text, in their order. Numbers inside words, such as `COVID19`, are none.

    With `words`, a short text without digits is read for numbers that are spelled out in English.
    `decimal_mark` settles what only a reader can know: is `1.234` (or `1,234`) a thousand or a fraction.
    """
    plain = plain_text(text)
    found: list[Quantity] = []
    for match in _pattern(decimal_mark).finditer(plain):
        if (quantity := _quantity(match, plain, decimal_mark)) is not None:
            found.append(quantity)
        if len(found) >= MAX_QUANTITIES:
            break
    return found or (_word_number(plain) if words else [])


def read_quantity(text: str, *, decimal_mark: str = ".") -> Quantity | None:
    """The first quantity of the text; None where it has none."""
    found = read_quantities(text, decimal_mark=decimal_mark)
    return found[0] if found else None


def scale_of(name: str) -> tuple[float, bool] | None:
    """(factor, is percent) of a scale by name, such as `million`, `percent`, `none`; None if unknown."""
    key = name.strip().casefold()
    if key in ("", "none", "unit", "units"):
        return 1.0, False
    if key in _PERCENTS:
        return _PERCENTS[key], True
    return (SCALES[key], False) if key in SCALES else None


def plain_text(text: str) -> str:
    """One character for one: digits of all scripts in ASCII, one minus, one space; what is invisible goes."""
    if text.isascii():
        return text
    return "".join(_plain_char(char) for char in text)


@lru_cache(maxsize=4096)
def _plain_char(char: str) -> str:
    if char in "−–—‐‑‒﹣－˗":
        return "-"
    if char in "’ʼ＇":
        return "'"
    digit = unicodedata.decimal(char, None)
    if digit is not None:
        return str(digit)
    category = unicodedata.category(char)
    if category == "Cf":
        return ""
    wide = unicodedata.normalize("NFKC", char) if "！" <= char <= "～" else char
    return " " if category == "Zs" else wide


@lru_cache(maxsize=4)
def _pattern(decimal_mark: str) -> re.Pattern[str]:
    thousands, decimal = (r"\.", ",") if decimal_mark == "," else (",", r"\.")
    digits = "|".join((
        rf"\d{{1,3}}(?:{thousands}\d{{3}})+(?:{decimal}\d+)?(?!\d)",
        rf"\d{{1,3}}(?:{decimal}\d{{3}})+{thousands}\d+(?!\d)",
        rf"\d{{1,3}}(?:{decimal}\d{{3}}){{2,}}(?!\d)",
        rf"\d{{1,2}}(?:{thousands}\d{{2}})+{thousands}\d{{3}}(?:{decimal}\d+)?(?!\d)",
        r"\d{1,3}(?:[ ']\d{3})+(?:[.,]\d+)?(?!\d)",
        rf"(?<!{thousands})\d+{thousands}\d{{1,2}}(?![\d{thousands}])",
        rf"\d+(?:{decimal}\d+)?", rf"{decimal}\d+",
    ))  # fmt: skip
    money = "|".join(re.escape(name) for name in sorted(_CURRENCIES, key=len, reverse=True))
    after = "|".join(re.escape(name) for name in sorted(_PERCENTS, key=len, reverse=True))
    scales = "|".join(sorted(SCALES, key=len, reverse=True))
    units = "|".join(re.escape(name) for name in sorted((*UNITS, *_CURRENCIES), key=len, reverse=True))
    return re.compile(
        rf"(?<![\w])(?<!\d\.)(?P<open>\()?\s?(?P<sign>[-+])?(?P<money>{money})?\s?(?P<open2>\()?(?P<sign2>[-+])?"
        rf"(?P<digits>{digits})(?P<exponent>e[-+]?\d{{1,3}}(?![\w.])|\s?[x×*]\s?10\^?(?P<power>-?\d{{1,2}})(?!\d))?"
        rf"(?P<close>\))?(?:\s?(?P<percent>{after})(?!\w)|(?:\s?|-(?=[a-z]{{4}}))(?P<scale>{scales})(?!\w))?"
        rf"(?:\s?(?P<unit>{units})(?![\w/]))?(?P<close2>\s?\))?(?![A-Za-z_])",
        re.IGNORECASE,
    )


def _quantity(match: re.Match[str], text: str, decimal_mark: str) -> Quantity | None:
    digits, decimals = _digits(match["digits"], decimal_mark)
    power = int(match["power"]) if match["power"] else int(match["exponent"][1:]) if match["exponent"] else 0
    if len(digits) > 300 or not math.isfinite(number := float(f"{digits}e{power}")):
        return None
    if "-" in (match["sign"], match["sign2"]) or _is_bracketed(match, text) or _is_loss(match, text):
        number = -number
    percent = (match["percent"] or "").casefold()
    scale = (match["scale"] or "").casefold()
    unit = (match["unit"] or match["money"] or "").casefold()
    return Quantity(
        number + 0.0, SCALES.get(scale, 1.0) * _PERCENTS.get(percent, 1.0), bool(percent),
        _CURRENCIES.get(unit, unit), max(decimals - power, 0), match.start(), match.end(),
    )  # fmt: skip


def _digits(written: str, decimal_mark: str) -> tuple[str, int]:
    """The digits with `.` as decimal mark, and how many stand behind it."""
    marks = [char for char in written if char in ".,"]
    decimal = ""
    if len(set(marks)) == 2 or (marks and {" ", "'"} & set(written)):
        decimal = marks[-1]
    elif len(marks) == 1:
        tail = len(written) - written.index(marks[0]) - 1
        decimal = marks[0] if marks[0] == decimal_mark or tail != 3 else ""
    if decimal:
        whole, _, rest = written.rpartition(decimal)
        return f"{re.sub(r'[^0-9]', '', whole) or '0'}.{rest}", len(rest)
    return re.sub(r"[^0-9]", "", written), 0


def _is_bracketed(match: re.Match[str], text: str) -> bool:
    """Accountants' minus. A short plain number in brackets amid words is a year or a footnote."""
    if not ((match["open"] or match["open2"]) and (match["close"] or match["close2"])):
        return False
    is_alone = match.group().strip() == text.strip()
    is_money = bool(match["money"] or match["percent"] or match["scale"] or match["unit"])
    return is_alone or is_money or bool(re.search(r"[.,' ]", match["digits"])) or len(match["digits"]) > 4


_LOSS = re.compile(
    r"(?:\b(?:loss|deficit)(?: of)?(?: about| approximately)?|\bnegative|\bminus)\s*$", re.IGNORECASE
)


def _is_loss(match: re.Match[str], text: str) -> bool:
    return _LOSS.search(text[max(match.start() - 40, 0) : match.start()]) is not None


_WORD_RUN = re.compile(
    rf"\b(?:{'|'.join(_WORDS)})(?:[\s-]+(?:and\s+)?(?:{'|'.join((*_WORDS, *_POWERS))}))*\b", re.IGNORECASE
)


def _word_number(text: str) -> list[Quantity]:
    """The numbers that are spelled out in English, where the text has no digits."""
    runs = _WORD_RUN.finditer(text) if len(text) <= 1000 else ()
    return [Quantity(_spelled_value(run.group()), start=run.start(), end=run.end()) for run in runs]


def _spelled_value(run: str) -> float:
    """`two million five hundred and six` is 2,000,506."""
    whole = part = 0.0
    for word in re.findall(r"[a-z]+", run.casefold()):
        if word == "hundred":
            part = max(part, 1.0) * 100
        elif word in _POWERS:
            whole, part = whole + max(part, 1.0) * _POWERS[word], 0.0
        else:
            part += _WORDS.get(word, 0.0)
    return whole + part
