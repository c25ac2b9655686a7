"""Groups in real data: fairlearn's tables, cells counted by hand, and the harness agree."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from fairlearn.metrics import (
    MetricFrame,
    count,
    false_positive_rate,
    selection_rate,
    true_positive_rate,
)
from sklearn.metrics import accuracy_score
from statsmodels.stats.proportion import confint_proportions_2indep

from harness.stats.fairness import (
    RATES,
    Cells,
    Rate,
    count_cells,
    gap_gate,
    largest_gaps,
    rate_count,
)
from harness.stats.proportions import Count

pytestmark = pytest.mark.real

Rows = list[dict[str, Any]]
METRICS = {
    "selection": selection_rate,
    "true_positive": true_positive_rate,
    "false_positive": false_positive_rate,
    "accuracy": accuracy_score,
    "rows": count,
}


class Judged:
    """Truths and answers of real rows, yes or no, with the slices of each row."""

    def __init__(self, gold: list[bool], answers: list[bool], slices: list[Mapping[str, Any]]) -> None:
        self.gold, self.answers, self.slices = gold, answers, slices
        self._frames: dict[tuple[str, ...], MetricFrame] = {}

    def groups(self, *names: str) -> list[str]:
        return [" · ".join(str(row[name]) for name in names) for row in self.slices]

    def cells(self, *names: str) -> dict[str, Cells]:
        return count_cells(np.array(self.gold), np.array(self.answers), self.groups(*names))

    def frame(self, *names: str) -> MetricFrame:
        """fairlearn's table; made once, for it is slow."""
        if names not in self._frames:
            self._frames[names] = MetricFrame(
                metrics=METRICS,
                y_true=np.array(self.gold, int),
                y_pred=np.array(self.answers, int),
                sensitive_features=np.array(self.groups(*names)),
            )
        return self._frames[names]


@pytest.fixture(scope="module")
def employment(public: Callable[..., Rows]) -> Judged:
    """A published model's answers about 2,400 people."""
    rows = public("fairness/acs_employment", "eval")
    gold = [row["target"]["label"] == 1 for row in rows]
    return Judged(gold, [row["meta"]["prediction"] == 1 for row in rows], [row["slices"] for row in rows])


@pytest.fixture(scope="module")
def moderation(public: Callable[..., Rows]) -> Judged:
    """A linear moderator that was fitted on the training file, on 961 unseen texts."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    train, unseen = (public("fairness/hatecheck", split) for split in ("train", "eval"))
    model = make_pipeline(TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), LogisticRegression())
    model.fit([row["input"] for row in train], [row["target"]["label"] == "hateful" for row in train])
    answers = model.predict([row["input"] for row in unseen])
    gold = [row["target"]["label"] == "hateful" for row in unseen]
    return Judged(gold, [bool(answer) for answer in answers], [row["slices"] for row in unseen])


def by_hand(judged: Judged, groups: list[str]) -> dict[str, dict[str, tuple[int, int]]]:
    """Numerator and denominator of each rate in each group, counted row by row."""
    table: dict[str, dict[str, tuple[int, int]]] = {}
    for group in set(groups):
        rows = [
            (truth, answer)
            for truth, answer, own in zip(judged.gold, judged.answers, groups, strict=True)
            if own == group
        ]
        yes, no = ([answer for truth, answer in rows if truth is kind] for kind in (True, False))
        table[group] = {
            "selection": (sum(answer for _, answer in rows), len(rows)),
            "true_positive": (sum(yes), len(yes)),
            "false_positive": (sum(no), len(no)),
            "accuracy": (sum(truth == answer for truth, answer in rows), len(rows)),
        }
    return table


def assert_tables_agree(judged: Judged, *names: str) -> None:
    """fairlearn's table, the hand's and ours; a rate without a denominator is 0 in fairlearn's and none in ours."""
    cells, frame = judged.cells(*names), judged.frame(*names).by_group
    table = by_hand(judged, judged.groups(*names))
    assert set(cells) == set(table) == set(frame.index)
    for group, rates in table.items():
        assert sum(cells[group]) == frame.loc[group, "rows"] == rates["accuracy"][1]
        for rate in RATES:
            hits, n = rates[rate]
            assert rate_count(cells[group], rate) == (hits, n)
            assert frame.loc[group, rate] == pytest.approx(hits / n if n else 0.0, abs=1e-12)


