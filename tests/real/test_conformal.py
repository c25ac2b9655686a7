"""Sets from a real model's scores cover as promised: calibrated on people of 2015, asked of 2016 to 2018."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from scipy.stats import betabinom

from harness.stats.conformal import (
    Coverage,
    conformal_rank,
    conformal_threshold,
    coverage,
    coverage_band,
    group_thresholds,
    lac_scores,
    prediction_sets,
    thresholds_for,
)

pytestmark = pytest.mark.real

ALPHAS = (0.05, 0.1, 0.2)
SLICES = ("sex", "race", "age_band", "disability", "nativity")
FULL_GROUPS = 15
"""Groups with a threshold of their own over all slices; their bands share the 5 %."""
Rows = list[dict[str, Any]]


class Scored(NamedTuple):
    """Real rows with the model's probabilities of "no" and "yes", shape (rows, 2)."""

    probs: np.ndarray
    gold: np.ndarray
    slices: list[dict[str, Any]]

    def groups(self, name: str) -> list[str]:
        return [row[name] for row in self.slices]

    def where(self, keep: np.ndarray) -> Scored:
        rows = [row for row, kept in zip(self.slices, keep, strict=True) if kept]
        return Scored(self.probs[keep], self.gold[keep], rows)


def scored(rows: Rows) -> Scored:
    yes = np.array([row["meta"]["probability"] for row in rows])
    gold = np.array([row["target"]["label"] for row in rows])
    return Scored(np.column_stack([1.0 - yes, yes]), gold, [row["slices"] for row in rows])


@pytest.fixture(scope="module")
def calibration(public: Callable[..., Rows]) -> Scored:
    return scored(public("fairness/acs_employment", "train"))


@pytest.fixture(scope="module")
def unseen(public: Callable[..., Rows]) -> Scored:
    return scored(public("fairness/acs_employment", "eval"))


def covered_frac(found: Coverage) -> float:
    return found.covered.hits / found.covered.n


@pytest.mark.parametrize("alpha", ALPHAS)
def test_coverage_lies_in_its_beta_binomial_band(calibration: Scored, unseen: Scored, alpha: float) -> None:
    threshold = conformal_threshold(lac_scores(calibration.probs, calibration.gold), alpha)
    found = coverage(prediction_sets(unseen.probs, threshold), unseen.gold)

    band = coverage_band(1200, 2400, alpha)

    assert band is not None
    assert band.low <= covered_frac(found) <= band.high
    rank = conformal_rank(1200, alpha)
    assert tuple(2400 * end for end in band) == pytest.approx(
        betabinom.ppf([0.025, 0.975], 2400, rank, 1201 - rank)
    )
    assert band.high - band.low < 0.06


@pytest.mark.parametrize("year", [2016, 2017, 2018])
@pytest.mark.parametrize("alpha", ALPHAS)
def test_each_later_year_is_covered(calibration: Scored, unseen: Scored, alpha: float, year: int) -> None:
    threshold = conformal_threshold(lac_scores(calibration.probs, calibration.gold), alpha)
    own = unseen.where(np.array(unseen.groups("year")) == year)

    found, band = coverage(prediction_sets(own.probs, threshold), own.gold), coverage_band(1200, 800, alpha)

    assert band is not None
    assert band.low <= covered_frac(found) <= band.high


@pytest.mark.parametrize("alpha", ALPHAS)
def test_every_group_with_a_threshold_of_its_own_is_covered(
    calibration: Scored, unseen: Scored, alpha: float
) -> None:
    scores, checked = lac_scores(calibration.probs, calibration.gold).tolist(), []
    for name in SLICES:
        known = group_thresholds(scores, calibration.groups(name), alpha)
        limits = thresholds_for(unseen.groups(name), known, conformal_threshold(scores, alpha))
        for group, own in known.items():
            keep = np.array(unseen.groups(name)) == group
            if own.is_pooled:
                continue
            part = unseen.where(keep)
            found = coverage(prediction_sets(part.probs, limits[keep]), part.gold)
            band = coverage_band(own.n, int(keep.sum()), alpha, confidence=1.0 - 0.05 / FULL_GROUPS)
            assert band is not None
            assert band.low <= covered_frac(found) <= band.high, (name, group)
            checked.append(group)
    assert len(checked) == FULL_GROUPS


def test_groups_too_small_for_a_threshold_are_marked(calibration: Scored) -> None:
    scores = lac_scores(calibration.probs, calibration.gold).tolist()

    known = group_thresholds(scores, calibration.groups("race"), 0.1)

    pooled = {group: own.n for group, own in known.items() if own.is_pooled}
    assert pooled == {"American Indian": 3, "American Indian or Alaska Native, other": 1}
    assert {known[group].threshold for group in pooled} == {conformal_threshold(scores, 0.1)}
    assert "Pacific Islander" not in known


def test_a_threshold_a_group_evens_out_what_one_for_all_does_not(calibration: Scored, unseen: Scored) -> None:
    """One threshold covers the young too often and those of 45 to 64 too rarely."""
    scores = lac_scores(calibration.probs, calibration.gold).tolist()
    pooled, ages = conformal_threshold(scores, 0.1), np.array(unseen.groups("age_band"))
    known = group_thresholds(scores, calibration.groups("age_band"), 0.1)

    def spread(limits: np.ndarray) -> float:
        sets = prediction_sets(unseen.probs, limits)
        rates = [covered_frac(coverage(sets[ages == age], unseen.gold[ages == age])) for age in set(ages)]
        return max(rates) - min(rates)

    of_all, of_groups = np.full(len(ages), pooled), thresholds_for(unseen.groups("age_band"), known, pooled)

    assert spread(of_all) > 0.06
    assert spread(of_groups) < 0.05
