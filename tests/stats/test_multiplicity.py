from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import StatsError
from harness.stats.multiplicity import alpha_for_attempt, holm


def test_published_holm_values_are_met() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx((0.03, 0.06, 0.06, 0.02))


@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=6))
def test_holm_is_bonferroni_on_every_set_of_claims_that_could_all_be_true(p_values: list[float]) -> None:
    for index, adjusted in enumerate(holm(p_values)):
        sets = [
            [k for k in range(len(p_values)) if bits >> k & 1]
            for bits in range(1 << len(p_values))
            if bits >> index & 1
        ]
        assert adjusted == max(min(1.0, len(chosen) * min(p_values[k] for k in chosen)) for chosen in sets)


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
