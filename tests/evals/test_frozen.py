from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import hypergeom

from harness.errors import StatsError
from harness.evals.frozen import at_least_drawn, frozen_lower, frozen_upper
from harness.evals.gate import judge
from harness.evals.results import RuleVerdict, State
from harness.evals.rules.evidence import Evidence, Planned
from harness.stats.proportions import lower_bound, upper_bound
from tests.evals.builders import gate, sample, samples

counts = st.integers(1, 60).flatmap(
    lambda population: st.integers(1, population).flatmap(
        lambda n: st.tuples(st.just(population), st.just(n), st.integers(0, n))
    )
)


@given(counts, st.integers(0, 60))
def test_the_tail_is_scipys(case: tuple[int, int, int], right: int) -> None:
    population, n, hits = case
    right = min(right, population)

    assert at_least_drawn(hits, n, right, population) == pytest.approx(
        hypergeom.sf(hits - 1, population, right, n)
    )


@given(counts, st.sampled_from([0.01, 0.05, 0.2]))
def test_the_bound_is_the_least_number_that_scipys_test_does_not_reject(
    case: tuple[int, int, int], alpha: float
) -> None:
    population, n, hits = case
    kept = [m for m in range(population + 1) if hypergeom.sf(hits - 1, population, m, n) > alpha * (1 + 1e-9)]
    possible = [m for m in kept if hits <= m <= population - (n - hits)]

    assert frozen_lower(hits, n, population, alpha) == min(possible) / population


def test_four_of_five_drawn_from_ten_by_counting_all_draws() -> None:
    """Of the 252 draws of 5 from 10, with 5 right ones 26 hold 4 or more (10.3 %), with 4 right ones 6 (2.4 %)."""
    draws = list(combinations(range(10), 5))
    for right, wanted in ((5, 26), (4, 6)):
        assert sum(sum(item < right for item in draw) >= 4 for draw in draws) == wanted
        assert at_least_drawn(4, 5, right, 10) == pytest.approx(wanted / 252)

    assert frozen_lower(4, 5, 10, 0.05) == 0.5
    assert frozen_lower(4, 5, 10, 0.15) == 0.6


@given(counts)
def test_with_all_records_scored_the_score_is_known(case: tuple[int, int, int]) -> None:
    population, _, hits = case

    assert frozen_lower(hits, population, population, 0.05) == hits / population
    assert frozen_upper(hits, population, population, 0.05) == pytest.approx(hits / population)


@pytest.mark.parametrize("population", [200, 400, 5000])
def test_drawing_without_replacement_is_never_wider_than_with(population: int) -> None:
    low, high = frozen_lower(150, 200, population, 0.05), frozen_upper(150, 200, population, 0.05)
    with_replacement = lower_bound(150, 200, 0.05), upper_bound(150, 200, 0.05)

    assert low is not None
    assert high is not None
    assert with_replacement[0] <= low + 1 / population  # the bound is a whole number of records
    assert with_replacement[1] >= high - 1 / population


@pytest.mark.parametrize("right", [5, 12, 20, 33, 38])
def test_the_bound_misses_no_more_often_than_stated(right: int) -> None:
    """By enumeration: 40 records, 15 drawn, each possible number right."""
    missed = sum(
        hypergeom.pmf(hits, 40, right, 15)
        for hits in range(16)
        if hypergeom.pmf(hits, 40, right, 15) > 0 and (frozen_lower(hits, 15, 40, 0.05) or 0.0) > right / 40
    )

    assert missed <= 0.05 + 1e-12


def test_no_items_have_no_bound_and_too_many_are_refused() -> None:
    assert frozen_lower(0, 0, 10, 0.05) is None
    assert frozen_upper(0, 0, 10, 0.05) is None
    with pytest.raises(StatsError, match="11 items of a population of 10"):
        frozen_lower(3, 11, 10, 0.05)


def planned(n: int) -> list[Planned]:
    return [Planned(f"r{k}", f"r{k}", ("a",), {}) for k in range(n)]


def judged(hits: int, n: int, population: int, **rule: object) -> RuleVerdict:
    shown = Evidence(samples(hits, n), 0.02, population=planned(population))
    asked = gate(population="frozen", **{"at_least": 0.8, **rule})
    return judge("adapter", "m", "l", [asked], {"s": shown}, "s").rules[-1]


def test_a_whole_suite_at_the_threshold_passes_and_one_record_less_fails() -> None:
    assert judged(80, 100, 100).verdict is State.PASS
    found = judged(79, 100, 100)
    assert found.verdict is State.FAIL
    assert (found.low, found.high) == (0.79, 0.79)


def test_units_do_not_matter_where_the_records_are_all_that_is_meant() -> None:
    shown = Evidence(samples(80, 100, unit="one"), 0.02, population=planned(100))

    found = judge("adapter", "m", "l", [gate(population="frozen", at_least=0.8)], {"s": shown}, "s").rules[-1]

    assert found.verdict is State.PASS


def test_a_subset_is_judged_by_what_the_rest_could_be() -> None:
    found = judged(85, 100, 120)

    assert found.verdict is State.PASS
    assert found.low == frozen_lower(85, 100, 120, 0.05)
    assert judged(85, 100, 100_000).verdict is State.INCONCLUSIVE
    assert judged(60, 100, 100_000).verdict is State.FAIL


def test_without_the_whole_suite_nothing_is_proved() -> None:
    found = judged(100, 100, 0)

    assert found.verdict is State.INCONCLUSIVE
    assert "not known as a whole" in found.reason


def test_partial_credit_is_known_with_all_records_and_not_with_some() -> None:
    half = [sample(k, score=0.9) for k in range(10)]
    asked = gate(population="frozen", at_least=0.85)

    whole, part = (
        judge("adapter", "m", "l", [asked], {"s": Evidence(half, 0.02, population=planned(n))}, "s").rules[-1]
        for n in (10, 20)
    )

    assert (whole.verdict, part.verdict) == (State.PASS, State.INCONCLUSIVE)


def test_labels_and_slices_have_populations_of_their_own() -> None:
    items = [sample(k, right=k < 8, gold=("a",)) for k in range(10)]
    items += [sample(k, gold=("b",), answer="b", score=1.0) for k in range(10, 14)]
    whole = [Planned(s.id, s.unit, s.gold, s.slices) for s in items]
    asked = gate(metric="recall", per="label", population="frozen", at_least=0.8, min_n=5)

    found = judge("adapter", "m", "l", [asked], {"s": Evidence(items, 0.02, population=whole)}, "s").rules[1:]

    assert [(rule.slice, rule.verdict, rule.score) for rule in found] == [
        ("label=a", State.PASS, 0.8), ("label=b", State.SKIPPED, 1.0),
    ]  # fmt: skip


def test_what_a_recipe_acknowledges_is_in_the_verdict() -> None:
    assert judged(80, 100, 100, acknowledge="there is no more data").reason.endswith(
        "; acknowledged: there is no more data"
    )
