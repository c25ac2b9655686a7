"""The area under the ROC curve against scikit-learn, and its interval against DeLong's formula written out."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from harness.errors import StatsError
from harness.stats.discrimination import auroc

PAIRS = st.lists(st.tuples(st.integers(0, 9), st.booleans()), min_size=2, max_size=60)


@given(PAIRS)
def test_the_area_is_scikit_learns(pairs: list[tuple[int, bool]]) -> None:
    values, is_right = np.array([float(v) for v, _ in pairs]), np.array([right for _, right in pairs])

    found = auroc(values, is_right)

    if len(set(is_right)) < 2:
        assert found is None
    else:
        assert found is not None
        assert found.area == pytest.approx(roc_auc_score(is_right, values))


@given(PAIRS)
def test_the_interval_is_delongs(pairs: list[tuple[int, bool]]) -> None:
    right, wrong = [v for v, is_right in pairs if is_right], [v for v, is_right in pairs if not is_right]
    if len(right) < 2 or len(wrong) < 2:
        return
    wins = np.array([[1.0 if x > y else 0.5 if x == y else 0.0 for y in wrong] for x in right])
    error = math.sqrt(wins.mean(1).var(ddof=1) / len(right) + wins.mean(0).var(ddof=1) / len(wrong))

    found = auroc(np.array([float(v) for v, _ in pairs]), np.array([is_right for _, is_right in pairs]))

    assert found is not None
    assert found.low == pytest.approx(max(0.0, wins.mean() - 1.959964 * error), abs=1e-6)
    assert found.high == pytest.approx(min(1.0, wins.mean() + 1.959964 * error), abs=1e-6)


def test_one_of_a_kind_gives_an_area_without_an_interval() -> None:
    found = auroc(np.array([0.9, 0.1, 0.2]), np.array([True, False, False]))

    assert found is not None
    assert (found.area, found.low, found.high) == (1.0, None, None)


def test_nan_is_no_confidence() -> None:
    with pytest.raises(StatsError):
        auroc(np.array([0.9, math.nan]), np.array([True, False]))
