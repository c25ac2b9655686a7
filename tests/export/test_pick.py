from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.evals.results import RuleVerdict, State, Verdict
from harness.export.pick import Candidate, pick
from harness.specs.device import Device

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
    assert reasons["q3_k_m"] == "not judged"
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
def test_what_is_picked_passes_and_nothing_smaller_does(rows: list[tuple[int, State | None]]) -> None:
    candidates = [candidate(f"q{index}", mb, state, memory_mb=None) for index, (mb, state) in enumerate(rows)]

    choice = pick(candidates, DEVICE)

    able = [mb for mb, state in rows if state is State.PASS and mb <= DEVICE.memory_mb]
    picked = [row for row in choice.rows if row.is_picked]
    assert [row.bytes for row in picked] == ([min(able) * 2**20] if able else [])
    assert all(row.reason for row in choice.rows)
