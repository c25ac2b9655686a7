"""The places whose law a contract can choose: countries, and the states and provinces that have a law of their own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

_COUNTRIES = """
Afghanistan Albania Algeria Andorra Angola Argentina Armenia Australia Austria Azerbaijan Bahamas Bahrain Bangladesh
Barbados Belarus Belgium Belize Benin Bhutan Bolivia Botswana Brazil Brunei Bulgaria Burundi Cambodia Cameroon Canada
Chad Chile China Colombia Comoros Croatia Cuba Cyprus Denmark Djibouti Dominica Ecuador Egypt Eritrea Estonia Eswatini
Ethiopia Fiji Finland France Gabon Gambia Germany Ghana Greece Grenada Guatemala Guinea Guyana Haiti Honduras Hungary
Iceland India Indonesia Iran Iraq Ireland Israel Italy Jamaica Japan Jordan Kazakhstan Kenya Kiribati Kosovo Kuwait
Kyrgyzstan Laos Latvia Lebanon Lesotho Liberia Libya Liechtenstein Lithuania Luxembourg Madagascar Malawi Malaysia
Maldives Mali Malta Mauritania Mauritius Mexico Moldova Monaco Mongolia Montenegro Morocco Mozambique Myanmar Namibia
Nauru Nepal Netherlands Nicaragua Niger Nigeria Norway Oman Pakistan Palau Panama Paraguay Peru Philippines Poland
Portugal Qatar Romania Russia Rwanda Samoa Senegal Serbia Seychelles Singapore Slovakia Slovenia Somalia Spain Sudan
Suriname Sweden Switzerland Syria Taiwan Tajikistan Tanzania Thailand Togo Tonga Tunisia Turkmenistan Tuvalu
Uganda Ukraine Uruguay Uzbekistan Vanuatu Venezuela Vietnam Yemen Zambia Zimbabwe England Wales Scotland Bermuda
Jersey Guernsey Gibraltar Catalonia
"""
_STATES = """
Alabama Alaska Arizona Arkansas California Colorado Connecticut Delaware Florida Hawaii Idaho Illinois Indiana Iowa
Kansas Kentucky Louisiana Maine Maryland Massachusetts Michigan Minnesota Mississippi Missouri Montana Nebraska Nevada
Ohio Oklahoma Oregon Pennsylvania Tennessee Texas Utah Vermont Virginia Washington Wisconsin Wyoming Ontario Quebec
Alberta Manitoba Saskatchewan Queensland Tasmania
"""
_SEVERAL_WORDS = (
    "Bosnia and Herzegovina", "Burkina Faso", "Cape Verde", "Cayman Islands", "British Virgin Islands", "Costa Rica",
    "Ivory Coast", "Czech Republic", "Dominican Republic", "East Timor", "El Salvador", "Equatorial Guinea",
    "Hong Kong", "Isle of Man", "Marshall Islands", "New Zealand", "North Korea", "North Macedonia", "Northern Ireland",
    "Papua New Guinea", "Puerto Rico", "San Marino", "Saudi Arabia", "Sierra Leone", "Solomon Islands", "South Africa",
    "South Korea", "South Sudan", "Sri Lanka", "Trinidad and Tobago", "United Arab Emirates", "United Kingdom",
    "United States", "Vatican City", "New York", "New Jersey", "New Hampshire", "New Mexico", "North Carolina",
    "North Dakota", "South Carolina", "South Dakota", "Rhode Island", "West Virginia", "District of Columbia",
    "British Columbia", "Nova Scotia", "New Brunswick", "Newfoundland and Labrador", "Prince Edward Island",
    "New South Wales", "South Australia", "Western Australia", "Northern Territory",
)  # fmt: skip
_SPELLINGS: Mapping[str, str] = {
    "Czechia": "Czech Republic", "Korea": "South Korea", "Türkiye": "Turkey", "Turkey": "Turkey", "Georgia": "Georgia",
    "UK": "United Kingdom", "Great Britain": "United Kingdom", "USA": "United States", "U.S.A.": "United States",
    "U.S.": "United States", "UAE": "United Arab Emirates", "PRC": "China", "Québec": "Quebec",
}  # fmt: skip
_ADJECTIVES: Mapping[str, str] = {
    "English": "England", "Scots": "Scotland", "Scottish": "Scotland", "Welsh": "Wales", "Irish": "Ireland",
    "French": "France", "German": "Germany", "Dutch": "Netherlands", "Swiss": "Switzerland", "Italian": "Italy",
    "Spanish": "Spain", "Swedish": "Sweden", "Norwegian": "Norway", "Danish": "Denmark", "Finnish": "Finland",
    "Austrian": "Austria", "Belgian": "Belgium", "Polish": "Poland", "Portuguese": "Portugal", "Israeli": "Israel",
    "Czech": "Czech Republic", "Indian": "India", "Chinese": "China", "Japanese": "Japan", "Estonian": "Estonia",
    "Latvian": "Latvia", "Lithuanian": "Lithuania", "Maltese": "Malta", "Greek": "Greece", "Hungarian": "Hungary",
    "Slovak": "Slovakia", "Croatian": "Croatia", "Romanian": "Romania", "Bulgarian": "Bulgaria",
    "Canadian": "Canada", "Australian": "Australia", "Californian": "California",
}  # fmt: skip


def find_jurisdictions(text: str) -> frozenset[str]:
    """The countries, states and provinces that the text names, each in one spelling; empty where there is none.

    Capitals count: "turkey" is a bird, and POLAND a heading. An adjective counts before "law" or "laws" alone, so
    that English is a law and not a language.
    """
    return frozenset(_names()[_key(found.group())] for found in _pattern().finditer(text))


@lru_cache(maxsize=1)
def _names() -> Mapping[str, str]:
    plain = [*_COUNTRIES.split(), *_STATES.split(), *_SEVERAL_WORDS]
    return {
        **{name.casefold(): name for name in plain},
        **{name.casefold(): place for name, place in (*_SPELLINGS.items(), *_ADJECTIVES.items())},
    }


@lru_cache(maxsize=1)
def _pattern() -> re.Pattern[str]:
    plain = [
        *_COUNTRIES.split(),
        *_STATES.split(),
        *_SEVERAL_WORDS,
        *_SPELLINGS,
    ]
    nouns = sorted({*plain, *(name.upper() for name in plain)}, key=len, reverse=True)
    adjectives = "|".join(sorted(map(re.escape, _ADJECTIVES)))
    spelled = "|".join(re.escape(name).replace(r"\ ", r"\s+") for name in nouns)
    return re.compile(rf"(?<!\w)(?:{spelled}|(?:{adjectives})(?=\s+(?:law|laws|Law|Laws)\b))(?!\w)")


def _key(found: str) -> str:
    return " ".join(found.casefold().split())
