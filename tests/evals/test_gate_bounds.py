"""The numbers and bounds under each rule, beside the same written out by hand or with scipy's distributions."""

from __future__ import annotations

import math

import pytest
from scipy import stats

from harness.evals.gate import judge
from harness.evals.results import RuleVerdict, Sample, State
from harness.evals.rules import engine, groups, macro, paired, rates
from harness.evals.rules.decide import Compared
from harness.evals.rules.engine import Range
from harness.evals.rules.evidence import Evidence
from harness.evals.rules.rates import CountedPart, Part
from harness.stats.f1 import Confusion, Ratio
from harness.stats.paired import paired_bounds
from harness.stats.power import items_needed, paired_items_needed
from harness.stats.survey import effective_sample, paired_worth, student_quantile
from tests.evals.builders import gate, sample, samples


def clopper_pearson(hits: float, n: float, low_error: float, high_error: float) -> tuple[float, float]:
    return (
        float(stats.beta.ppf(low_error, hits, n - hits + 1)) if hits else 0.0,
        float(stats.beta.ppf(1 - high_error, hits + 1, n - hits)) if hits < n else 1.0,
    )


def own_units(n: int, start: int = 0) -> list[str]:
    return [f"u{start + k}" for k in range(n)]


# Rates and counts


def test_rates_have_clopper_pearsons_bounds_at_both_errors() -> None:
    scores = [1.0] * 17 + [0.0] * 3

    found = rates.rate_bounds(scores, own_units(20), 0.05, 0.2)

    assert (found.low, found.high) == pytest.approx(clopper_pearson(17, 20, 0.05, 0.2))
    assert (found.n, found.score, found.worth, found.reason) == (20, 0.85, 20.0, "")
    assert rates.rate_bounds([], [], 0.05, 0.2).score is None
    clustered = rates.rate_bounds(scores, [f"d{k // 2}" for k in range(20)], 0.05, 0.2)
    assert "10 units" in clustered.reason


def test_answers_count_for_their_label_and_their_gold_ones() -> None:
    assert rates.label_counts(sample(0)) == {"a": Confusion(1, 0, 0)}
    assert rates.label_counts(sample(0, right=False)) == {"a": Confusion(0, 0, 1), "b": Confusion(0, 1, 0)}
    assert rates.label_counts(sample(0, answer=None)) == {"a": Confusion(0, 0, 1)}
    assert rates.label_counts(sample(0, counts={"x": (1, 2, 3)})) == {"x": Confusion(1, 2, 3)}
    assert rates.overall_counts(sample(0)) == Confusion(1, 0, 0)
    assert rates.overall_counts(sample(0, right=False)) == Confusion(0, 1, 1)
    assert rates.overall_counts(sample(0, answer=None)) == Confusion(0, 0, 1)
    counted = sample(0, counts={"x": (1, 2, 3), "y": (10, 20, 30)})
    assert rates.overall_counts(counted) == Confusion(11, 22, 33)


RECALL = gate(metric="recall", average="macro", at_least=0.5)


def part(cells: list[tuple[int, int, int]], units: list[str] | None = None, name: str = "p") -> CountedPart:
    return CountedPart(name, [Confusion(*one) for one in cells], units or own_units(len(cells)))


def test_only_items_of_the_denominator_count() -> None:
    found = part([(1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 0, 0)])

    assert [rates.counted_n(gate(metric=m, average="micro", at_least=0.5), found)
            for m in ("precision", "recall", "f1")] == [2, 2, 3]  # fmt: skip
    bounds = rates.counted_bounds(RECALL, found, 0.05, 0.2)
    assert (bounds.n, bounds.score) == (2, 0.5)
    assert (bounds.low, bounds.high) == pytest.approx(clopper_pearson(1, 2, 0.05, 0.2))
    assert rates.counted_bounds(RECALL, part([(0, 1, 0)]), 0.05, 0.2).score is None


