import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.stats.paired import paired_bounds
from harness.stats.proportions import lower_bound, upper_bound
from harness.stats.survey import (
    effective_lower,
    effective_sample,
    effective_upper,
    paired_worth,
    student_quantile,
)


@given(st.lists(st.booleans(), min_size=1, max_size=200))
def test_one_item_a_unit_gives_clopper_pearson(scores: list[bool]) -> None:
    found = effective_sample([float(s) for s in scores], [str(i) for i in range(len(scores))], 0.05)
    assert found is not None

    assert effective_lower(found, 0.05) == lower_bound(sum(scores), len(scores), 0.05)
    assert effective_upper(found, 0.05) == pytest.approx(
        upper_bound(sum(scores), len(scores), 0.05), abs=1e-12
    )


def test_no_items_have_no_worth() -> None:
    assert effective_sample([], [], 0.05) is None


def test_equal_clusters_are_worth_about_as_many_items_as_there_are_clusters() -> None:
    scores = [float(cluster < 32) for cluster in range(40) for _ in range(10)]
    units = [str(cluster) for cluster in range(40) for _ in range(10)]

    found = effective_sample(scores, units, 0.05)

    assert found is not None
    assert found.design_effect == pytest.approx(10.0 * 40 / 39)
    assert found.n == pytest.approx(40.0)


def test_a_single_document_proves_next_to_nothing() -> None:
    found = effective_sample([1.0] * 500, ["one"] * 500, 0.05)

    assert found is not None
    assert effective_lower(found, 0.05) == pytest.approx(0.05)


@pytest.mark.parametrize("freedom", [1, 2, 3, 5, 10, 30, 200])
@pytest.mark.parametrize("probability", [0.9, 0.95, 0.975])
def test_student_quantiles_agree_with_scipy(freedom: int, probability: float) -> None:
    from scipy.stats import t

    assert student_quantile(probability, freedom) == pytest.approx(t.ppf(probability, freedom), rel=3e-3)


def test_clustered_items_pass_falsely_at_most_as_often_as_stated() -> None:
    """80 documents of 5 items with an intra-class correlation of .3, at a true rate of the threshold."""
    rng = np.random.default_rng(7)
    runs, passes, naive = 1200, 0, 0
    for _ in range(runs):
        rates = rng.beta(0.8 * 7 / 3, 0.2 * 7 / 3, 80)
        scores = (rng.random((80, 5)) < rates[:, None]).astype(float).ravel().tolist()
        found = effective_sample(scores, [str(i // 5) for i in range(400)], 0.05)
        assert found is not None
        passes += effective_lower(found, 0.05) >= 0.8
        naive += (lower_bound(int(sum(scores)), 400, 0.05) or 0.0) >= 0.8

    assert passes / runs <= 0.05 + 3 * (0.05 * 0.95 / runs) ** 0.5
    assert naive / runs > 0.09


@pytest.mark.parametrize(("rate", "clusters", "size"), [(0.9, 12, 5), (0.95, 20, 5), (0.95, 20, 20)])
@pytest.mark.parametrize("correlation", [0.3, 0.6, 0.999])
def test_few_documents_that_are_nearly_all_right_do_not_pass_falsely(
    rate: float, clusters: int, size: int, correlation: float
) -> None:
    rng, strength, runs = np.random.default_rng(8), (1 - correlation) / correlation, 600
    rates = rng.beta(rate * strength, (1 - rate) * strength, size=(runs, clusters, 1))
    answers = (rng.random((runs, clusters, size)) < rates).astype(float)
    units = [str(cluster) for cluster in range(clusters) for _ in range(size)]

    found = [effective_sample(run.ravel().tolist(), units, 0.05) for run in answers]
    passes = [one is not None and effective_lower(one, 0.05) >= rate for one in found]

    assert np.mean(passes) <= 0.05 + 3 * (0.05 * 0.95 / runs) ** 0.5


def test_a_run_without_a_miss_is_worth_no_more_than_its_documents() -> None:
    units = [str(cluster) for cluster in range(20) for _ in range(5)]

    found = effective_sample([1.0] * 100, units, 0.05)

    assert found is not None
    assert found.n <= 20.0


def test_many_independent_items_in_documents_keep_most_of_their_worth() -> None:
    rng = np.random.default_rng(9)
    units = [str(cluster) for cluster in range(200) for _ in range(5)]

    found = effective_sample((rng.random(1000) < 0.8).astype(float).tolist(), units, 0.05)

    assert found is not None
    assert found.n > 800


@pytest.mark.parametrize("is_signed", [True, False])
def test_documents_lost_as_a_whole_do_not_pass_non_inferiority(is_signed: bool) -> None:
    """100 documents of 4 items, 30 % discordant, at a true loss of the margin."""
    rng, runs, passes = np.random.default_rng(10), 600, 0
    units = [str(cluster) for cluster in range(100) for _ in range(4)]
    for _ in range(runs):
        moves = np.repeat(rng.random(100) < 0.3, 4)
        luck = np.repeat(rng.random(100), 4) if is_signed else rng.random(400)
        differences = np.where(moves, np.where(luck < 0.175 / 0.3, -1.0, 1.0), 0.0)
        worth = paired_worth(differences.tolist(), units, 0.05)
        assert worth is not None
        b, c = int((differences < 0).sum() * worth / 400), int((differences > 0).sum() * worth / 400)
        bounds = paired_bounds(b, c, int(worth))
        passes += bounds is not None and bounds.low > -0.05

    assert passes / runs <= 0.05 + 3 * (0.05 * 0.95 / runs) ** 0.5


def test_pairs_one_a_unit_are_worth_themselves() -> None:
    assert paired_worth([1.0, -1.0, 0.0], ["a", "b", "c"], 0.05) == 3.0
    assert paired_worth([], [], 0.05) is None
    assert paired_worth([1.0, 1.0, 1.0], ["a", "a", "a"], 0.05) == 1.0
