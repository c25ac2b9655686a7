"""OpenAI's requests and replies: read strictly, written exactly.

Source: OpenAI's API reference, chat completions, completions, models and errors.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.errors import DataError, ModelError
from harness.files import parse_json
from harness.models.base import Message

if TYPE_CHECKING:
    from harness.edge.base import Done, Finish
    from harness.edge.limits import Limits

ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
IGNORED = frozenset(
    (
        "user",
        "metadata",
        "store",
        "service_tier",
        "safety_identifier",
        "prompt_cache_key",
        "parallel_tool_calls",
    )
)
"""What clients send and what changes nothing in an answer."""
SHARED = frozenset(
    ("model", "max_tokens", "temperature", "top_p", "seed", "stop", "stream", "stream_options", "logprobs", "n",
     "frequency_penalty", "presence_penalty", "grammar")
)  # fmt: skip
CHAT = SHARED | {"messages", "max_completion_tokens", "response_format", "top_logprobs"}
COMPLETION = SHARED | {"prompt", "echo", "best_of", "suffix"}
_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "n": (1, None), "best_of": (1, None), "frequency_penalty": (0, None), "presence_penalty": (0, None),
    "echo": (False, None), "suffix": ("", None), "top_logprobs": (0, None),
}  # fmt: skip
"""Arguments that are taken at these values alone."""
MAX_STOPS = 4
MAX_STOP_CHARS = 256
FINISHED: Mapping[str, str] = {
    "stop": "stop", "length": "length", "budget": "length", "cancelled": "length", "held_back": "content_filter",
}  # fmt: skip


class ApiError(Exception):
    """What a client is told instead of an answer."""

    def __init__(
        self, status: int, message: str, *, kind: str = "", param: str | None = None, code: str | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.kind = kind or ("invalid_request_error" if status < 500 else "server_error")

    def body(self) -> dict[str, Any]:
        """In OpenAI's form."""
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}


@dataclass(frozen=True, slots=True)
class Asked:
    """A chat or a completion, as the client wants it."""

    model: str | None
    messages: tuple[Message, ...] = ()
    text: str | None = None
    """Of a completion: raw text without a chat template."""
    max_new_tokens: int | None = None
    """None leaves it to the server."""
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ()
    is_stream: bool = False
    wants_usage: bool = False
    """A last chunk with the usage."""
    wants_logprobs: bool = False
    grammar: str | None = None
    is_json: bool = False
    """The answer must be JSON, whatever else holds."""


def read_body(data: bytes) -> dict[str, Any]:
    """The body as an object.

    Raises:
        ApiError: no strict JSON (duplicate keys and NaN are refused), or no object.
    """
    try:
        value = parse_json(data, name="the body")
    except DataError as error:
        raise ApiError(400, error.message, code="invalid_json") from None
    if not isinstance(value, dict):
        raise ApiError(
            400, f"the body is a JSON {type(value).__name__}, wanted an object", code="invalid_json"
        )
    return value


def read_chat(body: Mapping[str, Any], limits: Limits) -> Asked:
    """A chat completion.

    Raises:
        ApiError: an argument is missing, wrong, unknown, or asks for what this server does not do.
    """
    fields = _Fields(body, CHAT)
    grammar, is_json = _form(fields)
    most = fields.whole("max_completion_tokens", 1, limits.new_tok)
    return Asked(
        messages=_messages(body.get("messages"), limits.messages),
        wants_logprobs=bool(fields.flag("logprobs")), grammar=grammar, is_json=is_json,
        **_shared(fields, limits, most),
    )  # fmt: skip


def read_completion(body: Mapping[str, Any], limits: Limits) -> Asked:
    """A completion of raw text.

    Raises:
        ApiError: as `read_chat`.
    """
    fields = _Fields(body, COMPLETION)
    prompt = body.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1:
        prompt = prompt[0]
    if not isinstance(prompt, str):
        raise fields.wrong("prompt", "one text")
    wanted = fields.whole("logprobs", 0, 1)
    return Asked(
        text=prompt, wants_logprobs=bool(wanted), grammar=_grammar(fields),
        **_shared(fields, limits, None),
    )  # fmt: skip


