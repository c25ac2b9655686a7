from __future__ import annotations

import time

import numpy as np
import pytest
from fairlearn.metrics import (
    demographic_parity_difference,
    equal_opportunity_difference,
    equalized_odds_difference,
)
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import StatsError
from harness.stats.fairness import Cells, count_cells, gap_gate, gap_p, largest_gaps, rate_count
from harness.stats.proportions import Count, newcombe_at
from harness.stats.tails import normal_quantile


def _people(n: int, seed: int = 61) -> tuple[np.ndarray, np.ndarray, list[str]]:
    rng = np.random.default_rng(seed)
    groups = rng.choice(["a", "b", "c"], p=[0.5, 0.3, 0.2], size=n)
    gold = rng.random(n) < 0.4
    answers = np.where(rng.random(n) < np.where(groups == "c", 0.7, 0.85), gold, ~gold)
    return gold, answers, groups.tolist()


def test_gaps_equal_fairlearns() -> None:
    gold, answers, groups = _people(2000)
    found = largest_gaps(count_cells(gold, answers, groups), draws=10)

    expected = {
        "demographic_parity": demographic_parity_difference,
        "equal_opportunity": equal_opportunity_difference,
        "equalized_odds": equalized_odds_difference,
    }
    for name, metric in expected.items():
        assert found[name].gap == pytest.approx(metric(gold, answers, sensitive_features=groups))
        assert found[name].unknown == ()


def test_cells_are_counted_by_hand() -> None:
    gold = np.array([True, True, False, False, True])
    answers = np.array([True, False, True, False, True])

    cells = count_cells(gold, answers, ["x", "x", "x", "x", "y"])

    assert cells == {"x": Cells(1, 1, 1, 1), "y": Cells(1, 0, 0, 0)}
    assert rate_count(cells["x"], "selection") == (2, 4)
    assert rate_count(cells["x"], "true_positive") == (1, 2)
    assert rate_count(cells["x"], "false_positive") == (1, 2)
    assert rate_count(cells["y"], "false_positive") == (0, 0)
    assert rate_count(cells["y"], "accuracy") == (1, 1)


def test_a_group_without_positives_is_unknown_and_not_a_gap_of_one() -> None:
    cells = {"a": Cells(40, 5, 10, 45), "b": Cells(38, 6, 12, 44), "no positives": Cells(0, 3, 0, 20)}

    found = largest_gaps(cells)["equal_opportunity"]

    assert found.gap == pytest.approx(0.8 - 0.76)
    assert found.unknown == ("no positives",)
    assert largest_gaps({"only": Cells(1, 1, 1, 1)})["accuracy_gap"].gap is None
    assert largest_gaps({"empty": Cells(0, 0, 0, 0)})["accuracy_gap"].gap is None
    assert largest_gaps({})["accuracy_gap"].gap is None


def test_one_draw_over_the_cells_equals_resampling_the_people() -> None:
    gold, answers, groups = _people(600)
    ours = largest_gaps(count_cells(gold, answers, groups), draws=4000)["demographic_parity"].interval
    rng, labels, gaps = np.random.default_rng(62), np.array(groups), []
    for _ in range(1500):
        picked = rng.integers(0, 600, size=600)
        rates = [answers[picked][labels[picked] == group].mean() for group in "abc"]
        gaps.append(max(rates) - min(rates))

    assert ours == pytest.approx(tuple(np.quantile(gaps, [0.025, 0.975])), abs=0.02)


def test_a_thousand_replicates_of_four_metrics_on_100_000_rows_take_under_a_second() -> None:
    gold, answers, groups = _people(100_000)
    start = time.perf_counter()

    largest_gaps(count_cells(gold, answers, groups), draws=1000)

    assert time.perf_counter() - start < 1.0


def test_groups_that_fare_alike_pass() -> None:
    verdict = gap_gate({"a": Count(900, 1000), "b": Count(895, 1000)}, 0.05)

    assert verdict.decision == "PASS"
    assert verdict.worst is not None
    assert verdict.worst.high < 0.05
    assert verdict.too_small == ()


def test_a_clear_gap_fails_and_names_the_pair() -> None:
    verdict = gap_gate({"a": Count(900, 1000), "b": Count(890, 1000), "c": Count(700, 1000)}, 0.05)

    assert verdict.decision == "FAIL"
    assert verdict.worst is not None
    assert (verdict.worst.better, verdict.worst.worse) == ("a", "c")


def test_a_group_too_small_to_certify_is_named_and_blocks() -> None:
    verdict = gap_gate({"a": Count(900, 1000), "tiny": Count(9, 10)}, 0.05)

    assert verdict.decision is None
    assert verdict.too_small == ("tiny",)


def test_a_group_under_the_floor_blocks_though_all_are_alike() -> None:
    groups = {"a": Count(700, 1000), "b": Count(700, 1000)}

    assert gap_gate(groups, 0.05).decision == "PASS"
    assert gap_gate(groups, 0.05, floor=0.6).decision == "PASS"
    assert gap_gate(groups, 0.05, floor=0.7).decision is None
    assert gap_gate(groups, 0.05, floor=0.7).under_floor == ("a", "b")


@pytest.mark.parametrize("groups", [{}, {"a": Count(9, 10)}, {"a": Count(900, 1000), "b": Count(0, 0)}])
def test_what_cannot_be_compared_never_passes(groups: dict[str, Count]) -> None:
    assert gap_gate(groups, 0.5).decision is None


@given(st.integers(1, 300), st.integers(1, 300), st.data(), st.sampled_from([0.02, 0.1, 0.3]))
def test_the_p_value_of_a_gap_agrees_with_newcombes_bound(
    n_a: int, n_b: int, data: st.DataObject, cap: float
) -> None:
    a = Count(data.draw(st.integers(0, n_a)), n_a)
    b = Count(data.draw(st.integers(0, n_b)), n_b)
    p, bound = gap_p(a, b, cap), newcombe_at(a, b, normal_quantile(0.95))
    assert bound is not None

    if abs(p - 0.05) > 1e-6:
        assert (bound.low > cap) == (p < 0.05)


def test_the_gate_is_wrong_no_more_often_than_it_says() -> None:
    rng = np.random.default_rng(63)
    at_cap = zip(rng.binomial(300, 0.85, 1500).tolist(), rng.binomial(300, 0.75, 1500).tolist(), strict=True)
    alike = rng.binomial(300, 0.8, size=(1500, 4)).tolist()

    false_pass = np.mean(
        [gap_gate({"a": Count(a, 300), "b": Count(b, 300)}, 0.1).decision == "PASS" for a, b in at_cap]
    )
    false_fail = np.mean(
        [
            gap_gate({str(k): Count(h, 300) for k, h in enumerate(row)}, 0.01).decision == "FAIL"
            for row in alike
        ]
    )

    assert false_pass <= 0.05 + 0.017
    assert false_fail <= 0.05 + 0.017


def test_rows_that_do_not_fit_are_refused() -> None:
    with pytest.raises(StatsError, match="wanted one each"):
        count_cells(np.array([True]), np.array([True, False]), ["a"])
