"""People's words on a random few correct a scorer's on all."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from harness.cli import app
from harness.errors import DataError
from harness.review.answers import Judgement, Review, answer_digest
from harness.review.corrected import CorrectedRate, corrected_rate, random_draw
from harness.review.outcome import outcome_of

N = 60


def sample(index: int, score: float, **more: Any) -> dict[str, Any]:
    return {"id": f"s{index}", "gold": ["yes"], "answer": "yes", "output": "yes", "score": score, "unit": f"u{index}",
            "slices": {}, **more}  # fmt: skip


def word(one: dict[str, Any], judgement: Judgement) -> Review:
    return Review(one["id"], "ann", judgement, "2026-01-01T00:00:00+00:00", answer_digest(one))


def judged(
    samples: list[dict[str, Any]], truth: dict[str, bool], n: int = N, seed: int = 17
) -> CorrectedRate:
    """The rate after somebody who knows the truth has judged the draw."""
    drawn = set(random_draw(samples, n, seed))
    words = [
        word(one, Judgement.RIGHT if truth[one["id"]] else Judgement.WRONG)
        for one in samples
        if one["id"] in drawn
    ]
    return corrected_rate(samples, outcome_of(samples, words), n=n, seed=seed)


def world(seed: int, n: int = 400) -> tuple[list[dict[str, Any]], dict[str, bool]]:
    """Answers of which 60 % are right, and a scorer that calls a third of the wrong ones right as well."""
    chance = random.Random(seed)
    truth = {f"s{at}": chance.random() < 0.6 for at in range(n)}
    samples = [sample(at, float(truth[f"s{at}"] or chance.random() < 1 / 3)) for at in range(n)]
    return samples, truth


def test_a_scorer_that_flatters_is_corrected_and_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    """0.95 of 300 worlds, within three standard errors; the scorer's own mean is off by 0.13."""
    found = [judged(*world(seed), seed=seed) for seed in range(300)]
    covered = sum(one.interval is not None and one.interval.low <= 0.6 <= one.interval.high for one in found)

    assert sum(one.scorer for one in found) / 300 == pytest.approx(0.6 + 0.4 / 3, abs=0.01)
    assert sum(one.rate or 0.0 for one in found) / 300 == pytest.approx(0.6, abs=0.015)
    assert covered / 300 >= 0.91


def test_a_scorer_that_agrees_with_people_is_worth_more_than_their_words_alone() -> None:
    samples, truth = world(1)

    found = judged(samples, truth)

    assert found.worth is not None
    assert found.worth > found.n


def test_without_every_drawn_word_there_is_no_rate_and_those_that_wait_are_named() -> None:
    samples, _ = world(2)

    found = corrected_rate(samples, outcome_of(samples, [word(samples[0], Judgement.RIGHT)]), n=N)

    assert (found.rate, found.interval) == (None, None)
    assert set(found.waiting) >= set(random_draw(samples, N, 17)) - {"s0"}
    assert "no word that stands" in found.reason


def test_words_on_answers_that_were_not_drawn_change_nothing() -> None:
    samples, truth = world(3)
    drawn = set(random_draw(samples, N, 17))
    words = [
        word(one, Judgement.RIGHT if truth[one["id"]] else Judgement.WRONG)
        for one in samples
        if one["id"] in drawn
    ]
    others = [word(one, Judgement.WRONG) for one in samples if one["id"] not in drawn]

    few, all_ = (corrected_rate(samples, outcome_of(samples, said), n=N) for said in (words, words + others))

    assert few == all_


def test_an_unclear_answer_keeps_waiting() -> None:
    samples, _ = world(4)
    first = random_draw(samples, N, 17)[0]
    words = [word(one, Judgement.UNCLEAR if one["id"] == first else Judgement.RIGHT) for one in samples]

    assert corrected_rate(samples, outcome_of(samples, words), n=N).waiting == (first,)


def test_a_larger_draw_only_adds() -> None:
    samples, _ = world(5)

    assert random_draw(samples, 80, 17)[:40] == random_draw(samples, 40, 17)
    assert random_draw(samples, 40, 17) != random_draw(samples, 40, 18)


@pytest.mark.parametrize(
    ("more", "why"), [({"unit": "one"}, "share units"), ({"gold": []}, "no scorer has judged")]
)
def test_what_the_interval_does_not_hold_for_gets_none(more: dict[str, Any], why: str) -> None:
    samples, truth = world(6)

    found = judged([{**one, **more} for one in samples], truth)

    assert found.interval is None
    assert why in found.reason


def test_words_that_are_all_the_same_are_no_certainty() -> None:
    samples = [sample(at, 1.0) for at in range(100)]

    found = judged(samples, {one["id"]: True for one in samples})

    assert found.interval is None
    assert "no spread" in found.reason


@pytest.mark.parametrize("n", [0, 29, 401])
def test_too_few_and_too_many_are_refused(n: int) -> None:
    samples, _ = world(7)
    with pytest.raises(DataError, match="to draw of 400"):
        corrected_rate(samples, outcome_of(samples, []), n=n)


def test_the_command_lists_what_is_to_judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    golden = Path(__file__).parents[1] / "golden" / "runs"
    (tmp_path / "runs").symlink_to(golden)
    monkeypatch.setenv("HARNESS_HOME", str(tmp_path))

    done = CliRunner().invoke(app, ["review", "demo", "--stage", "q4_k_m", "--corrected", "40", "--json"])

    document = json.loads(done.stdout)["corrected"]
    assert len(document["waiting"]) == document["n"] == 40
    assert document["rate"] is None
