"""A record → the turns of a conversation, by the suite's prompt.

A prompt's language is small on purpose: text, `{{ variables }}` with a few filters, `if`, and `for` over a
list. It can say what prompts need and can neither call, assign, multiply nor include, so no prompt can run
code, loop for ever or fill the memory. What a record holds is data: it is never read as a template.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from harness.data.records import Record
from harness.errors import DataError
from harness.specs.suite import PromptSpec
from harness.text import nearest, visible

if TYPE_CHECKING:
    from jinja2 import Template
    from jinja2.nodes import Node
    from jinja2.sandbox import ImmutableSandboxedEnvironment

MAX_OUTPUT_CHARS = 2**20
MAX_TEMPLATE_CHARS = 2**16
MAX_NESTED_LOOPS = 2
VARIABLES = ("input", "context", "options", "letters", "slices", "labels")
LOOPED = ("labels", "options", "letters", "slices")
FILTERS = (
    "capitalize", "count", "default", "first", "join", "last", "length", "list", "lower",
    "sort", "title", "trim", "truncate", "unique", "upper", "wordcount",
)  # fmt: skip
_ALLOWED_NODES = frozenset(
    (
        "And", "Compare", "CondExpr", "Const", "Filter", "For", "Getattr", "Getitem", "If", "List", "Name", "Neg",
        "Not", "Operand", "Or", "Output", "Pos", "Slice", "Template", "TemplateData", "Test", "Tuple",
    )
)  # fmt: skip


class TemplateProblem(NamedTuple):
    """Why a template is refused."""

    line: int
    """1-based, within the template."""
    text: str
    hint: str = ""


def render_turns(prompt: PromptSpec, record: Record, labels: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """The conversation's turns as (role, text): the system's if the prompt has one, then the user's.

    Raises:
        DataError: the template asks for what the record lacks, is refused by `template_problems`, or
            gives more than 1 MiB of characters.
    """
    values = {
        "input": record.input, "context": record.context, "options": record.options,
        "letters": letters(len(record.options)), "slices": _Slices(record.slices), "labels": tuple(labels),
    }  # fmt: skip
    turns = [] if prompt.system is None else [("system", _render(prompt.system, values, record))]
    return (*turns, ("user", _render(prompt.user, values, record)))


@lru_cache(maxsize=256)
def letters(n: int) -> tuple[str, ...]:
    """A, B, … Z, AA, AB, …: one for each of n options."""
    names: list[str] = []
    for number in range(1, n + 1):
        name = ""
        while number:
            number, place = divmod(number - 1, 26)
            name = chr(65 + place) + name
        names.append(name)
    return tuple(names)


class _Slices:
    """A record's slices for a template: `slices.items` is the slice of that name, never a method."""

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, str | list[str]]) -> None:
        self._values = values

    def __getitem__(self, key: str) -> str | list[str]:
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __contains__(self, key: object) -> bool:
        return key in self._values


@lru_cache(maxsize=64)
def template_problems(source: str) -> tuple[TemplateProblem, ...]:
    """What is wrong with the template: syntax, unknown variables and filters, and what a prompt may not do."""
    from jinja2 import TemplateSyntaxError

    if len(source) > MAX_TEMPLATE_CHARS:
        return (TemplateProblem(1, f"{len(source):,} characters, over the limit of {MAX_TEMPLATE_CHARS:,}"),)
    try:
        return _walk(_environment().parse(source))
    except TemplateSyntaxError as error:
        return (TemplateProblem(error.lineno, visible(error.message or "syntax error", limit_chars=160)),)
    except RecursionError:
        return (TemplateProblem(1, "nested too deeply"),)


def _walk(tree: Node) -> tuple[TemplateProblem, ...]:
    from jinja2 import nodes

    known = {*VARIABLES, *(name.name for name in tree.find_all(nodes.Name) if name.ctx == "store")}
    if tree.find(nodes.For):
        known.add("loop")
    found = {problem for node in tree.find_all(nodes.Node) for problem in _refused(node, known)}
    return tuple(sorted(found | set(deep_loops(tree, 0))))


