"""The value of a derivation such as `(1,204 - 1,131) / 1,131`, without executing anything."""

from __future__ import annotations

import math
import re
from typing import NamedTuple

from harness.scoring.item import Item, Score
from harness.scoring.number_match import classify_error, gold_quantities, is_right
from harness.scoring.numbers import Quantity, plain_text, read_quantities

MAX_CHARS = 10_000
MAX_DEPTH = 50

_NUMBER = r"\d{1,3}(?:,\d{3})+(?:\.\d+)?(?![\d,])|\d+(?:\.\d+)?(?![\d,])|\.\d+(?![\d,])"
_TOKEN = re.compile(rf"\s*(?:(?P<number>{_NUMBER})|(?P<sign>[-+*/%()\[\]{{}}]|[×·xX÷])|(?P<money>[$€£¥]))")
_SPELLINGS = {"×": "*", "·": "*", "x": "*", "X": "*", "÷": "/", "[": "(", "{": "(", "]": ")", "}": ")"}
_CLOSES = {"(": ")", "[": "]", "{": "}"}


def evaluate(text: str) -> float | None:
    """The value of sums, differences, products, quotients, percents and brackets; None for anything else.

    `5%` is 0.05. None too for a division by 0, a result that no float holds, more than 10,000 characters
    or 50 brackets inside each other.
    """
    if len(text) > MAX_CHARS:
        return None
    try:
        tokens = _tokens(plain_text(text))
        value = _Reader(tokens).read()
    except (_UnreadableError, ZeroDivisionError, OverflowError):
        return None
    return value + 0.0 if math.isfinite(value) else None


def derivation(item: Item) -> Score:
    """1 if the answer is arithmetic whose value is the gold number; settings and error classes of `number`.

    A gold in percent takes the fraction and a hundred times it: derivations write both.
    """
    value = evaluate(item.answer or "")
    if value is None:
        return Score(0.0, error_class="unread")
    golds = gold_quantities(item)
    said = [Quantity(value), Quantity(value, is_percent=True)]
    if any(is_right(one, gold, item.settings) for gold in golds for one in said[: 1 + gold.is_percent]):
        return Score(1.0, note=f"= {value:.10g}")
    error_class = classify_error(said[0], golds[0], item.context, item.settings) if golds else "no_gold"
    return Score(0.0, error_class=error_class, note=f"= {value:.10g}")


def says_what_it_derives(text: str, *, decimals: int | None = None) -> bool | None:
    """Whether what stands left of the last `=` gives the number on its right, to the digits that are written.

    None where the text holds no such equation.
    """
    left, equals, right = text.rpartition("=")
    value, stated = evaluate(left.rpartition("=")[2]), read_quantities(right)
    if not equals or value is None or not stated:
        return None
    settings = {"decimals": "gold" if decimals is None else decimals}
    return any(is_right(Quantity(one), stated[0], settings) for one in (value, value * 100))


class _UnreadableError(ValueError):
    """The text is no arithmetic."""


class _Token(NamedTuple):
    kind: str
    """`number` or the sign itself."""
    value: float = 0.0


def _tokens(text: str) -> list[_Token]:
    tokens: list[_Token] = []
    open_brackets: list[str] = []
    at = 0
    while at < len(text.rstrip()):
        match = _TOKEN.match(text, at)
        if match is None:
            raise _UnreadableError(text[at : at + 20])
        at = match.end()
        if written := match["number"]:
            tokens.append(_Token("number", float(written.replace(",", ""))))
        elif sign := match["sign"]:
            _check_bracket(sign, open_brackets)
            tokens.append(_Token(_SPELLINGS.get(sign, sign)))
    return tokens


def _check_bracket(sign: str, open_brackets: list[str]) -> None:
    if sign in _CLOSES:
        open_brackets.append(_CLOSES[sign])
    elif sign in ")]}" and (not open_brackets or open_brackets.pop() != sign):
        raise _UnreadableError(sign)


class _Reader:
    """Recursive descent: sum → product → signed → percent → number or brackets."""

    def __init__(self, tokens: list[_Token]) -> None:
        self._tokens = tokens
        self._at = 0
        self._depth = 0

    def read(self) -> float:
        value = self._sum()
        if self._at < len(self._tokens):
            raise _UnreadableError(self._tokens[self._at].kind)
        return value

    def _sum(self) -> float:
        value = self._product()
        while self._peek() in ("+", "-"):
            sign = self._next().kind
            value = value + self._product() if sign == "+" else value - self._product()
        return value

    def _product(self) -> float:
        value = self._signed()
        while self._peek() in ("*", "/"):
            sign = self._next().kind
            value = value * self._signed() if sign == "*" else value / self._signed()
        return value

    def _signed(self) -> float:
        is_negative = False
        while self._peek() in ("+", "-"):
            is_negative ^= self._next().kind == "-"
        value = self._percent()
        return -value if is_negative else value

    def _percent(self) -> float:
        value = self._atom()
        while self._peek() == "%":
            self._next()
            value /= 100
        return value

    def _atom(self) -> float:
        token = self._next()
        if token.kind == "number":
            return token.value
        self._depth += 1
        if token.kind != "(" or self._depth > MAX_DEPTH:
            raise _UnreadableError(token.kind)
        value = self._sum()
        if self._next().kind != ")":
            raise _UnreadableError(")")
        self._depth -= 1
        return value

    def _peek(self) -> str:
        return self._tokens[self._at].kind if self._at < len(self._tokens) else ""

    def _next(self) -> _Token:
        if self._at >= len(self._tokens):
            raise _UnreadableError("end")
        self._at += 1
        return self._tokens[self._at - 1]
