"""JSON schemas as grammars: what is held to, and what is refused by name."""

from __future__ import annotations

from typing import Any

import pytest

from harness.edge.json_grammar import ANY_OBJECT, schema_grammar
from harness.errors import ModelError
from harness.gbnf import check_grammar

LEAF = {"$ref": "#/$defs/leaf"}
PERSON = {
    "type": "object",
    "title": "a person",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 20},
        "age": {"type": ["integer", "null"]},
        "tags": {"type": "array", "items": {"enum": ["a", 'b"', 3, None]}, "minItems": 1, "maxItems": 2},
        "kind": {"const": "person"},
        "next": {"anyOf": [{"$ref": "#/$defs/leaf"}, {"type": "null"}]},
    },
    "required": ["name"],
    "additionalProperties": False,
    "$defs": {"leaf": {"type": "object", "properties": {"next": {"anyOf": [LEAF, {"type": "null"}]}}}},
}  # fmt: skip


def test_a_schema_becomes_a_grammar_that_llama_cpp_can_use() -> None:
    text = schema_grammar(PERSON)

    check_grammar(text)
    assert '"\\"name\\"" colon "\\""' in text
    assert "( integer | null )" in text
    assert '"\\"b\\\\\\"\\""' in text  # the JSON text of b", as a GBNF literal
    assert "ref-0 ::=" in text


def test_any_object_is_a_grammar() -> None:
    check_grammar(ANY_OBJECT)


@pytest.mark.parametrize(
    ("schema", "named"),
    [
        ({"type": "string", "pattern": "a+"}, "pattern"),
        ({"type": "integer", "minimum": 3}, "minimum"),
        ({"type": "object", "properties": {"a": {"type": "null"}}, "additionalProperties": True}, "additionalP"),
        ({"type": "object"}, "properties"),
        ({"type": "object", "properties": {"a": {"type": "null"}}, "required": ["b"]}, "b"),
        ({"type": "array", "items": {"type": "null"}, "uniqueItems": True}, "uniqueItems"),
        ({"type": "array"}, r"schema\[\]"),
        ({"type": "array", "items": {"type": "null"}, "minItems": 3, "maxItems": 2}, "minItems"),
        ({"type": "colour"}, "colour"),
        ({}, "type"),
        ({"allOf": []}, "type"),
        ({"$ref": "https://elsewhere/schema"}, "leads nowhere"),
        ({"enum": []}, "enum"),
        ({"anyOf": [{"type": "string"}], "type": "string"}, "type"),
    ],
)  # fmt: skip
def test_what_an_answer_can_not_be_held_to_is_refused_by_name(schema: dict[str, Any], named: str) -> None:
    with pytest.raises(ModelError, match=named):
        schema_grammar(schema)


def test_a_schema_without_an_end_is_refused() -> None:
    deep: dict[str, Any] = {"type": "null"}
    for _ in range(200):
        deep = {"type": "array", "items": deep}

    with pytest.raises(ModelError, match="nested"):
        schema_grammar(deep)
    with pytest.raises(ModelError):
        schema_grammar({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}})
