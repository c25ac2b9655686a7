"""What a release keeps of how its answers were spread."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from harness.evals.reference import CONFIDENCE_EDGES, distribution, reference_of
from harness.export.release import verify, write_release
from tests.evals.builders import sample
from tests.export.releases import edit, make_contents


def test_labels_confidences_lengths_and_slices_are_counted() -> None:
    found = [
        sample(
            n,
            right=n < 3,
            confidence=0.2 * n,
            prompt_tok=10 + n,
            slices={"style": ["rude", "typos"][: 1 + n % 2]},
        )
        for n in range(5)
    ]
    found.append(sample(9, answer=None, confidence=None, error="no memory"))

    kept = reference_of(found, slices=("style", "channel"), is_labelled=True)

    assert (kept["n"], kept["units"], kept["errors"]) == (6, 6, 1)
    assert kept["answers"] == {"(none)": 1, "a": 3, "b": 2}
    assert kept["slices"] == {"style": {"rude": 5, "typos": 2}, "channel": {}}
    assert kept["confidence"]["n"] == 5
    assert kept["prompt_tok"]["quantiles"][0] == 10
    assert kept["prompt_tok"]["quantiles"][-1] == 14
    assert kept["output_tok"] is None


def test_what_is_not_known_is_not_zero() -> None:
    kept = reference_of([sample(1)], slices=(), is_labelled=False)

    assert (kept["confidence"], kept["prompt_tok"], kept["output_tok"], kept["answers"]) == (None,) * 4


def test_no_text_of_a_record_or_an_answer_goes_in() -> None:
    secret = "my card is 4000 0566 5566 5556"
    found = [sample(1, answer=secret, output=secret, gold=(secret,), unit="conversation with Ann")]

    kept = json.dumps(reference_of(found, slices=(), is_labelled=False))

    assert "4000" not in kept
    assert "Ann" not in kept


@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=60))
def test_every_value_falls_into_one_bin_and_quantiles_are_values(values: Sequence[float]) -> None:
    found = distribution(values, CONFIDENCE_EDGES)

    assert found is not None
    assert sum(found["counts"]) == len(values)
    assert len(found["counts"]) == len(found["edges"]) + 1
    assert set(found["quantiles"]) <= set(values)
    assert (found["quantiles"][0], found["quantiles"][-1]) == (min(values), max(values))


@given(st.lists(st.sampled_from([0.0, 0.05, 0.5, 0.95, 1.0]), min_size=1, max_size=30))
def test_a_value_on_an_edge_belongs_to_the_bin_above_it(values: Sequence[float]) -> None:
    found = distribution(values, CONFIDENCE_EDGES)

    assert found is not None
    assert found["counts"][0] == sum(value < 0.05 for value in values)
    assert found["counts"][-1] == sum(value >= 0.95 for value in values)


def test_the_release_holds_it_to_its_digest(tmp_path: Path) -> None:
    kept = reference_of([sample(n, confidence=0.5) for n in range(4)], slices=(), is_labelled=True)
    contents = replace(make_contents(tmp_path), reference={"clauses": kept})

    folder = write_release(tmp_path / "release", contents).folder

    assert json.loads((folder / "reference.json").read_text()) == {
        "stage": "q4_0",
        "suites": {"clauses": kept},
    }
    assert verify(folder).ok
    edit(folder, "reference.json", lambda document: document["suites"]["clauses"].update(n=5))
    assert "digests" in {check.name for check in verify(folder).failed}
