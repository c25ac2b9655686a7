"""Canned answers: right, wrong, failing, slow."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.errors import ModelError
from harness.models.base import ChoiceRequest, GenerateRequest, Message, Prompt
from harness.models.load import open_model
from harness.models.scripted import MISS_LOGPROB, scripted_digest

PROMPT = Prompt((Message("user", "which?"),))


def script(folder: Path, *lines: dict[str, Any]) -> str:
    path = folder / "answers.jsonl"
    path.write_text("\n".join(json.dumps(line) for line in lines), encoding="utf-8")
    return f"scripted:{path}"


def test_answers_are_found_by_id_then_by_prompt_then_by_star(tmp_path: Path) -> None:
    model = open_model(
        script(
            tmp_path,
            {"id": "a", "text": "yes"},
            {"prompt": scripted_digest(PROMPT), "text": "no"},
            {"id": "*", "text": "perhaps"},
        )
    )
    other = Prompt((Message("user", "other"),))
    requests = [
        GenerateRequest("a", PROMPT, 5),
        GenerateRequest("b", PROMPT, 5),
        GenerateRequest("c", other, 5),
    ]

    assert [answer.text for answer in model.generate(requests)] == ["yes", "no", "perhaps"]


def test_choices_take_the_scores_of_the_script(tmp_path: Path) -> None:
    model = open_model(
        script(
            tmp_path,
            {"id": "a", "logprobs": {"x": -2.0, "y": -0.5}},
            {"id": "b", "text": "x"},
            {"id": "c", "text": "garbage"},
            {"id": "d", "error": "out of memory"},
        )
    )

    a, b, c, d, missing = model.score_choices([ChoiceRequest(i, PROMPT, ("x", "y", "z")) for i in "abcde"])

    assert (a.text, a.choice_logprobs) == ("y", (-2.0, -0.5, MISS_LOGPROB))
    assert (b.text, b.choice_logprobs) == ("x", (0.0, MISS_LOGPROB, MISS_LOGPROB))
    assert (c.choice_logprobs, c.error) == (None, "no choice has a score")
    assert d.error == "out of memory"
    assert missing.error == "the script has no answer for this request"


def test_a_plan_of_batches_gives_the_answers_of_one_call(tmp_path: Path) -> None:
    model = open_model(script(tmp_path, {"id": "*", "text": "x"}))
    requests = [ChoiceRequest(str(i), PROMPT, ("x", "y")) for i in range(150)]

    batches = model.plan(requests)

    assert len(batches) == 3
    found = [answer for batch in batches for answer in model.score_choices([requests[i] for i in batch])]
    assert found == list(model.score_choices(requests))


def test_generated_text_ends_at_the_first_stop_string(tmp_path: Path) -> None:
    model = open_model(script(tmp_path, {"id": "*", "text": "one\ntwo. three"}))

    (answer,) = model.generate([GenerateRequest("a", PROMPT, 5, stop=(".", "\n"))])

    assert answer.text == "one"


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ('{"id": "a", "text": "x", "text": "y"}', "duplicate key"),
        ('{"text": "x"}', "wanted an object with id or prompt"),
        ('["a"]', "wanted an object with id or prompt"),
        ('{"id": "a", "txt": "x"}', "unknown keys txt"),
        ('{"id": "a", "logprobs": {"x": NaN}}', "NaN"),
        ('{"id": "a", "logprobs": {"x": "high"}}', "wanted numbers"),
        ('{"id": "a", "text": 3}', "text is 3"),
        ("nonsense", "line 2"),
        ('{"id": "first"}', "a second answer"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: str, why: str) -> None:
    path = tmp_path / "s.jsonl"
    path.write_text('{"id": "first", "text": "x"}\n' + line, encoding="utf-8")

    with pytest.raises(ModelError, match=why) as caught:
        open_model(f"scripted:{path}")

    assert "line 2" in caught.value.message


def test_two_scripts_are_two_models(tmp_path: Path) -> None:
    one = open_model(script(tmp_path, {"id": "*", "text": "x"})).identity
    two = open_model(script(tmp_path, {"id": "*", "text": "y"})).identity

    assert one.kind == two.kind == "scripted"
    assert one.digest != two.digest
