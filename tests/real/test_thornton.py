"""A real experiment in villages: an incentive to collect a test result (Thornton 2008).

People of one village resemble each other, so the village is what is independent.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats

from harness.stats.clusters import bet_on_clusters, clustered_bounds, clustered_mean
from harness.stats.proportions import at_least_p
from harness.stats.sequential import Claim
from harness.stats.survey import effective_lower, effective_sample

pytestmark = pytest.mark.real

SEED = 20
Rows = list[dict[str, Any]]


class People(NamedTuple):
    """Who came, whether they were paid for it, and their village; shape (people,)."""

    came: np.ndarray
    is_paid: np.ndarray
    villages: list[str]

    def only(self, keep: np.ndarray) -> People:
        villages = [village for village, kept in zip(self.villages, keep, strict=True) if kept]
        return People(self.came[keep], self.is_paid[keep], villages)


@pytest.fixture(scope="module")
def people(public: Callable[..., Rows]) -> People:
    rows = public("ab/thornton_incentive", "train", "eval")
    came = np.array([float(row["target"]["label"]) for row in rows])
    is_paid = np.array([row["variant"] == "B" for row in rows])
    return People(came, is_paid, [str(row["meta"]["village"]) for row in rows])


def effect_scores(people: People) -> list[float]:
    """One score a person whose mean is the difference of the arms, and whose spread is that of its error."""
    paid, share = people.is_paid, people.is_paid.mean()
    of_paid, of_others = people.came[paid].mean(), people.came[~paid].mean()
    away = np.where(paid, (people.came - of_paid) / share, -(people.came - of_others) / (1.0 - share))
    return (away + of_paid - of_others).tolist()


def shuffled(villages: list[str]) -> list[str]:
    """Every village once, in an order that is fixed by a seed."""
    names = sorted(set(villages))
    random.Random(SEED).shuffle(names)
    return names


def test_the_error_of_a_rate_equals_statsmodels_cluster_robust_one(people: People) -> None:
    paid = people.only(people.is_paid)
    codes = np.unique(paid.villages, return_inverse=True)[1]
    model = sm.OLS(paid.came, np.ones(len(paid.came))).fit(cov_type="cluster", cov_kwds={"groups": codes})

    found = clustered_mean(paid.came.tolist(), paid.villages)

    assert found is not None
    assert (found.items, found.clusters) == (1814, 118)
    assert found.mean == pytest.approx(model.params[0])
    assert found.error == pytest.approx(model.bse[0])
    independent = float(np.sqrt(found.mean * (1.0 - found.mean) / found.items))
    assert found.error > 1.1 * independent


def test_the_effect_of_an_incentive_and_its_error_equal_a_clustered_regressions(people: People) -> None:
    codes = np.unique(people.villages, return_inverse=True)[1]
    model = sm.OLS(people.came, sm.add_constant(people.is_paid.astype(float))).fit(
        cov_type="cluster", cov_kwds={"groups": codes, "use_correction": False}
    )

    found = clustered_mean(effect_scores(people), people.villages, "CR0")

    assert found is not None
    assert found.mean == pytest.approx(model.params[1])
    assert found.error == pytest.approx(model.bse[1])


def test_the_incentive_is_shown_to_bring_four_in_ten_more_but_not_five(people: People) -> None:
    codes, villages = np.unique(people.villages, return_inverse=True)[1], len(set(people.villages))
    model = sm.OLS(people.came, sm.add_constant(people.is_paid.astype(float))).fit(
        cov_type="cluster", cov_kwds={"groups": codes, "use_correction": False}
    )
    half = stats.t.ppf(0.95, villages - 1) * model.bse[1] * np.sqrt(villages / (villages - 1))

    bounds = clustered_bounds(effect_scores(people), people.villages)

    assert bounds == pytest.approx((model.params[1] - half, model.params[1] + half))
    assert bounds is not None
    assert 0.4 < bounds.low < 0.5 < bounds.high


def test_a_threshold_that_people_pass_is_not_passed_by_villages(people: People) -> None:
    """At least 78 % of those paid come: shown if people were independent, not shown by villages."""
    paid = people.only(people.is_paid)
    scores, threshold = paid.came.tolist(), 0.78
    by_village: dict[str, list[float]] = {village: [] for village in shuffled(paid.villages)}
    for score, village in zip(scores, paid.villages, strict=True):
        by_village[village].append(score)
    ordered = [(score, village) for village, own in by_village.items() for score in own]

    naive = at_least_p(int(sum(scores)), len(scores), threshold)
    sample = effective_sample(scores, paid.villages, 0.05)
    bet = bet_on_clusters(Claim(threshold, len(by_village)), *map(list, zip(*ordered, strict=True)))

    assert naive < 0.05
    assert sample is not None
    assert sample.design_effect > 1.3
    assert effective_lower(sample, 0.05) < threshold
    assert bet.decision is None
    assert bet.n == 118


@pytest.mark.parametrize(("at_least", "decision"), [(0.2, "PASS"), (0.3, "PASS"), (0.4, None), (0.6, "FAIL")])
def test_betting_on_villages_finds_the_effect_within_them(
    people: People, at_least: float, decision: str | None
) -> None:
    """The difference of the arms in each village that has both, some .41 on average, one village after the other."""
    arms: dict[str, tuple[list[float], list[float]]] = defaultdict(lambda: ([], []))
    for came, is_paid, village in zip(*people, strict=True):
        arms[village][int(is_paid)].append(float(came))
    both = [village for village in shuffled(people.villages) if all(arms[village])]
    effects = [fmean(arms[village][1]) - fmean(arms[village][0]) for village in both]

    outcome = bet_on_clusters(Claim(at_least, len(both), low=-1.0, high=1.0), effects, both)

    assert len(both) == 101
    assert fmean(effects) == pytest.approx(0.405, abs=0.001)
    assert outcome.decision == decision
    assert (outcome.n < len(both)) == (decision is not None)
