"""Whether llama.cpp survives a GBNF grammar: read here first, because it aborts, hangs or recurses on some.

Source of the notation: llama.cpp, grammars/README.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache

from harness.errors import ModelError

MAX_CHARS = 2**16
MAX_NESTING = 64
MAX_REPEATS = 1000
MAX_ELEMENTS = 20_000
"""Terminals and references after repetitions are written out, as llama.cpp does."""
MAX_PATHS = 100_000
"""Ways from a rule down to its first terminals; llama.cpp walks each of them."""
ROOT = "root"
_LAST_CHAR = 0x10FFFF
_NAME = re.compile(r"[A-Za-z0-9-]+")
_COUNTS = re.compile(r"\s*(\d{1,9})\s*(?:(,)\s*(\d{1,9})?\s*)?\}")
_ESCAPE = re.compile(r'\\(?:x([0-9A-Fa-f]{2})|u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|([trn\\"\[\]-]))')
_PLAIN = {"t": "\t", "r": "\r", "n": "\n"}

Chars = tuple[tuple[int, int], ...]
"""Code points that a terminal takes, as ranges with both ends in them."""
Symbol = str | Chars
"""A rule's name, or a terminal."""
Rules = dict[str, list[list[Symbol]]]
"""By name: the alternatives, each a sequence."""


@lru_cache(maxsize=256)
def check_grammar(text: str) -> None:
    """Returns when llama.cpp can use the grammar.

    Raises:
        ModelError: it is no grammar, or too large, or its rules are such that llama.cpp would not end.
    """
    if len(text) > MAX_CHARS:
        raise ModelError(f"the grammar has {len(text):,} characters, over the limit of {MAX_CHARS:,}")
    if any(char == "\0" or "\ud800" <= char <= "\udfff" for char in text):
        raise ModelError("the grammar holds a NUL or half of a surrogate pair")
    rules = Reader(text).rules()
    _check_names(rules)
    empty = _nullable(rules)
    firsts = {name: list(_leading(found, empty)) for name, found in rules.items()}
    _check_left_recursion(firsts)
    _check_choices(rules, empty)