def test_f1_of_single_answers_is_exact() -> None:
    """F1 = 2q / (1 + q), with q the share of true positives among all but true negatives."""
    rule = gate(metric="f1", average="micro", at_least=0.5)
    found = rates.counted_bounds(
        rule, part([(1, 0, 0)] * 7 + [(0, 1, 0)] * 2 + [(0, 0, 1), (0, 0, 0)]), 0.05, 0.2
    )
    low, high = clopper_pearson(7, 10, 0.05, 0.2)

    assert (found.n, found.score) == (10, pytest.approx(2 * 0.7 / 1.7))
    assert (found.low, found.high) == pytest.approx((2 * low / (1 + low), 2 * high / (1 + high)))
    assert rates.counted_bounds(rule, part([(0, 0, 0)]), 0.05, 0.2).score is None
    wrong = rates.counted_bounds(rule, part([(0, 1, 1)] * 4 + [(1, 0, 0)] * 4), 0.05, 0.2)
    assert (wrong.score, wrong.low, wrong.high) == pytest.approx((0.5, *clopper_pearson(4, 8, 0.05, 0.2)))


def test_answers_of_several_parts_are_bet_on_and_equal_ones_are_a_rate() -> None:
    equal = rates.counted_bounds(RECALL, part([(2, 0, 0)] * 6 + [(0, 0, 2)] * 4), 0.05, 0.2)
    assert (equal.low, equal.high) == pytest.approx(clopper_pearson(6, 10, 0.05, 0.2))
    for cells in ([(2, 0, 0)] * 6 + [(0, 0, 1)] * 4, [(2, 0, 0)] * 6 + [(1, 0, 1)] * 4):
        assert "betting test" in rates.counted_bounds(RECALL, part(cells), 0.05, 0.2).reason


def test_a_score_from_zero_to_one_is_judged_and_no_other() -> None:
    rule = gate(at_least=0.5)

    def bounds(scores: list[float]) -> str:
        found = rates.score_bounds(rule, Part("p", scores, own_units(len(scores))), 0.05, 0.2)
        return "none" if found.score is None else found.reason or "exact"

    assert bounds([0.0, 0.5, 1.0]) == "betting test"
    assert bounds([0.0, 1.0]) == bounds([1.0, 1.0]) == "exact"
    assert bounds([0.0, 0.5, 1.01]) == bounds([-0.01, 0.5]) == bounds([math.nan, 1.0]) == "none"
    assert "the same" in bounds([0.5, 0.5])
    repeated = rates.score_bounds(rule, Part("p", [0.0, 0.5, 1.0, 0.5], ["a", "a", "b", "c"]), 0.05, 0.2)
    assert repeated.reason == "betting test on 3 units"


@pytest.mark.parametrize("size", [1, 3, 4])
def test_the_items_needed_are_worth_what_todays_are(size: int) -> None:
    scores = [float(k % 100 < 78) for k in range(100)]
    units = [f"d{k // size}" for k in range(100)]
    found = rates.rate_bounds(scores, units, 0.05, 0.05)
    rule = gate(at_least=0.75)
    worth = effective_sample(scores, units, 0.05)
    assert worth is not None
    n = round(worth.n)
    more = items_needed(round(0.78 * n), n, at_least=0.75)
    assert more is not None

    needed = rates._with_items(rule, found, Part("p", scores, units)).needed()

    assert needed == math.ceil(more * 100 / worth.n)
    assert rates._rate_needed(gate(versus="base", no_worse_than=0.1), Part("p", scores, units)) is None
    assert rates._rate_needed(rule, Part("p", [], [])) is None
    assert rates._rate_needed(gate(at_least=0.1), Part("p", scores, units)) == 1


