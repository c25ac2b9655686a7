"""Records with one thing changed that must not change the answer: names, order, spacing, case, spelling.

After the invariance tests of CheckList (Ribeiro et al. 2020, doi 10.18653/v1/2020.acl-main.442).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from harness.data.records import Record, at_path
from harness.data.targets import scalar_text
from harness.specs.suite import Suite

PAIRED = "paired"
"""Records that a person put in other words: they are asked for themselves, and only compared."""
ROLES = (
    ("customer", "client"),
    ("buyer", "purchaser"),
    ("supplier", "provider"),
    ("seller", "vendor"),
    ("landlord", "lessor"),
    ("tenant", "lessee"),
    ("discloser", "disclosing party"),
    ("recipient", "receiving party"),
    ("contractor", "consultant"),
    ("employee", "staff member", "worker"),
)
"""Words for one side of an agreement; any of a line may stand for another."""
COMPANIES = ("Northmere", "Calloway", "Dunsmore", "Everill", "Hartwick", "Ilmarsh", "Kestrow", "Lynfield")
PEOPLE = ("Albury", "Bexley", "Corwin", "Denholm", "Elstow", "Farrant", "Gilroy", "Haddon")
TYPO_EVERY = 6
"""One word of five letters or more in so many has two of its letters swapped."""
BREAK_EVERY = 8
"""Spaces from one line break to the next."""

_FORMS = r"Ltd|Limited|Inc|LLC|LLP|PLC|plc|GmbH|AG|Corp|Corporation|BV|B\.V|SA|S\.A|Oy|AB"
_COMPANY = re.compile(rf"\b((?:[A-Z][\w'&-]*[ ,]+){{1,4}}?)(?=(?:{_FORMS})\b)")
_PERSON = re.compile(r"\b(?:Mr|Mrs|Ms|Miss|Dr|Prof)\.? ([A-Z][a-z]+(?:-[A-Z][a-z]+)?)\b")
_SENTENCE_GAP = re.compile(r"(?<=[.!?;])[ \t]+(?=\S)")
_WORD = re.compile(r"[A-Za-z]{5,}")


@dataclass(frozen=True, slots=True)
class Renaming:
    """Substitutes for names and roles: the same everywhere, and never one that was there before."""

    names: Mapping[str, str]
    """Spelled as they stand; roles in small letters, which are met in any case."""

    def apply(self, text: str) -> str:
        """The text in the substitutes' names."""
        return _substituted(text, self.names)

    def undo(self, text: str) -> str:
        """The text in the names that were there before."""
        return _substituted(text, {after: before for before, after in self.names.items()})


class Variant(NamedTuple):
    """A record as it is asked again."""

    record: Record
    labels: tuple[str, ...]
    """The suite's labels in the order in which they are asked."""
    renaming: Renaming = Renaming({})
    """Undoing it gives the answer in the record's own names."""


def variants_of(suite: Suite, records: Sequence[Record]) -> dict[str, str]:
    """The id of the original of each record that says whose other wording it is, by its own id."""
    path = suite.records.fields.variant_of
    found = {record.id: scalar_text(at_path(record.raw, path)) for record in records}
    return {id_: original for id_, original in found.items() if original is not None}


def prompt_shows_labels(suite: Suite) -> bool:
    """Whether the prompt lists the labels, so that their order can be seen."""
    return "labels" in (suite.prompt.system or "") + suite.prompt.user


def make_variant(kind: str, record: Record, labels: Sequence[str], *, shows_labels: bool) -> Variant | None:
    """The record changed in that way; None where there is nothing to change, such as no name in it.

    `shows_labels` says whether the prompt lists the labels, so that their order can be seen.
    """
    if kind == "rename_parties":
        renaming = find_renaming("\n".join((record.input, record.context, *record.options)))
        changed = _with_texts(record, renaming.apply, with_options=True)
        return Variant(changed, tuple(labels), renaming) if renaming.names else None
    if kind == "reverse_options":
        if record.options:
            return Variant(replace(record, options=record.options[::-1]), tuple(labels))
        return Variant(record, tuple(labels)[::-1]) if shows_labels and len(labels) > 1 else None
    changed = _changed(kind, record)
    is_same = (changed.input, changed.context) == (record.input, record.context)
    return None if is_same else Variant(changed, tuple(labels))


