"""The bounds of the betting engine, beside the plain betting test on the same units."""

from __future__ import annotations

import hashlib
import math
from itertools import cycle, islice

import pytest

from harness.evals.rules import engine
from harness.evals.rules.engine import Range
from harness.stats.f1 import Ratio
from harness.stats.sequential import Betting, Claim


def test_units_come_in_the_order_of_their_digests() -> None:
    units = ["b", "a", "c", "a"]
    digests = {u: hashlib.sha256(f"order:7:{u}".encode()).digest() for u in units}

    assert engine.seeded_order(units, 7) == sorted(set(units), key=lambda unit: digests[unit])
    found = engine.unit_ratios([Ratio(k, k + 1.0) for k in range(4)], units, 7)
    sums = {"a": Ratio(4.0, 6.0), "b": Ratio(0.0, 1.0), "c": Ratio(2.0, 3.0)}
    assert found == [sums[unit] for unit in engine.seeded_order(units, 7)]


def test_the_range_of_units_is_their_largest_and_mean_square_size() -> None:
    units = [Ratio(1.0, 1.0), Ratio(1.0, 2.0), Ratio(0.0, 4.0)]
    shrink = (1 / 16 + 1 / 4 + 1) / 3

    assert engine.range_of(units) == Range(0.0, 1.0, 4.0, 3, None, pytest.approx(shrink))
    paired_range = engine.range_of(units, -1.0, 1.0, is_paired=True)
    assert paired_range == Range(-1.0, 1.0, 4.0, 3, pytest.approx(0.15 / 4 * shrink), pytest.approx(shrink))
    assert Range(0.0, 1.0, 1.0, 1) == Range(0.0, 1.0, 1.0, 1, None, 1.0)


def test_a_claim_on_a_mean_is_one_on_scores_around_zero() -> None:
    found = engine.mean_claim(0.25, Range(-1.0, 1.0, 2.0, 10, None, 0.5), 0.01, 0.2)

    assert found == Claim(0.0, 10, 0.01, 0.2, -2.5, 1.5, pytest.approx(0.625 * 0.375 * 0.5))
    guessed = engine.mean_claim(0.25, Range(-1.0, 1.0, 2.0, 10, 0.125, 0.5), 0.01, 0.2)
    assert guessed.prior_variance == 0.125


def test_a_bet_stops_at_its_decision_and_stays_within_the_range() -> None:
    claim = engine.mean_claim(0.5, Range(0.0, 1.0, 1.0, 50), 0.05, 0.05)

    found = engine.bet(claim, [Ratio(1.0, 1.0)] * 50, 0.5).outcome
    assert (found.decision, found.n < 50) == ("PASS", True)
    assert engine.bet(claim, [Ratio(1.0 + 1e-12, 1.0)] * 50, 0.5).outcome == found
    assert engine.bet(claim, [Ratio(-1e-12, 1.0)] * 50, 0.5).outcome.decision == "FAIL"


@pytest.mark.parametrize(
    ("at", "guess", "wanted"),
    [
        (None, -1.0, 38 / 128), (None, 0.2, 0.2 + 16 * 0.8 / 128), (None, 0.5, 77 / 256), (0.5, -1.0, 77 / 256),
        (0.25, -1.0, 0.25 + 8 * 0.75 / 128), (0.25, 0.275, 0.275 + 4 * 0.725 / 128), (2.0, 2.0, 38 / 128),
        (0.5, 0.4, 0.4 * 96 / 128), (1.0, 1.0, 38 / 128), (0.0, 0.0, 38 / 128),
    ],
)  # fmt: skip
def test_an_edge_is_found_to_a_128th_of_where_it_can_lie(
    at: float | None, guess: float, wanted: float
) -> None:
    """All under .301 is excluded; `wanted` is the last of 128 equal steps that is."""
    assert engine._edge(lambda m: m < 0.301, 0.0, 1.0, at, guess) == pytest.approx(wanted, abs=1e-12)
    flipped = None if at is None else -at
    assert engine._edge(lambda m: m > -0.301, 0.0, -1.0, flipped, -guess) == pytest.approx(-wanted, abs=1e-12)