class Reader:
    """Rules from text; groups and repetitions become rules of their own."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._rules: Rules = {}
        self._elements = 0

    def rules(self) -> Rules:
        """All rules by name.

        Raises:
            ModelError: where the text stops being a grammar.
        """
        self._space(True)
        while self._at < len(self._text):
            self._rule()
        return self._rules

    def _rule(self) -> None:
        name = self._name()
        self._space(False)
        if not self._text.startswith("::=", self._at):
            raise self._wrong("::=")
        self._at += 3
        self._space(True)
        if name in self._rules:
            raise ModelError(f"the grammar has two rules {name!r}")
        self._rules[name] = []
        self._rules[name] = self._alternatives(name, 0)
        if self._at < len(self._text) and self._text[self._at] not in "\r\n":
            raise self._wrong("a new line")
        self._space(True)

    def _alternatives(self, name: str, depth: int) -> list[list[Symbol]]:
        if depth > MAX_NESTING:
            raise ModelError(f"the grammar is nested over {MAX_NESTING} deep")
        found = [self._sequence(name, depth)]
        while self._peek() == "|":
            self._at += 1
            self._space(True)
            found.append(self._sequence(name, depth))
        return found

    def _sequence(self, name: str, depth: int) -> list[Symbol]:
        found: list[list[Symbol]] = []
        while (char := self._peek()) and (char in '"[(.*+?{<!' or _NAME.match(char)):
            if char in "*+?{":
                if not found or not found[-1]:
                    raise self._wrong("something to repeat")
                found[-1] = self._repeated(name, found[-1])
            else:
                found.append(self._item(name, char, depth))
            self._space(depth > 0)
        return [symbol for item in found for symbol in item]

    def _item(self, name: str, char: str, depth: int) -> list[Symbol]:
        if char in "<!":
            raise ModelError("tokens in a grammar depend on the model: write their text")
        if char == '"':
            return self._literal()
        if char == "[":
            return self._counted([self._chars()])
        if char == ".":
            self._at += 1
            return self._counted([((0, _LAST_CHAR),)])
        if char == "(":
            return self._group(name, depth)
        return self._counted([self._name()])

    def _literal(self) -> list[Symbol]:
        self._at += 1
        found: list[Symbol] = []
        while self._peek() != '"':
            code = self._char()
            found.append(((code, code),))
        self._at += 1
        return self._counted(found)

    def _chars(self) -> Chars:
        self._at += 1
        is_negative = self._peek() == "^"
        self._at += is_negative
        found: list[tuple[int, int]] = []
        while self._peek() != "]":
            low = high = self._char()
            if self._peek() == "-" and self._text[self._at + 1 : self._at + 2] != "]":
                self._at += 1
                high = self._char()
            found.append((low, high))
        self._at += 1
        if not found or any(low > high for low, high in found):
            raise ModelError("the grammar has a set of characters that is empty or backwards")
        return _others(found) if is_negative else tuple(found)

    def _group(self, name: str, depth: int) -> list[Symbol]:
        self._at += 1
        self._space(True)
        inner = self._alternatives(name, depth + 1)
        if self._peek() != ")":
            raise self._wrong(")")
        self._at += 1
        return self._counted([self._made(name, inner)])

    def _repeated(self, name: str, item: list[Symbol]) -> list[Symbol]:
        least, most = self._counts()
        optional = 1 if most is None else most - least
        self._count((least + 2 * optional) * len(item))
        tail: list[Symbol] = []
        for _ in range(optional):
            rule = self._made(name, [[*item, *tail], []])
            if most is None:
                self._rules[rule] = [[*item, rule], []]
            tail = [rule]
        return [*(item * least), *tail]

    def _counts(self) -> tuple[int, int | None]:
        char = self._text[self._at]
        self._at += 1
        if char != "{":
            return (1 if char == "+" else 0), (1 if char == "?" else None)
        found = _COUNTS.match(self._text, self._at)
        if not found:
            raise self._wrong("{n}, {n,} or {n,m}")
        self._at = found.end()
        least = int(found[1])
        most = int(found[3]) if found[3] else None if found[2] else least
        if max(least, most or 0) > MAX_REPEATS or (most is not None and most < least):
            raise ModelError(f"the grammar repeats {found[0][:-1]} times; at most {MAX_REPEATS:,}, in order")
        return least, most

    def _made(self, name: str, alternatives: list[list[Symbol]]) -> str:
        made = f"{name}_{len(self._rules)}"  # no name that is written has an underscore
        self._rules[made] = alternatives
        return made

    def _char(self) -> int:
        char = self._peek()
        if not char:
            raise self._wrong("an end of the text in quotes or brackets")
        if char != "\\":
            self._at += 1
            return ord(char)
        found = _ESCAPE.match(self._text, self._at)
        if not found:
            raise self._wrong("an escape that GBNF has")
        self._at = found.end()
        digits = found[1] or found[2] or found[3]
        code = int(digits, 16) if digits else ord(_PLAIN.get(found[4], found[4]))
        if not 0 < code <= _LAST_CHAR:
            raise ModelError(f"the grammar has a character U+{code:04X}")
        return code

    def _name(self) -> str:
        found = _NAME.match(self._text, self._at)
        if not found:
            raise self._wrong("the name of a rule")
        self._at = found.end()
        return found[0]

    def _space(self, takes_lines: bool) -> None:
        pattern = r"(?:[ \t\r\n]|#[^\r\n]*)*" if takes_lines else r"(?:[ \t]|#[^\r\n]*)*"
        found = re.compile(pattern).match(self._text, self._at)
        self._at = found.end() if found else self._at

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _counted(self, symbols: list[Symbol]) -> list[Symbol]:
        self._count(len(symbols))
        return symbols

    def _count(self, elements: int) -> None:
        self._elements += elements
        if self._elements > MAX_ELEMENTS:
            raise ModelError(
                f"the grammar is over {MAX_ELEMENTS:,} elements with its repetitions written out"
            )

    def _wrong(self, wanted: str) -> ModelError:
        line = self._text.count("\n", 0, self._at) + 1
        found = self._text[self._at : self._at + 20] or "the end"
        return ModelError(f"grammar, line {line}: found {found!r}, wanted {wanted}")


def _others(ranges: Sequence[tuple[int, int]]) -> Chars:
    found: list[tuple[int, int]] = []
    start = 0
    for low, high in sorted(ranges):
        if low > start:
            found.append((start, low - 1))
        start = max(start, high + 1)
    return (*found, (start, _LAST_CHAR)) if start <= _LAST_CHAR else tuple(found)


def _check_names(rules: Rules) -> None:
    if ROOT not in rules:
        raise ModelError(f"the grammar has no rule {ROOT!r}")
    used = {symbol for found in rules.values() for one in found for symbol in one if isinstance(symbol, str)}
    missing = sorted(used - set(rules))
    if missing:
        raise ModelError(f"the grammar names rules that it does not have: {', '.join(missing[:5])}")


def _nullable(rules: Rules) -> set[str]:
    """The rules that may be empty."""
    found: set[str] = set()
    while True:
        more = {
            name
            for name, alternatives in rules.items()
            if name not in found and any(all(symbol in found for symbol in one) for one in alternatives)
        }
        if not more:
            return found
        found |= more


def _leading(alternatives: Iterable[Sequence[Symbol]], empty: set[str]) -> Iterator[str]:
    """The rules that these may begin with, as often as they do."""
    for one in alternatives:
        for symbol in one:
            if isinstance(symbol, str):
                yield symbol
            if symbol not in empty:
                break


def _check_left_recursion(firsts: Mapping[str, Sequence[str]]) -> None:
    """Also counts the ways down: llama.cpp looks for left recursion along each of them."""
    paths: dict[str, int] = {}
    for start in firsts:
        stack = [(start, False)]
        open_names: set[str] = set()
        while stack:
            name, is_left = stack.pop()
            if is_left:
                open_names.discard(name)
                paths[name] = 1 + sum(paths[first] for first in firsts[name])
                if paths[name] > MAX_PATHS:
                    raise ModelError(f"the grammar's rule {name!r} can begin in over {MAX_PATHS:,} ways")
            elif name not in paths:
                if name in open_names:
                    raise ModelError(f"the grammar's rule {name!r} begins with itself")
                open_names.add(name)
                stack.append((name, True))
                stack.extend((first, False) for first in set(firsts[name]))


def _check_choices(rules: Rules, empty: set[str]) -> None:
    """In a rule that holds itself, the first character must decide: llama.cpp follows all that fit, and their
    number doubles with each level."""
    for name in _recursive(rules):
        sets = [_first_chars(one, rules, empty) for one in rules[name]]
        spans = sorted((low, high, at) for at, chars in enumerate(sets) for low, high in set(chars))
        last = (-1, -1)  # the furthest end so far, and whose
        for low, high, at in spans:
            if low <= last[0] and at != last[1]:
                shown = name.partition("_")[0]
                raise ModelError(
                    f"the grammar's rule {shown!r} holds itself, and two of its alternatives begin alike",
                    hint="take the common beginning out: a b | a c becomes a (b | c)",
                )
            last = max(last, (high, at))


def _first_chars(one: Sequence[Symbol], rules: Rules, empty: set[str]) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    seen: set[str] = set()
    waiting: list[Sequence[Symbol]] = [one]
    while waiting:
        for symbol in waiting.pop():
            if not isinstance(symbol, str):
                found.extend(symbol)
            elif symbol not in seen:
                seen.add(symbol)
                waiting.extend(rules[symbol])
            if symbol not in empty:
                break
    return found


def _recursive(rules: Rules) -> list[str]:
    """The rules that can hold themselves."""
    held = {
        name: {symbol for one in found for symbol in one if isinstance(symbol, str)}
        for name, found in rules.items()
    }
    return [name for name in rules if len(rules[name]) > 1 and _reaches(name, held)]


def _reaches(start: str, held: Mapping[str, set[str]]) -> bool:
    seen: set[str] = set()
    waiting = list(held[start])
    while waiting:
        name = waiting.pop()
        if name == start:
            return True
        if name not in seen:
            seen.add(name)
            waiting.extend(held[name])
    return False