def find_renaming(text: str) -> Renaming:
    """Substitutes for the companies (before Ltd, Inc, GmbH …), people (after Mr, Dr …) and roles of the text.

    A role becomes another word for the same side, and is left where the text uses all of them.
    """
    companies = [found.group(1).strip(" ,") for found in _COMPANY.finditer(text)]
    people = [found.group(1) for found in _PERSON.finditer(text)]
    names = {**_drawn(companies, COMPANIES, text), **_drawn(people, PEOPLE, text)}
    return Renaming({**names, **dict(_roles(text))})


def _changed(kind: str, record: Record) -> Record:
    if kind == "reorder_sentences":
        if record.context:
            return replace(record, context=rotated(record.context))
        return replace(record, input=rotated(record.input))
    if kind == "typos":
        return replace(record, input=misspelled(record.input, record.id))
    return _with_texts(record, {"spacing": respaced, "casing": recased}[kind])


def rotated(text: str) -> str:
    """The second half of the paragraphs before the first; of lines where there is one paragraph, else of sentences."""
    for gap, joint in (("\n\n", "\n\n"), ("\n", "\n"), (None, " ")):
        parts = text.split(gap) if gap else _SENTENCE_GAP.split(text)
        if len(parts) > 1:
            middle = (len(parts) + 1) // 2
            return joint.join([*parts[middle:], *parts[:middle]])
    return text


def respaced(text: str) -> str:
    """The text with line breaks in the middle of its lines, as out of a page, and wide gaps between sentences."""
    words = _SENTENCE_GAP.sub("  ", text).split(" ")
    return "".join(
        word + ("" if at == len(words) else "\n" if at % BREAK_EVERY == 0 else " ")
        for at, word in enumerate(words, start=1)
    )


def recased(text: str) -> str:
    """The text in small letters; in capitals where it has no others."""
    return text.lower() if text != text.lower() else text.upper()


def misspelled(text: str, seed: str) -> str:
    """The text with two inner letters swapped in some of its longer words, the same ones each time."""

    def swap(found: re.Match[str]) -> str:
        word = found.group()
        drawn = hashlib.sha256(f"typo:{seed}:{found.start()}".encode("utf-8", "surrogatepass")).digest()
        if drawn[0] % TYPO_EVERY:
            return word
        at = 1 + drawn[1] % (len(word) - 3)
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]

    return _WORD.sub(swap, text)


def _drawn(found: Sequence[str], substitutes: Sequence[str], text: str) -> dict[str, str]:
    """A substitute for each name, in their order, of those that the text does not hold."""
    free = [name for name in substitutes if name not in text]
    return dict(zip(dict.fromkeys(name for name in found if name), free, strict=False))


def _roles(text: str) -> Iterator[tuple[str, str]]:
    for group in ROLES:
        there = [role for role in group if re.search(rf"\b{role}s?\b", text, re.IGNORECASE)]
        free = [role for role in group if role not in there]
        yield from zip(there, free, strict=False)


def _substituted(text: str, names: Mapping[str, str]) -> str:
    if not names:
        return text
    longest_first = sorted(names, key=len, reverse=True)
    pattern = "|".join(
        rf"(?i:{re.escape(name)})(?=s?\b)" if name.islower() else rf"{re.escape(name)}\b"
        for name in longest_first
    )
    return re.sub(rf"\b(?:{pattern})", lambda found: _spelled(found.group(), names), text)


def _spelled(found: str, names: Mapping[str, str]) -> str:
    """The substitute, in capitals where what it stands for is."""
    if found in names and not found.islower():
        return names[found]
    plain = names[found.lower()]
    if found.isupper():
        return plain.upper()
    return plain.title() if found[0].isupper() else plain


def _with_texts(record: Record, change: Callable[[str], str], *, with_options: bool = False) -> Record:
    options = tuple(map(change, record.options)) if with_options else record.options
    return replace(record, input=change(record.input), context=change(record.context), options=options)
