"""Every recipe that needs no other data goes the whole path, from its records to a release that verifies."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from harness.specs.load import load_release
from tests.suites import reduced


@pytest.mark.parametrize("recipe", reduced.own_recipes(), ids=lambda path: path.stem)
def test_a_reduced_recipe_keeps_suites_rules_and_debts(recipe: Path, tmp_path: Path) -> None:
    whole, small = load_release(recipe), load_release(reduced.write_reduced(recipe, tmp_path))

    assert [one.suite.suite for one in small.suites] == [one.suite.suite for one in whole.suites]
    kept = [gate for gate in whole.recipe.gates if gate.better_than is None]
    assert [(g.metric, g.per, g.suite) for g in small.recipe.gates] == [
        (g.metric, g.per, g.suite) for g in kept
    ]
    kept_deviations = [one for one in small.recipe.deviations if one.because != reduced.NO_REPEATS]
    assert kept_deviations == list(whole.recipe.deviations)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", reduced.own_recipes(), ids=lambda path: path.stem)
def test_a_recipe_goes_from_records_to_a_release_that_verifies(recipe: Path, tmp_path: Path) -> None:
    small = reduced.write_reduced(recipe, tmp_path / "small")
    reduced.write_base(small.parent)

    done = reduced.release(small, tmp_path / "home")

    assert done.returncode in (0, 1, 3), done.stderr
    document = json.loads(done.stdout)
    stages = list(dict.fromkeys(stage["stage"] for stage in document["stages"]))
    assert document["verdict"] == "PASS", [
        (stage["stage"], rule["rule"], rule["slice"], rule["reason"])
        for stage in document["stages"]
        for rule in stage["rules"]
        if rule["verdict"] not in ("PASS", "SKIPPED")
    ]
    assert stages == ["base", "adapter", "merged", "f16", *reduced.QUANTS]
    checked = subprocess.run(
        [sys.executable, "-m", "harness", "verify", document["release"], "--json"], capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert (checked.returncode, json.loads(checked.stdout)["ok"]) == (0, True)
