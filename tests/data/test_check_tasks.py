"""`check` on the keys of the tasks: what they need, what means nothing for them, with line and key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.data.check import check
from harness.errors import Problem

SUITE = """\
suite: quiz
domain: shared
task: {task}
records:
  eval: eval.jsonl
  train: train.jsonl
prompt:
  user: "{{{{ input }}}}"
"""
OPTIONS = {"options": ["a", "b"], "target": 1}


def problems_of(
    folder: Path, task: str, more: str, *, prompt: str = "", train: int = 3, **row: Any
) -> dict[str, Problem]:
    text = SUITE.format(task=task) + prompt + more
    for name, n in (("eval", 2), ("train", train)):
        rows = [{"id": f"{name}{k}", "input": f"{name} {k}", "target": "x", **row} for k in range(n)]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    if not train:
        text = text.replace("  train: train.jsonl\n", "")
    (folder / "quiz.yaml").write_text(text)
    return {problem.key: problem for problem in check([folder / "quiz.yaml"])}


@pytest.mark.parametrize(
    ("task", "row"),
    [
        ("choice", OPTIONS), ("rank", {**OPTIONS, "target": ["a"]}), ("extract", {"target": {"a": 1}}),
        ("spans", {"input": "the x of it", "target": ["x"]}), ("number", {"target": 3}), ("answer", {}),
        ("perplexity", {}),
    ],
)  # fmt: skip
def test_each_task_can_be_sound(tmp_path: Path, task: str, row: dict[str, Any]) -> None:
    assert problems_of(tmp_path, task, "", prompt="  few_shot: 2\n", **row) == {}


@pytest.mark.parametrize(
    ("task", "more", "key", "words"),
    [
        ("answer", "scorers: [tokenf1]\n", "scorers[0]", "nearest: token_f1"),
        ("answer", "scorers: [exact, {name: hits_at, k: 3}]\n", "scorers[1]", "one of exact"),
        ("answer", "scorers: [{name: number, tolerence: 0.1}]\n", "scorers[0].tolerence", "tolerance"),
        (
            "answer",
            "scorers: [{name: exact, tolerance: 0.1}]\n",
            "scorers[0].tolerance",
            "it has no settings",
        ),
        ("answer", "scorers: [exact, exact]\n", "scorers[1]", "a `key`"),
        ("answer", "scorers: [exact, {name: token_f1, key: exact}]\n", "scorers[1]", "a `key`"),
        ("answer", "normalise: chars\n", "normalise", "no record has options"),
        ("answer", "answer_with: letter\n", "answer_with", "no record has options"),
        ("perplexity", "confidence: {kinds: [p_true]}\n", "confidence.kinds[0]", "nothing is answered"),
        ("answer", "scorers: [judge]\n", "scorers[0]", "a suite that names its judge"),
        ("answer", "generation: {grammar: labels}\n", "generation.grammar", "task multi_label"),
        ("answer", "generation: {grammar: fields}\n", "generation.grammar", "generation.fields"),
        ("answer", "generation: {grammar: 'root ::= root'}\n", "generation.grammar", "GBNF"),
        ("perplexity", "generation: {grammar: labels}\n", "generation.grammar", "writes none"),
    ],
)
def test_what_means_nothing_for_the_task_is_named(
    tmp_path: Path, task: str, more: str, key: str, words: str
) -> None:
    problem = problems_of(tmp_path, task, more)[key]

    assert problem.line == 9
    assert words in f"{problem.wanted}; {problem.hint}"


@pytest.mark.parametrize(
    ("more", "key", "words"),
    [
        ("answer_with: letter\n", "prompt.user", "a prompt that shows `letters`"),
        ("answer_with: letter\nnormalise: chars\n", "normalise", "letters are all of one length"),
        ("confidence: {kinds: [self_consistency]}\n", "confidence.kinds[0]", "a task that writes answers"),
    ],
)
def test_what_means_nothing_for_a_choice_is_named(tmp_path: Path, more: str, key: str, words: str) -> None:
    problem = problems_of(tmp_path, "choice", more, **OPTIONS)[key]

    assert words in f"{problem.wanted}; {problem.hint}"


def test_the_same_score_twice_is_fine_under_two_names(tmp_path: Path) -> None:
    more = "scorers: [{name: hits_at, k: 1}, {name: hits_at, key: among_two, k: 2}]\n"

    assert problems_of(tmp_path, "rank", more, **OPTIONS) == {}


@pytest.mark.parametrize(("train", "hint"), [(0, "give records.train"), (3, "there are 3")])
def test_examples_need_a_training_split_that_has_so_many(tmp_path: Path, train: int, hint: str) -> None:
    problem = problems_of(tmp_path, "answer", "", prompt="  few_shot: 4\n", train=train)["prompt.few_shot"]

    assert (problem.found, problem.wanted, problem.hint) == (
        "4",
        "a training split of at least 4 records",
        hint,
    )


def test_examples_may_not_be_evaluated(tmp_path: Path) -> None:
    problems_of(tmp_path, "answer", "", prompt="  few_shot: 1\n")
    with (tmp_path / "train.jsonl").open("a") as file:
        file.write(json.dumps({"id": "eval1", "input": "i", "target": "x"}))

    (problem,) = check([tmp_path / "quiz.yaml"])

    assert problem.key == "prompt.few_shot"
    assert "both have eval1" in problem.hint


def test_an_option_that_is_missing_is_named_with_the_line_of_its_record(tmp_path: Path) -> None:
    problems_of(tmp_path, "choice", "", **OPTIONS)
    rows = [{"id": "a", "input": "i", **OPTIONS}, {"id": "b", "input": "i", "target": 1}]
    (tmp_path / "eval.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    (problem,) = check([tmp_path / "quiz.yaml"])

    assert (Path(problem.file).name, problem.line, problem.key) == ("eval.jsonl", 2, "options")


def test_labels_of_several_must_all_be_the_suites(tmp_path: Path) -> None:
    found = problems_of(tmp_path, "multi_label", "labels: [a, b]\n", target=["a", "c"])

    assert (
        "2 eval records with c" in found["labels"].found or "3 train records with c" in found["labels"].found
    )


@pytest.mark.parametrize(
    "user",
    ["{% for o in options %}{{ o }}{% endfor %}", "{{ letters | join }} {{ options[0] }}", "{{ context }}"],
)
def test_options_letters_and_context_are_at_hand_in_a_prompt(tmp_path: Path, user: str) -> None:
    problems_of(tmp_path, "choice", "", **OPTIONS)
    path = tmp_path / "quiz.yaml"
    path.write_text(path.read_text().replace("{{ input }}", user))

    assert check([path]) == []
