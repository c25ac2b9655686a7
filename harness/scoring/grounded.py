"""Is each number and each name of an answer in the context, or does it follow from it."""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from harness.scoring.counts import Cells, as_counts
from harness.scoring.item import Item, Score
from harness.scoring.numbers import Quantity, read_quantities

MAX_OPERANDS = 100
"""Different numbers of the context that derivations are looked for among, in its order."""
MAX_CLAIMS = 200
"""Numbers and names of one answer that are looked up."""

_WORD = r"[A-ZÀ-ÖØ-Þ][\w'’&-]*"
_NAME = re.compile(rf"(?<![\w]){_WORD}(?:[ \u00a0]+(?:(?:of|de|van|von|der|la|and|&)[ \u00a0]+)?{_WORD})*")
_SENTENCE_START = re.compile(r"(?:^|[.!?:\n\"“(\-•*#\]])\s*$")
_COMMON = frozenset(re.findall(r"\w+", """
    a an the this that these those it its he she they we you i in on at by for from to of and or but if as with
    after before during while when where which who what how why there here no yes not all each both some many most
    our their his her your my is are was were has have had do does did can could will would should may might must
    since thus therefore however moreover overall finally first second third according based compared total net
    revenue dr mr mrs ms prof sir january february march april june july august september october november december
    monday tuesday wednesday thursday friday saturday sunday q1 q2 q3 q4 fy
"""))  # fmt: skip
"""Words that no name begins or ends with."""


class Found(NamedTuple):
    """What an answer claims, by whether the context carries it."""

    supported: tuple[str, ...]
    unsupported: tuple[str, ...]


def grounded(item: Item) -> Score:
    """The share of the answer's numbers and names that the context (and the input) carries; 1 where it has none.

    Settings: `derive` (true: sums, differences, ratios, shares and percent changes of two context numbers
    carry a number too), `numbers`, `names` (both true). Counts: `number` and `name`, supported as true and
    unsupported as false positives.

    Many context numbers derive much by chance. On 986 answers computed from annual reports, 82 % of the right
    and 14 % of wrong numbers derive from two; copied alone are 8 % and 3 %. Turn `derive` off where answers
    only quote.
    """
    if not (item.answer or "").strip():
        return Score(0.0, error_class="empty")
    source = f"{item.context}\n{item.input}"
    parts = {}
    if item.settings.get("numbers", True):
        parts["number"] = check_numbers(
            item.answer or "", source, derive=bool(item.settings.get("derive", True))
        )
    if item.settings.get("names", True):
        parts["name"] = check_names(item.answer or "", source)
    counts = {kind: Cells(len(found.supported), len(found.unsupported), 0) for kind, found in parts.items()}
    right = sum(cells.tp for cells in counts.values())
    wrong = [text for found in parts.values() for text in found.unsupported]
    error_class = None
    if wrong:
        error_class = "unsupported_number" if counts.get("number", Cells(0, 0, 0)).fp else "unsupported_name"
    value = right / (right + len(wrong)) if right or wrong else 1.0
    return Score(value, as_counts(counts), error_class, "; ".join(wrong[:5]))


def check_numbers(answer: str, source: str, *, derive: bool = True) -> Found:
    """The answer's numbers in digits, by whether the source holds them to the digits that the answer writes."""
    pool = _Pool(read_quantities(source, words=False))
    supported: list[str] = []
    unsupported: list[str] = []
    for quantity in read_quantities(answer, words=False)[:MAX_CLAIMS]:
        text = answer[quantity.start : quantity.end].strip() or f"{quantity.number:g}"
        is_there = pool.holds(quantity) or (derive and pool.derives(quantity))
        (supported if is_there else unsupported).append(text)
    return Found(tuple(supported), tuple(unsupported))


