"""How outputs become answers, and how hostile ones become none."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.scoring.parse import read_answer

LABELS = ("Payment Terms", "Warranty", "Notice, Written")


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ('["Payment Terms", "Warranty"]', ["Payment Terms", "Warranty"]),
        ('```json\n["warranty"]\n```', ["Warranty"]),
        ('{"labels": ["Warranty", "Warranty"]}', ["Warranty"]),
        ("Payment terms, WARRANTY.", ["Payment Terms", "Warranty"]),
        ("Labels: warranty; payment  terms", ["Warranty", "Payment Terms"]),
        ("- Warranty\n- Notice, Written\n- Payment Terms", ["Warranty", "Notice, Written", "Payment Terms"]),
        ("1. Notice, Written, Warranty", ["Notice, Written", "Warranty"]),
        ("Warranty, Teleportation", ["Warranty"]),
        ("**Warranty**", ["Warranty"]),
        ("[]", []), ("None.", []), ("no labels", []),
        ("Teleportation", None), ("", None), ("It is about the warranty of the goods", None), ("[1, 2]", None),
    ],
)  # fmt: skip
def test_labels_are_read_from_lists_lines_and_commas(text: str, labels: list[str] | None) -> None:
    assert read_answer("multi_label", text, labels=LABELS) == labels


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": 1}', {"a": 1}), ('  {"a": {"b": [1]}}\n', {"a": {"b": [1]}}), ('```json\n{"a": 1}\n```', {"a": 1}),
        ('Here it is:\n```\n{"a": 1}\n```\nDone.', {"a": 1}), ("{}", {}), ('{"a": -0.0}', {"a": 0.0}),
        ('{"a": 1} trailing', None), ('The object {"a": 1}', None), ("{'a': 1}", None), ('{"a": 1,}', None),
        ('{"a": 1, "a": 2}', None), ('{"a": NaN}', None), ('{"a": Infinity}', None), ('{"a": 1e999}', None),
        ('{"a": "\\ud800"}', None), ("[1]", None), ('"a"', None), ("1", None), ("null", None), ("", None),
        ('```json\n{"a": 1}\n```\n```json\n{"b": 2}\n```', None), ('{"a": ' * 17 + "1" + "}" * 17, None),
        ('{"a": "' + "x" * 300_000 + '"}', None), ('{"a":' * 100_000, None), ("[" * 1_000_000, None),
        ('{"a": ' + "9" * 5000 + "}", None),
    ],
)  # fmt: skip
def test_objects_are_read_strictly_apart_from_a_fence(text: str, value: Any) -> None:
    assert read_answer("extract", text) == value


def test_brackets_in_strings_are_no_depth() -> None:
    text = json.dumps({"a": "[" * 100 + '\\"{'})

    assert read_answer("extract", text) == json.loads(text)


SOURCE = "The notice is sent. The notice is “final”  and binding."


@pytest.mark.parametrize(
    ("text", "spans"),
    [
        ('["notice"]', [("span", "notice", 4, 10)]),
        ('["notice", "notice"]', [("span", "notice", 4, 10), ("span", "notice", 24, 30)]),
        ('["notice", "notice", "notice"]', [("span", "notice", 4, 10), ("span", "notice", 24, 30)]),
        ('[{"text": "notice", "start": 24, "end": 30}]', [("span", "notice", 24, 30)]),
        ('[{"text": "notice", "start": 5, "end": 11}]', [("span", "notice", 4, 10)]),
        ('[{"start": 0, "end": 3}]', [("span", "The", 0, 3)]),
        ('[{"start": 0, "end": 9999}]', None), ('[{"start": true, "end": 3}]', None),
        ('[{"start": -3, "end": 3}]', None),
        ('["is \\"final\\" and"]', [("span", 'is "final" and', 31, 46)]),
        ('{"Term": ["notice"], "Effect": "binding"}', [("Term", "notice", 4, 10), ("Effect", "binding", 47, 54)]),
        ('{"spans": [{"label": "Term", "text": "sent"}]}', [("Term", "sent", 14, 18)]),
        ('- "The notice is sent."\n- invented', [("span", "The notice is sent.", 0, 19),
        ("span", "invented", None, None)]),
        ("[]", []), ("none", []), ("", None), ("[1, 2]", None),
    ],
)  # fmt: skip
def test_spans_are_found_in_the_source(text: str, spans: list[tuple[Any, ...]] | None) -> None:
    found = read_answer("spans", text, source=SOURCE)

    assert spans == (
        None if found is None else [(s.get("label", "span"), s["text"], s["start"], s["end"]) for s in found]
    )


@pytest.mark.parametrize(
    ("text", "settings", "number"),
    [
        ("42", {}, 42), ("The answer is 42.", {}, 42), ("In 2019 it was 5. Final answer: 7 in 2020", {}, 7),
        ("3 + 4\n#### 7", {}, 7), ("so \\boxed{12.5}", {}, 12.5), ("first 3, then 9", {}, 9),
        ("first 3, then 9", {"pick": "first"}, 3), ("the answer is unknown but 5", {}, 5),
        ("The answer is 3. No, the answer is 4.", {}, 4),
    ],
)  # fmt: skip
def test_the_number_meant_is_the_one_that_is_said_to_be_the_answer(
    text: str, settings: dict[str, Any], number: float
) -> None:
    assert read_answer("number", text, settings=settings)["number"] == number


def test_numbers_keep_scale_percent_and_unit() -> None:
    assert read_answer("number", "$1,234.5 million") == {
        "number": 1234.5, "scale": 1e6, "is_percent": False, "unit": "USD", "decimals": 1,
    }  # fmt: skip
    assert read_answer("number", "none at all") is None
    assert [part["number"] for part in read_answer("number", "2 and 3", settings={"list": True})] == [2, 3]


def test_texts_are_themselves_and_nothing_is_nothing() -> None:
    assert read_answer("generate", " as it is ") == " as it is "
    assert read_answer("answer", "") == ""
    assert [
        read_answer(task, None) for task in ("generate", "extract", "spans", "number", "multi_label")
    ] == [None] * 5
    assert read_answer("choice", "warranty", labels=LABELS) == "Warranty"


@given(st.sampled_from(["multi_label", "extract", "spans", "number", "answer"]), st.text(max_size=300))
def test_whatever_is_read_can_be_kept_as_strict_json(task: str, text: str) -> None:
    value = read_answer(task, text, labels=LABELS, source=SOURCE)

    assert json.loads(json.dumps(value, allow_nan=False)) == value
