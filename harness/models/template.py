"""A chat template → text, in the sandbox that Transformers uses, with limits on what it may cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NoReturn

from harness.errors import ModelError
from harness.models.base import Message

if TYPE_CHECKING:
    from jinja2 import Environment, Template
    from jinja2.nodes import Node
    from jinja2.parser import Parser

MAX_TEXT_CHARS = 4 * 2**20
MAX_LOOP_STEPS = 100_000
MAX_NUMBER_BITS = 4096
PINNED_DATE = datetime(2024, 7, 26, tzinfo=UTC)
"""What `strftime_now` says. A prompt that changes at midnight could be neither resumed nor compared;
the date is the one that Llama 3's template takes when it has no clock."""


def render(
    source: str,
    messages: Sequence[Message],
    *,
    add_generation_prompt: bool,
    tokens: Mapping[str, str],
) -> str:
    """The conversation as text; `tokens` holds `bos_token`, `eos_token` and the like.

    Raises:
        ModelError: the template is broken, refuses the conversation, or costs too much.
    """
    import jinja2

    turns = [{"role": message.role, "content": message.content} for message in messages]
    try:
        pieces = compiled(source).generate(
            messages=turns, tools=None, documents=None, add_generation_prompt=add_generation_prompt, **tokens
        )
        return _joined(pieces)
    except (jinja2.TemplateError, ModelError) as error:
        raise ModelError(f"the chat template refuses this conversation: {error}") from error
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError) as error:
        raise ModelError(f"the chat template fails: {type(error).__name__}: {error}") from error


def _joined(pieces: Any) -> str:
    parts: list[str] = []
    length = 0
    for piece in pieces:
        length += len(piece)
        if length > MAX_TEXT_CHARS:
            raise ModelError(f"it writes more than {MAX_TEXT_CHARS:,} characters")
        parts.append(piece)
    return "".join(parts)


@lru_cache(maxsize=16)
def compiled(source: str) -> Template:
    """The template, ready to render.

    Raises:
        ModelError: it does not parse.
    """
    import jinja2

    try:
        return _environment().from_string(source)
    except (jinja2.TemplateError, RecursionError) as error:
        raise ModelError(f"the chat template does not parse: {error}") from error


def _environment() -> Environment:
    from jinja2 import nodes
    from jinja2.exceptions import SecurityError, TemplateError
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """`{% generation %}` marks what an assistant wrote; it changes no text."""

        tags = {"generation"}  # noqa: RUF012 - jinja's own declaration

        def parse(self, parser: Parser) -> Node | list[Node]:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.Scope(body, lineno=line)

    class Bounded(ImmutableSandboxedEnvironment):
        """Refuses the arithmetic that makes gigabytes out of a short template."""

        intercepted_binops = frozenset({"*", "**", "%"})

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            if _is_too_large(operator, left, right):
                raise SecurityError(f"{operator} makes too large a value")
            return super().call_binop(context, operator, left, right)

    def refuse(message: str) -> NoReturn:
        raise TemplateError(message)

    def limited_range(*args: int) -> range:
        steps = range(*args)
        if len(steps) > MAX_LOOP_STEPS:
            raise SecurityError(f"a range of {len(steps):,} is over the limit of {MAX_LOOP_STEPS:,}")
        return steps

    environment = Bounded(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = PINNED_DATE.strftime
    environment.globals["range"] = limited_range
    return environment


def _is_too_large(operator: str, left: Any, right: Any) -> bool:
    if operator == "%":
        return isinstance(left, str)
    if operator == "**":
        is_whole = isinstance(left, int) and isinstance(right, int)
        return is_whole and left.bit_length() * abs(right) > MAX_NUMBER_BITS
    size = [len(value) for value in (left, right) if isinstance(value, str | bytes | list | tuple)]
    times = [value for value in (left, right) if isinstance(value, int)]
    return bool(size and times) and size[0] * times[0] > MAX_TEXT_CHARS // 4


def _tojson(value: Any, ensure_ascii: bool = False, indent: int | None = None, **options: Any) -> str:
    """JSON without the HTML escapes of jinja's own filter, as Transformers writes it."""
    import json

    allowed = {name: options[name] for name in ("separators", "sort_keys") if name in options}
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **allowed)
