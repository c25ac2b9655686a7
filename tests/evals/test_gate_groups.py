"""Gaps between groups: shown to be small, shown to be large, or not known."""

from hypothesis import given
from hypothesis import strategies as st

from harness.evals.gate import Evidence, is_borne_out, judge
from harness.evals.results import RuleVerdict, Sample, State
from harness.specs.gate import Gate
from harness.stats.proportions import Count, newcombe_at
from tests.evals.builders import gate, sample

Z_95 = 1.6448536269514722


def rules_of(rule: Gate, found: list[Sample]) -> list[RuleVerdict]:
    return list(judge("adapter", "m", "l", [rule], {"s": Evidence(found, 1.0)}, "s").rules[1:])


def group(name: str, hits: int, n: int, start: int = 0, **more: object) -> list[Sample]:
    return [sample(start + k, right=k < hits, slices={"sex": name, **more}) for k in range(n)]


def test_groups_that_fare_alike_pass_when_there_are_enough_of_them() -> None:
    (rule,) = rules_of(gate(gap=0.1, per="sex"), [*group("f", 900, 1000), *group("m", 905, 1000, 1000)])

    expected = newcombe_at(Count(905, 1000), Count(900, 1000), Z_95)
    assert expected is not None
    assert rule.verdict is State.PASS
    assert rule.high is not None
    assert abs(rule.high - expected.high) < 1e-12
    assert "sex=m over sex=f" in rule.reason
    assert is_borne_out(rule, gate(gap=0.1, per="sex"))


def test_a_gap_beyond_the_cap_fails_and_names_the_pair() -> None:
    (rule,) = rules_of(gate(gap=0.1, per="sex"), [*group("f", 500, 1000), *group("m", 900, 1000, 1000)])

    assert rule.verdict is State.FAIL
    assert "sex=m fares better than sex=f by 0.4" in rule.reason


def test_a_group_that_is_too_small_is_named_and_keeps_the_rule_open() -> None:
    found = [*group("f", 900, 1000), *group("m", 905, 1000, 1000), *group("x", 22, 25, 2000)]

    (rule,) = rules_of(gate(gap=0.05, per="sex"), found)

    assert rule.verdict is State.INCONCLUSIVE
    assert rule.too_small == ("sex=x",)
    assert "too small to certify: sex=x" in rule.reason


def test_a_group_under_min_n_is_reported_and_named() -> None:
    found = [*group("f", 900, 1000), *group("m", 905, 1000, 1000), *group("x", 1, 3, 2000)]

    gap, small = rules_of(gate(gap=0.1, per="sex"), found)

    assert gap.verdict is State.PASS
    assert gap.too_small == ("sex=x",)
    assert (small.slice, small.verdict, small.n) == ("sex=x", State.SKIPPED, 3)


def test_equal_groups_below_the_floor_do_not_pass() -> None:
    found = [*group("f", 500, 1000), *group("m", 500, 1000, 1000)]

    (rule,) = rules_of(gate(gap=0.1, per="sex", floor=0.6), found)

    assert rule.verdict is State.INCONCLUSIVE
    assert "floor 0.6: sex=f, sex=m" in rule.reason


def test_crossed_keys_find_what_each_key_alone_hides() -> None:
    # Either sex and either age is right 70 % of the time; old women and young men 90 %, the others 50 %.
    found, k = [], 0
    for sex, age, hits in (("f", "old", 900), ("f", "young", 500), ("m", "old", 500), ("m", "young", 900)):
        found += group(sex, hits, 1000, k, age=age)
        k += 1000

    (sexes,) = rules_of(gate(gap=0.1, per="sex"), found)
    (crossed,) = rules_of(gate(gap=0.1, per=["sex", "age"]), found)

    assert sexes.verdict is State.PASS
    assert crossed.verdict is State.FAIL
    assert "sex=f, age=old" in crossed.reason or "sex=m, age=young" in crossed.reason


def test_one_group_shows_no_gap() -> None:
    (rule,) = rules_of(gate(gap=0.1, per="sex"), group("f", 90, 100))

    assert rule.verdict is State.INCONCLUSIVE


def test_fairness_metrics_look_at_answers_of_the_positive_label() -> None:
    # Both groups are answered "yes" alike; of those who deserve it, 95 % of one group and 50 % of the other get it.
    found: list[Sample] = []
    for sex, hits in (("f", 500), ("m", 950)):
        for k in range(2000):
            deserves = k < 1000
            said = (k < hits) if deserves else k >= 2000 - (1000 - hits)
            found.append(
                sample(
                    len(found), gold=("yes",) if deserves else ("no",), answer="yes" if said else "no",
                    score=float(deserves == said), slices={"sex": sex},
                )
            )  # fmt: skip

    def verdicts(metric: str) -> list[State]:
        return [
            rule.verdict for rule in rules_of(gate(metric=metric, gap=0.1, per="sex", positive="yes"), found)
        ]

    assert verdicts("demographic_parity") == [State.PASS]
    assert verdicts("equal_opportunity") == [State.FAIL]
    assert verdicts("equalized_odds") == [State.FAIL, State.FAIL]


def test_a_group_without_positives_has_no_rate_and_no_zero() -> None:
    found = [
        *[sample(k, gold=("yes",), answer="yes", slices={"sex": "f"}) for k in range(200)],
        *[sample(k, gold=("no",), answer="no", slices={"sex": "m"}) for k in range(200, 400)],
    ]

    rule, empty = rules_of(gate(metric="equal_opportunity", gap=0.2, per="sex", positive="yes"), found)

    assert rule.verdict is State.INCONCLUSIVE
    assert (empty.slice, empty.score, empty.verdict) == ("sex=m", None, State.SKIPPED)


@given(counts=st.lists(st.tuples(st.integers(0, 60), st.integers(20, 60)), min_size=1, max_size=5))
def test_a_gap_that_passes_is_under_the_cap_for_every_pair(counts: list[tuple[int, int]]) -> None:
    found: list[Sample] = []
    for index, (hits, n) in enumerate(counts):
        found += group(str(index), min(hits, n), n, len(found))

    rule = rules_of(gate(gap=0.3, per="sex"), found)[0]

    if rule.verdict is State.PASS:
        rates = [min(hits, n) / n for hits, n in counts]
        assert max(rates) - min(rates) < 0.3
        assert len(counts) > 1
