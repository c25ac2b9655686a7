from __future__ import annotations

import pytest
from scipy import stats

from harness.data.records import Record
from harness.evals.curve import curve_of
from harness.stats.power import OperatingPoint
from tests.evals.builders import gate


def records(n: int, *, per_unit: int = 1) -> list[Record]:
    return [_record(k, per_unit) for k in range(n)]


def _record(k: int, per_unit: int) -> Record:
    label, style = "a" if k % 4 else "b", "new" if k % 5 else "old"
    return Record(f"r{k}", f"text {k}", (label,), {"style": style}, f"u{k // per_unit}", {})


def at(points: tuple[OperatingPoint, ...], rate: float) -> OperatingPoint:
    return next(point for point in points if point.rate == pytest.approx(rate))


def test_the_curve_of_400_items_is_the_exact_binomials() -> None:
    """Fixed-n Clopper-Pearson at .80: PASS 4.3 % at .80 and 82 % at .85, FAIL 77 % at .75."""
    found = curve_of(gate(at_least=0.8), "s", records(400))

    assert found is not None
    assert (found.n, found.worth, found.can_pass) == (400, 400, True)
    assert at(found.points, 0.80).pass_frac == pytest.approx(0.043, abs=0.001)
    assert at(found.points, 0.85).pass_frac == pytest.approx(0.82, abs=0.005)
    assert at(found.points, 0.75).fail_frac == pytest.approx(0.77, abs=0.005)
    assert (found.needed, found.at) == (365, pytest.approx(0.85))


def test_at_most_is_at_least_on_the_misses() -> None:
    most = curve_of(gate(metric="error_rate", at_most=0.2), "s", records(100))
    least = curve_of(gate(at_least=0.8), "s", records(100))

    assert most is not None
    assert least is not None
    assert at(most.points, 0.15).pass_frac == pytest.approx(at(least.points, 0.85).pass_frac)
    assert most.detectable == pytest.approx(1 - (least.detectable or 0.0))


def test_a_suite_that_can_never_pass_is_said_to() -> None:
    assert curve_of(gate(at_least=0.8), "s", records(13)).can_pass is False  # type: ignore[union-attr]
    assert curve_of(gate(at_least=0.8), "s", records(14)).can_pass is True  # type: ignore[union-attr]


def test_the_slice_that_sees_least_is_shown() -> None:
    found = curve_of(gate(at_least=0.5, per="style", min_n=15), "s", records(100))
    by_label = curve_of(gate(metric="recall", at_least=0.5, per="label"), "s", records(100))

    assert found is not None
    assert (found.slice, found.slices, found.n) == ("style=old", 2, 20)
    assert by_label is not None
    assert (by_label.slice, by_label.slices, by_label.n) == ("label=b", 2, 25)
    assert curve_of(gate(at_least=0.5, per="style", min_n=90), "s", records(100)) is None


def test_repeated_units_are_worth_less() -> None:
    found = curve_of(gate(at_least=0.5), "s", records(160, per_unit=8))

    assert found is not None
    assert (found.n, found.units) == (160, 20)
    assert 20 < found.worth < 160


@pytest.mark.parametrize(("margin", "is_too_fine"), [(0.03, True), (0.05, False)])
def test_a_margin_finer_than_the_records_show_is_named(margin: float, is_too_fine: bool) -> None:
    """Discordance .10, four fifths power, no difference: .05 takes 248 pairs, .03 takes 687."""
    found = curve_of(gate(versus="f16", no_worse_than=margin), "s", records(300))

    assert found is not None
    assert found.is_too_fine is is_too_fine
    assert at(found.points, -margin).pass_frac <= 0.05


def test_a_gain_has_a_curve_and_no_finest_margin() -> None:
    found = curve_of(gate(versus="base", better_than=0.2), "s", records(200))

    assert found is not None
    assert found.detectable is None
    assert at(found.points, 0.2).pass_frac <= 0.05 < at(found.points, 0.3).pass_frac


@pytest.mark.parametrize(("items", "can_pass"), [(58, False), (59, True), (400, True)])
def test_a_latency_rule_needs_59_requests(items: int, can_pass: bool) -> None:
    found = curve_of(gate(metric="latency_p95_ms", at_most=200.0), "s", records(items))

    assert found is not None
    assert found.can_pass is can_pass
    assert found.needed == 59
    assert found.n == min(items, 120)
    # All requests within the limit happens with .97^n; a rule passes with some of them over it where n allows.
    assert (
        at(found.points, 0.97).pass_frac
        >= (stats.binom.pmf(found.n, found.n, 0.97) if can_pass else 0.0) - 1e-12
    )


def test_a_run_that_stops_early_uses_fewer_items_where_the_truth_is_far() -> None:
    found = curve_of(gate(at_least=0.8, design="sequential"), "s", records(200))

    assert found is not None
    near, far = at(found.points, 0.80), at(found.points, 0.90)
    assert far.mean_n < near.mean_n < 200
    assert near.pass_frac < 0.07
    assert far.pass_frac > 0.9


def test_gaps_show_the_finest_cap_of_the_smallest_groups() -> None:
    found = curve_of(gate(gap=0.2, per="style"), "s", records(100))

    assert found is not None
    assert found.is_too_fine  # groups of 20 and 80: (1.645 + .842) sqrt(.16 (1/20 + 1/80)) = .249
    assert found.detectable == pytest.approx(0.2487, abs=1e-3)
    assert curve_of(gate(gap=0.2, per="style", min_n=50), "s", records(100)) is None


def test_curves_are_json() -> None:
    found = curve_of(gate(at_least=0.8, acknowledge="no more data"), "s", records(30))

    assert found is not None
    assert found.to_json()["acknowledge"] == "no more data"
    assert set(found.to_json()["points"][0]) == {"rate", "pass_frac", "fail_frac", "mean_n"}
