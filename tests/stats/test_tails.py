"""The distributions that every bound stands on, beside scipy's."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special, stats

from harness.errors import StatsError
from harness.stats.tails import (
    at_least_tail,
    at_most_tail,
    beta_cdf,
    beta_quantile,
    log_choose,
    normal_cdf,
    normal_quantile,
    point_mass,
    require_counts,
    require_probability,
)

SHAPES = st.floats(0.05, 5000.0)


@given(st.floats(0.0, 1.0), SHAPES, SHAPES)
def test_the_beta_distribution_is_scipys(x: float, a: float, b: float) -> None:
    assert beta_cdf(x, a, b) == pytest.approx(special.betainc(a, b, x), rel=1e-8, abs=1e-14)


@pytest.mark.parametrize("a", [0.3, 1.0, 2.5, 40.0, 3000.0])
@pytest.mark.parametrize("b", [0.3, 1.0, 2.5, 40.0, 3000.0])
def test_the_beta_distribution_is_scipys_on_both_sides_of_its_middle(a: float, b: float) -> None:
    for step in range(-4, 5):
        x = min(max((a + 1) / (a + b + 2) * (1 + step / 8), 1e-6), 1 - 1e-6)
        assert beta_cdf(x, a, b) == pytest.approx(special.betainc(a, b, x), rel=1e-10, abs=1e-290)


def test_nothing_lies_outside_zero_to_one() -> None:
    for x, wanted in ((-0.5, 0.0), (0.0, 0.0), (1.0, 1.0), (1.5, 1.0)):
        assert beta_cdf(x, 2.0, 3.0) == wanted


@given(st.integers(0, 400), st.data())
def test_binomial_tails_are_scipys(n: int, data: st.DataObject) -> None:
    hits, rate = data.draw(st.integers(-2, n + 2)), data.draw(st.floats(0.001, 0.999))

    assert at_least_tail(hits, n, rate) == pytest.approx(
        stats.binom.sf(hits - 1, n, rate), rel=1e-8, abs=1e-250
    )
    assert at_most_tail(hits, n, rate) == pytest.approx(stats.binom.cdf(hits, n, rate), rel=1e-8, abs=1e-250)


@pytest.mark.parametrize(("hits", "n"), [(0, 0), (0, 1), (1, 1), (0, 5), (5, 5), (3, 5), (6, 5), (-1, 5)])
def test_certain_tails_are_certain(hits: int, n: int) -> None:
    for rate in (0.0, 0.3, 1.0):
        assert at_least_tail(hits, n, rate) == pytest.approx(stats.binom.sf(hits - 1, n, rate))
        assert at_most_tail(hits, n, rate) == pytest.approx(stats.binom.cdf(hits, n, rate))


@pytest.mark.parametrize(("hits", "n", "rate"), [(2000, 2000, 0.3), (950, 1000, 0.5), (20, 100_000, 0.01)])
def test_tails_far_out_are_small_and_not_zero(hits: int, n: int, rate: float) -> None:
    found, wanted = at_least_tail(hits, n, rate), float(stats.binom.sf(hits - 1, n, rate))

    assert found == pytest.approx(wanted, rel=1e-6, abs=1e-300)
    assert at_most_tail(n - hits, n, 1 - rate) == pytest.approx(wanted, rel=1e-6, abs=1e-300)


def test_a_tail_too_small_for_a_number_is_zero_and_no_error() -> None:
    assert at_least_tail(100_000, 100_000, 0.5) == 0.0


@given(st.integers(0, 300), st.data())
def test_masses_and_ways_are_scipys(n: int, data: st.DataObject) -> None:
    hits = data.draw(st.integers(0, n))

    assert log_choose(n, hits) == pytest.approx(math.log(math.comb(n, hits)), abs=1e-9)
    for rate in (0.0, 0.2, 0.999, 1.0):
        assert point_mass(hits, n, rate) == pytest.approx(
            stats.binom.pmf(hits, n, rate), rel=1e-9, abs=1e-290
        )


@pytest.mark.parametrize("probability", [1e-9, 0.001, 0.05, 0.3, 0.5, 0.8, 0.999, 1 - 1e-9])
@pytest.mark.parametrize(
    ("a", "b"),
    [(0.5, 0.5), (1.0, 1.0), (1.0, 400.0), (400.0, 1.0), (3.0, 18.0), (5000.0, 5000.0), (0.1, 20.0)],
)
def test_the_beta_quantile_is_scipys(probability: float, a: float, b: float) -> None:
    wanted = float(special.betaincinv(a, b, probability))

    assert beta_quantile(probability, a, b) == pytest.approx(wanted, rel=1e-8, abs=1e-12)


@pytest.mark.parametrize(
    ("probability", "a", "b"), [(0.001, 0.05, 7.0), (0.8, 2.0, 0.05), (0.05, 0.05, 40.0)]
)
def test_the_beta_quantile_is_scipys_next_to_the_ends(probability: float, a: float, b: float) -> None:
    assert beta_quantile(probability, a, b) == pytest.approx(special.betaincinv(a, b, probability), rel=1e-9)


@pytest.mark.parametrize("z", [-37.0, -8.0, -3.0, -1.0, -0.1, 0.0, 0.7, 2.0, 6.0, 9.0])
def test_the_normal_distribution_is_scipys(z: float) -> None:
    assert normal_cdf(z) == pytest.approx(special.ndtr(z), rel=1e-12)


@pytest.mark.parametrize(
    "probability", [1e-300, 1e-50, 1e-9, 0.001, 0.0199, 0.02, 0.0201, 0.05, 0.3, 0.5, 0.500001, 0.9, 0.999999]
)
def test_the_normal_quantile_is_scipys(probability: float) -> None:
    assert normal_quantile(probability) == pytest.approx(special.ndtri(probability), rel=1e-12, abs=1e-14)


@pytest.mark.parametrize("value", [0.0, 1.0, -0.1, 1.1, math.nan, math.inf])
def test_what_is_no_probability_is_refused(value: float) -> None:
    with pytest.raises(StatsError, match="strictly between 0 and 1"):
        require_probability("p", value)
    require_probability("p", 0.5)
    require_probability("p", 1e-12)


@pytest.mark.parametrize(("hits", "n"), [(-1, 3), (4, 3), (1, 0), (0, -1)])
def test_what_are_no_counts_is_refused(hits: int, n: int) -> None:
    with pytest.raises(StatsError, match="0 ≤ right ≤ items"):
        require_counts(hits, n)
    for fine in ((0, 0), (0, 3), (3, 3)):
        require_counts(*fine)