@pytest.mark.parametrize(("min_n", "state"), [(10, State.INCONCLUSIVE), (11, State.SKIPPED)])
def test_a_slice_of_min_n_items_is_judged(min_n: int, state: State) -> None:
    found = [*samples(5, 10, slices={"sex": "f"}), *samples(60, 60, slices={"sex": "m"})]
    found = [Sample(**{**_fields(one), "id": str(k), "unit": str(k)}) for k, one in enumerate(found)]
    for rule, shown in (
        (gate(at_least=0.5, per="sex", min_n=min_n), Evidence(found, 1.0)),
        (gate(versus="base", no_worse_than=0.01, per="sex", min_n=min_n),
         Evidence(found, 1.0, earlier={"base": found})),
    ):  # fmt: skip
        by_slice = {r.slice: r for r in judge("f16", "m", "l", [rule], {"s": shown}, "s").rules[1:]}
        assert by_slice["sex=f"].verdict is state


def _fields(one: Sample) -> dict[str, object]:
    return {name: getattr(one, name) for name in Sample.__dataclass_fields__}


# Macro averages


def test_the_bounds_of_a_mean_of_labels_are_recovered_from_theirs() -> None:
    """Zou & Donner: the half-widths of independent parts add as squares."""
    first, second = (
        part([(1, 0, 0)] * 8 + [(0, 0, 1)] * 2),
        part([(1, 0, 0)] * 3 + [(0, 0, 1)], own_units(4, 50)),
    )
    a, b = clopper_pearson(8, 10, 0.05, 0.2), clopper_pearson(3, 4, 0.05, 0.2)

    found = macro.macro_bounds(RECALL, [first, second], 14, 0.05, 0.2)

    assert (found.n, found.score) == (14, pytest.approx(0.775))
    assert found.low == pytest.approx(0.775 - math.hypot(0.8 - a[0], 0.75 - b[0]) / 2)
    assert found.high == pytest.approx(0.775 + math.hypot(a[1] - 0.8, b[1] - 0.75) / 2)
    assert found.reason == "mean of 2 labels; fewer than 20 items: p, p"
    many = [part([(1, 0, 0)], own_units(1, k), name=f"l{k}") for k in range(7)]
    named = macro.macro_bounds(RECALL, many, 7, 0.05, 0.2).reason
    assert named == "mean of 7 labels; fewer than 20 items: l0, l1, l2, l3, l4"
    enough = gate(metric="recall", average="macro", at_least=0.5, min_n=4)
    assert macro.macro_bounds(enough, [first, second], 14, 0.05, 0.2).reason == "mean of 2 labels"


def test_labels_that_fail_together_have_the_wider_clustered_bounds() -> None:
    cells = [(1, 0, 0)] * 30 + [(0, 0, 1)] * 10
    parts = [part(cells, name=name) for name in "abcd"]
    shares = [((hit - 0.75) / 40) ** 2 for hit in [1] * 30 + [0] * 10]
    error = math.sqrt(sum(shares) * 40 / 39)

    found = macro.macro_bounds(RECALL, parts, 40, 0.05, 0.2)

    assert found.low == pytest.approx(0.75 - error * student_quantile(0.95, 39))
    assert found.high == pytest.approx(0.75 + error * student_quantile(0.8, 39))
    assert found.reason == "mean of 4 labels"
    one = macro.macro_bounds(RECALL, [part([(1, 0, 0)] * 3, ["u"] * 3)], 3, 0.05, 0.2)
    assert (one.score, one.low, one.high) == (1.0, None, None)


def test_a_label_that_is_never_answered_has_precision_zero() -> None:
    rule = gate(metric="precision", average="macro", at_least=0.5)
    found = macro.macro_bounds(
        rule, [part([(1, 0, 0)] * 9), part([(0, 0, 1)] * 9, own_units(9, 9))], 18, 0.05, 0.2
    )
    a = clopper_pearson(9, 9, 0.05, 0.2)

    assert found.score == 0.5
    assert found.low == pytest.approx(0.5 - (1 - a[0]) / 2)
    assert found.high == pytest.approx(1.0)


