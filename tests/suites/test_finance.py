"""The records and suites of finance: what their README promises, and arithmetic done again."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

import pytest

from harness.data.records import Record
from harness.scoring.arithmetic import derivation
from harness.scoring.item import Item
from harness.scoring.number_match import number
from harness.scoring.scorers import SCORERS
from tests.evals.fakes import run
from tests.suites import domains
from tests.suites.domains import Loaded


@pytest.fixture(scope="module")
def reports() -> Loaded:
    return domains.load("finance/risks")


def test_each_split_has_the_size_that_the_readme_states(reports: Loaded) -> None:
    assert domains.sizes(reports) == {"train": 384, "dev": 40, "calibration": 64, "eval": 128}


def test_every_label_is_equally_frequent_in_every_split(reports: Loaded) -> None:
    assert domains.is_balanced(reports)


def test_splits_share_no_report_id_or_text_and_no_two_records_are_nearly_the_same(reports: Loaded) -> None:
    assert domains.shared(reports) == []
    assert domains.nearly_the_same(reports) == []


def test_records_are_clean_text_with_the_documented_keys_and_ids(reports: Loaded) -> None:
    assert domains.unclean(reports) == []
    assert domains.lines_are_plain(reports)
    assert sorted(one.id for one in reports.records) == [f"finance-risk-{n:04d}" for n in range(1, 617)]


def test_a_report_says_each_label_once(reports: Loaded) -> None:
    said: dict[str, list[str]] = defaultdict(list)
    for record in reports.records:
        said[record.unit].append(record.targets[0])
    assert len(said) == 77
    assert all(sorted(labels) == sorted(reports.suite.labels) for labels in said.values())


def test_a_word_count_solves_a_part_of_the_task_and_the_readme_says_which(reports: Loaded) -> None:
    pytest.importorskip("sklearn")
    hits, n = domains.baseline_hits(reports), len(reports.splits["eval"])
    stated = re.search(rf"names (\d+) of {n}", (reports.path.parent / "README.md").read_text("utf-8"))

    assert 0.45 < hits / n < 0.75
    assert stated is not None
    # Another version of the solver may tip a record that lies on the border.
    assert abs(int(stated[1]) - hits) <= 2


HEDGES = re.compile(
    r"\b(may|might|could|would|can|cannot|should|if|unless|possible|probably|likely|likelier|were to|depends?|perhaps"
    r"|risk)\b",
    re.IGNORECASE,
)


def test_a_hedged_sentence_says_a_hedging_word(reports: Loaded) -> None:
    for record in reports.records:
        assert (record.slices["wording"] == "hedged") == bool(HEDGES.search(record.input)), record.id
    assert min(domains.slice_sizes(reports.splits["eval"], "wording").values()) >= 20


def number_item(record: Record, answer: str | None) -> Item:
    return Item(
        answer, record.targets, target=record.target, context=record.context, meta=record.raw,
        settings={"scale_field": "target.scale", "decimals": 1},
    )  # fmt: skip


def test_every_gold_number_follows_from_its_derivation_and_the_table() -> None:
    for record in domains.load("finance/numbers", is_whole=True).splits["eval"]:
        arithmetic = record.raw["target"]["derivation"]
        assert derivation(number_item(record, arithmetic)).value == 1.0, record.id
        for operand in re.findall(r"\d+\.\d+|\d+%", arithmetic):
            assert operand in record.context.replace(",", ""), (record.id, operand)


def test_planted_errors_of_unit_scale_sign_and_row_are_found_and_named() -> None:
    found: dict[str, list[str | None]] = defaultdict(list)
    for record in domains.load("finance/numbers", is_whole=True).splits["eval"]:
        value, scale = record.raw["target"]["answer"], record.raw["target"]["scale"]
        planted = {
            "sign_slip": f"{-value}",
            "percent_slip": f"{value * 100}%" if scale == "percent" else f"{value}%",
        }
        if scale != "percent":
            planted["scale_slip"] = f"{value} billion"
        for name, answer in planted.items():
            score = number(number_item(record, answer))
            assert score.value == 0.0, (record.id, answer)
            found[name].append(score.error_class)
    assert {name: set(classes) for name, classes in found.items()} == {
        "sign_slip": {"sign_slip"}, "percent_slip": {"percent_slip"}, "scale_slip": {"scale_slip"},
    }  # fmt: skip


def test_the_generator_writes_the_files_that_are_there(tmp_path: Path) -> None:
    import runpy

    folder = domains.ROOT / "suites/finance"
    made = runpy.run_path(str(folder / "make_numbers.py"))
    assert made["main"]([str(tmp_path)]) == 0
    for name in ("numbers.jsonl", "reports.jsonl"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


@pytest.mark.parametrize("name", ["numbers", "summaries"])
def test_what_is_right_scores_one_and_what_is_wrong_scores_less(name: str, tmp_path: Path) -> None:
    work = domains.work_of(domains.load(f"finance/{name}"))

    right = run(domains.answering(work, rightly=True), work, tmp_path / "right")
    wrong = run(domains.answering(work, rightly=False), work, tmp_path / "wrong")

    assert [one.id for one in right if one.score < 1.0 or one.error] == []
    # Without a number or a name, `grounded` has nothing to object to: the other scorers do.
    assert [
        one.id for one in wrong if max(one.score, one.scores.get("certainty", 0.0)) > 0 and name == "numbers"
    ] == []
    assert all(
        one.scores["certainty"] == one.scores["statements"] == 0.0 for one in wrong if name == "summaries"
    )


def test_references_of_summaries_satisfy_every_validator_and_planted_claims_do_not() -> None:
    names = ("grounded", "certainty", "forbidden_claims", "statements")
    for record in domains.load("finance/summaries").splits["eval"]:
        item = Item(record.targets[0], record.targets, context=record.context, settings={"derive": False})
        assert [SCORERS[name](item).value for name in names] == [1.0] * 4, record.id
        promised = Item(
            f"{record.targets[0]} Returns are guaranteed.", record.targets, context=record.context
        )
        assert SCORERS["forbidden_claims"](promised).error_class == "guarantee"
        inflated = Item(
            f"{record.targets[0]} Losses were 987.6 million.", record.targets, context=record.context
        )
        assert SCORERS["grounded"](inflated).error_class == "unsupported_number"
