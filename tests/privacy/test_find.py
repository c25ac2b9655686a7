"""Personal data is found where it stands in the text as it is; what can be nobody's is left alone."""

from __future__ import annotations

import pytest

from harness.privacy.find import Found, by_pattern, finder, has_names, is_reserved, unite


def texts(text: str) -> list[tuple[str, str]]:
    return [(one.kind, text[one.start : one.end]) for one in by_pattern(text)]


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("write to ann.lee@corp.test today", "email", "ann.lee@corp.test"),
        ("call (415) 867-5309 now", "phone", "(415) 867-5309"),
        ("card 4111 1111 1111 1111.", "card", "4111 1111 1111 1111"),
        ("pay to GB29 NWBK 6016 1331 9268 19", "iban", "GB29 NWBK 6016 1331 9268 19"),
        ("she was born on 3 May 1980 in Leeds", "birth_date", "3 May 1980"),
        ("from 93.184.216.34 at noon", "ip", "93.184.216.34"),
    ],
)
def test_each_kind_is_found_in_its_place(text: str, kind: str, value: str) -> None:
    assert texts(text) == [(kind, value)]


def test_places_hold_where_invisible_characters_stand_before_and_inside() -> None:
    text = "\u200b\u200dcall\u200b (415)\u200b 867-5309 now"

    ((kind, value),) = texts(text)

    assert kind == "phone"
    assert value == "(415)\u200b 867-5309"


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("email", "a@example.com"),
        ("phone", "(212) 555-0142"),
        ("ssn", "000-12-3456"),
        ("card", "9999 1234 5678 9010"),
        ("ip", "192.0.2.7"),
        ("ip", "2001:db8::1"),
        ("iban", "GB94TEST12345678901234"),
    ],
)
def test_what_is_kept_for_examples_is_nobodys(kind: str, text: str) -> None:
    assert is_reserved(kind, text)
    assert texts(f"see {text} there") == []


def test_of_two_finders_the_union_counts_and_the_certain_kind_names_it() -> None:
    text = "Ann Lee, ann@corp.test"
    certain = [Found("email", 9, 22)]
    likely = [Found("person", 0, 3), Found("person", 4, 7), Found("person", 9, 12)]

    assert unite(certain, likely, text) == [Found("person", 0, 7), Found("email", 9, 22)]


@pytest.mark.skipif(not has_names(), reason="the extra pii is not installed")
def test_names_are_found_with_the_extra_and_patterns_stay() -> None:
    text = "My name is Ann Lee and my card is 4111 1111 1111 1111."

    found = {(one.kind, text[one.start : one.end]) for one in finder(names=True)(text)}

    assert {("person", "Ann Lee"), ("card", "4111 1111 1111 1111")} <= found
    assert ("person", "Ann Lee") not in {
        (one.kind, text[one.start : one.end]) for one in finder(names=False)(text)
    }
