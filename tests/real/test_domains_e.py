"""Public sets of healthcare, finance and science through their suites: all records load, what is right scores 1.

The numeric checker on TAT-QA's computed answers, printed with `-s`: gold derivations that give their gold answer, and
planted sign, scale and percent errors that are found.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.scoring.arithmetic import derivation
from harness.scoring.item import Item
from harness.scoring.number_match import number
from tests.evals.fakes import run
from tests.real.conftest import ROOT
from tests.suites import domains

pytestmark = pytest.mark.real

SUITES = [
    "healthcare/mts_dialog", "healthcare/mts_summary", "healthcare/medec_ms", "healthcare/pubmedqa",
    "healthcare/icd10cm_terms", "finance/tatqa", "finance/fomc", "science/scifact_pairs", "science/evidence_inference",
    "science/evidence_spans", "science/scitldr",
]  # fmt: skip
Rows = list[dict[str, Any]]


@pytest.fixture(params=SUITES)
def loaded(request: pytest.FixtureRequest) -> domains.Loaded:
    public = domains.load_suite(domains.ROOT / "suites" / f"{request.param}.yaml").records.public
    if not (ROOT / str(public)).is_dir():
        pytest.skip(f"no {public} at $HARNESS_DATA")
    return domains.load(request.param, data_root=ROOT)


def test_a_scripted_model_that_is_right_runs_each_suite(loaded: domains.Loaded, tmp_path: Path) -> None:
    work = domains.work_of(loaded, n=100)

    samples = run(domains.answering(work, rightly=True), work, tmp_path)

    # A summary that people wrote says more than its source's words do: only the first scorer is a gold one.
    assert [(one.id, one.score, one.error) for one in samples if one.score < 0.999] == []
    assert all(set(loaded.suite.slices) & set(one.slices) for one in samples)


def test_a_scripted_model_that_is_wrong_scores_nothing(loaded: domains.Loaded, tmp_path: Path) -> None:
    work = domains.work_of(loaded, n=100)

    assert [
        one.id for one in run(domains.answering(work, rightly=False), work, tmp_path) if one.score > 0.0
    ] == []


def test_every_code_of_the_coding_suite_is_on_the_list(public: Callable[..., Rows]) -> None:
    codes = {row["code"] for row in public("healthcare/icd10cm_terms", "codes")}
    options = {option for one in domains.load("healthcare/coding").splits["eval"] for option in one.options}
    assert [option for option in sorted(options) if option.split()[0] not in codes] == []
    assert len(options) > 60


def test_the_numeric_checker_agrees_with_derivations_and_finds_planted_errors(
    public: Callable[..., Rows],
) -> None:
    rows = [
        row
        for row in public("finance/tatqa", "train", "eval")
        if row["target"]["answer_type"] == "arithmetic"
    ]
    agreed = [derivation(_item(row, row["target"]["derivation"], decimals=2)).value == 1.0 for row in rows]
    planted = [
        number(_item(row, answer)).value == 0.0
        for row in rows
        if row["target"]["answer"]
        for answer in _wrong(row)
    ]

    figures = f"derivations agree: {sum(agreed)} of {len(rows)}; planted errors found: {sum(planted)} of {len(planted)}"
    print(figures)  # noqa: T201 (with -s, the figure is what is asked for)
    assert sum(agreed) / len(rows) >= 0.97
    assert len(planted) > 2 * len(rows)
    assert all(planted)


def _item(row: dict[str, Any], answer: str, **settings: Any) -> Item:
    gold = json.dumps(row["target"]["answer"])
    return Item(answer, (gold,), meta=row, settings={"scale_field": "target.scale", **settings})


def _wrong(row: dict[str, Any]) -> list[str]:
    """The gold with another sign, a scale that is off by a thousand, or a percent too much."""
    value, scale = row["target"]["answer"], row["target"]["scale"]
    if scale == "percent":
        return [f"{-value}", f"{value * 100:f}%"]
    wrong_scale = {"none": "thousand", "thousand": "million", "million": "billion", "billion": "million"}[
        scale
    ]
    return [f"{-value}", f"{value} {wrong_scale}", f"{value}%"]
