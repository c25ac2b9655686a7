"""Stand-ins: the same for the same value under the same key, of the same form, and nobody's.

HMAC-SHA256(key, kind + value) seeds faker; a table draws again where two values would share one.
"""

from __future__ import annotations

import hashlib
import hmac
import random
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from faker import Faker

MAX_DRAWS = 64
"""Draws in the value's own form; after them one more digit or name makes room."""
_DIGITS = ("phone", "card", "ssn")
"""Kinds whose value is its digits, however they are set apart."""
_MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip


class Value(NamedTuple):
    """A value that was replaced."""

    kind: str
    drawn: str
    """What stands for it in every spelling."""
    alias: str
    """How that was first written."""
    original: str
    """What it was first written for."""


class Aliases:
    """A table that grows as values are met."""

    def __init__(self, key: bytes) -> None:
        from faker import Faker

        self._key = key
        self._faker = Faker("en_US")
        self._drawn: dict[tuple[str, str], str] = {}
        self._owner: dict[tuple[str, str], str] = {}
        self._seen: dict[tuple[str, str], Value] = {}

    def of(self, kind: str, text: str) -> str:
        """The stand-in for the text, in its letter case and with its marks."""
        value = canonical(kind, text)
        drawn = self._drawn.get((kind, value)) or self._draw(kind, value, text)
        alias = _in_form(kind, drawn, text)
        self._seen.setdefault((kind, value), Value(kind, drawn, alias, text))
        return alias

    @property
    def values(self) -> tuple[Value, ...]:
        """All values so far, each once, in the order in which they were met."""
        return tuple(self._seen.values())

    def add(self, values: tuple[Value, ...]) -> None:
        """Takes over what was drawn for other files under the same key."""
        for one in values:
            value = canonical(one.kind, one.original)
            self._drawn[one.kind, value] = one.drawn
            self._owner[one.kind, one.drawn.casefold()] = value
            self._seen[one.kind, value] = one

    def _draw(self, kind: str, value: str, text: str) -> str:
        attempt = 0
        while True:
            seed = hmac.new(
                self._key, f"{kind}\0{value}\0{attempt}".encode("utf-8", "surrogatepass"), hashlib.sha256
            ).digest()
            self._faker.seed_instance(int.from_bytes(seed, "big"))
            drawn = _draw(kind, text, self._faker, is_roomy=attempt >= MAX_DRAWS)
            if kind == "birth_date" or self._is_free(kind, drawn, value):
                break
            attempt += 1
        self._drawn[kind, value] = drawn
        self._owner.setdefault((kind, drawn.casefold()), value)
        return drawn

    def _is_free(self, kind: str, drawn: str, value: str) -> bool:
        """No other value has it, and it is no value itself."""
        is_value = (kind, canonical(kind, drawn)) in self._drawn or canonical(kind, drawn) == value
        return (kind, drawn.casefold()) not in self._owner and not is_value


def canonical(kind: str, text: str) -> str:
    """What two spellings of one value share."""
    if kind in _DIGITS:
        return re.sub(r"\D", "", text)
    if kind == "iban":
        return re.sub(r"[\s-]", "", text).casefold()
    return " ".join(text.casefold().split())


def _in_form(kind: str, drawn: str, text: str) -> str:
    if kind in _DIGITS:
        return _fill_digits(text, drawn)
    if not any(char.isalpha() for char in text) or kind == "iban":
        return drawn
    if text.isupper():
        return drawn.upper()
    return drawn.lower() if text.islower() else drawn


def _fill_digits(text: str, digits: str) -> str:
    """The text with these digits in the places of its own; more digits go behind the last."""
    places = [place for place, char in enumerate(text) if char.isdigit()]
    if len(places) == 0:
        return digits
    chars = list(text)
    for place, digit in zip(places, digits, strict=False):
        chars[place] = digit
    chars[places[-1]] += digits[len(places) :]
    return "".join(chars)


def _draw(kind: str, text: str, faker: Faker, *, is_roomy: bool) -> str:
    draw: Callable[[str, Faker], str] = _BY_KIND.get(kind, _same_form)
    drawn = draw(text, faker)
    if not is_roomy:
        return drawn
    return f"{drawn}-{faker.last_name()}" if kind == "person" else f"{drawn}{faker.random_digit()}"


