"""Templates of lm-evaluation-harness tasks, rendered as it renders them and without what could do harm.

lm-eval gives a task the whole of Jinja. Here a template may read the document, loop over it, use the filters
below and the methods of texts and lists that cut and join; it can neither assign, multiply, import nor call
anything else. What it gives is bounded.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from harness.data.template import MAX_OUTPUT_CHARS, MAX_TEMPLATE_CHARS, TemplateProblem, deep_loops
from harness.errors import DataError
from harness.text import nearest, visible

if TYPE_CHECKING:
    from jinja2 import Template
    from jinja2.sandbox import ImmutableSandboxedEnvironment

METHODS = (
    "capitalize", "count", "endswith", "find", "get", "index", "isdigit", "join", "keys", "lower", "lstrip",
    "removeprefix", "removesuffix", "replace", "rstrip", "split", "splitlines", "startswith", "strip", "title",
    "upper", "values",
)  # fmt: skip
FILTERS = (
    "abs", "capitalize", "count", "default", "first", "float", "int", "join", "last", "length", "list", "lower",
    "max", "min", "regex_replace", "replace", "reverse", "round", "sort", "string", "sum", "title", "trim",
    "unique", "upper", "wordcount",
)  # fmt: skip
_ALLOWED_NODES = frozenset(
    (
        "Add", "And", "Compare", "Concat", "CondExpr", "Const", "Dict", "Filter", "For", "Getattr", "Getitem", "If",
        "Keyword", "List", "Name", "Neg", "Not", "Operand", "Or", "Output", "Pair", "Pos", "Slice", "Sub",
        "Template", "TemplateData", "Test", "Tuple",
    )
)  # fmt: skip


def render(source: str, doc: Mapping[str, Any]) -> str:
    """The template's text for the document.

    Raises:
        DataError: the template is refused, asks for what the document lacks, or gives more than 1 MiB.
    """
    from jinja2 import TemplateError

    if problems := lm_template_problems(source):
        raise DataError(f"line {problems[0].line} of it: {problems[0].text}", hint=problems[0].hint)
    try:
        return _joined(_compiled(source).generate(doc))
    except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
        why = visible(str(error), keep_newlines=False, limit_chars=160)
        raise DataError(f"it can't be rendered: {why}") from error


@lru_cache(maxsize=256)
def lm_template_problems(source: str) -> tuple[TemplateProblem, ...]:
    """What is wrong with the template: syntax, and what it may not do."""
    from jinja2 import TemplateSyntaxError, nodes

    if len(source) > MAX_TEMPLATE_CHARS:
        return (TemplateProblem(1, f"{len(source):,} characters, over the limit of {MAX_TEMPLATE_CHARS:,}"),)
    try:
        tree = _environment().parse(source)
    except TemplateSyntaxError as error:
        return (TemplateProblem(error.lineno, visible(error.message or "syntax error", limit_chars=160)),)
    except RecursionError:
        return (TemplateProblem(1, "nested too deeply"),)
    found = {problem for node in tree.find_all(nodes.Node) for problem in _refused(node)}
    return tuple(sorted(found | set(deep_loops(tree, 0))))


def _refused(node: Any) -> list[TemplateProblem]:
    """Why the node may not stand in a template. Looked at before anything compiles, which folds constants."""
    kind, line = type(node).__name__, node.lineno or 1
    if kind == "Call":
        name = getattr(node.node, "attr", None) or getattr(node.node, "name", "")
        if (
            type(node.node).__name__ == "Getattr"
            and name in METHODS
            and not node.dyn_args
            and not node.dyn_kwargs
        ):
            return []
        return [TemplateProblem(line, f"a call of {name or 'something'}", f"there are {', '.join(METHODS)}")]
    if kind == "Filter" and node.name not in FILTERS:
        close = nearest(node.name, list(FILTERS))
        hint = f"nearest: {close}" if close else f"there are {', '.join(FILTERS)}"
        return [TemplateProblem(line, f"no filter {node.name}", hint)]
    if kind == "Getattr" and node.attr.startswith("_"):
        return [TemplateProblem(line, f"attribute {node.attr} is not for templates")]
    if kind == "For" and node.recursive:
        return [TemplateProblem(line, "a recursive loop is not for templates")]
    if kind != "Call" and kind not in _ALLOWED_NODES:
        return [TemplateProblem(line, f"{kind} is not for templates", "text, fields, filters, if, for")]
    return []


@lru_cache(maxsize=256)
def _compiled(source: str) -> Template:
    return _environment().from_string(source)


@lru_cache(maxsize=1)
def _environment() -> ImmutableSandboxedEnvironment:
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Bounded(ImmutableSandboxedEnvironment):
        """Calls whose result would be too long are stopped before they begin."""

        def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805 - jinja's
            owner, name = getattr(__obj, "__self__", None), getattr(__obj, "__name__", "")
            if isinstance(owner, str) and name == "replace":
                return _replace(owner, *args, **kwargs)
            if isinstance(owner, str) and name == "join":
                return _join(args[0] if args else (), owner)
            return super().call(__context, __obj, *args, **kwargs)

    environment = Bounded(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False)
    environment.filters |= {"regex_replace": _regex_replace, "replace": _replace, "join": _join}
    environment.globals.clear()
    return environment


def _regex_replace(text: Any, pattern: str, repl: str, count: int = 0) -> str:
    """lm-eval's own filter: `re.sub`."""
    return _bounded(re.sub(pattern, repl, str(text), count=count))


def _replace(text: Any, old: str, new: str, count: int = -1) -> str:
    found = str(text).count(old) if count < 0 else min(count, str(text).count(old))
    if len(str(text)) + found * len(new) > MAX_OUTPUT_CHARS:
        raise ValueError(f"replace gives more than {MAX_OUTPUT_CHARS:,} characters")
    return str(text).replace(old, new, count)


def _join(items: Sequence[Any], separator: str = "") -> str:
    texts = [str(item) for item in items]
    if sum(map(len, texts)) + len(separator) * len(texts) > MAX_OUTPUT_CHARS:
        raise ValueError(f"join gives more than {MAX_OUTPUT_CHARS:,} characters")
    return separator.join(texts)


def _joined(pieces: Iterable[str]) -> str:
    """The pieces one after another, stopped as soon as they are too long."""
    found: list[str] = []
    left = MAX_OUTPUT_CHARS
    for piece in pieces:
        left -= len(piece)
        if left < 0:
            raise ValueError(f"it gives more than {MAX_OUTPUT_CHARS:,} characters")
        found.append(piece)
    return "".join(found)


def _bounded(text: str) -> str:
    if len(text) > MAX_OUTPUT_CHARS:
        raise ValueError(f"it gives more than {MAX_OUTPUT_CHARS:,} characters")
    return text
