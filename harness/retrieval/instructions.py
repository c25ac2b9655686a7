"""Text in a document that speaks to the model instead of the reader: found by form, named, and never obeyed here.

A document is data. What reads like an order to whatever model will read it (Greshake et al., 2023, "indirect prompt
injection") is flagged when documents are indexed. A detector by form finds the usual wordings and no clever ones: the
suite with injected documents measures what a model does with what comes through.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from itertools import pairwise
from types import MappingProxyType
from typing import NamedTuple

from harness.retrieval.chunks import Chunk

_PRIOR = (
    r"(?:(?:all|any|the|your|of|these|those|my|every)\s){0,4}"
    r"(?:previous|prior|above|earlier|preceding|foregoing|system|original|initial|other)"
)
_ORDERS = (
    r"(?:instruction|prompt|direction|guideline|rule|command|message|order|context|policy|policie|question"
    r"|passage)s?"
)
_MODEL = r"(?:ai|llm|language\smodel|assistant|chat\s?bot|model)s?"
PATTERNS: Mapping[str, re.Pattern[str]] = MappingProxyType({
    name: re.compile("|".join(spellings), re.IGNORECASE | re.MULTILINE)
    for name, spellings in {
        "override": (
            rf"\b(?:ignore|disregard|forget|override|bypass|skip|discard)\s{_PRIOR}\s(?:\w+\s){{0,2}}{_ORDERS}\b",
            r"\b(?:ignore|disregard|forget)\s(?:everything|anything|all)\s(?:that\s)?(?:you|above|before|said|written)\b",
        ),
        "role": (
            r"\b(?:you\sare|act|behave|respond|pretend)\s(?:now|from\snow\son)\b",
            r"\bfrom\snow\son,?\syou\b",
            r"\b(?:pretend\sto\sbe|act\sas|you\sare)\s(?:\w+\s){0,2}(?:unrestricted|jailbroken|developer\smode)\b",
        ),
        "address": (
            rf"\b(?:note|message|instructions?|attention|important|notice)\s?(?:to|for|:)\s(?:the\s|any\s|all\s)?{_MODEL}\b",
            r"\b(?:ai|llm|language)[\s-](?:assistant|model|agent|system)s?(?:,|:|\s(?:must|should|reading|shall|that\sread))",
        ),
        "dictate": (
            r"\b(?:reply|respond|answer|say|output|print|write)\s(?:only|exactly|nothing\sbut)\b",
            r"\b(?:reply|respond|answer)\s(?:with|by\ssaying)\s(?:only|exactly|the\s(?:phrase|words?|text|code))\b",
            r"\b(?:begin|start|end)\s(?:your|every|each|all|the)\s(?:answers?|repl(?:y|ies)|responses?)\swith\b",
        ),
        "conceal": (
            r"\b(?:do\snot|don['’]t|never)\s(?:tell|mention|reveal|inform)\s(?:\w+\s){0,3}"
            r"(?:users?|customers?|readers?|anyone|this\s(?:instruction|note|message))\b",
        ),
        "extract": (
            r"\b(?:reveal|print|repeat|show|output|leak|send)\s(?:me\s)?(?:your|the)\s(?:\w+\s){0,2}"
            r"(?:(?:system|hidden|initial)\sprompt|instructions|api\skeys?|passwords?)\b",
        ),
        "template": (
            r"<\|[a-z_]{2,24}\|>", r"\[/?INST\]", r"<</?SYS>>", r"</?(?:system|assistant)>",
            r"^[ \t]*(?:#{2,} )?(?:system|assistant)[ \t]?:",
        ),
    }.items()
})  # fmt: skip
"""What instruction-like text looks like, by kind; over the text with its hidden characters taken out."""

_SEAM_CHARS = 200
_HIDDEN_CATEGORIES = ("Cf", "Co", "Cn")
_HARMLESS = frozenset("\u00ad\u200c\u200d\ufeff")
"""A soft hyphen, joiners that scripts and emoji need, and a byte order mark."""


class Flag(NamedTuple):
    """A chunk with instruction-like or hidden text."""

    chunk: str
    """Its id."""
    document: str
    kind: str
    """A name of `PATTERNS`, or `hidden`: characters that a reader does not see, such as bidirectional overrides."""
    text: str
    """What was found, up to 120 characters."""


def flag_chunks(chunks: Sequence[Chunk]) -> list[Flag]:
    """One flag a chunk and kind, in the order of the chunks; what two chunks share between them flags both."""
    found = [instruction_like(chunk.text) for chunk in chunks]
    for at, (chunk, after) in enumerate(pairwise(chunks)):
        if chunk.document == after.document:
            seam = instruction_like(f"{chunk.text[-_SEAM_CHARS:]} {after.text[:_SEAM_CHARS]}")
            across = {kind: text for kind, text in seam.items() if kind not in {**found[at], **found[at + 1]}}
            found[at], found[at + 1] = {**found[at], **across}, {**found[at + 1], **across}
    return [
        Flag(chunk.id, chunk.document, kind, text)
        for chunk, kinds in zip(chunks, found, strict=True)
        for kind, text in kinds.items()
    ]


def instruction_like(text: str) -> dict[str, str]:
    """By kind, the first place that reads like an order to a model, or that a person could not see."""
    hidden = "".join(char for char in text if _is_hidden(char))
    plain = _plain(text)
    found = {
        kind: match.group()[:120] for kind, pattern in PATTERNS.items() if (match := pattern.search(plain))
    }
    return {**found, **({"hidden": hidden[:120]} if hidden else {})}


def _plain(text: str) -> str:
    """Full-width letters as letters, tag characters as what they spell, other hidden ones gone, spaces as one."""
    spelled = "".join(
        chr(ord(char) - 0xE0000) if "\U000e0020" <= char <= "\U000e007e" else char for char in text
    )
    folded = unicodedata.normalize("NFKC", spelled)
    shown = "".join(char for char in folded if unicodedata.category(char) != "Cf")
    return re.sub(r"\s+", lambda run: "\n" if "\n" in run.group() else " ", shown)


def _is_hidden(char: str) -> bool:
    if char.isascii():
        return char < " " and char not in "\t\n\r\f\v"
    return char not in _HARMLESS and unicodedata.category(char) in _HIDDEN_CATEGORIES
