"""Derivations: evaluated, never executed."""

from __future__ import annotations

import ast
import operator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.scoring.arithmetic import derivation, evaluate, says_what_it_derives
from harness.scoring.item import Item


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1+2*3", 7), ("(1+2)*3", 9), ("10-4-3", 3), ("100/10/5", 2), ("-3+5", 2), ("--3", 3), ("2*-3", -6),
        ("-(2+1)", -3),
        ("1,204.5 - 1,131", 73.5), ("[(4.4-2.2)/2.2]*100", 100), ("{2+3}", 5), ("50%", 0.5), ("200*15%", 30),
        ("5%%", 0.0005),
        ("$1,000 / $4", 250), ("2×3", 6), ("8÷2", 4), ("5 − 3", 2), ("2 x 3", 6), (".5+1", 1.5), ("(0)", 0),
        ("-0", 0),
        (" 7 ", 7), ("１+２", 3),
    ],
)  # fmt: skip
def test_arithmetic_is_evaluated(text: str, value: float) -> None:
    assert evaluate(text) == pytest.approx(value)


@pytest.mark.parametrize(
    "text",
    [
        "", "1+", "+", "()", "1 2", "(1", "1)", "(1]", "1/0", "1/(2-2)", "__import__('os')", "a+1", "2**3", "1;2",
        "1=1",
        "1,23", "12,34", "1e5", "9" * 400, "(" * 51 + "1" + ")" * 51, "1+" * 6000 + "1", "(" * 5000, "-" * 20_000,
        "NaN", "inf", "1//2", "1 if 1 else 2", "1_000",
    ],
)  # fmt: skip
def test_what_is_no_arithmetic_has_no_value(text: str) -> None:
    assert evaluate(text) is None


expressions = st.recursive(
    st.integers(0, 999).map(str),
    lambda inner: st.tuples(inner, st.sampled_from("+-*/"), inner).map(lambda t: f"({t[0]} {t[1]} {t[2]})"),
    max_leaves=8,
)
_OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}


def by_python(node: ast.expr) -> float:
    if isinstance(node, ast.BinOp):
        return _OPERATORS[type(node.op)](by_python(node.left), by_python(node.right))
    assert isinstance(node, ast.Constant)
    return float(node.value)


@given(expressions)
def test_it_agrees_with_pythons_own_parser(text: str) -> None:
    try:
        wanted = by_python(ast.parse(text.replace("(0", "( 0"), mode="eval").body)
    except ZeroDivisionError:
        assert evaluate(text) is None
    else:
        assert evaluate(text) == pytest.approx(wanted)


@given(st.text(alphabet="0123456789+-*/()%[]., x$", max_size=60))
def test_no_text_breaks_it(text: str) -> None:
    value = evaluate(text)

    assert value is None or abs(value) < float("inf")


@pytest.mark.parametrize(
    ("text", "gold", "scale", "value", "error_class"),
    [
        ("(112-100)/100", "12", "percent", 1.0, None), ("(112-100)/100*100", "12", "percent", 1.0, None),
        ("(112-100)/100", "12", "none", 0.0, "percent_slip"), ("100-112", "12", "none", 0.0, "sign_slip"),
        ("12,000+0", "12", "none", 0.0, "scale_slip"), ("nonsense", "12", "none", 0.0, "unread"),
        ("1/3", "0.33", "none", 1.0, None),
    ],
)  # fmt: skip
def test_a_derivation_is_right_if_its_value_is(
    text: str, gold: str, scale: str, value: float, error_class: str | None
) -> None:
    found = derivation(Item(text, (gold,), settings={"scale": scale, "decimals": 2}))

    assert (found.value, found.error_class) == (value, error_class)


def test_a_text_is_held_to_the_result_that_it_states() -> None:
    assert says_what_it_derives("(112 - 100) / 100 = 12%") is True
    assert says_what_it_derives("(112 - 100) / 100 = 0.12") is True
    assert says_what_it_derives("2 + 2 = 5") is False
    assert says_what_it_derives("2 + 2") is None
    assert says_what_it_derives("x = 5") is None
