"""Prompts: what they can say, and that nothing else gets through."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.data.records import Record
from harness.data.template import FILTERS, render_turns, template_problems
from harness.errors import DataError
from harness.specs.suite import PromptSpec

RECORD = Record("r1", "The law of France.", ("Law",), {"kind": "nda", "groups": ["a", "b"]}, "u1", {})


def render(user: str, *, record: Record = RECORD, system: str | None = None) -> tuple[tuple[str, str], ...]:
    return render_turns(PromptSpec(user=user, system=system), record, ["Law", "Court"])


def test_a_prompt_becomes_turns() -> None:
    turns = render(
        "Types:\n{% for label in labels %}\n- {{ label }}\n{% endfor %}\nClause: {{ input }}\n",
        system="You read {{ slices.kind | upper }} contracts on {{ slices.groups | join(' and ') }}.",
    )

    assert turns == (
        ("system", "You read NDA contracts on a and b."),
        ("user", "Types:\n- Law\n- Court\nClause: The law of France."),
    )


def test_conditions_and_unknown_slices_with_a_default() -> None:
    assert (
        render("{% if slices.kind == 'nda' %}N{% else %}O{% endif %}{{ slices.x | default('-') }}")[0][1]
        == "N-"
    )


@given(st.text())
def test_a_record_is_data_to_the_letter(text: str) -> None:
    hostile = "{{ 7*7 }}{% for %}<b>&" + text
    record = Record("r", hostile, ("x",), {"k": hostile}, "u", {})

    assert render("{{ input }}|{{ slices.k }}", record=record) == (("user", f"{hostile}|{hostile}"),)


@pytest.mark.parametrize(
    "source",
    [
        "{{ 'a' * (10**9) }}", "{{ 10 ** 10000000 }}", "{{ '%999999999d' | format(1) }}", "{{ input ~ input }}",
        "{{ input + input }}", "{% set x = input %}", "{% macro f() %}{% endmacro %}", "{% include '/etc/passwd' %}",
        "{% import 'os' as os %}", "{% extends 'x' %}", "{{ range(10**9) }}", "{{ input.__class__ }}",
        "{{ input.format(1) }}", "{{ slices.keys() }}", "{{ self }}", "{{ cycler }}", "{{ lipsum() }}",
        "{{ input | center(10**9) }}", "{{ labels | map('upper') }}", "{{ labels | attr('__class__') }}",
        "{% for a in labels %}{% for b in labels %}{% for c in labels %}{% endfor %}{% endfor %}{% endfor %}",
        "{% for c in input %}{% endfor %}", "{% for c in 'abc' %}{% endfor %}",
        "{% for a in labels recursive %}{{ loop(a) }}{% endfor %}", "{{ record }}", "{{ target }}",
        "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", "{{ labels" + "[0]" * 5000 + " }}", "{{ input", "x" * 70_000,
    ],
)  # fmt: skip
def test_what_a_prompt_may_not_do_is_refused_before_it_runs(source: str) -> None:
    start = time.perf_counter()

    assert template_problems(source)
    with pytest.raises(DataError):
        render(source)
    assert time.perf_counter() - start < 2


@pytest.mark.parametrize(
    "source",
    [
        "{{ input['__class__'] }}", "{{ slices['__class__'] }}", "{{ slices._values }}", "{{ slices.missing }}",
        "{{ slices.items }}", "{{ labels[9] }}", "{{ input < 3 }}", "{{ labels | join(3) }}",
        "{% if labels %}" * 150 + "{% endif %}" * 150,
    ],
)  # fmt: skip
def test_what_only_shows_when_it_runs_is_an_error_that_names_the_record(source: str) -> None:
    with pytest.raises(DataError, match="record r1"):
        render(source)


@pytest.mark.parametrize("source", ["{{ input }}{{ input }}", "{{ input | list | join('____') }}"])
def test_an_output_over_the_limit_is_an_error(source: str) -> None:
    record = Record("r1", "x" * 600_000, ("x",), {}, "u", {})

    with pytest.raises(DataError, match="more than 1,048,576 characters"):
        render(source, record=record)


def test_a_problem_has_its_line_and_the_nearest_name() -> None:
    problems = template_problems("one\n{{ lables }}\n{{ input | uper }}\n")

    assert [(problem.line, problem.text) for problem in problems] == [
        (2, "no variable lables"),
        (3, "no filter uper"),
    ]
    assert problems[1].hint == "nearest: upper"


@pytest.mark.parametrize("name", FILTERS)
def test_every_filter_that_is_allowed_exists(name: str) -> None:
    assert template_problems(f"{{{{ labels | {name} }}}}") == ()
    assert render(f"{{{{ labels | {name} }}}}")[0][0] == "user"


@given(st.text(alphabet="{}%|()[].'\"~* \ninputlabesfor0", max_size=60))
def test_any_source_is_refused_or_renders(source: str) -> None:
    problems = template_problems(source)

    if problems:
        with pytest.raises(DataError):
            render(source)
    else:
        try:
            ((role, _),) = render(source)
        except DataError:
            return
        assert role == "user"
