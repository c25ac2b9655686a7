"""GBNF that an answer must follow: one label, a JSON list of labels, a JSON object.

Source of the notation: llama.cpp, grammars/README.md.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from harness.errors import ModelError

Kind = Literal["string", "number", "integer", "boolean"]

MAX_TEXT_CHARS = 500
"""Longest free string in a JSON answer: a model that loops must still close it."""

RULES: Mapping[str, str] = {
    "string": (
        r'"\"" ( [^"\\\x01-\x1F\x7F] | "\\" ( ["\\/bfnrt] | "u" [0-9A-Fa-f]{4} ) ){0,'
        + str(MAX_TEXT_CHARS)
        + r'} "\""'
    ),
    "integer": '"-"? ( "0" | [1-9] [0-9]{0,14} )',
    "number": 'integer ( "." [0-9]{1,15} )? ( [eE] [-+]? [0-9]{1,3} )?',
    "boolean": '"true" | "false"',
}
"""Rules that the fields of an object name."""


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a JSON object."""

    name: str
    kind: Kind = "string"
    labels: tuple[str, ...] = ()
    """The strings that it may hold; empty for any of its kind."""
    is_list: bool = False
    is_nullable: bool = False


def one_of(labels: Sequence[str]) -> str:
    """A grammar for exactly one of the labels, as plain text.

    Raises:
        ModelError: there is none, or one is empty.
    """
    return f"root ::= {_alternatives([quoted(label) for label in _checked(labels)])}\n"


def json_list_of(labels: Sequence[str]) -> str:
    """A grammar for a JSON list of labels, also an empty one; a label may come twice.

    Raises:
        ModelError: there is no label, or one is empty.
    """
    return f"root ::= {_list('label')}\nlabel ::= {_strings(labels)}\n"


def json_object(fields: Sequence[Field]) -> str:
    """A grammar for a JSON object with all of the fields, in their order.

    Raises:
        ModelError: there is no field, or one has no name or the name of another.
    """
    names = [field.name for field in fields]
    if not names or len(set(names)) < len(names) or not all(names):
        raise ModelError(f"fields {names}: wanted at least one, each with a name of its own")
    pairs = [f"{quoted(json.dumps(field.name, ensure_ascii=False))} colon {_value(field, at)}"
             for at, field in enumerate(fields)]  # fmt: skip
    lines = [f'root ::= "{{" space {" comma ".join(pairs)} space "}}"']
    lines += [f"labels-{at} ::= {_strings(field.labels)}" for at, field in enumerate(fields) if field.labels]
    lines += ['comma ::= "," space', 'colon ::= ":" space', 'space ::= " "?']
    lines += [f"{name} ::= {rule}" for name, rule in RULES.items()]
    return "\n".join(lines) + "\n"


def quoted(text: str) -> str:
    """The text as a GBNF literal.

    Raises:
        ModelError: it holds a NUL or half of a surrogate pair, which no model can write.
    """
    if "\0" in text or any("\ud800" <= char <= "\udfff" for char in text):
        raise ModelError(f"{text!r} holds a NUL or half of a surrogate pair")
    return '"' + "".join(_escaped(char) for char in text) + '"'


def _escaped(char: str) -> str:
    if char in '"\\':
        return "\\" + char
    return char if char.isprintable() else f"\\U{ord(char):08X}"


def _value(field: Field, at: int) -> str:
    one = f"labels-{at}" if field.labels else field.kind
    value = _list(one) if field.is_list else one
    return f'( {value} | "null" )' if field.is_nullable else value


def _list(item: str) -> str:
    return f'"[" ( {item} ( "," " "? {item} )* )? "]"'


def _strings(labels: Sequence[str]) -> str:
    return _alternatives([quoted(json.dumps(label, ensure_ascii=False)) for label in _checked(labels)])


def _alternatives(literals: Sequence[str]) -> str:
    return " | ".join(dict.fromkeys(literals))


def _checked(labels: Sequence[str]) -> Sequence[str]:
    if not labels or not all(labels):
        raise ModelError(f"labels {list(labels)}: wanted at least one, none of them empty")
    return labels