def _person(text: str, faker: Faker) -> str:
    is_one_word = len(text.split()) == 1
    return faker.first_name() if is_one_word else f"{faker.first_name()} {faker.last_name()}"


def _email(_text: str, faker: Faker) -> str:
    domain = faker.random_element(("com", "org", "net"))  # RFC 2606: example domains are nobody's
    return f"{faker.last_name().lower()}{faker.numerify('####')}@example.{domain}"


def _phone(text: str, faker: Faker) -> str:
    """555-01xx is kept for fiction in North America; elsewhere it makes the alias known as one."""
    n = len(re.sub(r"\D", "", text))
    if n < 8:
        return faker.numerify("#" * n)
    lead = "1" if n == 11 and re.sub(r"\D", "", text).startswith("1") else ""
    return lead + faker.numerify("%" + "#" * (n - 8 - len(lead))) + "55501" + faker.numerify("##")


def _card(text: str, faker: Faker) -> str:
    """9999 is no issuer's prefix (ISO/IEC 7812 leaves 9 to national bodies); the check digit is right."""
    from stdnum import luhn

    n = len(re.sub(r"\D", "", text))
    if n < 13:
        return faker.numerify("#" * n)
    digits = "9999" + faker.numerify("#" * (n - 5))
    return digits + str(luhn.calc_check_digit(digits))


def _ssn(text: str, faker: Faker) -> str:
    """Area 000 was never given out."""
    n = len(re.sub(r"\D", "", text))
    return "000" + faker.numerify("######") if n == 9 else faker.numerify("#" * n)


def _iban(_text: str, faker: Faker) -> str:
    from stdnum.iso7064 import mod_97_10

    account = "TEST" + faker.numerify("#" * 14)
    return f"GB{mod_97_10.calc_check_digits(f'{account}GB')}{account}"


def _ip(text: str, faker: Faker) -> str:
    if ":" in text:
        return "2001:db8:" + ":".join(faker.hexify("^^^^") for _ in range(6))
    return f"198.{faker.random_int(18, 19)}.{faker.random_int(0, 255)}.{faker.random_int(1, 254)}"


def _birth_date(text: str, faker: Faker) -> str:
    """Another day and month of the same year, in the same form."""
    chance: random.Random = faker.random
    groups = re.findall(r"\d+", text)
    has_long_year = any(len(group) == 4 for group in groups)
    year_at = next((at for at, group in enumerate(groups) if len(group) == 4), len(groups) - 1)
    seen = iter(range(len(groups)))

    def number(match: re.Match[str]) -> str:
        at = next(seen)
        if at == year_at and (has_long_year or len(groups) > 1):
            return match.group()
        return (
            f"{chance.randint(1, 12):0{len(match.group())}d}"  # a day or a month, whichever comes first here
        )

    def month(match: re.Match[str]) -> str:
        name = chance.choice(_MONTHS)
        return name if len(match.group()) > 3 else name[:3]

    dated = re.sub(r"\d+", number, text)
    names = "|".join(f"{name}|{name[:3]}" for name in _MONTHS)
    return re.sub(rf"\b(?:{names})\b", month, dated, flags=re.IGNORECASE)


def _address(text: str, faker: Faker) -> str:
    number = re.match(r"\d+", text)
    if number and number.group() == text.strip():
        return faker.numerify("%" + "#" * (len(number.group()) - 1))
    return f"{faker.random_int(1, 9999)} {faker.street_name()}" if number else str(faker.street_name())


def _same_form(text: str, faker: Faker) -> str:
    """A digit for a digit, a letter for a letter."""
    pattern = "".join("#" if char.isdigit() else "?" if char.isalpha() else char for char in text)
    return str(faker.bothify(pattern, letters="abcdefghjkmnpqrstuvwxyz"))


_BY_KIND: dict[str, Callable[[str, Faker], str]] = {
    "person": _person, "email": _email, "phone": _phone, "card": _card, "ssn": _ssn, "iban": _iban, "ip": _ip,
    "birth_date": _birth_date, "address": _address,
}  # fmt: skip
