"""Where a value lies on an edge: a probability that is the level itself, one item, a bound at its end."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from scipy import stats

from harness.stats.calibration import HOTTEST, fit_temperature, reliability
from harness.stats.conformal import abstention_threshold, calibration_items
from harness.stats.f1 import Ratio, ratio_bounds
from harness.stats.fairness import Cells, gap_gate, gap_p, largest_gaps
from harness.stats.group_sequential import Look, absorb, z_bounds
from harness.stats.paired import noninferiority_p, paired_bounds, superiority_p
from harness.stats.planning import (
    detectable_gap,
    detectable_margin,
    detectable_rate,
    paired_curve,
    planned_worth,
)
from harness.stats.power import (
    _more_items,
    can_never_pass,
    cuts,
    fewest_items,
    items_for_power,
    items_needed,
    paired_items_needed,
)
from harness.stats.ppi import corrected_mean
from harness.stats.proportions import Count, lower_bound, newcombe_at, pairwise_gaps
from harness.stats.quantiles import quantile_lower_bound, quantile_upper_bound
from harness.stats.sequential import Betting, Claim, simulate
from harness.stats.tails import at_least_tail, at_most_tail, normal_quantile

# A probability that is the level itself rejects


def test_a_rate_rule_takes_a_probability_that_is_the_level() -> None:
    passing, failing = at_least_tail(9, 10, 0.5), at_most_tail(1, 10, 0.5)
    assert passing == pytest.approx(11 / 1024)

    assert cuts(10, 0.5, passing, failing) == (9, 1)
    assert items_needed(9, 10, at_least=0.5, alpha=passing) == 0
    assert items_needed(1, 10, at_least=0.5, beta=failing) == 0
    all_right = at_least_tail(3, 3, 0.4)
    assert not can_never_pass(3, 0.4, all_right)
    assert can_never_pass(3, 0.4, all_right * 0.999)


def test_one_item_is_enough_where_it_is() -> None:
    """Against .04 a single hit has p = .04; at a true rate of .9 it comes nine times in ten."""
    assert items_for_power(0.04, 0.9) == 1
    assert items_for_power(0.04, 0.9, alpha=at_least_tail(1, 1, 0.04)) == 1
    assert items_for_power(0.04, 0.9, power=at_least_tail(1, 1, 0.9)) == 1
    assert quantile_upper_bound([7.0], 0.04) == 7.0
    assert quantile_lower_bound([7.0], 0.96) == 7.0


def test_an_order_statistic_takes_a_probability_that_is_the_level() -> None:
    values = [float(k) for k in range(1, 11)]

    assert quantile_upper_bound(values, 0.5, at_least_tail(9, 10, 0.5)) == 9.0
    assert quantile_lower_bound(values, 0.5, at_most_tail(1, 10, 0.5)) == 2.0


def test_the_fewest_items_are_exact_where_the_logarithms_ratio_is_nearly_whole() -> None:
    assert fewest_items(0.5, 0.25) == 2
    threshold = 0.05 ** (1.0 / (14.0 + 5e-10))
    assert threshold**14 > 0.05
    assert fewest_items(threshold) == 15


@pytest.mark.parametrize(
    ("hits", "n", "at_least"),
    [
        (17, 20, 0.8), (41, 50, 0.8), (9, 10, 0.8), (11, 20, 0.5), (7, 10, 0.5), (83, 100, 0.8), (3, 4, 0.7),
        (70, 100, 0.72),
    ],
)  # fmt: skip
def test_one_item_fewer_than_needed_does_not_settle(hits: int, n: int, at_least: float) -> None:
    more = items_needed(hits, n, at_least=at_least)
    assert more is not None
    assert more > 0

    def p_value(size: int) -> float:
        if hits / n > at_least:
            return float(stats.binom.sf(math.floor(hits / n * size + 1e-9) - 1, size, at_least))
        return float(stats.binom.cdf(math.ceil(hits / n * size - 1e-9), size, at_least))

    assert p_value(n + more) <= 0.05 < p_value(n + more - 1)


def test_pairs_are_asked_for_where_the_difference_is_not_the_one_that_was_seen() -> None:
    assert paired_items_needed(2, 3, 100, 0.05) is not None
    assert paired_items_needed(2, 3, 100, 0.01) is None


# Calibration, conformal sets, abstention


def test_a_model_that_is_sure_and_always_wrong_is_toned_down_as_far_as_it_goes() -> None:
    log_probs = np.array([[0.0, -9.0]] * 5)

    assert fit_temperature(log_probs, np.ones(5, int)) == pytest.approx(50.0, rel=1e-6)
    assert HOTTEST == 50.0


def test_a_precision_that_is_shown_at_the_very_level_is_shown() -> None:
    p = at_least_tail(20, 20, 0.9)
    values = [k / 20 for k in range(20)]

    found = abstention_threshold(
        values, [True] * 20, precision=0.9, alpha=p, least_coverage=1.0 - 1e-12, steps=1
    )
    assert found is not None
    assert (found.kept, found.coverage) == (Count(20, 20), 1.0)


@pytest.mark.parametrize(("steps", "coverage"), [(1, 0.2), (2, 1.0), (3, 1.0)])
def test_the_last_step_of_several_answers_everything(steps: int, coverage: float) -> None:
    values = [k / 500 for k in range(500)]

    found = abstention_threshold(values, [True] * 500, precision=0.9, steps=steps)

    assert found is not None
    assert found.coverage == pytest.approx(coverage)


@pytest.mark.parametrize(
    ("alpha", "slack", "certainty", "items"),
    [(0.5, 0.4, 0.85, 1), (1 / 3, 0.6, 0.95, 2), (0.5, 0.25, 0.75, 1)],
)
def test_a_few_calibration_items_are_enough_where_much_is_allowed(
    alpha: float, slack: float, certainty: float, items: int
) -> None:
    """With one item and alpha ½ the coverage is uniform; with two and alpha ⅓ it is Beta(2, 1), so x² is its tail."""
    rank = math.ceil((items + 1) * (1 - alpha) - 1e-9)
    assert stats.beta.cdf(1 - alpha - slack, rank, items + 1 - rank) <= 1 - certainty + 1e-12

    assert calibration_items(alpha, slack, certainty) == items


def test_a_model_that_is_always_right_is_sharpened_as_far_as_it_goes() -> None:
    log_probs = np.array([[0.0, -9.0]] * 5)

    assert fit_temperature(log_probs, np.zeros(5, int)) == pytest.approx(0.02, rel=1e-6)
    assert fit_temperature(np.zeros((5, 2)), np.zeros(5, int)) == pytest.approx(0.02, rel=1e-6)


def test_a_confidence_that_rounding_put_over_one_is_in_the_last_bar() -> None:
    bars = reliability(np.array([1.0 + 1e-12, 1.0]), np.array([True, False]))

    assert [bar.n for bar in bars] == [0] * 9 + [2]


# Groups


def test_a_group_of_one_item_can_pass_under_a_wide_cap() -> None:
    groups = {"a": Count(1000, 1000), "b": Count(1, 1)}

    assert gap_gate(groups, 0.9).decision == "PASS"
    assert gap_gate({**groups, "c": Count(0, 0)}, 0.9).decision is None
    assert len(pairwise_gaps({**groups, "c": Count(0, 0)})) == 2


def test_a_gap_that_is_the_cap_is_no_evidence_against_it() -> None:
    assert gap_p(Count(3, 4), Count(1, 2), 0.25) == 1.0


def test_a_gap_just_over_the_cap_is_weak_evidence() -> None:
    better, worse = Count(71, 100), Count(60, 100)
    p = gap_p(better, worse, 0.1)
    bound = newcombe_at(better, worse, float(stats.norm.isf(p)))

    assert 0.4 < p < 0.5
    assert bound is not None
    assert bound.low == pytest.approx(0.1, abs=1e-9)


def test_of_two_gaps_beyond_all_doubt_the_larger_is_named() -> None:
    n = 10**6
    groups = {"a": Count(n * 9 // 10, n), "b": Count(n * 4 // 10, n), "c": Count(n // 10, n)}
    assert gap_p(groups["a"], groups["b"], 0.1) == gap_p(groups["a"], groups["c"], 0.1)

    worst = gap_gate(groups, 0.1).worst

    assert worst is not None
    assert (worst.better, worst.worse) == ("a", "c")


def test_the_gaps_interval_holds_the_central_share_of_the_draws() -> None:
    cells = {"a": Cells(40, 10, 10, 40), "b": Cells(20, 10, 30, 40), "c": Cells(30, 30, 20, 20)}
    table = np.array(list(cells.values()), float)
    drawn = np.random.default_rng(17).multinomial(300, table.ravel() / 300, size=1000).reshape(1000, 3, 4)
    selected = (drawn[:, :, 0] + drawn[:, :, 1]) / drawn.sum(axis=2)
    spread = selected.max(axis=1) - selected.min(axis=1)

    for confidence in (0.95, 0.5):
        found = largest_gaps(cells, confidence=confidence)["demographic_parity"]
        tail = (1 - confidence) / 2
        assert found.interval == pytest.approx(tuple(np.quantile(spread, [tail, 1 - tail])))


def test_a_rate_of_one_item_is_known_and_of_none_is_not() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = largest_gaps({"a": Cells(1, 0, 0, 5), "b": Cells(0, 0, 1, 5), "c": Cells(0, 3, 0, 5)})

    assert (found["equal_opportunity"].gap, found["equal_opportunity"].unknown) == (1.0, ("c",))


def test_a_gap_whose_bound_is_the_cap_is_not_under_it() -> None:
    groups = {"a": Count(450, 500), "b": Count(440, 500)}
    worst = gap_gate(groups, 0.5).worst
    assert worst is not None

    assert gap_gate(groups, worst.high).decision is None
    assert gap_gate(groups, math.nextafter(worst.high, 1.0)).decision == "PASS"


def test_a_lower_bound_at_the_floor_reaches_it() -> None:
    groups = {"a": Count(450, 500), "b": Count(450, 500)}
    bound = lower_bound(450, 500, 0.05)
    assert bound is not None

    assert gap_gate(groups, 0.2, floor=bound).under_floor == ()
    assert gap_gate(groups, 0.2, floor=math.nextafter(bound, 1.0)).under_floor == ("a", "b")


def test_a_gap_shown_at_the_level_itself_fails() -> None:
    groups = {"a": Count(90, 100), "b": Count(60, 100)}
    p = gap_p(groups["a"], groups["b"], 0.1)

    assert gap_gate(groups, 0.1, beta=2 * p).decision == "FAIL"
    assert gap_gate(groups, 0.1, beta=2 * p * 0.999).decision is None


def test_a_group_that_would_just_reach_the_cap_is_too_small() -> None:
    groups = {"a": Count(450, 500), "b": Count(9, 10)}
    reach = newcombe_at(groups["b"], groups["a"], normal_quantile(0.95))
    back = newcombe_at(groups["a"], groups["b"], normal_quantile(0.95))
    assert reach is not None
    assert back is not None
    cap = max(reach.high, back.high)

    assert gap_gate(groups, cap).too_small == ("b",)
    assert gap_gate(groups, math.nextafter(cap, 1.0)).too_small == ()


# Looks, pairs, labels


def test_gains_with_the_probability_of_the_level_are_shown() -> None:
    """Five gains and no loss have a probability of 1 in 32."""
    p = superiority_p(0, 5)
    assert p == pytest.approx(1 / 32)
    at, under = paired_bounds(0, 5, 100, p), paired_bounds(0, 5, 100, p * 0.999)

    assert at is not None
    assert under is not None
    assert at.low > 0.0 > under.low


def test_a_bound_that_is_the_difference_settles_nothing() -> None:
    bounds = paired_bounds(2, 9, 100)
    assert bounds is not None

    for difference in bounds:
        more = paired_items_needed(2, 9, 100, difference)
        assert more is not None
        assert more > 0
    assert paired_items_needed(2, 9, 100, math.nextafter(bounds.low, -1.0)) == 0
    assert paired_items_needed(2, 9, 100, math.nextafter(bounds.high, 1.0)) == 0


def test_a_search_goes_up_to_the_most_items_and_counts_in_whole_ones() -> None:
    assert _more_items(5_000_000, lambda size: size >= 10_000_000) == 5_000_000
    assert _more_items(5_000_001, lambda size: size >= 10_000_000) is None
    assert all(isinstance(items_needed(hits, 20, at_least=0.8), int) for hits in (13, 14, 15, 17, 18))
    found = [_more_items(10, lambda size, first=first: size >= first) for first in range(11, 90)]  # type: ignore[misc]
    assert found == list(range(1, 80))


def test_one_look_is_the_plain_test() -> None:
    for alpha in (0.3, 0.05, 0.001):
        assert z_bounds(1, alpha) == pytest.approx((stats.norm.isf(alpha),))
    assert z_bounds(5) == z_bounds(5, 0.05)


def test_a_rate_of_nothing_has_no_hits() -> None:
    found = absorb([Look(4, 1, 0)], 0.0)

    assert (found.passes, found.fails, found.open) == ((0.0,), (1.0,), 0.0)


def test_without_a_margin_a_candidate_must_be_better() -> None:
    """At least 1 of 4 tosses is 15 in 16, and 2 of 2 is 1 in 4; one gained and one lost are no gain at all."""
    assert noninferiority_p(3, 1, 10, 0.0) == pytest.approx(15 / 16)
    assert noninferiority_p(1, 1, 2, 0.0) == pytest.approx(3 / 4)
    for margin in (-0.05, -0.3):
        assert noninferiority_p(1, 1, 2, margin) == 1.0
        assert noninferiority_p(3, 1, 10, margin) == 1.0
    gained = noninferiority_p(1, 5, 100, -0.03)
    assert gained is not None
    assert gained >= stats.binom.sf(3, 100, 0.03) - 1e-12


def test_documents_with_little_to_count_have_bounds_too() -> None:
    assert ratio_bounds([Ratio(0.3, 0.5), Ratio(0.1, 0.4)], 0.4, 0.4) is not None


def test_two_further_items_have_a_variance() -> None:
    labels, judge = np.array([1.0, 0.0, 1.0, 1.0]), np.array([0.9, 0.2, 0.6, 0.7])
    rest = np.array([0.4, 0.8])
    weight = np.cov(labels, judge)[0, 1] / ((1 + 4 / 2) * np.var(np.concatenate([judge, rest]), ddof=1))
    weight = min(1.0, float(weight))
    error = math.sqrt(weight**2 * rest.var(ddof=1) / 2 + (labels - weight * judge).var(ddof=1) / 4)

    found = corrected_mean(labels, judge, rest)

    assert found is not None
    assert (found.weight, found.error) == pytest.approx((weight, error))


# The betting test


def test_the_last_item_is_bet_on_as_the_only_one_left() -> None:
    """One item, threshold .1, alpha .4: the stake is √(2·ln 2.5 / .09) = 4.51; with two left it would be 3.19."""
    claim = Claim(0.1, 1, 0.4, 0.4)
    stake = math.sqrt(2 * math.log(2.5) / 0.09)
    test = Betting(claim)
    test.add(0.12)

    assert test.outcome.pass_p == pytest.approx(1 / (1 + stake * 0.02))
    assert Betting(claim).add(0.5) == "PASS"
    found = simulate(claim, np.array([[0.5], [0.12]]))
    assert (found.passes.tolist(), found.n.tolist()) == ([True, False], [1, 1])


def test_wealth_that_is_the_goal_itself_decides() -> None:
    """At a threshold of ½ a whole hit at the boldest stake of 1.8 makes 1 into 1.9."""
    goal = math.log1p(1.8 * 0.5)
    level = next(
        level
        for step in range(-8, 9)
        if -math.log(level := math.exp(-goal) * (1.0 + step * 2.0**-52)) == goal
    )
    claim = Claim(0.5, 1, level, level)

    assert Betting(claim).add(1.0) == "PASS"
    assert Betting(claim).add(0.0) == "FAIL"
    found = simulate(claim, np.array([[1.0], [0.0]]))
    assert found.passes.tolist() == [True, False]
    assert found.fails.tolist() == [False, True]


# What a rule will be able to see


@pytest.mark.parametrize(
    ("margin", "difference", "discordance", "alpha"),
    [
        (0.3, 0.0, 0.4, 0.05), (0.3, -0.5, 0.1, 0.2), (0.3, -1.0, 0.1, 0.05), (0.3, 1.0, 0.1, 0.05),
        (1.0, 0.0, 0.4, 0.05), (-1.0, 0.0, 0.4, 0.05), (-0.2, 0.6, 0.9, 0.3), (0.9, 0.0, 1.0, 0.45),
        (0.6, 0.0, 0.3, 0.45),
    ],
)  # fmt: skip
def test_the_paired_curve_is_the_sum_over_all_tables(
    margin: float, difference: float, discordance: float, alpha: float
) -> None:
    n, share = 8, max(discordance, abs(difference))
    law = stats.multinomial(n, [(share - difference) / 2, (share + difference) / 2, 1.0 - share])
    tables = {(b, c): float(law.pmf([b, c, n - b - c])) for b in range(n + 1) for c in range(n + 1 - b)}
    p_pass = {(b, c): noninferiority_p(b, c, n, margin) for b, c in tables}
    p_fail = {(b, c): noninferiority_p(c, b, n, -margin) for b, c in tables}

    def shown(p_values: dict[tuple[int, int], float | None], level: float) -> float:
        return sum(tables[table] for table, p in p_values.items() if p is not None and p < level)

    level = p_pass[0, 0] or 0.5
    for at in (alpha, min(level, 0.99)):
        (point,) = paired_curve(n, margin, [difference], discordance, at, alpha)
        assert point.pass_frac == pytest.approx(shown(p_pass, at), abs=1e-9)
        assert point.fail_frac == pytest.approx(shown(p_fail, alpha), abs=1e-9)
    at = min(p_fail[0, 0] or 0.5, 0.99)
    (point,) = paired_curve(n, margin, [difference], discordance, alpha, at)
    assert point.fail_frac == pytest.approx(shown(p_fail, at), abs=1e-9)


def test_few_units_and_few_pairs_have_a_worth_and_a_margin() -> None:
    pairs_of_units = [str(k // 2) for k in range(12)]
    shrink = (stats.t.ppf(0.95, 11) / stats.t.ppf(0.95, 5)) ** 2
    assert planned_worth(pairs_of_units, 0.05) == pytest.approx(12 / 1.1 * shrink, rel=3e-3)
    assert planned_worth(["a"] * 3 + ["b"] * 5, 0.05) == pytest.approx(8 / ((9 + 25) / 8))
    z = stats.norm.ppf(0.95) + stats.norm.ppf(0.8)
    assert detectable_margin(1) == pytest.approx(z * math.sqrt(0.1) + 0.5)
    assert detectable_gap(1, 1) == pytest.approx(z * math.sqrt(0.16 * 2))
    at = at_least_tail(3, 3, 0.4)
    assert detectable_rate(3, 0.4, at) == pytest.approx(0.8 ** (1 / 3))
    assert detectable_rate(3, 0.4, at * 0.999) is None
