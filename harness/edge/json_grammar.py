"""A JSON schema as GBNF: what the model writes is valid by construction, or the schema is refused by name.

Source: JSON Schema 2020-12 for the keywords; llama.cpp, grammars/README.md for the notation. llama-cpp-python's own
converter is not taken: it loads llama.cpp into this process and drops keywords that it does not know without a word.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from harness.errors import ModelError
from harness.gbnf import check_grammar
from harness.models.grammar import RULES, quoted

MAX_DEPTH = 24
MAX_ITEMS = 64
"""Of an array without `maxItems`: a model that loops must still close it."""
MAX_STRING_CHARS = 500
_ANNOTATIONS = frozenset(
    ("title", "description", "default", "examples", "$schema", "$id", "$comment", "deprecated")
)
_KEYWORDS: Mapping[str, frozenset[str]] = {
    "object": frozenset(("properties", "required", "additionalProperties")),
    "array": frozenset(("items", "minItems", "maxItems")),
    "string": frozenset(("minLength", "maxLength")),
    "number": frozenset(), "integer": frozenset(), "boolean": frozenset(), "null": frozenset(),
}  # fmt: skip
_CHAR = r'( [^"\\\x01-\x1F\x7F] | "\\" ( ["\\/bfnrt] | "u" [0-9A-Fa-f]{4} ) )'
_BASE = {**RULES, "space": '" "?', "comma": '"," space', "colon": '":" space', "null": '"null"'}
ANY_OBJECT = "\n".join(
    [
        "root ::= object",
        'object ::= "{" space ( pair ( comma pair ){0,63} )? space "}"',
        "pair ::= string colon value",
        'array ::= "[" space ( value ( comma value ){0,63} )? space "]"',
        "value ::= object | array | string | number | boolean | null",
        *(f"{name} ::= {rule}" for name, rule in _BASE.items()),
    ]
)
"""Any JSON object."""


def schema_grammar(schema: Mapping[str, Any]) -> str:
    """GBNF for values of the schema. An object's properties are all written, in their order, also optional ones.

    Raises:
        ModelError: the schema has a keyword that a grammar can't hold an answer to, or is too deep.
    """
    maker = _Maker(schema.get("$defs", {}), schema.get("definitions", {}))
    root = maker.rule(schema, "schema", 0)
    text = "\n".join([f"root ::= {root}", *(f"{name} ::= {rule}" for name, rule in maker.rules.items())])
    check_grammar(text)
    return text


class _Maker:
    def __init__(self, defs: Any, definitions: Any) -> None:
        self.rules: dict[str, str] = dict(_BASE)
        self._defs = {"#/$defs/": defs, "#/definitions/": definitions}
        self._refs: dict[str, str] = {}

    def rule(self, schema: Any, where: str, depth: int) -> str:
        """An expression for the schema's values."""
        if schema is True or not isinstance(schema, Mapping):
            raise ModelError(f"{where}: wanted a schema that says what is meant")
        if depth > MAX_DEPTH:
            raise ModelError(f"{where}: nested over {MAX_DEPTH} deep")
        found = {key: value for key, value in schema.items() if key not in _ANNOTATIONS}
        found = {key: value for key, value in found.items() if key not in ("$defs", "definitions")}
        for key, make in (
            ("$ref", self._ref),
            ("const", self._const),
            ("enum", self._enum),
            ("anyOf", self._any),
        ):
            if key in found:
                self._require(found, {key, "type"} if key in ("const", "enum") else {key}, where)
                return make(found[key], where, depth)
        kinds = found.get("type")
        names = [str(name) for name in (kinds if isinstance(kinds, list) else [kinds])]
        if not names or not all(name in _KEYWORDS for name in names):
            raise ModelError(f"{where}: type {kinds!r}, wanted one of {', '.join(_KEYWORDS)}")
        self._require(found, {"type"}.union(*(_KEYWORDS[name] for name in names)), where)
        options = [self._typed(name, found, where, depth) for name in names]
        return options[0] if len(options) == 1 else f"( {' | '.join(options)} )"

    def _require(self, found: Mapping[str, Any], known: set[str], where: str) -> None:
        unknown = sorted(found.keys() - known)
        if unknown:
            raise ModelError(f"{where}: an answer can't be held to {', '.join(unknown)}")

    def _typed(self, name: str, schema: Mapping[str, Any], where: str, depth: int) -> str:
        if name == "object":
            return self._object(schema, where, depth)
        if name == "array":
            return self._array(schema, where, depth)
        if name == "string" and ("minLength" in schema or "maxLength" in schema):
            low, high = _range(schema, "minLength", "maxLength", MAX_STRING_CHARS, where)
            return f'"\\"" {_CHAR}{{{low},{high}}} "\\""'
        return name

    def _object(self, schema: Mapping[str, Any], where: str, depth: int) -> str:
        properties = schema.get("properties")
        if not isinstance(properties, Mapping) or not properties:
            raise ModelError(f"{where}: an object needs properties")
        if schema.get("additionalProperties", False) is not False:
            raise ModelError(f"{where}: an answer can't be held to additionalProperties")
        missing = set(schema.get("required", ())) - properties.keys()
        if missing:
            raise ModelError(f"{where}: required names {', '.join(sorted(missing))}, which properties do not")
        pairs = [
            f"{quoted(json.dumps(name, ensure_ascii=False))} colon {self.rule(child, f'{where}.{name}', depth + 1)}"
            for name, child in properties.items()
        ]
        return f'"{{" space {" comma ".join(pairs)} space "}}"'

    def _array(self, schema: Mapping[str, Any], where: str, depth: int) -> str:
        low, high = _range(schema, "minItems", "maxItems", MAX_ITEMS, where)
        if high == 0:
            return '"[" space "]"'
        item = self.rule(schema.get("items"), f"{where}[]", depth + 1)
        more = f"( {item} ( comma {item} ){{{max(low - 1, 0)},{high - 1}}} )"
        return f'"[" space {more if low else more + "?"} space "]"'

    def _ref(self, target: Any, where: str, depth: int) -> str:
        for prefix, defs in self._defs.items():
            name = target.removeprefix(prefix) if isinstance(target, str) else ""
            if name != target and isinstance(defs, Mapping) and name in defs:
                if target not in self._refs:
                    self._refs[target] = rule = f"ref-{len(self._refs)}"
                    self.rules[rule] = self.rule(defs[name], target, depth + 1)
                return self._refs[target]
        raise ModelError(f"{where}: $ref {target!r} leads nowhere in this schema")

    def _const(self, value: Any, where: str, depth: int) -> str:  # noqa: ARG002 - one of several makers
        return _literal(value)

    def _enum(self, values: Any, where: str, depth: int) -> str:  # noqa: ARG002
        if not isinstance(values, Sequence) or isinstance(values, str) or not values:
            raise ModelError(f"{where}: enum needs a list of values")
        return f"( {' | '.join(map(_literal, values))} )"

    def _any(self, options: Any, where: str, depth: int) -> str:
        if not isinstance(options, Sequence) or isinstance(options, str) or not options:
            raise ModelError(f"{where}: anyOf needs a list of schemas")
        rules = [self.rule(one, f"{where}|{at}", depth + 1) for at, one in enumerate(options)]
        return f"( {' | '.join(rules)} )"


def _literal(value: Any) -> str:
    return quoted(json.dumps(value, ensure_ascii=False, allow_nan=False))


def _range(schema: Mapping[str, Any], low_key: str, high_key: str, most: int, where: str) -> tuple[int, int]:
    low, high = schema.get(low_key, 0), schema.get(high_key, max(most, schema.get(low_key, 0) or 0))
    if not all(type(value) is int and 0 <= value <= 2000 for value in (low, high)) or low > high:
        raise ModelError(f"{where}: {low_key} {low!r}, {high_key} {high!r}: wanted 0 to 2000, in order")
    return low, high
