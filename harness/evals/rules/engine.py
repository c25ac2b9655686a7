"""Bounds for means of any bounded score, by the betting test: valid for skewed scores, clusters and ratios.

A unit adds a numerator and a denominator, such as the sum of its scores and their number. "The ratio of the sums is
at least m" says that the mean over units of numerator - m·denominator is at least 0, which is a bounded score a unit.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Sequence
from itertools import cycle, islice
from typing import NamedTuple

from harness.evals.rules.decide import Bounds
from harness.stats.f1 import Ratio
from harness.stats.sequential import Betting, Claim, Decision

BISECTIONS = 7
"""Steps to a bound: to 1 in 128 of where it can lie, which is some 4 standard errors."""
FAR_ERRORS = 4.0
"""Standard errors from the score, beyond which a bound rarely lies."""
DISCORDANCE = 0.15
"""Guess of the share of pairs that differ; a wrong guess costs items, never validity."""
MOST_FACTOR = 16
MOST_UNITS = 100_000
"""Where a search for the items needed gives up."""


class Range(NamedTuple):
    """What a unit can be at most, known before the run."""

    low: float
    """Least score of an item."""
    high: float
    """Greatest score of an item."""
    largest: float
    """Greatest denominator of a unit."""
    n_max: int
    """Units that the run has at most."""
    prior_variance: float | None = None
    """Guess for a unit's scaled score; None takes that of a rate at the threshold, shrunk as sizes differ."""
    shrink: float = 1.0
    """Mean square of denominator over the largest one."""


def seeded_order(units: Iterable[str], seed: int) -> list[str]:
    """Each unit once, in an order that the seed fixes and no score can move."""
    return sorted(set(units), key=lambda unit: (_rank(unit, seed), unit))


def unit_ratios(ratios: Iterable[Ratio], units: Sequence[str], seed: int) -> list[Ratio]:
    """The sums of each unit, in the seeded order."""
    sums: dict[str, Ratio] = {}
    for ratio, unit in zip(ratios, units, strict=True):
        before = sums.get(unit, Ratio(0.0, 0.0))
        sums[unit] = Ratio(before.numerator + ratio.numerator, before.denominator + ratio.denominator)
    return [sums[unit] for unit in seeded_order(sums, seed)]


def range_of(
    ratios: Sequence[Ratio], low: float = 0.0, high: float = 1.0, *, is_paired: bool = False
) -> Range:
    """The range of these units; their denominators are taken to be known beforehand."""
    largest = max((ratio.denominator for ratio in ratios), default=1.0)
    shrink = math.fsum((ratio.denominator / largest) ** 2 for ratio in ratios) / len(ratios)
    prior = DISCORDANCE / 4.0 * shrink if is_paired else None
    return Range(low, high, largest, len(ratios), prior, shrink)


def mean_claim(threshold: float, within: Range, alpha: float, beta: float) -> Claim:
    """ "The ratio of the sums is at least `threshold`", strictly between the range's ends."""
    scaled = (threshold - within.low) / (within.high - within.low)
    guess = (
        scaled * (1.0 - scaled) * within.shrink if within.prior_variance is None else within.prior_variance
    )
    low, high = within.largest * (within.low - threshold), within.largest * (within.high - threshold)
    return Claim(0.0, within.n_max, alpha, beta, low, high, guess)


def bet(claim: Claim, ratios: Iterable[Ratio], threshold: float) -> Betting:
    """The test after these units, of which those after a decision are not read."""
    test = Betting(claim)
    for ratio in ratios:
        # Rounding must not put a score of nothing but hits outside the claim's range.
        score = ratio.numerator - threshold * ratio.denominator
        if test.add(min(max(score, claim.low), claim.high)) is not None:
            break
    return test


def engine_bounds(
    ratios: Sequence[Ratio],
    within: Range,
    low_error: float,
    high_error: float,
    *,
    low_at: float | None,
    high_at: float | None,
    items: int,
    reason: str = "",
) -> Bounds:
    """The ratio of the sums with the values that the betting test excludes on either side.

    `low_at` and `high_at` are the values that a verdict compares the lower and the upper bound with: they are
    tested first, so that the verdict is the test's own and the search only sets the rest of the digits.
    """
    total = math.fsum(ratio.denominator for ratio in ratios)
    if total <= 0.0:
        return Bounds(0, None, None, None, "nothing to count")
    score = math.fsum(ratio.numerator for ratio in ratios) / total

    def decision(threshold: float) -> Decision | None:
        claim = mean_claim(threshold, within, low_error, high_error)
        return bet(claim, ratios, threshold).outcome.decision

    reach = FAR_ERRORS * _error(ratios, score, total)
    low = _edge(lambda m: decision(m) == "PASS", within.low, score, low_at, score - reach)
    high = _edge(lambda m: decision(m) == "FAIL", within.high, score, high_at, score + reach)
    middle = next((at for at in (low_at, high_at) if at is not None), score)

    def needed() -> int | None:
        return _units_needed(ratios, within, middle, low_error, high_error, items / len(ratios))

    return Bounds(items, score, low, high, reason, needed)


def _edge(
    excludes: Callable[[float], bool], end: float, score: float, at: float | None, guess: float
) -> float:
    """The value nearest to the score that is excluded; where `at` is, what comes back lies beyond it.

    `guess` only saves steps: where it is excluded, the search begins there and not at the range's end.
    """
    outer, inner = end, score
    if at is not None and min(end, score) < at < max(end, score):
        outer, inner = (math.nextafter(at, score), score) if excludes(at) else (end, at)
    if min(outer, inner) < guess < max(outer, inner):
        outer, inner = (guess, inner) if excludes(guess) else (outer, guess)
    for _ in range(BISECTIONS):
        middle = (outer + inner) / 2.0
        if middle in (outer, inner):
            break
        outer, inner = (middle, inner) if excludes(middle) else (outer, middle)
    return outer


def _error(ratios: Sequence[Ratio], score: float, total: float) -> float:
    """The linearised standard error of the ratio of the sums, with units as clusters."""
    squares = math.fsum((ratio.numerator - score * ratio.denominator) ** 2 for ratio in ratios)
    return math.sqrt(squares) / total


def _units_needed(
    ratios: Sequence[Ratio], within: Range, threshold: float, alpha: float, beta: float, items_a_unit: float
) -> int | None:
    """Items still missing, were the same units to come again and again."""
    if not within.low < threshold < within.high:
        return None
    factor = 2
    while factor <= MOST_FACTOR and factor * len(ratios) <= MOST_UNITS:
        claim = mean_claim(threshold, within._replace(n_max=factor * len(ratios)), alpha, beta)
        outcome = bet(claim, islice(cycle(ratios), claim.n_max), threshold).outcome
        if outcome.decision is not None:
            return max(1, math.ceil((outcome.n - len(ratios)) * items_a_unit))
        factor *= 2
    return None


def _rank(unit: str, seed: int) -> bytes:
    return hashlib.sha256(f"order:{seed}:{unit}".encode("utf-8", "surrogatepass")).digest()
