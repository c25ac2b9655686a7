"""Samples become files of lm-eval and come back; whatever does not add up is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.errors import DataError
from harness.formats.lm_eval_read import read_lm_eval, read_lm_eval_samples
from harness.formats.lm_eval_write import lm_eval_files
from harness.formats.log import Wanted
from harness.formats.reading import read_logs
from tests.formats.logs import HOSTILE, log, sample, samples

CHOICES = ("Paris", "the city of Rome", "Bonn")


def saved(tmp_path: Path, *logs: Any) -> Path:
    """The results file of the logs, with their samples beside it."""
    for name, text in lm_eval_files(logs).items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, "utf-8")
    return next(tmp_path.rglob("results_*.json"))


def choice_line(number: int, logprobs: list[float], target: Any = "0", **changes: Any) -> dict[str, Any]:
    """One document of a multiple-choice task, as lm-eval writes it."""
    arguments = {
        f"gen_args_{i}": {"arg_0": "Capital?", "arg_1": f" {choice}"} for i, choice in enumerate(CHOICES)
    }
    pairs = [[str(value), "False"] for value in logprobs]
    return {
        "doc_id": number, "doc": {"country": "France"}, "target": target, "arguments": arguments,
        "resps": [[pair] for pair in pairs], "filtered_resps": pairs, "filter": "none",
        "metrics": ["acc", "acc_norm"], "acc": 1.0, "acc_norm": 0.0, **changes,
    }  # fmt: skip


def written(tmp_path: Path, *rows: dict[str, Any]) -> Path:
    path = tmp_path / "samples_capitals_2026-11-22T11-29-01.931509.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def test_samples_come_back_with_ids_scores_golds_and_errors(tmp_path: Path) -> None:
    found = read_lm_eval(saved(tmp_path, log()), Wanted())[0]

    back = {one.id: one for one in found.samples}
    assert {id_: one.score for id_, one in back.items()} == {one.id: one.score for one in samples()}
    assert {id_ for id_, one in back.items() if one.error} == {"broken", "hostile error"}
    assert back["several"].gold == ("yes", "oui")
    assert back["right"].slices == {"kind": "short", "tags": ["x", "y"]}
    assert back["hostile"].answer == HOSTILE.replace("\ud800", "\\ud800")
    assert (found.task, found.model) == ("legal-clauses", "embedded:smollm2-135m")


def test_all_suites_of_a_model_share_a_results_file(tmp_path: Path) -> None:
    path = saved(tmp_path, log(sample(), task="a"), log(sample(score=0.0), task="b"))

    assert json.loads(path.read_text())["results"].keys() == {"a", "b"}
    assert [one.task for one in read_lm_eval(path, Wanted())] == ["a", "b"]


def test_the_standard_error_is_the_one_of_a_mean() -> None:
    files = lm_eval_files([log(*(sample(str(i), score=float(i < 3)) for i in range(4)))])

    results = json.loads(next(text for name, text in files.items() if "results_" in name))
    assert results["results"]["legal-clauses"]["label,none"] == 0.75
    # p (1 - p) / (n - 1) = 0.75 * 0.25 / 3 = 1/16
    assert results["results"]["legal-clauses"]["label_stderr,none"] == pytest.approx(0.25)


def test_the_choice_that_counts_depends_on_the_metric(tmp_path: Path) -> None:
    """-3 is the most; by characters -3/5, -4/16 and -8/4 are compared, and the long one wins."""
    path = written(tmp_path, choice_line(0, [-3.0, -4.0, -8.0]))

    plain = read_lm_eval_samples(path, Wanted()).samples[0]
    by_length = read_lm_eval_samples(path, Wanted(metric="acc_norm")).samples[0]

    assert (plain.answer, plain.score, plain.gold) == ("Paris", 1.0, ("Paris",))
    assert (by_length.answer, by_length.score) == ("the city of Rome", 0.0)
    # e^-3 / (e^-3 + e^-4 + e^-8) = 1 / (1 + e^-1 + e^-5)
    assert plain.confidence == pytest.approx(0.7274752)
    assert plain.scores == {"acc": 1.0, "acc_norm": 0.0}
    assert plain.choice_logprobs == (-3.0, -4.0, -8.0)


@pytest.mark.parametrize(
    ("target", "gold"),
    [("1", ("the city of Rome",)), ("[0, 2]", ("Paris", "Bonn")), ("Bonn", ("Bonn",))],
)
def test_a_target_is_a_choice_s_number_or_text(tmp_path: Path, target: str, gold: tuple[str, ...]) -> None:
    path = written(tmp_path, choice_line(0, [-3.0, -4.0, -8.0], target))

    assert read_lm_eval_samples(path, Wanted()).samples[0].gold == gold


def test_each_filter_is_a_metric_of_its_own(tmp_path: Path) -> None:
    base = {
        "doc_id": 0,
        "doc": {},
        "target": "5",
        "arguments": {},
        "resps": [["so 5"]],
        "metrics": ["exact_match"],
    }
    path = written(
        tmp_path, {**base, "filter": "strict", "filtered_resps": ["[invalid]"], "exact_match": 0.0},
        {**base, "filter": "loose", "filtered_resps": ["5"], "exact_match": 1.0},
    )  # fmt: skip

    first = read_lm_eval_samples(path, Wanted())
    loose = read_lm_eval_samples(path, Wanted(metric="exact_match,loose"))

    assert (first.metric, first.samples[0].score) == ("exact_match,strict", 0.0)
    assert (loose.metric, loose.samples[0].score, loose.samples[0].answer) == ("exact_match,loose", 1.0, "5")
    with pytest.raises(DataError, match="no metric exact_match,none") as refused:
        read_lm_eval_samples(path, Wanted(metric="exact_match,none"))
    assert "exact_match,loose" in refused.value.hint


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-0.1", "17.5", '"1"', "[0, 1]", "null"])
def test_a_metric_that_is_no_share_is_refused_with_its_line(tmp_path: Path, value: str) -> None:
    path = written(tmp_path, choice_line(0, [-1.0, -2.0, -3.0]), choice_line(1, [-1.0, -2.0, -3.0], acc=123))
    path.write_text(path.read_text().replace("123", value))

    with pytest.raises(DataError, match=r"line 2: metric acc is .*, wanted a number from 0 to 1") as refused:
        read_lm_eval_samples(path, Wanted())

    assert refused.value.hint == "metrics with such numbers here: acc_norm; choose one with --metric"


def test_a_document_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, choice_line(0, [-1.0, -2.0, -3.0]), choice_line(0, [-1.0, -2.0, -3.0]))

    with pytest.raises(DataError, match="sample 0 is there twice"):
        read_lm_eval_samples(path, Wanted())


def test_documents_with_one_id_of_their_own_are_told_apart_by_number(tmp_path: Path) -> None:
    rows = [choice_line(number, [-1.0, -2.0, -3.0], doc={"id": "same"}) for number in range(2)]

    assert [one.id for one in read_lm_eval_samples(written(tmp_path, *rows), Wanted()).samples] == ["0", "1"]


def test_slices_and_units_are_read_from_the_document(tmp_path: Path) -> None:
    doc = {"meta": {"region": "EU", "depth": 3}, "patient": "p7"}
    path = written(tmp_path, choice_line(0, [-1.0, -2.0, -3.0], doc=doc))

    one = read_lm_eval_samples(path, Wanted(slices=("meta.region", "meta.depth"), unit="patient")).samples[0]

    assert (one.slices, one.unit) == ({"region": "EU", "depth": "3"}, "p7")


def test_a_line_that_is_cut_off_is_named(tmp_path: Path) -> None:
    path = written(tmp_path, choice_line(0, [-1.0, -2.0, -3.0]), choice_line(1, [-1.0, -2.0, -3.0]))
    path.write_bytes(path.read_bytes()[:-20])

    with pytest.raises(DataError, match="line 2: not JSON"):
        read_lm_eval_samples(path, Wanted())


def test_results_without_samples_say_what_is_missing(tmp_path: Path) -> None:
    path = saved(tmp_path, log(sample()))
    next(path.parent.glob("samples_*")).unlink()

    with pytest.raises(DataError, match="beside it") as refused:
        read_lm_eval(path, Wanted())

    assert "--log_samples" in refused.value.hint


@pytest.mark.parametrize(("name", "text", "why"), [
    ("a.txt", "", "not a log that can be read"), ("a.json", "{}", "neither inspect's nor lm-eval's"),
    ("a.json", "[1]", "list, wanted a JSON object"), ("a.json", "[" * 100_000, "not JSON"),
    ("a.jsonl", '{"x": 1}\n', "no sample of lm-eval"), ("a.jsonl", "", "no samples"),
])  # fmt: skip
def test_what_is_no_log_is_refused(tmp_path: Path, name: str, text: str, why: str) -> None:
    (tmp_path / name).write_text(text)

    with pytest.raises(DataError, match=why):
        read_logs([tmp_path / name], Wanted())
