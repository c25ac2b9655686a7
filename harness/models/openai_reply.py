"""What a server's replies hold, checked: a reply that says something else is an error, never a guess."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any, NamedTuple

from harness.models.openai_wire import RequestFailedError

ROUNDING_NATS = 1e-3
"""By which a log-probability may be over 0."""


class Written(NamedTuple):
    """A generated text."""

    text: str
    token_logprobs: tuple[float, ...] | None
    top: dict[str, float] | None
    """The likeliest first tokens and their log-probabilities."""
    prompt_tok: int
    output_tok: int
    is_cut: bool
    """By `max_tokens`."""


def read_chat(reply: dict[str, Any]) -> Written:
    """The only choice of a chat completion.

    Raises:
        RequestFailedError: the reply is none.
    """
    choice = _only_choice(reply)
    message = choice.get("message")
    text = message.get("content") if isinstance(message, dict) else None
    if not isinstance(text, str):
        raise RequestFailedError("the reply has no text")
    tokens = (choice.get("logprobs") or {}).get("content") or []
    values = [_logprob(token.get("logprob")) for token in _objects(tokens)]
    first = _objects(tokens)[0].get("top_logprobs") or [] if tokens else []
    top = {str(one.get("token")): _logprob(one.get("logprob")) for one in _objects(first)}
    return _written(reply, choice, text, values, top)


def read_completion(reply: dict[str, Any]) -> Written:
    """The only choice of a text completion.

    Raises:
        RequestFailedError: the reply is none.
    """
    choice = _only_choice(reply)
    text = choice.get("text")
    if not isinstance(text, str):
        raise RequestFailedError("the reply has no text")
    found = choice.get("logprobs") or {}
    if "content" in found:  # llama-server gives its completions the logprobs of chats
        values = [_logprob(token.get("logprob")) for token in _objects(found["content"] or [])]
        first = _objects(found["content"])[0].get("top_logprobs") or [] if values else []
        top = {str(one.get("token")): _logprob(one.get("logprob")) for one in _objects(first)}
    else:
        values = [_logprob(value) for value in found.get("token_logprobs") or []]
        tops = found.get("top_logprobs") or []
        top = {str(name): _logprob(value) for name, value in (tops[0] or {}).items()} if tops else {}
    return _written(reply, choice, text, values, top)


class Echo(NamedTuple):
    """A prompt read back, token by token, and what was written after it."""

    tokens: tuple[str, ...]
    logprobs: tuple[float | None, ...]
    """log P(token | all before it); None for the first."""


def read_echo(reply: dict[str, Any], prompt_tok: int) -> Echo:
    """The prompt's log-probabilities, for each of its `prompt_tok` tokens and perhaps one more.

    Raises:
        RequestFailedError: they are not there, or are not as many.
    """
    found = _only_choice(reply).get("logprobs")
    values = found.get("token_logprobs") if isinstance(found, dict) else None
    tokens = found.get("tokens") if isinstance(found, dict) else None
    if not isinstance(values, list) or not isinstance(tokens, list):
        raise RequestFailedError("echo brings no log-probabilities of the prompt")
    if len(values) not in (prompt_tok, prompt_tok + 1) or len(tokens) != len(values):
        raise RequestFailedError(
            f"echo brings {len(values)} log-probabilities for a prompt of {prompt_tok} tokens"
        )
    logprobs = (None, *(_logprob(value) for value in values[1:]))
    return Echo(tuple(map(str, tokens)), logprobs)


def read_ids(reply: dict[str, Any] | None) -> list[int] | None:
    """The token ids of a `/tokenize` reply; None where it holds none."""
    tokens = reply.get("tokens") if reply else None
    if not isinstance(tokens, list) or not all(type(token) is int and 0 <= token < 2**31 for token in tokens):
        return None
    return tokens


def _only_choice(reply: dict[str, Any]) -> dict[str, Any]:
    choices = reply.get("choices")
    if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], dict):
        n = len(choices) if isinstance(choices, list) else "no"
        raise RequestFailedError(f"the reply has {n} choices, wanted one")
    if choices[0].get("index", 0) != 0:
        raise RequestFailedError("the reply's choice is not the first one")
    return choices[0]


def _written(
    reply: dict[str, Any], choice: dict[str, Any], text: str, values: Sequence[float], top: dict[str, float]
) -> Written:
    usage = reply.get("usage") or {}
    return Written(
        text=text, token_logprobs=tuple(values) or None, top=top or None, prompt_tok=_count(usage, "prompt_tokens"),
        output_tok=_count(usage, "completion_tokens") or len(values), is_cut=choice.get("finish_reason") == "length",
    )  # fmt: skip


def _objects(values: Any) -> list[dict[str, Any]]:
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        raise RequestFailedError("the reply's log-probabilities are not a list of objects")
    return values


def _logprob(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        raise RequestFailedError(f"a log-probability in the reply is {str(value)[:40]!r}")
    if value > ROUNDING_NATS:
        raise RequestFailedError(f"a log-probability in the reply is {value:g}, over 0")
    return min(0.0, float(value))


def _count(usage: Any, name: str) -> int:
    value = usage.get(name) if isinstance(usage, dict) else None
    return value if type(value) is int and value >= 0 else 0
