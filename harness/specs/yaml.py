"""Strict YAML 1.2: what a person typed, with the line of every key, and nothing that surprises.

Plain scalars follow the core schema of YAML 1.2: `no` is text and `1e-4` is a number. Anchors, aliases,
tags, directives, duplicate keys and several documents in a file are refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from harness.errors import Problem, SpecError
from harness.text import visible

MAX_BYTES = 2**20
MAX_DEPTH = 24
MAX_PROBLEMS = 20

Loc = tuple[str | int, ...]
"""Where a value is: keys and list positions from the top."""

_INT = re.compile(r"[-+]?[0-9]+")
_OCTAL = re.compile(r"0o[0-7]+")
_HEX = re.compile(r"0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_INFINITY = re.compile(r"[-+]?\.(inf|Inf|INF)")
_SURROGATE = re.compile("[\ud800-\udfff]")
_WORDS: dict[str, Any] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
}


class YamlDocument(NamedTuple):
    """A document and where its parts are."""

    file: str
    data: dict[str, Any]
    lines: dict[Loc, int]
    """1-based line of each key and list item."""

    def line(self, loc: Loc) -> int:
        """The line of the value, or of the nearest part around it that the file has."""
        while loc and loc not in self.lines:
            loc = loc[:-1]
        return self.lines.get(loc, 1)

    def problem(self, loc: Loc, found: str, wanted: str, hint: str = "") -> Problem:
        """A problem with the value at `loc`."""
        return Problem(self.file, self.line(loc), dotted(loc), found, wanted, hint)


def read_yaml(path: Path) -> YamlDocument:
    """The file's document.

    Raises:
        SpecError: the file can't be read, or is not the strict YAML described above.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise SpecError(
            [Problem(str(path), None, "", error.strerror or str(error), "a YAML file")]
        ) from error
    return parse_yaml(data, file=str(path))


def parse_yaml(data: bytes, *, file: str) -> YamlDocument:
    """The document that the bytes spell; see `read_yaml`."""
    text = _decode(data, file)
    builder = _Builder(file)
    value = builder.build(text)
    if not builder.problems and not isinstance(value, dict):
        found = "an empty file" if value is None else describe(value)
        builder.problems.append(Problem(file, 1, "", found, "keys and values, such as `version: 1`"))
    if builder.problems:
        raise SpecError(builder.problems)
    return YamlDocument(file, value, builder.lines)


