"""Samples become inspect logs and come back; what a log leaves open is never counted as right."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest

from harness.errors import DataError
from harness.formats.inspect_read import read_inspect
from harness.formats.inspect_write import inspect_eval, inspect_name
from harness.formats.log import Log, Wanted
from tests.formats.logs import HOSTILE, log, sample, samples


def saved(tmp_path: Path, found: Log) -> Path:
    path = tmp_path / inspect_name(found)
    path.write_bytes(inspect_eval(found))
    return path


def changed(path: Path, member: str, change: dict[str, Any]) -> Path:
    """A copy of the log whose member has other values."""
    copy = path.with_name("changed.eval")
    with ZipFile(path) as old, ZipFile(copy, "w") as new:
        for name in old.namelist():
            data = json.loads(old.read(name))
            new.writestr(name, json.dumps({**data, **change} if name == member else data))
    return copy


def test_samples_come_back_with_ids_scores_golds_and_errors(tmp_path: Path) -> None:
    back = {one.id: one for one in read_inspect(saved(tmp_path, log()), Wanted()).samples}

    for one in samples():
        assert back[one.id].score == one.score
        assert (back[one.id].error is None) == (one.error is None)
        assert back[one.id].unit == one.unit
    assert back["several"].gold == ("yes", "oui")
    assert back["several"].scores == {"label": 1.0, "exact": 1.0, "f1": 0.5}
    assert back["right"].slices == {"kind": "short", "tags": ["x", "y"]}
    assert (back["right"].prompt_tok, back["right"].output_tok, back["right"].latency_ms) == (30, 2, 12.5)


def test_hostile_text_comes_back_whole_but_for_halves_of_surrogates(tmp_path: Path) -> None:
    back = {one.id: one for one in read_inspect(saved(tmp_path, log()), Wanted()).samples}

    assert back["hostile"].output == HOSTILE.replace("\ud800", "\\ud800")
    assert back["hostile error"].error == HOSTILE.replace("\ud800", "\\ud800")
    assert back["long"].output == "x" * 2**20


def test_the_same_samples_give_the_same_bytes() -> None:
    assert inspect_eval(log()) == inspect_eval(log())


def test_a_log_without_a_header_was_not_finished(tmp_path: Path) -> None:
    path = saved(tmp_path, log(sample()))
    with ZipFile(path) as old, ZipFile(tmp_path / "open.eval", "w") as new:
        for name in old.namelist():
            if name != "header.json":
                new.writestr(name, old.read(name))

    with pytest.raises(DataError, match="was not finished"):
        read_inspect(tmp_path / "open.eval", Wanted())


@pytest.mark.parametrize(
    ("change", "why"),
    [({"status": "started"}, "not finished"), ({"version": 9}, "log version 9, wanted 2"), ({"eval": {}}, "eval.task")],
)  # fmt: skip
def test_a_header_that_means_something_else_is_refused(
    tmp_path: Path, change: dict[str, Any], why: str
) -> None:
    path = changed(saved(tmp_path, log(sample())), "header.json", change)

    with pytest.raises(DataError, match=why):
        read_inspect(path, Wanted())


def test_a_sample_that_the_data_set_has_and_the_log_lacks_counts_as_an_error(tmp_path: Path) -> None:
    path = saved(tmp_path, log(sample("a"), sample("b")))
    with ZipFile(path) as old, ZipFile(tmp_path / "cut.eval", "w") as new:
        for name in old.namelist():
            if name != "samples/b_epoch_1.json":
                new.writestr(name, old.read(name))

    found = {one.id: one for one in read_inspect(tmp_path / "cut.eval", Wanted()).samples}

    assert found["b"].score == 0.0
    assert "not in the log" in str(found["b"].error)


def test_one_sample_under_two_names_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, log(sample("a"), sample("b")))

    with pytest.raises(DataError, match="sample a is there twice"):
        read_inspect(changed(path, "samples/b_epoch_1.json", {"id": "a"}), Wanted())


@pytest.mark.parametrize(
    ("value", "score"),
    [("C", 1.0), ("I", 0.0), ("P", 0.5), ("N", 0.0), (True, 1.0), ("yes", 1.0), ("0.25", 0.25)],
)
def test_grades_are_read_as_inspect_counts_them(tmp_path: Path, value: Any, score: float) -> None:
    path = saved(tmp_path, log(sample("a")))
    found = read_inspect(
        changed(path, "samples/a_epoch_1.json", {"scores": {"label": {"value": value}}}), Wanted()
    )

    assert found.samples[0].score == score


@pytest.mark.parametrize("value", [7, -0.5, "good", [1, 0], float("inf")])
def test_a_score_that_is_no_share_is_refused_by_name_with_those_that_are(tmp_path: Path, value: Any) -> None:
    path = saved(tmp_path, log(sample("a")))
    scores = {"label": {"value": value}, "match": {"value": "C"}}

    with pytest.raises(DataError, match="metric label") as refused:
        read_inspect(changed(path, "samples/a_epoch_1.json", {"scores": scores}), Wanted())

    assert "match" in refused.value.hint


def test_a_score_that_is_not_a_number_is_an_error_and_stays_in_the_denominator(tmp_path: Path) -> None:
    path = saved(tmp_path, log(sample("a"), sample("b")))
    scores = {"label": {"value": float("nan"), "reason": "grader_failed"}}

    found = read_inspect(changed(path, "samples/a_epoch_1.json", {"scores": scores}), Wanted()).samples

    assert [(one.id, one.score, one.error) for one in found] == [
        ("a", 0.0, "not scored: grader_failed"), ("b", 1.0, None),
    ]  # fmt: skip


def test_a_score_with_several_values_is_read_by_the_value_s_name(tmp_path: Path) -> None:
    path = saved(tmp_path, log(sample("a")))
    scores = {"judge": {"value": {"tone": 0.5, "length": 412}}}

    found = read_inspect(changed(path, "samples/a_epoch_1.json", {"scores": scores}), Wanted(metric="tone"))

    assert found.samples[0].score == 0.5


def test_an_invalidated_sample_does_not_count_as_right(tmp_path: Path) -> None:
    path = saved(tmp_path, log(sample("a")))
    who = {"invalidation": {"timestamp": "2026-11-22T11:07:43+00:00", "author": "reviewer"}}

    found = read_inspect(changed(path, "samples/a_epoch_1.json", who), Wanted()).samples[0]

    assert (found.score, found.error) == (0.0, "invalidated after the evaluation")


def test_a_unit_that_a_sample_lacks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nothing at document"):
        read_inspect(saved(tmp_path, log(sample("a"))), Wanted(unit="document"))
