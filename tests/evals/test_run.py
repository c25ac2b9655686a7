import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.data.records import Record
from harness.errors import CancelledError, DataError, RunDiedError, StatsError
from harness.evals import run as run_module
from harness.evals.run import Tally, Work, evaluate
from harness.models.base import Answer, ChoiceRequest, Identity, Prompt
from harness.scoring import scorers as scorers_module
from harness.scoring.item import Item, Score
from harness.scoring.labels import label as label_score
from harness.specs.suite import ScorerSpec, Suite
from tests.evals.builders import sample

SUITE = Suite.model_validate(
    {
        "suite": "tiny", "domain": "shared", "task": "classify", "labels": ["yes", "no"], "slices": ["kind"],
        "records": {"eval": "e.jsonl"}, "prompt": {"user": "{{ input }}?"}, "repeat": 0,
    }
)  # fmt: skip


class Counting:
    """A model that counts what it is asked, in batches of three."""

    def __init__(self, digest: str = "m", reply: str = "yes") -> None:
        self.identity = Identity(digest, "scripted", "", "", "", "", "")
        self.asked: list[str] = []
        self._reply = reply
        self.shuffle = lambda answers: answers

    def plan(self, requests: Sequence[Any]) -> list[list[int]]:
        return [list(range(k, min(k + 3, len(requests)))) for k in range(0, len(requests), 3)]

    def score_choices(self, requests: Sequence[ChoiceRequest]) -> Iterator[Answer]:
        self.asked += [request.id for request in requests]
        answers = [
            Answer(r.id, choice_logprobs=tuple(-0.1 if c == self._reply else -3.0 for c in r.choices))
            for r in requests
        ]
        yield from self.shuffle(answers)

    generate = score_choices  # type: ignore[assignment]

    def token_ids(self, prompt: Prompt) -> list[int]:
        return []

    def close(self) -> None:
        pass


def work(n: int = 8) -> Work:
    records = tuple(
        Record(
            f"r{k}",
            f"text {k}",
            ("yes",) if k % 2 else ("no",),
            {"kind": "odd" if k % 2 else "even"},
            f"u{k}",
            {},
        )
        for k in range(n)
    )
    return Work("base", SUITE, ("yes", "no"), records)


def run(model: Counting, path: Path, *, stop_after: int = 10**9, asked: Work | None = None) -> list[Any]:
    def should_stop() -> bool:
        return len(model.asked) >= stop_after

    return evaluate(model, asked or work(), path, on_event=lambda *_a, **_k: None, should_stop=should_stop)  # type: ignore[arg-type]


def test_samples_come_in_the_order_of_the_records(tmp_path: Path) -> None:
    found = run(Counting(), tmp_path / "s.jsonl")

    assert [sample.id for sample in found] == [f"r{k}" for k in range(8)]
    assert [sample.score for sample in found] == [0.0, 1.0] * 4


def test_no_finished_sample_is_computed_twice(tmp_path: Path) -> None:
    first, second = Counting(), Counting()
    with pytest.raises(CancelledError):
        run(first, tmp_path / "s.jsonl", stop_after=3)

    resumed = run(second, tmp_path / "s.jsonl")

    assert first.asked + second.asked == [f"r{k}" for k in range(8)]
    assert resumed == run(Counting(), tmp_path / "whole.jsonl")


def test_another_model_starts_from_nothing(tmp_path: Path) -> None:
    run(Counting("m"), tmp_path / "s.jsonl")
    other = Counting("n", reply="no")

    found = run(other, tmp_path / "s.jsonl")

    assert len(other.asked) == 8
    assert [sample.answer for sample in found] == ["no"] * 8


@pytest.mark.parametrize(
    "break_up",
    [
        lambda answers: answers[::-1],
        lambda answers: answers[1:],
        lambda answers: answers[:-1],
        lambda answers: [*answers, answers[0]],
        lambda answers: [answers[0], *answers],
        lambda answers: [],
    ],
    ids=["shuffled", "first lost", "last lost", "one more", "doubled", "none"],
)
def test_replies_that_are_not_one_to_one_stop_the_run(tmp_path: Path, break_up: Any) -> None:
    model = Counting()
    model.shuffle = break_up

    with pytest.raises(RunDiedError, match="one to one"):
        run(model, tmp_path / "s.jsonl")