def dotted(loc: Loc) -> str:
    """The place as a person writes it: `gates[0].at_least`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc)
    return visible(text.removeprefix("."), keep_newlines=False, limit_chars=120)


def describe(value: Any) -> str:
    """The value on one short line, as YAML would spell it, safe to show."""
    import json

    shown = json.dumps(value, ensure_ascii=False, default=str)
    return visible(shown, keep_newlines=False, limit_chars=60)


def _decode(data: bytes, file: str) -> str:
    if len(data) > MAX_BYTES:
        raise SpecError(
            [Problem(file, None, "", f"over {MAX_BYTES:,} bytes", f"at most {MAX_BYTES:,} bytes")]
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise SpecError([Problem(file, line, "", f"byte {data[error.start]:#04x}", "UTF-8 text")]) from error


class _Builder:
    """Turns the parser's events into plain values, and notes lines and problems on the way."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.lines: dict[Loc, int] = {(): 1}
        self.problems: list[Problem] = []
        self.events: Iterator[Any] = iter(())

    def build(self, text: str) -> Any:
        from ruamel.yaml import YAML
        from ruamel.yaml.error import YAMLError

        self.events = iter(YAML(typ="safe", pure=True).parse(text))
        value: Any = None
        try:
            value = self._documents()
        except _TooMuch:
            pass
        except (YAMLError, ValueError, RecursionError) as error:
            self.problems.append(_syntax_problem(self.file, text, error))
        return value

    def _documents(self) -> Any:
        value, count = None, 0
        for event in self.events:
            kind = type(event).__name__
            if kind == "DocumentStartEvent":
                count += 1
                if event.version or event.tags:
                    self._note(event, (), "a % directive", "a document without directives")
                if count > 1:
                    self._note(event, (), "a second document", "one document a file")
                    raise _TooMuch
            elif kind not in ("StreamStartEvent", "StreamEndEvent", "DocumentEndEvent", "CommentEvent"):
                value = self._value(event, ())
        return value

    def _value(self, event: Any, loc: Loc) -> Any:
        kind = type(event).__name__
        self._refuse_extras(event, kind, loc)
        if kind == "AliasEvent":
            return None
        if kind == "ScalarEvent":
            return self._scalar(event, loc)
        if len(loc) >= MAX_DEPTH:
            self._note(event, loc[:3], f"more than {MAX_DEPTH} levels", "a flatter document")
            raise _TooMuch
        return self._sequence(loc) if kind == "SequenceStartEvent" else self._mapping(loc)

    def _refuse_extras(self, event: Any, kind: str, loc: Loc) -> None:
        if kind == "AliasEvent":
            self._note(event, loc, f"alias *{event.anchor}", "the value itself", "aliases are refused")
        elif event.anchor is not None:
            self._note(event, loc, f"anchor &{event.anchor}", "the value alone", "anchors are refused")
        tag = getattr(event, "tag", None)
        if tag is not None:
            self._note(event, loc, f"tag {tag}", "the value alone", "tags are refused")

    def _scalar(self, event: Any, loc: Loc) -> Any:
        if _SURROGATE.search(event.value):
            self._note(event, loc, "half of a surrogate pair", "whole characters")
        return resolve(event.value) if event.implicit[0] and event.style in (None, "") else event.value

    def _sequence(self, loc: Loc) -> list[Any]:
        items: list[Any] = []
        for event in self.events:
            if type(event).__name__ == "SequenceEndEvent":
                break
            here = (*loc, len(items))
            self.lines[here] = _line(event)
            items.append(self._value(event, here))
        return items

    def _mapping(self, loc: Loc) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for event in self.events:
            if type(event).__name__ == "MappingEndEvent":
                break
            key = self._key(event, loc)
            here = (*loc, key)
            is_twice = key in found
            if is_twice:
                self._note(event, here, "given twice", "each key once", f"first on line {self.lines[here]}")
            self.lines.setdefault(here, _line(event))
            value = self._value(next(self.events), here)
            found.setdefault(key, value)
        return found

    def _key(self, event: Any, loc: Loc) -> str:
        if type(event).__name__ != "ScalarEvent":
            self._note(event, loc, "a key that is a list, a mapping or an alias", "keys that are text")
            raise _TooMuch
        self._refuse_extras(event, "ScalarEvent", loc)
        key = self._scalar(event, loc)
        if not isinstance(key, str):
            self._note(event, loc, f"key {event.value}", "keys that are text", f'write "{event.value}"')
        return str(event.value)

    def _note(self, event: Any, loc: Loc, found: str, wanted: str, hint: str = "") -> None:
        shown = visible(found, keep_newlines=False, limit_chars=60)
        self.problems.append(Problem(self.file, _line(event), dotted(loc), shown, wanted, hint))
        if len(self.problems) >= MAX_PROBLEMS:
            raise _TooMuch


class _TooMuch(Exception):  # noqa: N818 - a signal inside this file, never shown
    """There is no point in reading on; the problems say why."""


def resolve(text: str) -> Any:
    """What a plain scalar means in YAML 1.2's core schema."""
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text) and len(text) < 40:
        return int(text)
    if _OCTAL.fullmatch(text) and len(text) < 40:
        return int(text[2:], 8)
    if _HEX.fullmatch(text) and len(text) < 40:
        return int(text[2:], 16)
    if _FLOAT.fullmatch(text):
        return float(text)
    if _INFINITY.fullmatch(text):
        return float(text.replace(".", ""))
    return text


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1


def _syntax_problem(file: str, text: str, error: Exception) -> Problem:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    position = getattr(error, "position", None)
    line: int | None = None
    if mark is not None:
        line = mark.line + 1
    elif isinstance(position, int):
        line = text.count("\n", 0, position) + 1
    what = getattr(error, "problem", None) or getattr(error, "reason", None) or type(error).__name__
    return Problem(file, line, "", visible(str(what), keep_newlines=False, limit_chars=120), "YAML 1.2")