def test_a_label_without_an_upper_bound_reaches_up_to_one() -> None:
    rule = gate(metric="precision", average="macro", at_least=0.1)
    halves = [part([(1, 0, 0), (0, 1, 0)] * 20, own_units(40, 40 * k)) for k in range(3)]
    high = clopper_pearson(20, 40, 0.05, 0.2)[1]

    found = macro.macro_bounds(rule, [*halves, part([(0, 0, 1)] * 9, own_units(9, 200))], 129, 0.05, 0.2)

    assert (found.score, found.high) == pytest.approx(
        (0.375, 0.375 + math.sqrt(3 * (high - 0.5) ** 2 + 1) / 4)
    )


def test_two_units_have_an_error() -> None:
    cells = part([(1, 0, 0), (0, 0, 1)])

    assert macro._linear_error(RECALL, [cells], [0.5]) == (pytest.approx(math.sqrt(2 * 0.25**2 * 2 / 1)), 2)
    assert macro._linear_error(RECALL, [part([(1, 0, 0)] * 2, ["u", "u"])], [1.0]) == (0.0, 1)
    found = macro.macro_bounds(RECALL, [cells], 2, 0.05, 0.2)
    assert (found.low, found.high) == (0.0, pytest.approx(min(1.0, 0.5 + 0.5 * student_quantile(0.8, 1))))


def test_a_mean_of_labels_is_over_those_that_occur() -> None:
    never = part([(0, 1, 0)] * 5, name="label=z")

    (found,) = macro.judge_macro(RECALL, "s", [part([(1, 0, 0)] * 5), never], 10)
    assert found.score == 1.0
    (half,) = macro.judge_macro(RECALL, "s", [part([(1, 0, 1)] * 5)], 5)
    assert half.score == 0.5
    (none,) = macro.judge_macro(RECALL, "s", [never], 10)
    assert (none.score, none.verdict, none.slice) == (None, State.INCONCLUSIVE, "all")


def test_macro_bounds_stay_within_zero_and_one() -> None:
    """Student's quantile with 2 degrees of freedom puts the clustered bounds far outside."""
    found = macro.macro_bounds(RECALL, [part([(1, 0, 0)] * 2 + [(0, 0, 1)])], 3, 0.01, 0.01)

    assert (found.low, found.high) == (0.0, 1.0)


# Pairs


def pairs(b: int, c: int, n: int, size: int = 1) -> Part:
    scores = [-1.0] * b + [1.0] * c + [0.0] * (n - b - c)
    return Part("p", scores, [f"d{k // size}" for k in range(n)])


def test_differences_of_single_items_have_tangos_bounds() -> None:
    found = paired.difference_bounds(pairs(3, 9, 60), 0.05, 0.2)

    assert (found.low, found.high) == paired_bounds(3, 9, 60, 0.05, 0.2)
    assert (found.n, found.score, found.reason) == (60, 0.1, "9 gained, 3 lost")
    assert (found.worth, found.discordant) == (60.0, (3, 9))


def test_repeated_units_shrink_the_table_against_the_claim() -> None:
    """Losses are rounded up and gains down for the lower bound, and the other way round for the upper one."""
    asked = pairs(7, 11, 60, size=4)
    worth = paired_worth(asked.scores, asked.units, 0.05)
    assert worth is not None
    shrink = worth / 60
    assert 0.2 < shrink < 0.9
    n, b, c = 60 * shrink, 7 * shrink, 11 * shrink
    low = paired_bounds(math.ceil(b), math.floor(c), math.floor(n), 0.05, 0.2)
    high = paired_bounds(math.floor(b), math.ceil(c), math.ceil(n), 0.05, 0.2)
    assert low is not None
    assert high is not None

    found = paired.difference_bounds(asked, 0.05, 0.2)

    assert (found.low, found.high, found.worth) == (low.low, high.high, pytest.approx(worth))