def test_an_excluded_threshold_lies_outside_of_the_bounds() -> None:
    found = engine._edge(lambda m: m <= 0.25, 0.0, 1.0, 0.25, -1.0)

    assert found > 0.25


def test_the_engines_score_and_error_are_those_of_a_ratio() -> None:
    ratios = [Ratio(3.0, 4.0), Ratio(1.0, 2.0), Ratio(0.0, 2.0)]
    error = math.sqrt((3 - 2) ** 2 + (1 - 1) ** 2 + (0 - 1) ** 2) / 8

    assert engine._error(ratios, 0.5, 8.0) == pytest.approx(error)
    found = engine.engine_bounds(
        ratios, engine.range_of(ratios), 0.05, 0.05, low_at=None, high_at=None, items=9
    )
    assert (found.score, found.n, found.reason) == (0.5, 9, "")
    single = engine.engine_bounds(
        [Ratio(0.5, 1.0)], Range(0.0, 1.0, 1.0, 1), 0.05, 0.05, low_at=None, high_at=None, items=1
    )
    assert (single.n, single.score) == (1, 0.5)
    empty = engine.engine_bounds(
        [Ratio(0.0, 0.0)], Range(0.0, 1.0, 1.0, 1), 0.05, 0.05, low_at=0.5, high_at=0.5, items=1
    )
    assert (empty.n, empty.score, empty.low, empty.high) == (0, None, None, None)


def test_the_engines_bounds_are_values_that_the_test_excludes_and_hardly_more() -> None:
    scores = [0.25 + 0.5 * (k % 3 > 0) for k in range(60)]
    ratios, within = [Ratio(score, 1.0) for score in scores], Range(0.0, 1.0, 1.0, 60)
    score = sum(scores) / 60

    def decision(m: float, low_error: float = 0.05, high_error: float = 0.2) -> str | None:
        claim = Claim(0.0, 60, low_error, high_error, -m, 1.0 - m, m * (1.0 - m))
        return Betting(claim).extend([s - m for s in scores]).decision

    found = engine.engine_bounds(ratios, within, 0.05, 0.2, low_at=None, high_at=None, items=60)

    assert found.low is not None
    assert found.high is not None
    assert found.low < score < found.high
    assert decision(found.low) == "PASS"
    assert decision(found.high) == "FAIL"
    assert decision(found.low + score / 128) != "PASS"
    assert decision(found.high - (1 - score) / 128) != "FAIL"


@pytest.mark.parametrize(
    ("hits", "factor"),
    [(10, 2), (15, 4), (16, 16), (17, None), (19, None), (20, 8), (21, 4), (22, 2), (31, 2)],
)
def test_the_units_needed_are_the_same_ones_come_again(hits: int, factor: int | None) -> None:
    """Tried with 2, 4, 8 and 16 times as many, and no more; of 19 hits 32 times as many would do."""
    scores = [1.0 if k * 17 % 40 < hits else 0.0 for k in range(40)]
    ratios, within, wanted = [Ratio(score, 2.0) for score in scores], Range(0.0, 1.0, 2.0, 40), None
    if factor is not None:
        n = factor * 40
        test = Betting(Claim(0.0, n, 0.05, 0.1, -2 * 0.22, 2 * 0.78, 0.22 * 0.78))
        outcome = test.extend(score - 0.22 * 2.0 for score in islice(cycle(scores), n))
        assert outcome.decision is not None
        wanted = max(1, math.ceil((outcome.n - 40) * 2.5))

    assert engine._units_needed(ratios, within, 0.22, 0.05, 0.1, 2.5) == wanted
    bounds = engine.engine_bounds(ratios, within, 0.05, 0.1, low_at=0.22, high_at=0.22, items=100)
    assert bounds.needed() == wanted
    assert engine._units_needed(ratios, within, 0.0, 0.05, 0.1, 2.5) is None
    assert engine._units_needed(ratios, within, 1.0, 0.05, 0.1, 2.5) is None
