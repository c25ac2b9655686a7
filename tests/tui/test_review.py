"""Judging answers by keyboard: each word is on disk at once, and none is lost or doubled."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
from fakes import FakeRun
from screen import does, terminal
from typer.testing import CliRunner

from harness.cli import app
from harness.review.answers import Judgement, Review, read_reviews, review_path, say, standing
from harness.tui.views.samples import SampleIndex

SUITE = "legal-clauses"


def reviews(home: Path, run: FakeRun, stage: str = "q5_k_m") -> list[Review]:
    return read_reviews(review_path(home, run.run, stage, SUITE))


@does("review.right")
async def test_each_word_is_on_disk_and_the_next_answer_is_shown(finished: FakeRun, home: Path) -> None:
    async with terminal(home) as screen:
        assert "item 1/60  60 left" in await screen.press("7")
        first = screen.desk.context().sample
        assert "item 2/60  59 left" in await screen.press("r")
        assert [(one.sample, one.by, one.judgement) for one in reviews(home, finished)] == [
            (first, "ana", Judgement.RIGHT)
        ]


async def test_nobody_sees_the_gold_the_score_or_the_confidence(finished: FakeRun, home: Path) -> None:
    async with terminal(home) as screen:
        text = await screen.press("7")
        body = "\n".join(text.splitlines()[3:-3])
        assert not [word for word in ("GOLD", "score ", "0.", "✓", "✗", "κ") if word in body]


@does("review.comment", "review.wrong")
async def test_a_comment_is_kept_with_the_next_word_alone(finished: FakeRun, home: Path) -> None:
    async with terminal(home) as screen:
        await screen.press("7", "c", *"why", "enter")
        await screen.press("w", "w")
        assert [one.why for one in reviews(home, finished)] == ["why", ""]


@does("review.correct")
async def test_a_correction_is_kept_with_the_next_word_alone(finished: FakeRun, home: Path) -> None:
    async with terminal(home) as screen:
        text = await screen.press("7", "e", *"Termination", "enter", "c", *"why", "enter")
        assert "right answer Termination" in text
        await screen.press("w", "w")
        assert [(one.correction, one.why) for one in reviews(home, finished)] == [
            ("Termination", "why"),
            (None, ""),
        ]
        assert "→ Termination" in await screen.press("k", "k")


@does("review.undo")
async def test_undo_shows_the_answer_again(finished: FakeRun, home: Path) -> None:
    async with terminal(home) as screen:
        await screen.press("7", "r")
        second = screen.desk.context().sample
        await screen.press("w")
        assert "59 left" in await screen.press("U")
        assert screen.desk.context().sample == second
        assert len(standing(reviews(home, finished))) == 1


@does("review.skip", "review.unclear", "review.bad_item")
async def test_who_comes_back_goes_on_where_the_queue_was_left(finished: FakeRun, home: Path) -> None:
    async with terminal(home) as screen:
        await screen.press("7", "r", "w", "s", "v", "b")
        left = screen.desk.context().sample
    async with terminal(home) as screen:
        assert "item 6/60  55 left" in await screen.press("7")
        assert screen.desk.context().sample == left


@does("review.open")
async def test_enter_shows_all_that_is_known_of_the_answer(finished: FakeRun, home: Path) -> None:
    async with terminal(home) as screen:
        await screen.press("7", "j")
        here = screen.desk.context().sample
        text = await screen.press("enter")
        assert "▌3 Samples" in text
        assert f"› {here}" in text
        assert " CONFIDENCE " in text


async def test_agreement_is_shown_only_when_the_queue_is_done(finished: FakeRun, home: Path) -> None:
    async with terminal(home) as screen:
        assert "agreement is shown when the queue is done" in await screen.press("7")
        text = await screen.press(*"r" * 60)
        assert "AGREEMENT" in text
        assert "n=60" in text
        assert "0 left" in text


@does("review.adjudicate")
async def test_disputes_are_adjudicated_in_sight_of_what_was_said(
    finished: FakeRun, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with terminal(home) as screen:
        assert "no two reviewers disagree" in await screen.press("7", "a")
        await screen.press("r")
    path = review_path(home, finished.run, "q5_k_m", SUITE)
    index = SampleIndex(finished.folder / "stages" / "q5_k_m" / SUITE / "samples.jsonl")
    while index.look():
        pass
    at = index.find(reviews(home, finished)[0].sample)
    assert at is not None
    say(path, index.data(at), "ben", Judgement.WRONG, why="not this clause")
    monkeypatch.setenv("HARNESS_REVIEWER", "cleo")
    async with terminal(home) as screen:
        text = await screen.press("7", "a")
        assert "ADJUDICATE" in text
        assert "not this clause" in text
        assert "ben" not in text
        await screen.press("w")
        assert reviews(home, finished)[-1].is_adjudication
        assert screen.desk.context().n_disputed == 0


async def test_the_key_and_its_command_say_the_same(
    finished: FakeRun, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness.tui.keys import named

    monkeypatch.setenv("HARNESS_HOME", str(home))
    async with terminal(home) as screen:
        await screen.press("7", "e", *"it's", "enter", "c", *"so", "enter")
        context = screen.desk.context()
        twin = str(named("wrong").twin(context))
        await screen.press("w")
    by_key = reviews(home, finished)[-1]
    done = CliRunner().invoke(app, [*shlex.split(twin)[1:], "--json"])
    assert done.exit_code == 0, done.output
    by_command = reviews(home, finished)[-1]
    assert replace(by_command, at=by_key.at, seconds=by_key.seconds) == by_key
    assert (by_key.correction, by_key.why) == ("it's", "so")
    shown = CliRunner().invoke(app, ["review", "last", "--stage", "q5_k_m"])
    assert "scorer and ana" in shown.output
    assert json.loads(done.stdout)["settled"] == {by_key.sample: "wrong"}


def test_the_command_says_what_it_does_not_know(
    finished: FakeRun, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_HOME", str(home))
    for words, said in (
        (["--answer", "nobody", "--judgement", "right"], "no sample 'nobody'"),
        (["--answer", "clause-0001", "--judgement", "good"], "wanted one of right"),
        (["--stage", "q9"], "it was scored at"),
        (["--judgement", "right"], "--answer"),
    ):
        done = CliRunner().invoke(app, ["review", "last", *words])
        assert said in str(done.exception)
    assert reviews(home, finished) == []