@pytest.mark.parametrize(
    ("b", "c", "size"), [(6, 0, 6), (0, 6, 6), (6, 0, 3), (3, 3, 6), (1, 0, 1), (0, 1, 1)]
)
def test_a_table_of_few_units_is_still_a_table(b: int, c: int, size: int) -> None:
    found = paired.difference_bounds(pairs(b, c, b + c, size), 0.05, 0.05)

    assert found.score == (c - b) / (b + c)
    assert found.low is not None
    assert found.high is not None
    assert -1.0 <= found.low <= found.score <= found.high <= 1.0


@pytest.mark.parametrize("size", [1, 3])
def test_the_pairs_needed_are_worth_what_todays_are(size: int) -> None:
    asked, rule = pairs(6, 6, 90, size), gate(versus="base", no_worse_than=0.05)
    shrink = min(1.0, (paired_worth(asked.scores, asked.units, 0.05) or 0.0) / 90)
    more = paired_items_needed(round(6 * shrink), round(6 * shrink), round(90 * shrink), -0.05)
    assert more is not None
    assert more > 0

    found = paired.paired_part_bounds(rule, asked, 0.05, 0.05)

    assert found.needed() == math.ceil(more / shrink)
    assert paired._needed(gate(versus="base", no_worse_than=0.9), asked) == 1


def test_pairs_that_all_differ_stay_a_table_when_rounded() -> None:
    """Worth half each: 2 lost and 2 gained of 3, so of 4."""
    asked, rule = pairs(3, 3, 6, size=2), gate(versus="base", no_worse_than=0.05)
    assert paired_worth(asked.scores, asked.units, 0.05) == pytest.approx(3.0)

    assert paired._needed(rule, asked) == math.ceil((paired_items_needed(2, 2, 4, -0.05) or 0) / 0.5)


def test_differences_of_other_sizes_are_bet_on() -> None:
    scores = [0.5, -0.25, 0.0, 0.5] * 10
    rule = gate(versus="base", no_worse_than=0.5)

    found = paired.paired_part_bounds(
        rule, Part("p", scores, own_units(40)), 0.05, 0.2, at=Compared(-0.5, -0.5)
    )

    assert found.reason == "20 better, 10 worse; betting test"
    assert found.score == pytest.approx(0.1875)
    within = Range(-1.0, 1.0, 1.0, 40, 0.15 / 4, 1.0)
    ratios = engine.unit_ratios([Ratio(s, 1.0) for s in scores], own_units(40), rule.order_seed)
    wanted = engine.engine_bounds(ratios, within, 0.05, 0.2, low_at=-0.5, high_at=-0.5, items=40)
    assert (found.low, found.high, found.n) == (wanted.low, wanted.high, 40)
    free = paired.paired_part_bounds(rule, Part("p", scores, own_units(40)), 0.05, 0.2)
    assert free.score == found.score
    broken = paired.paired_part_bounds(rule, Part("p", [math.nan, 1.0], own_units(2)), 0.05, 0.2)
    assert (broken.score, broken.n) == (None, 2)


def test_a_difference_is_the_candidates_score_minus_the_baselines() -> None:
    now = [sample(0, score=0.75, slices={"sex": "f"}), sample(1, score=0.25, slices={"sex": "m"})]
    before = {"r0": sample(0, score=0.25), "r1": sample(1, score=0.5)}
    rule = gate(versus="base", no_worse_than=0.1, per="sex")

    assert paired.paired_parts(rule, now, before) == [
        Part("sex=f", [0.5], ["r0"]), Part("sex=m", [-0.25], ["r1"]),
    ]  # fmt: skip


# Groups


