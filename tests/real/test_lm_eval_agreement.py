"""The same model, the same items: our log-likelihoods are lm-evaluation-harness's."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "multiple_choice.py"
ITEMS = 200


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """By its file: opacus brings a package `benchmarks` of its own."""
    spec = importlib.util.spec_from_file_location("multiple_choice", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "multiple_choice", module)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.real
def test_each_choices_log_likelihood_is_the_peers(bench: ModuleType) -> None:
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
