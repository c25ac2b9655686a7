"""The same model, the same items: our log-likelihoods are lm-evaluation-harness's."""

from __future__ import annotations

import subprocess

import pytest

from benchmarks import multiple_choice as bench

ITEMS = 200


@pytest.mark.slow
@pytest.mark.real
def test_each_choices_log_likelihood_is_the_peers() -> None:
    root = bench.default_root()
    if not (root / "uncertainty/mmlu").is_dir():
        pytest.skip("no uncertainty/mmlu at $HARNESS_DATA")
    try:
        systems = [bench.ours(2), bench.lm_eval(2)]
    except subprocess.CalledProcessError as error:
        pytest.skip(f"lm-evaluation-harness can't be installed: {error}")

    found = bench.agreement(systems, bench.questions(root, "0-shot", ITEMS), threads=2)

    assert found["items"] == ITEMS
    assert found["largest_difference"] <= bench.AGREEMENT
    assert found["accuracy"][0] == found["accuracy"][1]
