"""Stand-ins: one for each value, the same under the same key, of the same form, and nobody's."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stdnum import iban, luhn

from harness.privacy.aliases import Aliases, canonical
from harness.privacy.find import by_pattern, is_reserved

KEY = b"k" * 32


def test_the_same_value_has_the_same_stand_in_under_the_same_key_alone() -> None:
    once, again, other = Aliases(KEY), Aliases(KEY), Aliases(b"o" * 32)

    assert once.of("person", "Ann Lee") == once.of("person", "Ann Lee") == again.of("person", "Ann Lee")
    assert once.of("person", "Ann Lee") != other.of("person", "Ann Lee")
    assert once.of("person", "Ann Lee") != once.of("person", "Ann Leigh")


def test_letter_case_and_marks_are_those_of_the_text() -> None:
    aliases = Aliases(KEY)
    name = aliases.of("person", "Ann Lee")

    assert aliases.of("person", "ANN LEE") == name.upper()
    assert aliases.of("person", "ann  lee") == name.lower()
    phone = aliases.of("phone", "(415) 867-5309")
    assert re.fullmatch(r"\(\d{3}\) \d{3}-\d{4}", phone)
    assert re.sub(r"\D", "", aliases.of("phone", "415.867.5309")) == re.sub(r"\D", "", phone)


def test_five_thousand_people_have_five_thousand_stand_ins() -> None:
    aliases = Aliases(KEY)

    drawn = {aliases.of("person", f"Person{i} Number{i}") for i in range(5_000)}

    assert len(drawn) == 5_000


def test_more_values_than_a_form_has_room_for_still_differ() -> None:
    aliases = Aliases(KEY)

    drawn = {aliases.of("account", f"{i:02d}") for i in range(100)}

    assert len(drawn) == 100


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("email", "ann.lee@corp.test"),
        ("phone", "(415) 867-5309"),
        ("phone", "+44 20 7946 0018"),
        ("phone", "14158675309"),
        ("card", "4111 1111 1111 1111"),
        ("ssn", "123-45-6789"),
        ("iban", "GB29 NWBK 6016 1331 9268 19"),
        ("ip", "93.184.216.34"),
        ("ip", "2606:4700::6810:84e5"),
    ],
)
def test_a_stand_in_can_be_nobodys_and_a_scan_knows_it(kind: str, text: str) -> None:
    alias = Aliases(KEY).of(kind, text)

    assert alias != text
    assert is_reserved(kind, alias)
    assert by_pattern(f"it is {alias}, says the file") == []


def test_checksums_hold_where_the_form_has_one() -> None:
    aliases = Aliases(KEY)

    assert luhn.is_valid(re.sub(r"\D", "", aliases.of("card", "4111 1111 1111 1111")))
    assert iban.is_valid(aliases.of("iban", "GB29NWBK60161331926819"))


@pytest.mark.parametrize("text", ["3 May 1980", "May 3rd, 1980", "1980-05-03", "03/05/1980", "3 May 80"])
def test_a_birth_date_keeps_its_year_and_form(text: str) -> None:
    alias = Aliases(KEY).of("birth_date", text)

    assert re.sub(r"\d", "9", re.sub(r"[A-Za-z]{3,}", "M", alias)).count("9") >= 4
    assert "80" in alias


def test_a_table_goes_on_where_another_file_ended() -> None:
    first, second = Aliases(KEY), Aliases(KEY)
    drawn = [first.of("person", f"P{i} Q{i}") for i in range(200)]

    second.add(first.values)

    assert [second.of("person", f"P{i} Q{i}") for i in range(200)] == drawn
    assert second.of("person", "P0 Q0").upper() == second.of("person", "P0 Q0".upper())


@given(
    st.lists(
        st.text(min_size=1, max_size=12).filter(str.strip), min_size=2, max_size=12, unique_by=str.casefold
    )
)
@settings(max_examples=40, deadline=None)
def test_two_values_never_share_a_stand_in(values: list[str]) -> None:
    aliases = Aliases(KEY)
    distinct = {canonical("person", value) for value in values}

    assert len({canonical("person", aliases.of("person", value)) for value in values}) == len(distinct)
