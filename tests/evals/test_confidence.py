"""How sure a model is: asked for in a second phase, and worth what it tells apart."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import CancelledError
from harness.evals.confidence import (
    clusters,
    mutual_entailment,
    same_words,
    semantic_entropy,
    similar_embeddings,
)
from harness.evals.run import evaluate
from harness.evals.samples import read_samples
from harness.models.base import Answer, ChoiceRequest
from tests.evals.fakes import Told, make_work, run, suite

ALL = {"kinds": ["p_true", "self_consistency", "semantic_entropy"], "samples": 4, "temperature": 0.5}


def drawing(*draws: str) -> Any:
    """Answers "Paris" greedily and one of the draws for each seed; is 80 % sure that it is right."""
    seen: list[int] = []

    def reply(request: Any) -> Answer:
        if isinstance(request, ChoiceRequest):
            return Answer(request.id, choice_logprobs=(math.log(0.4), math.log(0.1)))
        if request.temperature == 0.0:
            return Answer(request.id, text="Paris", token_logprobs=(-0.1,))
        if request.seed not in seen:
            seen.append(request.seed)
        return Answer(request.id, text=draws[seen.index(request.seed)])

    return reply


def test_each_confidence_is_measured_from_requests_of_its_own(tmp_path: Path) -> None:
    model = Told(drawing("Paris", "paris!", "Lyon", "Nice"))

    (sample,) = run(
        model, make_work(tmp_path, suite("answer", confidence=ALL), {"target": "Paris"}), tmp_path
    )

    assert sample.confidences == {
        "mean_logprob": -0.1, "min_logprob": -0.1, "p_true": pytest.approx(0.8), "self_consistency": 0.5,
        "semantic_entropy": pytest.approx(0.5 * math.log(2) + 2 * 0.25 * math.log(4)),
    }  # fmt: skip
    assert [request.temperature for request in model.asked if not isinstance(request, ChoiceRequest)] == [
        0,
        0.5,
        0.5,
        0.5,
        0.5,
    ]
    assert read_samples(tmp_path / "out" / "samples.jsonl") == [sample]


def test_the_model_is_asked_of_its_own_answer_whether_it_is_right(tmp_path: Path) -> None:
    model = Told(drawing())
    asked = suite("answer", confidence={"kinds": ["p_true"]})

    run(model, make_work(tmp_path, asked, {"target": "Paris"}), tmp_path)

    judging = model.asked[-1]
    assert [message.role for message in judging.prompt.messages] == ["user", "assistant", "user"]
    assert judging.prompt.messages[1].content == "Paris"
    assert judging.choices == ("True", "False")


def test_what_failed_is_unknown_and_a_failed_draw_agrees_with_nothing(tmp_path: Path) -> None:
    def reply(request: Any) -> Answer:
        if isinstance(request, ChoiceRequest):
            return Answer(request.id, error="no memory")
        return (
            Answer(request.id, text="Paris")
            if request.temperature == 0.0
            else Answer(request.id, error="no memory")
        )

    (sample,) = run(
        Told(reply), make_work(tmp_path, suite("answer", confidence=ALL), {"target": "x"}), tmp_path
    )

    assert sample.confidences == {"self_consistency": 0.0}


def test_seeds_differ_by_draw_and_record_and_repeat(tmp_path: Path) -> None:
    asked = suite("answer", confidence={"kinds": ["self_consistency"], "samples": 3})
    seeds = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        model = Told(lambda request: Answer(request.id, text="x"))
        run(model, make_work(tmp_path / name, asked, {"target": "x"}, {"target": "y"}), tmp_path / name)
        seeds.append([request.seed for request in model.asked if request.temperature])

    assert seeds[0] == seeds[1]
    assert len(set(seeds[0])) == 6


@pytest.mark.parametrize("stop_after", range(1, 9))
def test_a_second_phase_that_was_stopped_asks_for_no_answer_twice(tmp_path: Path, stop_after: int) -> None:
    asked = suite("answer", confidence={**ALL, "samples": 2})
    work = make_work(tmp_path, asked, {"target": "x"}, {"target": "y"})
    reply = lambda request: Answer(  # noqa: E731
        request.id, text=f"{request.id}{getattr(request, 'seed', 0) % 3}",
        choice_logprobs=(-0.5, -2.0) if isinstance(request, ChoiceRequest) else None,
    )  # fmt: skip
    stopped, resumed, whole = (Told(reply, size=1) for _ in range(3))
    path = tmp_path / "stopped" / "samples.jsonl"

    def go(model: Told, limit: int) -> Any:
        return evaluate(
            model, work, path, on_event=lambda *_a, **_k: None, should_stop=lambda: len(model.asked) >= limit
        )  # type: ignore[arg-type]

    if stop_after < 8:
        with pytest.raises(CancelledError):
            go(stopped, stop_after)
    else:
        go(stopped, stop_after)

    assert go(resumed, 99) == run(whole, work, tmp_path)
    assert len(stopped.asked) == stop_after
    assert stopped.asked + resumed.asked == whole.asked


def test_tasks_by_log_probability_can_be_asked_for_p_true(tmp_path: Path) -> None:
    asked = suite("classify", labels=["a", "b"], confidence={"kinds": ["p_true"]})

    (sample,) = run(
        Told(lambda request: Answer(request.id, choice_logprobs=(-1.0, -1.0))),
        make_work(tmp_path, asked, {"target": "a"}), tmp_path,
    )  # fmt: skip

    assert sample.confidences == {"p_true": 0.5}


@pytest.mark.parametrize(
    ("sizes", "nats"),
    [
        ([5], 0.0),
        ([1, 1], math.log(2)),
        ([3, 1], 0.5623351446188083),
        ([2, 1, 1], 1.0397207708399179),
        ([], None),
    ],
)
def test_semantic_entropy_of_cluster_sizes(sizes: list[int], nats: float | None) -> None:
    assert semantic_entropy(sizes) == (None if nats is None else pytest.approx(nats))


@given(st.lists(st.integers(1, 9), min_size=1, max_size=9))
def test_semantic_entropy_is_scipys(sizes: list[int]) -> None:
    from scipy.stats import entropy

    assert semantic_entropy(sizes) == pytest.approx(float(entropy(sizes)), abs=1e-12)


def test_an_equivalence_can_be_given(tmp_path: Path) -> None:
    model = Told(drawing("Paris", "The capital", "Lyon", "Paris"))
    work = make_work(tmp_path, suite("answer", confidence=ALL), {"target": "Paris"})
    meanings = {"Paris": 1, "The capital": 1, "Lyon": 2}

    (sample,) = run(model, work, tmp_path, equivalent=lambda _, a, b: meanings[a] == meanings[b])

    assert sample.confidences["self_consistency"] == 0.75
    assert sample.confidences["semantic_entropy"] == pytest.approx(0.5623351446188083)


def test_entailment_must_hold_both_ways() -> None:
    is_same = mutual_entailment(lambda premise, hypothesis: len(premise) >= len(hypothesis))

    assert is_same("q", "ab", "cd")
    assert not is_same("q", "ab", "c")


def test_embeddings_are_compared_by_cosine_and_computed_once() -> None:
    asked: list[str] = []
    vectors = {"a": [1.0, 0.0], "b": [0.9, 0.1], "c": [0.0, 1.0], "zero": [0.0, 0.0]}
    is_same = similar_embeddings(lambda text: asked.append(text) or vectors[text], 0.9)  # type: ignore[func-returns-value]

    assert clusters("q", ["a", "b", "c", "a", "zero"], is_same) == [["a", "b", "a"], ["c"], ["zero"]]
    assert sorted(asked) == ["a", "b", "c", "zero"]


def test_words_are_compared_after_normalisation() -> None:
    assert same_words("q", "The Paris.", "paris")
    assert not same_words("q", "Paris", "Lyon")


def test_numbers_agree_by_their_value_and_lists_of_labels_by_their_members(tmp_path: Path) -> None:
    kinds = {"kinds": ["self_consistency", "semantic_entropy"], "samples": 3}
    texts = {0: "The answer is 1,200.", 1: "1200", 2: "1.2 thousand", 3: "120"}
    drawn = iter((1, 2, 3))
    reply = lambda request: Answer(request.id, text=texts[next(drawn) if request.temperature else 0])  # noqa: E731

    (sample,) = run(
        Told(reply), make_work(tmp_path, suite("number", confidence=kinds), {"target": 1200}), tmp_path
    )

    assert sample.confidences["self_consistency"] == pytest.approx(2 / 3)
    assert sample.confidences["semantic_entropy"] == pytest.approx(0.6365141682948128)
