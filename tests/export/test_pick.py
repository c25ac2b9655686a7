from __future__ import annotations

import math
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.evals.results import RuleVerdict, State, Verdict
from harness.export.pick import Aim, Candidate, pareto, pick, sequence
from harness.specs.device import Device
from harness.stats.proportions import at_least_p

DEVICE = Device(name="laptop", memory_mb=400)


def verdict(state: State, *reasons: str) -> Verdict:
    rules = tuple(
        RuleVerdict(
            "recall per label at least 0.6", "s", "recall", "label=cap", 30, 0.5, 0.4, 0.6, 0.6, state, reason
        )
        for reason in reasons
    )
    return Verdict("q", "i" * 64, "l" * 64, state, rules)


def candidate(quant: str, mb: float, state: State | None = State.PASS, **more: Any) -> Candidate:
    found = None if state is None else verdict(state, "upper bound 0.55 misses 0.6")
    return Candidate(quant, int(mb * 2**20), found, **{"mean_kl": 0.1, "memory_mb": mb + 100, **more})


def test_the_smallest_that_passes_is_picked_and_the_rest_say_why_not() -> None:
    choice = pick(
        [candidate("q8_0", 140), candidate("q4_k_m", 100), candidate("q4_0", 90, State.FAIL),
         candidate("q2_k", 80, State.INCONCLUSIVE), candidate("q3_k_m", 85, None)],
        DEVICE,
    )  # fmt: skip

    assert choice.picked == "q4_k_m"
    reasons = {row.quant: row.reason for row in choice.rows}
    assert reasons["q8_0"] == "passes, and is 40% larger than q4_k_m"
    assert reasons["q4_k_m"] == "passes every rule and is the smallest that does"
    assert reasons["q4_0"].startswith("FAIL: recall per label at least 0.6 · label=cap: upper bound 0.55")
    assert reasons["q2_k"].startswith("INCONCLUSIVE: ")
    assert reasons["q3_k_m"].startswith("not judged: the larger q4_0 does not pass")
    assert [row.quant for row in choice.rows if row.is_picked] == ["q4_k_m"]


@pytest.mark.parametrize(
    ("one", "said"),
    [
        (candidate("q8_0", 140, mean_kl=0.6), "mean KL 0.6 nats a token is over 0.5"),
        (candidate("q8_0", 140, mean_kl=float("nan")), "mean KL nan"),
        (candidate("q8_0", 140, mean_kl=None), "was not measured"),
        (candidate("q8_0", 140, memory_mb=401.0), "needs 401 MiB, laptop has 400"),
        (candidate("q8_0", 500, memory_mb=None), "needs 500 MiB, laptop has 400"),
    ],
)
def test_a_file_that_passes_but_does_not_fit_is_not_picked(one: Candidate, said: str) -> None:
    choice = pick([one], DEVICE, max_mean_kl=0.5)

    assert choice.picked is None
    assert said in choice.rows[0].reason


def test_no_candidates_is_no_choice() -> None:
    assert pick([], DEVICE).picked is None


def test_of_two_equally_small_files_the_nearer_one_is_picked() -> None:
    choice = pick([candidate("a", 90, mean_kl=0.3), candidate("b", 90, mean_kl=0.2)], DEVICE)

    assert choice.picked == "b"


@given(st.lists(st.tuples(st.integers(1, 500), st.sampled_from([*State, None])), max_size=8))
def test_what_is_picked_passes_as_all_larger_ones_do_and_nothing_smaller_does(
    rows: list[tuple[int, State | None]],
) -> None:
    candidates = [candidate(f"q{index}", mb, state, memory_mb=None) for index, (mb, state) in enumerate(rows)]

    choice = pick(candidates, DEVICE)

    fits = DEVICE.memory_mb
    end = max((mb for mb, state in rows if state is not State.PASS and mb <= fits), default=0)
    able = [mb for mb, state in rows if state is State.PASS and end < mb <= DEVICE.memory_mb]
    picked = [row for row in choice.rows if row.is_picked]
    assert [row.bytes for row in picked] == ([min(able) * 2**20] if able else [])
    assert all(row.reason for row in choice.rows)