def test_groups_hold_the_items_of_the_rates_denominator() -> None:
    rule = gate(metric="equalized_odds", gap=0.2, per="sex", positive="a")
    found = [
        sample(0, slices={"sex": "f"}), sample(1, right=False, slices={"sex": "f"}),
        sample(2, gold=("b",), answer="a", slices={"sex": "m"}),
        sample(3, gold=("b",), answer="b", slices={"sex": "m"}),
    ]  # fmt: skip

    def scores(rate: str) -> dict[str, list[float]]:
        return {name: one.scores for name, one in groups.group_parts(rule, rate, found).items()}  # type: ignore[arg-type]

    assert scores("true_positive") == {"sex=f": [1.0, 0.0], "sex=m": []}
    assert scores("false_positive") == {"sex=f": [], "sex=m": [1.0, 0.0]}
    assert scores("selection") == {"sex=f": [1.0, 0.0], "sex=m": [1.0, 0.0]}
    assert scores("accuracy") == {"sex=f": [1.0, 0.0], "sex=m": [1.0, 1.0]}


def test_a_groups_items_count_for_what_they_are_worth() -> None:
    scores = [1.0] * 30 + [0.0] * 10
    units = [f"d{k // 4}" for k in range(40)]
    worth = effective_sample(scores, units, 0.05)
    assert worth is not None
    n = math.floor(worth.n)

    assert groups._count(Part("p", scores, units), 0.05) == (round(n * 0.75), n)
    assert groups._count(Part("p", scores, own_units(40)), 0.05) == (30, 40)
    assert groups._count(Part("p", [], []), 0.05) == (0, 0)
    assert groups._count(Part("p", [1.0], ["u"]), 0.05) == (1, 1)


def test_five_small_groups_are_named_and_the_others_counted() -> None:
    assert groups._named(["a", "b", "c", "d", "e"]) == "a, b, c, d, e"
    assert groups._named(["a", "b", "c", "d", "e", "f", "g"]) == "a, b, c, d, e and 2 more"


@pytest.mark.parametrize("min_n", [10, 11])
def test_a_group_of_min_n_items_is_compared(min_n: int) -> None:
    rule = gate(gap=0.3, per="sex", min_n=min_n)
    found = [sample(k, right=k % 10 > 0, slices={"sex": "fm"[k >= 10]}) for k in range(60)]

    judged = groups.judge_gap(rule, "s", Evidence(found, 1.0))

    if min_n == 10:
        (one,) = judged
        assert one.score is not None
        return
    one, small = judged
    assert (one.score, one.verdict, one.n) == (None, State.INCONCLUSIVE, 50)
    assert (small.slice, small.verdict, small.n, small.score) == ("sex=f", State.SKIPPED, 10, 0.9)


def test_a_gap_rule_says_which_groups_and_on_which_side() -> None:
    def judged(hits: int, n: int, **more: object) -> RuleVerdict:
        found = [sample(k, right=k < hits or k >= n, slices={"sex": "fm"[k >= n]}) for k in range(2 * n)]
        (rule,) = groups.judge_gap(gate(gap=0.2, per="sex", **more), "s", Evidence(found, 1.0))
        return rule

    failed, passed, open_ = judged(100, 200), judged(200, 200), judged(162, 200)
    low_floor = judged(195, 200, floor=0.99)
    assert [r.verdict for r in (failed, passed, open_, low_floor)] == [
        State.FAIL, State.PASS, State.INCONCLUSIVE, State.INCONCLUSIVE,
    ]  # fmt: skip
    assert "sex=m fares better than sex=f by 0.5, over 0.2 after Holm" in failed.reason
    assert "is under 0.2" in passed.reason
    assert "sex=m over sex=f" in open_.reason
    assert "is not under 0.2" in open_.reason
    assert "not shown over the floor 0.99: sex=f, sex=m" in low_floor.reason
    assert (failed.score, failed.n, failed.slice) == (0.5, 400, "sex")


def test_half_right_answers_have_no_gap() -> None:
    found = [sample(k, score=0.5 if k < 40 else 1.0, slices={"sex": "fm"[k % 2]}) for k in range(80)]

    (rule,) = groups.judge_gap(gate(gap=0.2, per="sex"), "s", Evidence(found, 1.0))
    assert (rule.score, rule.n) == (None, 80)