def _refused(node: Any, known: set[str]) -> list[TemplateProblem]:
    """Why the node may not stand in a prompt. Looked at before anything compiles: compiling folds constants,
    and folding `'a' * 10**9` takes eight seconds and a gigabyte."""
    kind, line = type(node).__name__, node.lineno or 1
    if kind == "Name" and node.name not in known:
        return [TemplateProblem(line, f"no variable {node.name}", f"there are {', '.join(VARIABLES)}")]
    if kind == "Filter" and node.name not in FILTERS:
        close = nearest(node.name, list(FILTERS))
        hint = f"nearest: {close}" if close else f"there are {', '.join(FILTERS)}"
        return [TemplateProblem(line, f"no filter {node.name}", hint)]
    if kind == "Getattr" and getattr(node.node, "name", None) not in ("slices", "loop"):
        return [TemplateProblem(line, f"no attribute {node.attr}", "slices and loop have attributes")]
    if kind == "For" and _root_name(node.iter) not in LOOPED:
        return [
            TemplateProblem(line, "a loop over something else", "loops run over labels, options or a slice")
        ]
    if kind == "For" and node.recursive:
        return [TemplateProblem(line, "a recursive loop is not for prompts")]
    if kind == "Call":
        return [TemplateProblem(line, "a call is not for prompts", "use a filter, such as `| trim`")]
    if kind not in _ALLOWED_NODES:
        return [TemplateProblem(line, f"{kind} is not for prompts", "text, variables, filters, if, for")]
    return []


def _root_name(node: Any) -> str | None:
    """The variable that the expression starts from, behind its filters, attributes and items."""
    while type(node).__name__ in ("Filter", "Getattr", "Getitem"):
        node = node.node
    return getattr(node, "name", None)


def deep_loops(node: Node, depth: int) -> list[TemplateProblem]:
    """Loops within more loops than a prompt needs: three over 1,000 labels are a thousand million turns."""
    from jinja2 import nodes

    if isinstance(node, nodes.For):
        depth += 1
        if depth > MAX_NESTED_LOOPS:
            return [TemplateProblem(node.lineno, f"more than {MAX_NESTED_LOOPS} loops within each other")]
    return [problem for child in node.iter_child_nodes() for problem in deep_loops(child, depth)]


def _render(source: str, values: dict[str, Any], record: Record) -> str:
    from jinja2 import TemplateError

    if problems := template_problems(source):
        first = problems[0]
        raise DataError(f"the prompt, line {first.line}: {first.text}", hint=first.hint)
    try:
        return _joined(_compiled(source).generate(values))
    except (
        TemplateError,
        TypeError,
        ValueError,
        ArithmeticError,
        LookupError,
        SyntaxError,
        RecursionError,
    ) as error:
        text = str(error).replace(f"'{__name__}._Slices object' has no attribute", "slices has no")
        why = visible(text, keep_newlines=False, limit_chars=160)
        raise DataError(
            f"record {visible(record.id, limit_chars=80)}: the prompt can't be rendered: {why}"
        ) from error


def _joined(pieces: Any) -> str:
    found: list[str] = []
    left = MAX_OUTPUT_CHARS
    for piece in pieces:
        left -= len(piece)
        if left < 0:
            raise ValueError(f"it gives more than {MAX_OUTPUT_CHARS:,} characters")
        found.append(piece)
    return "".join(found)


@lru_cache(maxsize=64)
def _compiled(source: str) -> Template:
    return _environment().from_string(source)


@lru_cache(maxsize=1)
def _environment() -> ImmutableSandboxedEnvironment:
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(
        undefined=StrictUndefined,
        autoescape=False,  # a prompt is plain text: escapes would change what the model reads
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["join"] = _bounded_join
    environment.globals.clear()
    return environment


def _bounded_join(items: Any, separator: str = "") -> str:
    """The texts with the separator between them, if that is no more than a prompt may hold."""
    texts = [str(item) for item in items]
    size = sum(map(len, texts)) + len(separator) * max(0, len(texts) - 1)
    if size > MAX_OUTPUT_CHARS:
        raise ValueError(f"join gives more than {MAX_OUTPUT_CHARS:,} characters")
    return separator.join(texts)
