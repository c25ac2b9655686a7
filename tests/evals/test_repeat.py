"""The noise floor: the same question in other company."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.models.base import Answer
from harness.models.cache import CachedModel
from tests.evals.fakes import Told, make_work, run, suite

ROWS = [{"target": "a"}] * 9


class Noisy(Told):
    """Answers otherwise, and weighs otherwise, when it is asked for an item again."""

    def __init__(self, flips: set[str], **more: Any) -> None:
        self.seen: set[str] = set()

        def reply(request: Any) -> Answer:
            is_again = request.id in self.seen
            self.seen.add(request.id)
            logprobs = (-1.0, -2.0) if not is_again else (-1.25, -2.0)
            if is_again and request.id in flips:
                logprobs = (-3.0, -2.0)
            return Answer(request.id, choice_logprobs=logprobs)

        super().__init__(reply, **more)


def classify(repeat: int) -> Any:
    return suite("classify", labels=["a", "b"], repeat=repeat)


def noise(tmp_path: Path) -> dict[str, Any]:
    return json.loads((tmp_path / "out" / "noise.json").read_text())


def test_items_whose_answer_changes_are_counted_with_an_upper_bound(tmp_path: Path) -> None:
    run(Noisy({"r3"}), make_work(tmp_path, classify(9), *ROWS), tmp_path)

    found = noise(tmp_path)
    assert (found["items"], found["flips"], found["max_difference"], found["is_sampled"]) == (
        9,
        1,
        2.0,
        False,
    )
    # scipy.stats.beta.ppf(0.95, 2, 8): Clopper-Pearson's one-sided bound for 1 of 9
    assert found["upper"] == pytest.approx(0.4291355, abs=1e-6)


def test_a_model_that_repeats_itself_has_no_flip_and_no_difference(tmp_path: Path) -> None:
    model = Told(lambda request: Answer(request.id, choice_logprobs=(-1.0, -2.0)))

    run(model, make_work(tmp_path, classify(16), *ROWS), tmp_path)

    found = noise(tmp_path)
    assert (found["items"], found["flips"], found["max_difference"]) == (9, 0, 0.0)
    assert found["upper"] == pytest.approx(1 - 0.05 ** (1 / 9))


def test_how_far_the_two_best_choices_moved_against_each_other_is_bounded(tmp_path: Path) -> None:
    """Eight margins lose a quarter of a nat and that of r3 loses two."""
    run(Noisy({"r3"}), make_work(tmp_path, classify(9), *ROWS), tmp_path)

    # 3.3251128 is scipy.stats.chi2.ppf(0.05, 9)
    assert noise(tmp_path)["margin_sd"] == pytest.approx(((8 * 0.25**2 + 2.0**2) / 3.3251128) ** 0.5)


def test_items_are_asked_again_in_other_batches_and_backwards(tmp_path: Path) -> None:
    model = Noisy(set())

    run(model, make_work(tmp_path, classify(9), *ROWS), tmp_path)

    first, again = model.calls[:3], model.calls[3:]
    assert first == [["r0", "r1", "r2"], ["r3", "r4", "r5"], ["r6", "r7", "r8"]]
    assert again == [["r8"], ["r7", "r6", "r5"], ["r4", "r3"], ["r2", "r1", "r0"]]


def test_no_flip_hides_behind_an_error(tmp_path: Path) -> None:
    seen: set[str] = set()

    def reply(request: Any) -> Answer:
        is_again = request.id in seen
        seen.add(request.id)
        return (
            Answer(request.id, error="lost") if is_again else Answer(request.id, choice_logprobs=(-1.0, -2.0))
        )

    run(Told(reply), make_work(tmp_path, classify(4), *ROWS), tmp_path)

    assert noise(tmp_path)["flips"] == 4


def test_written_answers_have_a_floor_too_and_it_says_when_they_are_drawn(tmp_path: Path) -> None:
    asked = suite("answer", repeat=4, generation={"temperature": 0.8}, scorers=["exact"])
    texts = iter(f"text {n}" for n in range(99))

    run(
        Told(lambda request: Answer(request.id, text=next(texts))),
        make_work(tmp_path, asked, *ROWS),
        tmp_path,
    )

    found = noise(tmp_path)
    assert (found["flips"], found["max_difference"], found["is_sampled"]) == (4, None, True)


def test_the_answers_of_the_run_are_those_of_the_first_time(tmp_path: Path) -> None:
    samples = run(Noisy({"r3"}), make_work(tmp_path, classify(9), *ROWS), tmp_path)

    assert {sample.answer for sample in samples} == {"a"}


def test_the_floor_is_measured_on_the_model_and_never_on_a_cache(tmp_path: Path) -> None:
    model = Noisy({"r3"})
    model.token_ids = lambda prompt: [len(prompt.messages[0].content), *map(ord, prompt.messages[0].content)]  # type: ignore[method-assign]
    cached = CachedModel(model, tmp_path / "cache")  # type: ignore[arg-type]

    run(cached, make_work(tmp_path, classify(9), *ROWS), tmp_path)  # type: ignore[arg-type]
    cached.close()

    assert noise(tmp_path)["flips"] == 1
    assert len(model.asked) == 18


@pytest.mark.parametrize("change", ["repeat", "measures"])
def test_where_nobody_wants_a_floor_nothing_is_asked_again(tmp_path: Path, change: str) -> None:
    model = Noisy(set())
    work = make_work(tmp_path, classify(0 if change == "repeat" else 9), *ROWS)

    run(model, replace(work, measures=change == "repeat"), tmp_path)

    assert len(model.asked) == 9
    assert not (tmp_path / "out" / "noise.json").exists()


def test_a_floor_that_was_measured_is_not_measured_again(tmp_path: Path) -> None:
    work = make_work(tmp_path, classify(9), *ROWS)
    run(Noisy({"r3"}), work, tmp_path)
    before, model = noise(tmp_path), Noisy(set())

    run(model, work, tmp_path)

    assert model.asked == []
    assert noise(tmp_path) == before
