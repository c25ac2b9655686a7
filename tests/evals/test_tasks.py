"""Each kind of task, from the record in its file to the sample on disk."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from harness.evals.results import Sample
from harness.evals.samples import read_samples
from harness.models.base import Answer
from tests.evals.fakes import Told, make_work, run, says, suite, weighs


def one(tmp_path: Path, task: str, row: dict[str, Any], reply: Any, **keys: Any) -> tuple[Sample, Told]:
    model = Told(reply)
    (sample,) = run(model, make_work(tmp_path, suite(task, **keys), row), tmp_path)
    assert read_samples(tmp_path / "out" / "samples.jsonl") == [sample]
    return sample, model


def test_classify_takes_the_heaviest_label(tmp_path: Path) -> None:
    sample, model = one(
        tmp_path, "classify", {"target": "yes"}, weighs(yes=-1.0, no=-2.0), labels=["yes", "no"]
    )

    assert (sample.answer, sample.score, sample.scores) == ("yes", 1.0, {"label": 1.0})
    assert sample.label_probs == {
        "yes": pytest.approx(1 / (1 + math.exp(-1))),
        "no": pytest.approx(1 / (1 + math.e)),
    }
    assert sample.confidence == sample.label_probs["yes"]
    assert sample.confidences == {"mean_logprob": -0.5}
    assert not model.asked[0].is_open


def test_verify_reads_the_claim_against_its_evidence(tmp_path: Path) -> None:
    sample, model = one(
        tmp_path, "verify", {"target": "refuted", "evidence": ["first", "second"]}, weighs(refuted=-1.0),
        labels=["supported", "refuted"], records={"eval": "e", "fields": {"context": "evidence"}},
        prompt={"user": "{{ context }}\n{{ input }}"},
    )  # fmt: skip

    assert (sample.answer, sample.score) == ("refuted", 1.0)
    assert model.asked[0].prompt.messages[0].content == "first\n\nsecond\nquestion 0"


OPTIONS = {"options": ["tea", "green tea", "a very long answer"], "target": 1}


@pytest.mark.parametrize(
    ("normalise", "answer"), [("none", "tea"), ("chars", "a very long answer"), ("tokens", "green tea")]
)
def test_choice_compares_log_probabilities_as_they_are_or_by_length(
    tmp_path: Path, normalise: str, answer: str
) -> None:
    reply = lambda request: Answer(request.id, choice_logprobs=(-2.0, -3.0, -5.0), choice_tok=(1, 3, 4))  # noqa: E731

    sample, model = one(tmp_path, "choice", OPTIONS, reply, normalise=normalise)

    # By hand: -2, -3, -5; a character -0.667, -0.333, -0.278; a token -2, -1, -1.25.
    assert (sample.answer, sample.score) == (answer, float(answer == "green tea"))
    assert sample.choice_logprobs == (-2.0, -3.0, -5.0)
    assert sample.gold == ("green tea",)
    assert sample.label_probs is None
    assert model.asked[0].choices == ("tea", "green tea", "a very long answer")


def test_choice_is_an_error_where_the_lengths_that_it_needs_are_unknown(tmp_path: Path) -> None:
    reply = lambda request: Answer(request.id, choice_logprobs=(-2.0, -3.0, -5.0))  # noqa: E731

    sample, _ = one(tmp_path, "choice", OPTIONS, reply, normalise="tokens")

    assert (sample.answer, sample.score, sample.error) == (None, 0.0, "no answer could be read")


def test_choice_by_letter_scores_letters_and_answers_with_options(tmp_path: Path) -> None:
    user = "{{ input }}\n{% for option in options %}\n{{ letters[loop.index0] }}. {{ option }}\n{% endfor %}\nAnswer:"

    sample, model = one(
        tmp_path, "choice", OPTIONS, weighs(B=-0.1, A=-3.0), answer_with="letter",
        prompt={"user": user, "raw": True, "answer_prefix": " "},
    )  # fmt: skip

    assert model.asked[0].choices == (" A", " B", " C")
    assert model.asked[0].is_open
    assert model.asked[0].prompt.text.endswith("A. tea\nB. green tea\nC. a very long answer\nAnswer:")
    assert (sample.answer, sample.score) == ("green tea", 1.0)


def test_rank_scores_the_place_of_the_first_gold_and_whether_it_is_the_first(tmp_path: Path) -> None:
    row = {"options": ["a", "b", "c", "d"], "target": ["c", "d"]}

    sample, _ = one(tmp_path, "rank", row, weighs(a=-1.0, b=-3.0, c=-2.0, d=-4.0))

    assert sample.parsed == ["a", "c", "b", "d"]
    assert (sample.answer, sample.score, sample.scores) == (
        "a",
        0.5,
        {"reciprocal_rank": 0.5, "hits_at": 0.0},
    )


def test_perplexity_is_the_geometric_mean_of_the_tokens_probabilities(tmp_path: Path) -> None:
    reply = lambda request: Answer(request.id, choice_logprobs=(math.log(1 / 8),), choice_tok=(3,))  # noqa: E731

    sample, model = one(
        tmp_path, "perplexity", {"target": "wörds"}, reply,
        prompt={"user": "", "raw": True}, records={"eval": "e"},
    )  # fmt: skip

    assert (model.asked[0].prompt.text, model.asked[0].choices, model.asked[0].is_open) == (
        "",
        ("wörds",),
        True,
    )
    assert sample.score == pytest.approx(0.5)
    assert sample.parsed == {"logprob": math.log(1 / 8), "tok": 3, "bytes": 6}


@pytest.mark.parametrize(
    "answer",
    [
        {"choice_logprobs": (-1.0,)},
        {"choice_logprobs": (math.nan,), "choice_tok": (2,)},
        {"choice_logprobs": (-1.0,), "choice_tok": (0,)},
        {"choice_logprobs": (0.5,), "choice_tok": (2,)},
        {},
    ],
)
def test_perplexity_without_usable_numbers_is_an_error_and_not_a_score(
    tmp_path: Path, answer: dict[str, Any]
) -> None:
    sample, _ = one(tmp_path, "perplexity", {"target": "x"}, lambda request: Answer(request.id, **answer))

    assert sample.error is not None
    assert sample.score == 0.0


@pytest.mark.parametrize(
    ("task", "target", "text", "answer", "score", "keys"),
    [
        ("answer", ["Paris", "City of Paris"], "paris.", "paris.", 1.0, {}),
        ("generate", "x", "y", "y", 0.0, {"scorers": ["exact"]}),
        ("number", 1200, "The answer is 1,200.", "1200", 1.0, {}),
        ("number", -2.5, "(2.5) million%, I mean -2.5", "-2.5", 1.0, {}),
        ("number", "12.5%", "12.5 per cent", "12.5 percent", 1.0, {}),
        ("number", {"value": 5, "unit": "mg"}, "about 6 mg", "6 mg", 0.0, {}),
        ("multi_label", ["b", "a"], '["a", "b"]', "a, b", 1.0, {"labels": ["a", "b", "c"]}),
        ("multi_label", ["b", "a"], "a, c", "a, c", 0.5, {"labels": ["a", "b", "c"]}),
        ("multi_label", [], "none", "", 1.0, {"labels": ["a", "b", "c"]}),
        ("extract", {"b": "5 mg", "a": "A"}, '{"b": "5 mg", "a": "A"}', '{"a": "A", "b": "5 mg"}', 1.0, {}),
        ("spans", ["question"], '["question"]', '["question"]', 1.0, {}),
    ],
)  # fmt: skip
def test_written_answers_are_read_and_scored(
    tmp_path: Path, task: str, target: Any, text: str, answer: str, score: float, keys: dict[str, Any]
) -> None:
    sample, _ = one(tmp_path, task, {"target": target}, says(text), **keys)

    assert (sample.answer, sample.score, sample.error) == (answer, pytest.approx(score), None)
    assert sample.output == text
    assert sample.confidences == {"mean_logprob": pytest.approx(-0.3), "min_logprob": -0.5}
    assert sample.confidence == pytest.approx(math.exp(-0.3))


def test_answers_of_several_parts_count_each_of_them(tmp_path: Path) -> None:
    sample, _ = one(tmp_path, "multi_label", {"target": ["a", "b"]}, says("a, c"), labels=["a", "b", "c"])

    assert sample.counts == {"a": (1, 0, 0), "b": (0, 0, 1), "c": (0, 1, 0)}


def test_a_written_answer_that_cannot_be_read_is_wrong_and_no_error(tmp_path: Path) -> None:
    sample, _ = one(tmp_path, "extract", {"target": {"a": 1}}, says("I would rather not."))

    assert (sample.answer, sample.score, sample.error) == (None, 0.0, None)
    assert sample.error_class is not None


@pytest.mark.parametrize(
    ("task", "target"), [("answer", "x"), ("extract", {"a": "b"}), ("multi_label", ["a"])]
)
def test_an_error_scores_nothing_and_stays_in_the_denominator(tmp_path: Path, task: str, target: Any) -> None:
    asked = suite(task, labels=["a"] if task == "multi_label" else [])
    work = make_work(tmp_path, asked, {"target": target}, {"target": target})

    samples = run(Told(lambda request: Answer(request.id, error="out of memory")), work, tmp_path)

    assert [(s.score, s.answer, s.error) for s in samples] == [(0.0, None, "out of memory")] * 2


def test_several_scorers_each_give_a_score_by_name_and_the_first_is_the_samples(tmp_path: Path) -> None:
    sample, _ = one(
        tmp_path, "rank", {"options": ["a", "b", "c"], "target": "b"}, weighs(a=-1.0, b=-2.0),
        scorers=[{"name": "hits_at", "key": "first_two", "k": 2}, "hits_at", "reciprocal_rank"],
    )  # fmt: skip

    assert sample.scores == {"first_two": 1.0, "hits_at": 0.0, "reciprocal_rank": 0.5}
    assert sample.score == 1.0


def test_nan_never_passes(tmp_path: Path) -> None:
    sample, _ = one(tmp_path, "classify", {"target": "a"}, weighs(a=math.nan, b=-1.0), labels=["a", "b"])

    assert (sample.answer, sample.score, sample.error) == (None, 0.0, "no answer could be read")