def check_names(answer: str, source: str) -> Found:
    """The answer's capitalised sequences, by whether the source holds their words in that order.

    A single capitalised word at the beginning of a sentence is no name.
    """
    haystack = f" {_flat(source)} "
    supported: list[str] = []
    unsupported: list[str] = []
    for name in _names(answer):
        (supported if f" {_flat(name)} " in haystack else unsupported).append(name)
    return Found(tuple(supported), tuple(unsupported))


class _Pool:
    """The numbers of a context, sorted, for interval look-ups."""

    def __init__(self, quantities: Sequence[Quantity]) -> None:
        self._written = sorted({abs(one.number) for one in quantities})
        self._values = sorted({abs(one.value) for one in quantities})
        operands = list(dict.fromkeys(abs(one.number) for one in quantities if one.number))[:MAX_OPERANDS]
        self._operands = sorted(operands)

    def holds(self, claim: Quantity) -> bool:
        """Whether the context writes the number, or has its value in another scale (a thousand, a percent)."""
        half = 0.5 * 10.0**-claim.decimals * (1 + 1e-6)
        target = abs(claim.number)
        if _has(self._written, target, target) or _has(self._values, abs(claim.value), abs(claim.value)):
            return True
        if claim.decimals == 0 and claim.scale == 1.0 and not claim.is_percent:
            half = min(half, 0.005 * target)
        unit = claim.scale * (0.01 if claim.is_percent else 1.0)
        scales = (1.0, unit, 1e3, 1e6, 1e9, 1e-3, 1e-6, 1e-9)
        return any(_has(self._written, (target - half) * s, (target + half) * s) for s in scales)

    def derives(self, claim: Quantity) -> bool:
        """Whether two of the context's numbers give the number, as far as its digits say."""
        half = 0.5 * 10.0**-claim.decimals * (1 + 1e-6)
        low, high = abs(claim.number) - half, abs(claim.number) + half
        return any(
            _has(self._operands, max(start, 0.0), end)
            for a in self._operands
            for start, end in _partners(a, low, high, claim)
        )


def _partners(a: float, low: float, high: float, claim: Quantity) -> Iterator[tuple[float, float]]:
    """Intervals in which a second number gives, with `a`, a result from `low` to `high`."""
    yield low - a, high - a  # a + b
    yield low + a, high + a  # b - a
    if claim.is_bare and low > 0:
        yield a * low, a * high  # b / a
    if claim.is_percent or claim.is_bare:
        yield a * low / 100, a * high / 100  # share: b / a
        yield a * (1 + low / 100), a * (1 + high / 100)  # growth from a to b
        yield a * (1 - high / 100), a * (1 - low / 100)  # decline from a to b


def _has(values: Sequence[float], low: float, high: float) -> bool:
    slack = 1e-12 * max(abs(low), abs(high))
    place = bisect_left(values, low - slack)
    return place < len(values) and values[place] <= high + slack


def _names(text: str) -> list[str]:
    """Capitalised sequences without leading common words, each once."""
    names: dict[str, None] = {}
    for match in _NAME.finditer(text):
        words = match.group().split()
        starts = _SENTENCE_START.search(text[max(match.start() - 8, 0) : match.start()]) is not None
        while words and words[0].casefold().rstrip(".'’") in _COMMON:
            words, starts = words[1:], False
        while words and words[-1].casefold() in _COMMON:
            words = words[:-1]
        is_name = len(words) > 1 or (len(words) == 1 and not starts and len(words[0]) > 1)
        is_name = is_name or (len(words) == 1 and words[0].isupper() and len(words[0]) > 2)
        if is_name:
            names[" ".join(words)] = None
        if len(names) >= MAX_CLAIMS:
            break
    return list(names)


def _flat(text: str) -> str:
    """Lower-case words without accents and possessive endings, one space between them."""
    plain = unicodedata.normalize("NFKD", text).casefold().replace("’", "'")
    plain = "".join(char for char in plain if not unicodedata.combining(char))
    return " ".join(re.findall(r"\w+", re.sub(r"'s\b", "", plain)))
