from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests

from harness.errors import StatsError
from harness.stats.multiplicity import alpha_for_attempt, holm


def test_published_holm_values_are_met() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx((0.03, 0.06, 0.06, 0.02))


@settings(max_examples=10, deadline=None)
@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=30))
def test_holm_equals_statsmodels(p_values: list[float]) -> None:
    assert holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1])


def test_no_claims_need_no_correction() -> None:
    assert holm([]) == ()


@pytest.mark.parametrize("p", [-0.1, 1.1, float("nan")])
def test_what_is_no_probability_is_refused(p: float) -> None:
    with pytest.raises(StatsError, match="wanted 0 to 1"):
        holm([0.5, p])


def test_all_attempts_together_spend_alpha() -> None:
    spent = sum(alpha_for_attempt(0.05, attempt) for attempt in range(1, 20_001))

    assert 0.0499 < spent < 0.05
    assert alpha_for_attempt(0.05, 1) == pytest.approx(0.0303963551)
    with pytest.raises(StatsError, match="wanted 1 or more"):
        alpha_for_attempt(0.05, 0)
