"""Answers that a model judges, and answers that are held to a form while they are written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.errors import StatsError
from harness.evals.samples import read_header
from harness.evals.tasks import grammar_of
from harness.gbnf import check_grammar
from harness.models.base import Answer, ChoiceRequest
from tests.evals.fakes import Told, make_work, run, says, suite

ROWS = [{"target": f"word {index}"} for index in range(4)]


def strict(request: Any) -> Answer:
    """A judge that says yes where the answer is the reference."""
    assert isinstance(request, ChoiceRequest)
    text = request.prompt.messages[-1].content
    reference, answer = (text.partition(f"<<{name} ")[2].split("\n")[1] for name in ("REFERENCE", "ANSWER"))
    return Answer(request.id, choice_logprobs=(-3.0, -0.1) if reference == answer else (-0.1, -3.0))


def judged_suite() -> Any:
    return suite("answer", scorers=["judge", "exact"], judge="scripted:judge.jsonl", repeat=0)


def test_a_judge_scores_beside_the_other_scorers(tmp_path: Path) -> None:
    work = replace(make_work(tmp_path, judged_suite(), *ROWS), judge=Told(strict, digest="judge"))
    answers = says("word 0", "word 0", "word 2", "nonsense")
    samples = run(Told(answers), work, tmp_path)

    assert [sample.score for sample in samples] == [1.0, 0.0, 1.0, 0.0]
    assert [sample.scores["exact"] for sample in samples] == [1.0, 0.0, 1.0, 0.0]
    assert samples[1].error_class == "judged_worse"


def test_a_judge_that_finds_all_right_stops_the_run(tmp_path: Path) -> None:
    kind = Told(lambda request: Answer(request.id, choice_logprobs=(-3.0, -0.1)))
    work = replace(make_work(tmp_path, judged_suite(), *ROWS), judge=kind)

    with pytest.raises(StatsError, match="can't tell right from wrong"):
        run(Told(says("word 0")), work, tmp_path)


def test_without_a_judge_nothing_is_asked(tmp_path: Path) -> None:
    model = Told(says("word 0"))
    with pytest.raises(StatsError, match="needs a model"):
        run(model, make_work(tmp_path, judged_suite(), *ROWS), tmp_path)
    assert model.asked == []


def test_another_judge_scores_again_without_asking_the_model(tmp_path: Path) -> None:
    work = make_work(tmp_path, judged_suite(), *ROWS)
    run(Told(says("word 0")), replace(work, judge=Told(strict, digest="one")), tmp_path)
    before = read_header(tmp_path / "out" / "samples.jsonl")
    model = Told(says("word 0"))
    run(model, replace(work, judge=Told(strict, digest="other")), tmp_path)
    after = read_header(tmp_path / "out" / "samples.jsonl")

    assert model.asked == []
    assert before is not None
    assert after is not None
    assert before.requests == after.requests
    assert before.scoring != after.scoring


def test_labels_become_a_grammar_of_a_list(tmp_path: Path) -> None:
    asked = suite("multi_label", labels=["a", 'b "quoted"'], generation={"grammar": "labels"}, repeat=0)
    model = Told(says('["a"]'))
    run(model, make_work(tmp_path, asked, {"target": ["a"]}), tmp_path)

    assert model.asked[0].grammar == grammar_of(asked, ("a", 'b "quoted"'))
    check_grammar(model.asked[0].grammar)
    assert "quoted" in model.asked[0].grammar


def test_fields_become_a_grammar_of_an_object(tmp_path: Path) -> None:
    form = {"grammar": "fields", "fields": {"name": "string", "price": "number"}}
    model = Told(says('{"name": "x", "price": 1}'))
    run(
        model,
        make_work(tmp_path, suite("extract", generation=form, repeat=0), {"target": {"name": "x"}}),
        tmp_path,
    )

    check_grammar(model.asked[0].grammar)
    assert "price" in model.asked[0].grammar


def test_free_answers_have_no_grammar(tmp_path: Path) -> None:
    model = Told(says("word 0"))
    run(model, make_work(tmp_path, suite("answer", repeat=0), ROWS[0]), tmp_path)
    assert model.asked[0].grammar is None