@pytest.mark.parametrize(
    "names",
    [
        ("sex",),
        ("race",),
        ("age_band",),
        ("disability",),
        ("nativity",),
        ("sex", "race"),
        ("year", "age_band"),
    ],
)
def test_employment_tables_equal_fairlearns_and_the_hands(employment: Judged, names: tuple[str, ...]) -> None:
    assert_tables_agree(employment, *names)


@pytest.mark.parametrize("names", [("target_group",), ("target_group", "direction")])
def test_moderation_tables_equal_fairlearns_and_the_hands(moderation: Judged, names: tuple[str, ...]) -> None:
    assert_tables_agree(moderation, *names)


def test_the_published_models_cells_are_these(employment: Judged) -> None:
    assert employment.cells("sex") == {"female": Cells(514, 161, 77, 486), "male": Cells(521, 115, 70, 456)}
    assert employment.cells("disability") == {
        "no": Cells(1020, 261, 106, 708),
        "yes": Cells(15, 15, 41, 234),
    }


@pytest.mark.parametrize("name", ["sex", "age_band", "disability", "nativity"])
def test_the_largest_gaps_of_full_groups_equal_fairlearns(employment: Judged, name: str) -> None:
    found = largest_gaps(employment.cells(name), draws=50)

    gaps = employment.frame(name).difference()
    assert {gap: estimate.gap for gap, estimate in found.items()} == pytest.approx(
        {
            "demographic_parity": gaps["selection"],
            "equal_opportunity": gaps["true_positive"],
            "equalized_odds": max(gaps["true_positive"], gaps["false_positive"]),
            "accuracy_gap": gaps["accuracy"],
        }
    )
    assert all(estimate.unknown == () for estimate in found.values())


def test_a_real_group_without_positives_is_unknown_where_fairlearn_says_zero(moderation: Judged) -> None:
    """Texts that target nobody are never hateful, so nobody can say how many hateful ones are caught."""
    theirs = moderation.frame("target_group")
    ours = largest_gaps(moderation.cells("target_group"))

    assert theirs.by_group.loc["none", "true_positive"] == 0.0
    assert theirs.difference()["true_positive"] > 0.9
    assert ours["equal_opportunity"].unknown == ours["equalized_odds"].unknown == ("none",)
    assert ours["equal_opportunity"].gap is not None
    assert ours["equal_opportunity"].gap < 0.1


def can_be_certified(group: Count, most: int, cap: float) -> bool:
    """statsmodels' Newcombe bounds against a group of `most` rows with the same rate, both under the cap."""
    if group.n == 0:
        return False
    peer = round(most * group.hits / group.n)
    low, high = confint_proportions_2indep(
        group.hits, group.n, peer, most, method="newcomb", compare="diff", alpha=0.1
    )
    return max(high, -low) < cap


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("cap", [0.05, 0.1, 0.2])
def test_the_gate_names_the_groups_too_small_to_certify(
    employment: Judged, moderation: Judged, rate: Rate, cap: float
) -> None:
    for judged, name in ((employment, "race"), (moderation, "target_group")):
        groups = {group: rate_count(cells, rate) for group, cells in judged.cells(name).items()}
        most = max(group.n for group in groups.values())

        verdict = gap_gate(groups, cap)

        assert set(verdict.too_small) == {
            group for group, counted in groups.items() if not can_be_certified(counted, most, cap)
        }
        assert verdict.decision != "PASS" or verdict.too_small == ()


def test_races_of_a_handful_block_a_verdict_and_are_named(employment: Judged) -> None:
    groups = {group: rate_count(cells, "accuracy") for group, cells in employment.cells("race").items()}
    handful = {group for group, counted in groups.items() if counted.n < 10}

    verdict = gap_gate(groups, 0.2)

    assert len(handful) == 3
    assert set(verdict.too_small) == handful
    assert verdict.decision is None
    assert gap_gate({group: n for group, n in groups.items() if group not in handful}, 0.2).decision == "PASS"


def test_the_gate_decides_on_groups_that_are_large_enough(employment: Judged) -> None:
    """Women and men are found alike by the model; older people's work is hardly seen."""
    by_sex = {group: rate_count(cells, "true_positive") for group, cells in employment.cells("sex").items()}
    by_age = {
        group: rate_count(cells, "true_positive") for group, cells in employment.cells("age_band").items()
    }

    assert gap_gate(by_sex, 0.1).decision == "PASS"
    verdict = gap_gate(by_age, 0.1)
    assert verdict.decision == "FAIL"
    assert verdict.worst is not None
    assert verdict.worst.worse == "65+"
