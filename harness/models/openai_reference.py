"""`openai:URL#MODEL`: where a model is served, what it is called there, and where the key comes from."""

from __future__ import annotations

import os
import re
from ipaddress import ip_address
from typing import NamedTuple
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from harness.errors import ModelError

PREFIX = "openai:"
EXAMPLE = "openai:http://127.0.0.1:8080/v1#model-name"
KEY_VARIABLE = "HARNESS_API_KEY"
OPENAI_HOST = "api.openai.com"
SETTINGS = ("pin", "key", "concurrency", "timeout_s")


class Endpoint(NamedTuple):
    """A server and one of its models. Holds no key: it may be written down and shown."""

    url: str
    """Up to where `/chat/completions` begins, without a slash at the end."""
    model: str | None
    """As the server lists it; None takes the only one that it serves."""
    pin: str | None = None
    """A person's word that the server serves the same weights wherever this is given: see `is_fixed`."""
    key_variable: str | None = None
    """The environment variable with the key."""
    concurrency: int = 32
    """Requests at once, at most."""
    timeout_s: float = 120.0
    """For one attempt at one request."""

    @property
    def root(self) -> str:
        """Where servers keep what is not OpenAI's: `/props`, `/tokenize`, `/version`."""
        return self.url.removesuffix("/v1")

    @property
    def host(self) -> str:
        return urlsplit(self.url).hostname or ""

    @property
    def key_name(self) -> str:
        """The environment variable that the key is read from."""
        usual = "OPENAI_API_KEY" if self.host == OPENAI_HOST else KEY_VARIABLE
        return self.key_variable or usual

    @property
    def is_local(self) -> bool:
        """On this machine."""
        return self.host == "localhost" or _is_address(self.host, "is_loopback")


def parse_endpoint(reference: str) -> Endpoint:
    """The endpoint that the reference names.

    `openai:http://127.0.0.1:8080/v1#qwen2.5:7b`. After a `?`, before the `#`: `pin=LABEL`, `key=VARIABLE`,
    `concurrency=N`, `timeout_s=N`.

    Raises:
        ModelError: it names none, or holds a password or a key; the message repeats neither.
    """
    try:
        parts = urlsplit(reference.removeprefix(PREFIX))
        _check_place(parts)
        settings = _settings(parts.query)
    except ValueError as error:
        raise ModelError(f"{PREFIX} {error}", hint=f"wanted {EXAMPLE}") from error
    return Endpoint(
        url=f"{parts.scheme}://{parts.netloc}{parts.path}".rstrip("/"),
        model=unquote(parts.fragment) or None,
        pin=settings.get("pin"),
        key_variable=_variable(settings.get("key")),
        concurrency=int(_number(settings, "concurrency", 32, 1, 256)),
        timeout_s=_number(settings, "timeout_s", 120.0, 1, 3600),
    )


def read_key(endpoint: Endpoint) -> str | None:
    """The key from the environment; None where there is none to send.

    `$HARNESS_API_KEY`, or the variable that the reference names; `$OPENAI_API_KEY` goes to OpenAI alone.

    Raises:
        ModelError: the variable is not set, its value is no key, or it would travel unencrypted.
    """
    name = endpoint.key_name
    key = os.environ.get(name, "").strip()
    if not key:
        if endpoint.key_variable:
            raise ModelError(f"{endpoint.url}: ${name} is not set", hint=f"export {name}=…")
        return None
    if not re.fullmatch(r"[\x21-\x7e]+", key):
        raise ModelError(f"{endpoint.url}: ${name} holds what can't stand in a header")
    if endpoint.url.startswith("http:") and not _is_near(endpoint.host):
        raise ModelError(f"{endpoint.url}: ${name} would travel unencrypted", hint="use https://")
    return key


def _check_place(parts: SplitResult) -> None:
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("no http:// or https:// address")
    if parts.username is not None or parts.password is not None:
        raise ValueError(
            "a user or password in the address would be written into run folders; use ?key=VARIABLE"
        )
    if parts.port == 0:
        raise ValueError("no such port: 0")


def _settings(query: str) -> dict[str, str]:
    pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
    found = dict(pairs)
    unknown = [name for name in found if name not in SETTINGS]
    if unknown or len(found) != len(pairs):
        raise ValueError(f"settings after ? are {', '.join(SETTINGS)}, each once")
    return found


def _variable(name: str | None) -> str | None:
    if name is not None and not re.fullmatch(r"[A-Z_][A-Z0-9_]{0,63}", name):
        # What stands here instead may be the key itself: it is not repeated.
        raise ModelError(f"{PREFIX} ?key= wants the name of an environment variable, such as {KEY_VARIABLE}")
    return name


def _number(settings: dict[str, str], name: str, default: float, low: float, high: float) -> float:
    text = settings.get(name)
    if text is None:
        return default
    if not re.fullmatch(r"\d{1,6}", text) or not low <= int(text) <= high:
        raise ModelError(f"{PREFIX} {name} = {text!r}, wanted a whole number from {low:.0f} to {high:.0f}")
    return int(text)


def _is_near(host: str) -> bool:
    """On this machine or in its own network."""
    return host == "localhost" or "." not in host.strip("[]") or _is_address(host, "is_private")


def _is_address(host: str, kind: str) -> bool:
    try:
        return bool(getattr(ip_address(host), kind))
    except ValueError:
        return False
