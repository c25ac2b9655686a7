"""Text that came from outside, made safe to show."""

from __future__ import annotations

import unicodedata

_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_LINE_BREAKS = frozenset("\u0085\u2028\u2029\r\x0b\x0c")


def visible(text: str, *, keep_newlines: bool = True, limit_chars: int | None = None) -> str:
    """The text with everything that a terminal would obey turned into something a person can see.

    Control characters (C0, C1), escape sequences, bidirectional overrides, zero-width and other
    format characters, lone surrogates and private-use characters become `\\xNN` or `\\u{NNNN}`;
    a tab becomes four spaces. Line feeds stay unless `keep_newlines` is false (then `⏎`). With
    `limit_chars`, longer text is cut and says how many characters were left out.
    """
    left_out = 0
    if limit_chars is not None and len(text) > limit_chars:
        left_out = len(text) - limit_chars
        text = text[:limit_chars]
    if text.isascii() and text.isprintable():
        shown = text
    else:
        shown = "".join(_shown(char, keep_newlines) for char in text)
    return f"{shown}… ({left_out:,} more characters)" if left_out else shown


def _shown(char: str, keep_newlines: bool) -> str:
    if char == "\n":
        return "\n" if keep_newlines else "⏎"
    if char == "\t":
        return "    "
    code = ord(char)
    if code < 0x20 or 0x7F <= code < 0xA0:
        return f"\\x{code:02x}"
    if char in _BIDI or char in _LINE_BREAKS:
        return f"\\u{{{code:04x}}}"
    if unicodedata.category(char) in ("Cf", "Cs", "Co", "Cn"):
        return f"\\u{{{code:04x}}}"
    return char


def nearest(name: str, known: list[str]) -> str | None:
    """The known name that a person most likely meant, or None."""
    import difflib

    found = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return found[0] if found else None
