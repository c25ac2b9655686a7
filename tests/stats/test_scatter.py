from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2, norm

from harness.stats.scatter import expected_flips, scatter_upper_bound


def test_the_bound_is_chi_squareds() -> None:
    moves = [0.1, -0.2, 0.05, 0.0]

    found = scatter_upper_bound(moves)

    assert found == pytest.approx(math.sqrt(0.0525 / chi2.ppf(0.05, 4)))
    assert scatter_upper_bound([]) is None
    assert scatter_upper_bound([0.0, 0.0]) == 0.0


def test_the_true_deviation_is_above_the_bound_one_time_in_twenty() -> None:
    drawn = np.random.default_rng(7).normal(0.0, 0.3, (4000, 16))

    above = np.mean([(scatter_upper_bound(row.tolist()) or 0.0) < 0.3 for row in drawn])

    assert above == pytest.approx(0.05, abs=3 * math.sqrt(0.05 * 0.95 / 4000))


def test_the_flips_are_the_normal_tails() -> None:
    margins = [0.0, 0.1, 0.5, math.inf]

    assert expected_flips(margins, 0.2) == pytest.approx(sum(norm.cdf(-m / 0.2) for m in margins))
    assert expected_flips(margins, 0.0) == 0.0


@given(st.lists(st.floats(0.0, 50.0), max_size=20), st.floats(0.0, 10.0))
def test_at_most_half_of_the_margins_flip(margins: list[float], deviation: float) -> None:
    assert 0.0 <= expected_flips(margins, deviation) <= len(margins) / 2
