"""Reviews: nothing that was said is lost, nobody's word counts twice, and agreement is what statsmodels says."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.inter_rater import cohens_kappa as oracle

from harness.errors import DataError
from harness.review.agreement import cohens_kappa
from harness.review.answers import Judgement, answer_digest, read_reviews, review_path, say, standing
from harness.review.outcome import outcome_of, to_records
from harness.review.queue import make_queue

RIGHT, WRONG = Judgement.RIGHT, Judgement.WRONG


def sample(index: int, **more: Any) -> dict[str, Any]:
    return {
        "id": f"s{index}", "gold": ["yes"], "answer": "yes", "output": "yes", "score": 1.0, "confidence": index / 100,
        "slices": {"kind": "abc"[index % 3]}, "unit": f"u{index}", **more,
    }  # fmt: skip


SAMPLES = [sample(index) for index in range(90)]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return review_path(tmp_path, "run", "base", "suite")


# Agreement


def test_kappa_of_a_published_table() -> None:
    # Two readers of 50 grant proposals, the example of many textbooks: 35 alike, 25 by chance.
    cells = [(True, True)] * 20 + [(True, False)] * 5 + [(False, True)] * 10 + [(False, False)] * 15
    a = {str(at): first for at, (first, _) in enumerate(cells)}
    b = {str(at): second for at, (_, second) in enumerate(cells)}
    found = cohens_kappa(a, b)
    assert found.n == 50
    assert found.kappa == pytest.approx(0.4)


@given(cells=st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=60))
def test_kappa_and_its_bounds_are_what_statsmodels_says(cells: list[tuple[bool, bool]]) -> None:
    a = {str(at): first for at, (first, _) in enumerate(cells)}
    b = {str(at): second for at, (_, second) in enumerate(cells)}
    found = cohens_kappa(a, b)
    table = np.array([[sum(pair == (i, j) for pair in cells) for j in (0, 1)] for i in (0, 1)])
    if found.kappa is None:
        assert max(table.sum(0)) == max(table.sum(1)) == len(cells)
        return
    with np.errstate(all="ignore"):
        wanted = oracle(table)
    assert found.kappa == pytest.approx(wanted.kappa)
    if np.isnan(wanted.kappa_low):  # its variance, 0 in truth, came out below 0
        assert found.low == pytest.approx(found.kappa, abs=1e-6)
        return
    assert found.low == pytest.approx(max(-1.0, wanted.kappa_low), abs=1e-6)
    assert found.high == pytest.approx(min(1.0, wanted.kappa_upp), abs=1e-6)


def test_no_items_have_no_agreement() -> None:
    assert cohens_kappa({}, {"a": True}).kappa is None
    assert cohens_kappa({"a": True}, {"a": True}).kappa is None
    assert cohens_kappa({"a": True, "b": True}, {"a": True, "b": True}).observed == 1.0


# What was said


def test_the_last_word_stands_and_can_be_taken_back(log: Path) -> None:
    say(log, SAMPLES[0], "ana", RIGHT)
    say(log, SAMPLES[0], "ana", WRONG, why="it says the opposite")
    assert standing(read_reviews(log))["ana", "s0"].judgement is WRONG
    say(log, SAMPLES[0], "ana", Judgement.UNDONE)
    assert standing(read_reviews(log)) == {}
    assert len(read_reviews(log)) == 3


def test_a_torn_last_line_is_cut_off_and_nothing_else(log: Path) -> None:
    say(log, SAMPLES[0], "ana", RIGHT)
    with log.open("ab") as file:
        file.write(b'{"sample": "s1", "by": "a')
    assert len(read_reviews(log)) == 1
    say(log, SAMPLES[1], "ana", WRONG)
    assert [one.sample for one in read_reviews(log)] == ["s0", "s1"]


def test_a_spoiled_line_is_named(log: Path) -> None:
    say(log, SAMPLES[0], "ana", RIGHT)
    with log.open("ab") as file:
        file.write(b'{"sample": "s1"}\n')
    with pytest.raises(DataError, match="line 2"):
        read_reviews(log)


def _say_many(path: Path, by: str) -> None:
    for index in range(25):
        say(path, SAMPLES[index], by, RIGHT)


def test_people_who_write_at_once_lose_nothing(log: Path) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_say_many, args=(log, name)) for name in ("ana", "ben", "cleo")]
    for one in writers:
        one.start()
    for one in writers:
        one.join()
    assert len(standing(read_reviews(log))) == 75


def test_a_review_needs_a_name(log: Path) -> None:
    with pytest.raises(DataError, match="name"):
        say(log, SAMPLES[0], "  ", RIGHT)
    assert not log.exists()


# The queue


def test_the_queue_is_the_same_for_everybody_and_has_both_kinds() -> None:
    queue = make_queue(SAMPLES, n=30)
    assert queue == make_queue(list(reversed(SAMPLES)), n=30)
    assert len({item.sample["id"] for item in queue}) == 30
    unsure = [item for item in queue if "least sure" in item.reason]
    assert {item.sample["id"] for item in unsure} == {f"s{index}" for index in range(15)}
    drawn = [item.reason for item in queue if "drawn from" in item.reason]
    assert {name: drawn.count(name) for name in set(drawn)} == {
        f"drawn from kind={value}": 5 for value in "abc"
    }


def test_what_was_not_answered_is_not_asked_about() -> None:
    assert make_queue([sample(1, answer=None), sample(2)], n=5)[0].sample["id"] == "s2"
    assert make_queue([], n=5) == []


def test_samples_without_confidence_and_slices_are_drawn_too() -> None:
    plain = [sample(index, confidence=None, slices={}) for index in range(10)]
    assert len(make_queue(plain, n=4)) == 4


# What it comes to


def test_agreeing_words_stand_and_disputes_wait_for_an_adjudicator(log: Path) -> None:
    for by, word in (("ana", RIGHT), ("ben", RIGHT)):
        say(log, SAMPLES[0], by, word)
    for by, word in (("ana", RIGHT), ("ben", WRONG)):
        say(log, SAMPLES[1], by, word)
    found = outcome_of(SAMPLES, read_reviews(log))
    assert set(found.settled) == {"s0"}
    assert found.disputed == ("s1",)
    say(log, SAMPLES[1], "cleo", WRONG, is_adjudication=True)
    found = outcome_of(SAMPLES, read_reviews(log))
    assert found.disputed == ()
    assert found.settled["s1"].judgement is WRONG
    assert "cleo" not in found.n_by_reviewer


def test_a_review_of_another_answer_does_not_count(log: Path) -> None:
    say(log, sample(3, output="no"), "ana", WRONG)
    found = outcome_of(SAMPLES, read_reviews(log))
    assert found.outdated == ("s3",)
    assert found.settled == {}
    assert answer_digest(sample(3)) != answer_digest(sample(3, output="no"))


def test_people_are_compared_with_the_scorer(log: Path) -> None:
    samples = [sample(index, score=float(index % 2)) for index in range(10)]
    for index, one in enumerate(samples):
        say(log, one, "ana", RIGHT if index % 2 else WRONG)
    agreed = outcome_of(samples, read_reviews(log)).with_scorer["ana"]
    assert agreed.kappa == 1.0
    assert agreed.n == 10


def test_records_come_from_what_stands_with_who_and_why(log: Path) -> None:
    say(log, SAMPLES[0], "ana", RIGHT)
    say(log, SAMPLES[1], "ana", WRONG, why="other party", correction="no")
    say(log, SAMPLES[2], "ana", WRONG)
    say(log, SAMPLES[3], "ana", Judgement.BAD_ITEM)
    inputs = {f"s{index}": f"text {index}" for index in range(4)}
    records = list(to_records(SAMPLES, outcome_of(SAMPLES, read_reviews(log)), inputs, run="r", stage="base"))
    assert [(one["input"], one["target"]) for one in records] == [("text 0", "yes"), ("text 1", "no")]
    assert records[1]["meta"]["by"] == "ana"
    assert records[1]["meta"]["why"] == "other party"