class _Fields:
    """The arguments of a body, each checked as it is taken."""

    def __init__(self, body: Mapping[str, Any], known: frozenset[str]) -> None:
        self.body = body
        for key, value in body.items():
            if key not in known and key not in IGNORED:
                raise ApiError(
                    400, f"{key}: this server does not know this argument", param=key, code="unknown_argument"
                )
            if key in _NEUTRAL and value not in _NEUTRAL[key]:
                raise ApiError(
                    400, f"{key} = {value!r} is not supported", param=key, code="unsupported_value"
                )

    def wrong(self, key: str, wanted: str) -> ApiError:
        found = repr(self.body.get(key))
        shown = found if len(found) <= 80 else f"{found[:80]}…"
        return ApiError(400, f"{key} = {shown}: wanted {wanted}", param=key, code="invalid_value")

    def number(self, key: str, low: float, high: float) -> float | None:
        value = self.body.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise self.wrong(key, f"a number from {low:g} to {high:g}")
        return float(value)

    def whole(self, key: str, low: int, high: int) -> int | None:
        value = self.body.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self.wrong(key, f"a whole number from {low:,} to {high:,}")
        return value

    def flag(self, key: str) -> bool | None:
        value = self.body.get(key)
        if value is not None and not isinstance(value, bool):
            raise self.wrong(key, "true or false")
        return value

    def text(self, key: str) -> str | None:
        value = self.body.get(key)
        if value is not None and not isinstance(value, str):
            raise self.wrong(key, "a text")
        return value


def _shared(fields: _Fields, limits: Limits, most: int | None) -> dict[str, Any]:
    options = fields.body.get("stream_options")
    if options is not None and not isinstance(options, dict):
        raise fields.wrong("stream_options", "an object")
    asked = most or fields.whole("max_tokens", 1, limits.new_tok)
    temperature, top_p = fields.number("temperature", 0.0, 2.0), fields.number("top_p", 1e-6, 1.0)
    return {
        "model": fields.text("model"),
        "max_new_tokens": asked,
        # Clients of a device that must repeat itself get the likeliest answer unless they ask for chance.
        "temperature": 0.0 if temperature is None else temperature,
        "top_p": 1.0 if top_p is None else top_p,
        "seed": fields.whole("seed", 0, 2**32 - 1) or 0,
        "stop": _stops(fields),
        "is_stream": bool(fields.flag("stream")),
        "wants_usage": bool((options or {}).get("include_usage")),
    }


def _stops(fields: _Fields) -> tuple[str, ...]:
    value = fields.body.get("stop")
    stops = [] if value is None else [value] if isinstance(value, str) else value
    is_list = isinstance(stops, list) and len(stops) <= MAX_STOPS
    if not is_list or not all(isinstance(one, str) and 0 < len(one) <= MAX_STOP_CHARS for one in stops):
        raise fields.wrong("stop", f"at most {MAX_STOPS} texts of 1 to {MAX_STOP_CHARS} characters")
    return tuple(stops)


def _messages(value: Any, most: int) -> tuple[Message, ...]:
    if not isinstance(value, list) or not 1 <= len(value) <= most:
        raise ApiError(
            400, f"messages: wanted a list of 1 to {most} messages", param="messages", code="invalid_value"
        )
    found = tuple(_message(one, f"messages[{at}]") for at, one in enumerate(value))
    if found[-1].role != "user":
        raise ApiError(
            400, "the last message must be the user's: there is nothing to answer", param="messages",
            code="invalid_value",
        )  # fmt: skip
    return found


def _message(value: Any, where: str) -> Message:
    role = value.get("role") if isinstance(value, dict) else None
    if role not in ROLES:
        raise ApiError(
            400, f"{where}.role = {role!r}: wanted one of {', '.join(ROLES)}", param=where, code="invalid_value"
        )  # fmt: skip
    content = value.get("content")
    if isinstance(content, list) and all(
        isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)
        for part in content
    ):
        content = "".join(part["text"] for part in content)
    if not isinstance(content, str) or value.get("tool_calls"):
        raise ApiError(
            400, f"{where}.content: wanted text; this model reads nothing else", param=where,
            code="invalid_value",
        )  # fmt: skip
    return Message(ROLES[role], content)


def _form(fields: _Fields) -> tuple[str | None, bool]:
    """The grammar that the answer is held to, and whether it must be JSON."""
    from harness.edge.json_grammar import ANY_OBJECT, schema_grammar

    grammar, form = _grammar(fields), fields.body.get("response_format")
    kind = form.get("type") if isinstance(form, dict) else None
    if form is None or kind == "text":
        return grammar, False
    if grammar is not None:
        raise ApiError(400, "grammar and response_format exclude each other", param="response_format")
    if kind == "json_object":
        return ANY_OBJECT, True
    schema = (form.get("json_schema") or {}) if kind == "json_schema" else None
    if not isinstance(schema, dict) or not isinstance(schema.get("schema"), dict):
        raise fields.wrong("response_format", "type text, json_object, or json_schema with a schema")
    try:
        return schema_grammar(schema["schema"]), True
    except ModelError as error:
        raise ApiError(
            400, error.message, param="response_format.json_schema", code="unsupported_schema"
        ) from None


