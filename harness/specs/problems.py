"""What pydantic found wrong, in the words of a person who typed the document."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from types import UnionType
from typing import TYPE_CHECKING, Any, Union, get_args, get_origin

from harness.errors import Problem
from harness.specs.yaml import Loc, YamlDocument, describe
from harness.text import nearest

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError
    from pydantic_core import ErrorDetails

NAME_WORDS = "1 to 64 of a-z, 0-9, `_`, `.`, `-`, beginning with a letter or digit"
_TYPES = {
    "int": "a whole number",
    "float": "a number",
    "string": "text",
    "bool": "true or false",
    "tuple": "a list",
    "dict": "keys and values",
    "model": "keys and values",
}
_YAML_1_1_BOOLS = ("yes", "no", "on", "off", "y", "n")


def translate(error: ValidationError, document: YamlDocument, model: type[BaseModel]) -> list[Problem]:
    """All problems in the order of their lines, each in house words."""
    found = error.errors(include_url=False)
    # A list whose items are all wrong is also reported as empty: that is an echo.
    inner = {details["loc"][:-1] for details in found}
    echoes = [details for details in found if details["type"] == "too_short" and details["loc"] in inner]
    problems = [
        problem
        for details in found
        if details not in echoes
        for problem in _problems(details, document, model)
    ]
    return sorted(problems, key=lambda problem: problem.line or 0)


def _problems(details: ErrorDetails, document: YamlDocument, model: type[BaseModel]) -> Iterator[Problem]:
    """The problem; for a rule over several keys, one a line of what it says."""
    if details["type"] == "value_error":
        for message in details["msg"].removeprefix("Value error, ").splitlines():
            yield _rule_problem(message, document, tuple(details["loc"]))
    else:
        yield _problem(details, document, model)


def _problem(details: ErrorDetails, document: YamlDocument, model: type[BaseModel]) -> Problem:
    kind, loc = details["type"], tuple(details["loc"])
    if kind == "missing":
        return document.problem(loc, "missing", _wanted_type(_annotation(model, loc)))
    if kind == "extra_forbidden":
        return document.problem(loc, describe(details["input"]), "", _unknown_key(model, loc))
    if loc and loc[-1] == "[key]":
        loc = loc[:-1]
    return document.problem(loc, describe(details["input"]), _wanted(details, model, loc), _hint(details))


def _rule_problem(message: str, document: YamlDocument, loc: Loc) -> Problem:
    """A rule over several keys; it points at the key that its message begins with, where there is one."""
    first: Loc = tuple(message.split(" ", 1)[0].split("."))
    if (*loc, *first) in document.lines:
        loc = (*loc, *first)
    return document.problem(loc, describe(_value(document.data, loc)), "", message)


def _value(data: Any, loc: Loc) -> Any:
    for part in loc:
        data = data[part]
    return data


def _wanted(details: ErrorDetails, model: type[BaseModel], loc: Loc) -> str:
    kind, context = details["type"], details.get("ctx", {})
    if kind in ("greater_than", "greater_than_equal", "less_than", "less_than_equal"):
        return _range_words(_bounds(_annotation(model, loc)))
    if kind in ("literal_error", "enum"):
        return str(context["expected"]).replace("'", "")
    if kind == "too_short":
        return f"at least {context['min_length']} item{'s' if context['min_length'] > 1 else ''}"
    if kind == "string_pattern_mismatch":
        return NAME_WORDS
    if kind == "finite_number":
        return "a finite number"
    if kind == "int_from_float":
        return _TYPES["int"]
    return _TYPES.get(kind.rsplit("_", 1)[0], details["msg"].removeprefix("Input should be "))


def _hint(details: ErrorDetails) -> str:
    found, kind = details["input"], details["type"]
    if kind == "literal_error" and isinstance(found, str):
        close = nearest(found, re.findall(r"'([^']*)'", details.get("ctx", {}).get("expected", "")))
        return f"nearest: {close}" if close else ""
    if kind == "bool_type" and isinstance(found, str) and found.lower() in _YAML_1_1_BOOLS:
        return "YAML 1.2 reads yes and no as text"
    if kind == "string_type" and isinstance(found, int | float):
        return f'in quotes: "{found}"'
    if kind in ("int_type", "float_type") and isinstance(found, str):
        return "without quotes" if re.fullmatch(r"[-+]?[0-9.]+", found) else ""
    return ""


def _unknown_key(model: type[BaseModel], loc: Loc) -> str:
    parent = _annotation(model, loc[:-1])
    known = [field.alias or name for name, field in getattr(parent, "model_fields", {}).items()]
    close = nearest(str(loc[-1]), known)
    return f"no such key; nearest: {close}" if close else f"no such key; allowed: {', '.join(known)}"


def _annotation(model: Any, loc: Loc) -> Any:
    """The annotation of the value at `loc`, with its constraints; None where the model has no such place."""
    from pydantic import BaseModel

    here: Any = model
    for part in loc:
        here = _unwrapped(here)
        if isinstance(here, type) and issubclass(here, BaseModel):
            by_alias = {field.alias or name: field for name, field in here.model_fields.items()}
            field = by_alias.get(str(part))
            here = None if field is None else _with_metadata(field.annotation, field.metadata)
        else:
            here = get_args(here)[1 if get_origin(here) is dict else 0] if get_args(here) else None
    return here


def _with_metadata(annotation: Any, metadata: list[Any]) -> Any:
    from typing import Annotated

    return Annotated[annotation, *metadata] if metadata else annotation


def _unwrapped(annotation: Any) -> Any:
    """The annotation without Annotated and without `| None`."""
    while True:
        if hasattr(annotation, "__metadata__"):
            annotation = annotation.__origin__
        elif get_origin(annotation) in (Union, UnionType):
            annotation = next(arg for arg in get_args(annotation) if arg is not type(None))
        else:
            return annotation


def _wanted_type(annotation: Any) -> str:
    bare = _unwrapped(annotation)
    if (origin := get_origin(bare)) is not None and origin not in (tuple, dict, list):
        return ", ".join(map(str, get_args(bare)))
    names: dict[Any, str] = {int: "int", float: "float", str: "string", bool: "bool", tuple: "tuple"}
    return _TYPES[names.get(origin or bare, "model")]


def _bounds(annotation: Any) -> dict[str, Any]:
    """The limits among the annotation's constraints: `ge`, `gt`, `le`, `lt`."""
    found: dict[str, Any] = {}
    while annotation is not None:
        for constraint in getattr(annotation, "__metadata__", ()):
            for item in [constraint, *getattr(constraint, "metadata", ())]:
                found |= {
                    name: getattr(item, name) for name in ("ge", "gt", "le", "lt") if hasattr(item, name)
                }
        if hasattr(annotation, "__metadata__"):
            annotation = annotation.__origin__
        elif get_origin(annotation) in (Union, UnionType):
            annotation = get_args(annotation)[0]
        else:
            annotation = None
    return found


def _range_words(bounds: dict[str, Any]) -> str:
    if {"ge", "le"} <= bounds.keys():
        return f"{bounds['ge']:g} to {bounds['le']:g}"
    words: list[tuple[str, Callable[[Any], str]]] = [
        ("ge", "at least {:g}".format),
        ("gt", "more than {:g}".format),
        ("le", "at most {:g}".format),
        ("lt", "less than {:g}".format),
    ]
    return " and ".join(say(bounds[name]) for name, say in words if name in bounds)