def test_no_file_is_picked_behind_one_that_does_not_pass() -> None:
    choice = pick(
        [candidate("q8_0", 140), candidate("q5_k_m", 110, State.INCONCLUSIVE), candidate("q4_k_m", 100)],
        DEVICE,
    )

    assert choice.picked == "q8_0"
    assert {row.quant: row.reason for row in choice.rows}["q4_k_m"] == (
        "passes, but the larger q5_k_m does not, and that ended the sequence of tries"
    )


def test_a_file_that_passes_and_is_too_large_for_the_device_does_not_end_the_sequence() -> None:
    choice = pick([candidate("q8_0", 500), candidate("q4_k_m", 100)], DEVICE)

    assert choice.picked == "q4_k_m"


def test_of_files_that_are_all_too_bad_one_ships_no_more_often_than_a_single_one_would() -> None:
    """Five files, each 0.80 right where 0.80 must be exceeded, independent: the worst case for whoever may choose."""
    draw, runs, shipped, chosen = random.Random(17), 4000, 0, 0
    least = next(hits for hits in range(201) if at_least_p(hits, 200, 0.8) <= 0.05)
    for _ in range(runs):
        passes = [sum(draw.random() < 0.8 for _ in range(200)) >= least for _ in range(5)]
        files = [
            candidate(f"q{mb}", mb, State.PASS if passed else State.INCONCLUSIVE)
            for mb, passed in zip((140, 120, 110, 100, 90), passes, strict=True)
        ]
        shipped += pick(files, DEVICE).picked is not None
        chosen += any(passes)

    assert shipped / runs <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / runs)
    assert chosen / runs > 0.15  # what taking any that passes would do


def test_a_file_that_could_not_ship_anyway_is_not_tried_and_does_not_end_the_sequence() -> None:
    """That it is too far from its parent, or too large, was known before its first answer."""
    files = [
        candidate("q8_0", 500, State.FAIL), candidate("q6_k", 140),
        candidate("q3_k_m", 110, State.FAIL, mean_kl=0.9), candidate("iq3_xxs", 105, None, mean_kl=0.9),
        candidate("iq4_xs", 100),
    ]  # fmt: skip

    choice = pick(files, DEVICE, max_mean_kl=0.5)

    assert [one.quant for one in sequence(files, DEVICE, 0.5)] == ["q6_k", "iq4_xs"]
    assert choice.picked == "iq4_xs"
    assert {row.quant: row.reason for row in choice.rows}["iq3_xxs"] == "mean KL 0.9 nats a token is over 0.5"


def test_the_sequence_looks_at_no_verdict() -> None:
    files = [
        candidate(f"q{mb}", mb, state) for mb, state in ((90, None), (140, State.FAIL), (100, State.PASS))
    ]

    assert [one.quant for one in sequence(files, DEVICE, None)] == ["q140", "q100", "q90"]


@pytest.mark.parametrize(("aim", "picked"), [("smallest", "c"), ("fastest", "b"), ("best", "a")])
def test_what_is_picked_of_those_that_pass_follows_the_aim(aim: Aim, picked: str) -> None:
    files = [
        candidate("a", 140, mean_kl=0.01, decode_ms=10.0),
        candidate("b", 120, mean_kl=0.1, decode_ms=7.0),
        candidate("c", 100, mean_kl=0.2, decode_ms=9.0),
        candidate("d", 90, State.FAIL, mean_kl=0.3, decode_ms=5.0),
    ]

    choice = pick(files, DEVICE, aim=aim)

    assert choice.picked == picked
    assert choice.aim == aim
    assert {row.quant: row.reason for row in choice.rows}[
        picked
    ] == f"passes every rule and is the {aim} that does"
    assert all(row.reason for row in choice.rows)


def test_a_file_whose_speed_is_unknown_is_not_the_fastest() -> None:
    files = [candidate("a", 140, decode_ms=None), candidate("b", 120, decode_ms=50.0)]

    assert pick(files, DEVICE, aim="fastest").picked == "b"


def test_the_front_holds_what_no_other_file_beats() -> None:
    files = [
        candidate("large", 140, mean_kl=0.01, decode_ms=10.0),
        candidate("small", 90, mean_kl=0.2, decode_ms=6.0),
        candidate("beaten", 150, mean_kl=0.02, decode_ms=11.0),
        candidate("unknown", 100, mean_kl=None, decode_ms=None, memory_mb=None),
    ]

    assert pareto(files) == {"large", "small"}
    assert [row.quant for row in pick(files, DEVICE).rows if row.is_pareto] == ["large", "small"]