def _grammar(fields: _Fields) -> str | None:
    from harness.gbnf import check_grammar

    text = fields.text("grammar")
    if text is not None:
        try:
            check_grammar(text)
        except ModelError as error:
            raise ApiError(400, error.message, param="grammar", code="invalid_grammar") from None
    return text


# Replies.


@dataclass(frozen=True, slots=True)
class Named:
    """What every part of a reply repeats."""

    id: str
    model: str
    is_chat: bool
    created: int

    @classmethod
    def of(cls, request_id: str, model: str, *, is_chat: bool) -> Named:
        prefix = "chatcmpl" if is_chat else "cmpl"
        return cls(f"{prefix}-{request_id}", model, is_chat, int(time.time()))

    def head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}


def reply(named: Named, text: str, finish: str, done: Done | None) -> dict[str, Any]:
    """The whole answer."""
    body: dict[str, Any] = {"index": 0, "finish_reason": FINISHED[finish], "logprobs": None}
    if named.is_chat:
        body["message"] = {"role": "assistant", "content": text, "refusal": None}
        body["logprobs"] = chat_logprobs(done)
        kind = "chat.completion"
    else:
        body["text"] = text
        body["logprobs"] = text_logprobs(done)
        kind = "text_completion"
    return {**named.head(kind), "choices": [body], **({"usage": usage(done)} if done else {})}


def chunk(
    named: Named, text: str | None, *, is_first: bool = False, finish: Finish | str | None = None,
    logprobs: Any = None,
) -> dict[str, Any]:  # fmt: skip
    """A part of a streamed answer."""
    body: dict[str, Any] = {
        "index": 0, "finish_reason": None if finish is None else FINISHED[finish], "logprobs": logprobs,
    }  # fmt: skip
    if named.is_chat:
        delta = {"role": "assistant", "content": text or ""} if is_first else {"content": text}
        body["delta"] = delta if text is not None or is_first else {}
        return {**named.head("chat.completion.chunk"), "choices": [body]}
    return {**named.head("text_completion"), "choices": [{**body, "text": text or ""}]}


def usage_chunk(named: Named, done: Done) -> dict[str, Any]:
    """The last part, where the client asked for it."""
    kind = "chat.completion.chunk" if named.is_chat else "text_completion"
    return {**named.head(kind), "choices": [], "usage": usage(done)}


def usage(done: Done) -> dict[str, Any]:
    """Tokens as OpenAI counts them."""
    return {
        "prompt_tokens": done.prompt_tok, "completion_tokens": done.output_tok,
        "total_tokens": done.prompt_tok + done.output_tok,
        "prompt_tokens_details": {"cached_tokens": done.cached_tok},
    }  # fmt: skip


def chat_logprobs(done: Done | None) -> dict[str, Any] | None:
    """Log-probabilities token by token; None where the engine told none."""
    if done is None or done.token_logprobs is None or done.token_texts is None:
        return None
    pairs = zip(done.token_texts, done.token_logprobs, strict=True)
    return {
        "content": [
            {"token": text, "logprob": logprob, "bytes": list(text.encode()), "top_logprobs": []}
            for text, logprob in pairs
        ],
        "refusal": None,
    }


def text_logprobs(done: Done | None) -> dict[str, Any] | None:
    """As `chat_logprobs`, in the form of completions."""
    if done is None or done.token_logprobs is None or done.token_texts is None:
        return None
    offsets = [len("".join(done.token_texts[:at])) for at in range(len(done.token_texts))]
    return {
        "tokens": list(done.token_texts), "token_logprobs": list(done.token_logprobs), "top_logprobs": None,
        "text_offset": offsets,
    }  # fmt: skip


def model_list(names: Sequence[tuple[str, str]], created: int) -> dict[str, Any]:
    """Models as (name, sha256 of what answers)."""
    return {
        "object": "list",
        "data": [
            {"id": name, "object": "model", "created": created, "owned_by": "harness", "digest": digest}
            for name, digest in names
        ],
    }