def test_no_answer_of_a_batch_that_went_wrong_is_kept(tmp_path: Path) -> None:
    broken, sound = Counting(), Counting()
    broken.shuffle = lambda answers: (
        answers if broken.asked[-1] != "r5" else [answers[0], answers[2], answers[1]]
    )
    with pytest.raises(RunDiedError, match="'r5' came, wanted the reply to 'r4'"):
        run(broken, tmp_path / "s.jsonl")

    run(sound, tmp_path / "s.jsonl")

    assert sound.asked == ["r3", "r4", "r5", "r6", "r7"]


def test_two_records_of_one_id_are_refused(tmp_path: Path) -> None:
    asked = work(2)
    doubled = replace(asked, records=(asked.records[0], asked.records[0]))

    with pytest.raises(DataError, match="'r0' is there twice"):
        run(Counting(), tmp_path / "s.jsonl", asked=doubled)


def test_an_error_is_an_outcome(tmp_path: Path) -> None:
    model = Counting()
    model.shuffle = lambda answers: [Answer(a.id, error="too long") for a in answers]

    found = run(model, tmp_path / "s.jsonl")

    assert {(sample.score, sample.answer, sample.error) for sample in found} == {(0.0, None, "too long")}


SCORERS_BEFORE = dict(scorers_module.SCORERS)


def with_scorer(monkeypatch: pytest.MonkeyPatch, scorer: Any) -> None:
    monkeypatch.setattr(scorers_module, "SCORERS", {**SCORERS_BEFORE, "label": scorer})


@pytest.mark.parametrize("value", [math.nan, 1.5])
def test_answers_outlive_a_scorer_that_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    def sometimes_broken(item: Item) -> Score:
        is_canary = item.answer not in ("yes", "no") or item.answer in item.targets
        return label_score(item) if is_canary else Score(value)

    first, second = Counting(), Counting()
    with_scorer(monkeypatch, sometimes_broken)
    with pytest.raises(StatsError, match="wanted a number from 0 to 1"):
        run(first, tmp_path / "s.jsonl")
    monkeypatch.undo()

    found = run(second, tmp_path / "s.jsonl")

    assert (len(first.asked), second.asked) == (8, [])
    assert found == run(Counting(), tmp_path / "whole" / "s.jsonl")


def test_a_change_of_scorer_scores_again_and_asks_nothing(tmp_path: Path) -> None:
    run(Counting(), tmp_path / "s.jsonl")
    model, asked = Counting(), work()
    golds = tuple(replace(record, targets=("no",)) for record in asked.records)
    other = SUITE.model_copy(update={"scorers": (ScorerSpec(name="exact"),)})

    found = run(model, tmp_path / "s.jsonl", asked=replace(asked, suite=other, records=golds))

    assert model.asked == []
    assert {(sample.score, tuple(sample.scores)) for sample in found} == {(0.0, ("exact",))}


def test_a_change_of_prompt_asks_again(tmp_path: Path) -> None:
    run(Counting(), tmp_path / "s.jsonl")
    model, asked = Counting(), work()
    prompt = asked.suite.prompt.model_copy(update={"user": "{{ input }}!"})

    run(
        model,
        tmp_path / "s.jsonl",
        asked=replace(asked, suite=asked.suite.model_copy(update={"prompt": prompt})),
    )

    assert len(model.asked) == 8


@pytest.mark.parametrize("constant", [0.0, 1.0])
def test_a_scorer_that_always_says_the_same_stops_the_run_before_the_model_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, constant: float
) -> None:
    model = Counting()
    with_scorer(monkeypatch, lambda _item: Score(constant))

    with pytest.raises(StatsError, match="can't tell right from wrong"):
        run(model, tmp_path / "s.jsonl")

    assert model.asked == []


def test_events_are_as_many_as_syncs_and_not_as_batches(tmp_path: Path) -> None:
    told: list[int] = []

    evaluate(
        Counting(), work(3000), tmp_path / "s.jsonl", should_stop=lambda: False,
        on_event=lambda name, **data: told.append(data["done"]),
    )  # type: ignore[arg-type]  # fmt: skip

    assert (told[0], told[-1]) == (0, 3000)
    assert len(set(told)) == len(told)
    assert len(told) < 100, "there were 1,000 batches"


def test_running_totals_are_told_four_times_a_second_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    now, told = 0.0, []
    monkeypatch.setattr(run_module.time, "monotonic", lambda: now)
    tally = Tally(work(1000))
    for number in range(1000):
        now = number / 100
        tally.add([sample(number)])
        tally.tell(lambda name, **data: told.append(data["done"]))
    tally.tell(lambda name, **data: told.append(data["done"]), is_last=True)
    tally.tell(lambda name, **data: told.append(data["done"]), is_last=True)

    assert (len(told), told[0], told[1], told[-1]) == (41, 1, 26, 1000)
